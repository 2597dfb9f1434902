"""A reply on the client's wire: its head, whole or as a stream, and an error in place of either."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from time import monotonic
from typing import Any, Final

import orjson

from proxy.call import Call
from proxy.chunk import Chunk
from proxy.errors import ApiError
from proxy.filters import Filters, Replayed
from proxy.headers import clean
from proxy.server.wire import Wire
from proxy.shape import unfold
from proxy.source import Source
from proxy.ticker import NEVER, Watched, ticker

#: A caller whose answer others read too may be so many bytes behind; then it is dropped, and they go on.
_LAG: Final = 1024 * 1024
_NO_USAGE: Final = b',"usage":null}'
_DONE: Final = b"data: [DONE]\n\n"
#: A silence is measured in so many steps, if each is at least so many seconds long: the ticker is no finer.
_STEPS: Final = 10
_STEP: Final = 0.5
JSON: Final = "content-type: application/json\r\n"
_SSE: Final = "content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"


async def send_whole(call: Call, wire: Wire, source: Source | Replayed, filters: Filters | None) -> None:
    chunks: Sequence[Chunk] = source.held() or await source.next() or ()
    if filters:
        chunks = filters.whole(chunks)
    if not chunks:
        raise ApiError("content_policy_violation", "The sidecar's rules let nothing of the answer through.")
    source.settle()
    wire.reply(200, _head(call, JSON), chunks[0].encode())


async def send_stream(
    call: Call, wire: Wire, source: Source | Replayed, filters: Filters | None, keeper: Keeper
) -> None:
    wants_usage = call.request.include_usage
    meter = call.meter
    if source.whole:
        # The upstream answered a stream with a whole reply: say the same as a stream.
        batch = await source.next()
        batch = [piece for chunk in batch or () for piece in unfold(chunk)]
    else:
        batch = await source.next()

    def put(chunks: Sequence[Chunk]) -> int:
        """Write what the chunks say, behind the head if that was not written yet; return how many bytes it is."""
        data = frames(chunks, wants_usage)
        if data:
            write(data, said=meter.first is None and not all(chunk.startup for chunk in chunks))
        return len(data)

    def write(data: bytes, *, said: bool) -> None:
        if said and meter.first is None:
            meter.first = monotonic()
        if not wire.started:  # a filter may have held back all that came so far
            wire.start(200, _head(call, _SSE))
        wire.write(data)
        keeper.touched = True

    def take(batch: list[Chunk]) -> bool:
        put(batch if filters is None else filters.feed(batch))
        return not wire.paused

    def pass_on(text: str, data: bytes) -> bool:
        wire.write(data)
        keeper.touched = True
        return not wire.paused

    def filtered(text: str, data: bytes) -> bool:
        """Pass on what the one filter makes of an event that says nothing but text."""
        out = filters.hear(text, data, source.choice)  # type: ignore[union-attr]
        if out is None:
            return take([Chunk(orjson.loads(event[6:]), event[6:]) for event in data[:-2].split(b"\n\n")])
        if type(out) is str:
            try:
                out = out and source.event(out, usage=wants_usage)  # type: ignore[union-attr]
            except TypeError as error:  # no Unicode: a lone surrogate
                filters.unfit(error)  # type: ignore[union-attr]
        if out:
            write(out, said=True)  # type: ignore[arg-type]
        return not wire.paused

    paused = 0.0

    async def rest(waiting: Awaitable[int | None]) -> int:
        """Wait for the client, whose time is not ours."""
        nonlocal paused
        began = monotonic()
        try:
            return await waiting or 0
        finally:
            paused += monotonic() - began

    # The first batch decides about the head; with followers, the pace is a matter of waiting.
    pump = source.pump if isinstance(source, Source) and not source.whole and call.audience is None else None
    words = pass_on if not filters else filtered if filters.hears else None
    behind = 0
    try:
        while batch is not None:
            if filters:
                batch = filters.feed(batch)
            size = put(batch)
            if size and wire.paused:
                if call.audience is None:
                    batch = ()  # a slow reader holds what it was sent once, not three times
                    source.pause()
                    await rest(wire.drain())
                else:
                    behind = await rest(_room(call, wire, behind + size))
            if pump is not None:
                await pump(take, words if filters or wire.started else None, usage=wants_usage)
                if wire.paused:
                    source.pause()
                    await rest(wire.drain())
            batch = None if source.whole else await source.next()
        held: Sequence[Chunk] = filters.flush() if filters else ()
        tail = frames(held, wants_usage)
        if tail and meter.first is None and not all(chunk.startup for chunk in held):
            meter.first = monotonic()
        source.settle()
        if not wire.started:
            wire.start(200, _head(call, _SSE))
        wire.write(tail + _DONE)
        wire.end()
    finally:
        call.others_s = source.waited + paused


async def _room(call: Call, wire: Wire, behind: int) -> int:
    """Wait until the client has read enough, or somebody who shares the answer waits for more of it.

    Return how many bytes the client is behind; too many and it is dropped: the pace is the fastest reader's.
    """
    audience = call.audience
    assert audience is not None
    if behind > _LAG:
        wire.abort()
        call.leave("gone")
        return 0
    drained = asyncio.ensure_future(wire.drain())
    try:
        await asyncio.wait((drained, audience.hunger()), return_when=asyncio.FIRST_COMPLETED)
    finally:
        drained.cancel()
    return behind if wire.paused else 0


def frames(chunks: Sequence[Chunk], wants_usage: bool) -> bytes:
    """Return the chunks as server-sent events; the usage chunk only for who asked for it."""
    out = []
    for chunk in chunks:
        data = chunk.data
        raw = chunk.raw
        if not wants_usage:
            if "usage" in data:
                if not data.get("choices"):
                    continue
                if data["usage"] is None and raw is not None and raw.endswith(_NO_USAGE):
                    raw = b"%b}" % raw[: -len(_NO_USAGE)]  # the object's last key: cut off, without writing it anew
                elif data["usage"] is None or data["usage"]:
                    del data["usage"]
                    raw = chunk.raw = None
        elif "usage" not in data:
            data["usage"] = None
            raw = chunk.raw = None
        out.append(b"data: %b\n\n" % (raw if raw is not None else orjson.dumps(data)))
    return out[0] if len(out) == 1 else b"".join(out)


class Keeper(Watched):
    """Write an SSE comment after each silence, so that nobody in between takes the stream for dead.

    The first comment commits the status: until then, retries and fallbacks stay open. Whoever writes sets
    ``touched``, which costs less than a new deadline; the silence is measured in steps.
    """

    __slots__ = ("_call", "_loop", "_quiet", "_step", "_steps", "_wire", "touched")

    def __init__(self, call: Call, wire: Wire, silence: float) -> None:
        super().__init__()
        self._call = call
        self._wire = wire
        self._steps = max(1, min(_STEPS, round(silence / _STEP)))
        self._step = silence / self._steps
        self._quiet = 0
        self.touched = False
        self._loop = asyncio.get_running_loop()
        if silence > 0:
            self.deadline = self._loop.time() + self._step
            ticker().watch(self)

    def expired(self) -> None:
        wire = self._wire
        if wire.gone:
            return
        self._quiet = 0 if self.touched else self._quiet + 1
        self.touched = False
        if self._quiet >= self._steps:
            self._quiet = 0
            if not wire.paused:
                if not wire.started:
                    wire.start(200, _head(self._call, _SSE))
                wire.write(b": keep-alive\n\n")
        self.deadline = self._loop.time() + self._step

    def stop(self) -> None:
        """Stop waiting."""
        self.deadline = NEVER
        ticker().forget(self)


def _head(call: Call, kind: str) -> bytes:
    text = f"{kind}x-request-id: {call.id}\r\n"
    if call.target is not None:
        text += call.target.lines
    if call.upstream_id is not None:
        text += f"x-llm-upstream-request-id: {call.upstream_id}\r\n"
    if call.cache:
        text += f"x-llm-cache: {call.cache}\r\n"
    if call.policy_s >= 0:
        text += (
            f"server-timing: policy;dur={call.policy_s * 1000.0:.1f}, upstream;dur={call.upstream_s * 1000.0:.1f}\r\n"
        )
    try:
        for name, value in call.headers:
            text = f"{text}{name}: {value if value.isascii() and value.isprintable() else clean(value)}\r\n"
    except (AttributeError, TypeError, ValueError):  # a policy's, and no pair of texts
        call.headers = _pairs(call.headers)
        return _head(call, kind)
    if call.explain is not None:
        decided = ", ".join(f"{row['policy']}={row['decision']}" for row in call.explain)
        text += f"x-llm-policies: {clean(decided)}\r\n"
    return text.encode("latin-1", "replace")  # ASCII by now; this codec is the quicker one


def _pairs(headers: list[Any]) -> list[tuple[str, str]]:
    """Return the headers that policies added as pairs of texts, without what is no pair."""
    return [(str(pair[0]), str(pair[1])) for pair in headers if type(pair) in (tuple, list) and len(pair) == 2]


def error_lines(rid: str, error: ApiError) -> list[str]:
    parts = [JSON, "x-request-id: ", rid, "\r\n"]
    parts.extend(f"{name}: {clean(value)}\r\n" for name, value in error.headers)
    return parts


def send_error(call: Call, wire: Wire, error: ApiError) -> None:
    if wire.gone:
        return
    if wire.started:
        wire.write(b"data: " + error.body() + b"\n\n")
        wire.end()
        return
    if call.policy_s < 0:  # a policy refused: this is what they took up to there
        call.policy_s = monotonic() - call.started
    own = {name for name, _ in error.headers}
    call.headers = [pair for pair in _pairs(call.headers) if pair[0] not in own]
    head = _head(call, JSON) + "".join(f"{n}: {clean(v)}\r\n" for n, v in error.headers).encode("ascii", "replace")
    wire.reply(error.status, head, error.body())
