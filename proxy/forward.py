"""From a planned route to an answer that has begun: attempts, keys, retries, fallbacks, breakers.

Everything here happens before the first byte goes to the client; afterwards an error is an error frame.
"""

from __future__ import annotations

import asyncio
import random
import re
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from proxy.call import Call
from proxy.chunk import Chunk
from proxy.errors import ApiError, UpstreamError
from proxy.providers.base import StreamDecoder, Target
from proxy.providers.failure import failure, snippet
from proxy.request import ApiRequest
from proxy.server.wire import Wire
from proxy.shape import Fold
from proxy.source import MISREAD, Source, misread, see_end, watch_finish
from proxy.upstream.base import Headers, UpstreamReply, UpstreamRequest
from proxy.upstream.entry import HOP
from proxy.upstream.sse import SseParser

if TYPE_CHECKING:
    from proxy.upstream.entry import ProviderEntry

MAX_REPLY: Final = 64 * 1024 * 1024
MAX_ERROR: Final = 1024 * 1024
#: The longest that an attempt waits for the next because the upstream asked for it.
MAX_WAIT: Final = 5.0
_BOM: Final = b"\xef\xbb\xbf"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_UPSTREAM_IDS: Final = ("x-request-id", "request-id", "apim-request-id", "x-goog-request-id")


def effective(call: Call, target: Target) -> ApiRequest:
    """Return the call's request with the parameters that team, user, provider or quota add where it has none.

    Precedence: client > template > user > team > provider > quota's ``default_max_tokens``.
    """
    request = call.request
    settings = target.settings
    if not call.notes and settings.temperature is None and settings.max_tokens is None:
        return request
    body = request.body
    ours: dict[str, Any] = {}
    if parameters := call.notes.get("parameters"):
        ours = {n: v for n, v in parameters.items() if body.get(n) is None}
        # One bound under two names; the provider's translator knows which of them the vendor takes.
        bound = ours.pop("max_completion_tokens", None)
        if request.max_tokens is not None:
            ours.pop("max_tokens", None)
        elif bound is not None:
            ours["max_tokens"] = bound
    if settings.temperature is not None and body.get("temperature") is None and "temperature" not in ours:
        ours["temperature"] = settings.temperature
    if request.max_tokens is None and "max_tokens" not in ours:
        bound = settings.max_tokens or call.notes.get("default_max_tokens")
        if bound is not None:
            ours["max_tokens"] = bound
    return request.with_ours(ours) if ours else request


async def forward(call: Call, wire: Wire | None) -> Source:
    """Return the first answer that the route gives.

    Raises:
        ApiError: the last target's error, ``circuit_open`` if no target was tried.
    """
    last: ApiError | None = None
    soonest: float | None = None
    for target in call.route:
        entry = call.runtime.providers[target.name]
        now = monotonic()
        if not entry.allow(target.model, now):
            wait = entry.retry_after(target.model, now)
            soonest = wait if soonest is None else min(soonest, wait)
            continue
        try:
            return await _target(call, wire, target, entry, now)
        except UpstreamError as error:
            last = error
            if _committed(wire) or not error.elsewhere:
                raise
        except ApiError as error:
            # This target cannot honour the request; another of the route may.
            last = last or error
    if last is not None:
        raise last
    raise ApiError(
        "circuit_open",
        "No provider for this model is answering at the moment; try again later.",
        retry_after=max(soonest or 0.0, 0.1),
    )


def _committed(wire: Wire | None) -> bool:
    return wire is not None and wire.started


async def _target(call: Call, wire: Wire | None, target: Target, entry: ProviderEntry, started: float) -> Source:
    """Try one target until it answers, its error is final, or retries are used up.

    ``started`` is when the breaker let the call pass, by which it knows its probe's verdict.
    """
    mark = len(call.headers)
    try:
        sent = target.provider.encode(effective(call, target), target)
        if call.target is not None:
            _again(call, entry)  # another target failed before
        call.target = target
        if sent.dropped or sent.applied_max_tokens is not None:
            # Now, for a keep-alive comment may commit the headers before the answer is there.
            call.headers.extend(_applied(sent))
        entry.budget.call(started)
        tries = 0
        tried: set[int] = set()
        while True:
            index = 0 if entry.single else entry.key(monotonic(), tried) or 0
            try:
                return await _attempt(call, entry, sent, index, started)
            except UpstreamError as error:
                now = monotonic()
                _note(call, entry, error)
                if _usage_refused(error, target.provider, sent):
                    target.provider.stream_usage = False  # type: ignore[attr-defined]
                    sent = target.provider.encode(effective(call, target), target)
                    continue
                entry.failed(target.model, error, now, started)
                if _committed(wire):
                    raise
                if error.next_key:
                    tried.add(index)
                    entry.rest(index, now, error.retry_after)
                    if entry.next_key(now, tried) is not None:
                        _again(call, entry)
                        continue
                if not error.retryable or tries >= entry.settings.max_retries or not entry.allow(target.model, now):
                    raise
                started = now
                wait = error.retry_after
                if wait is None:
                    wait = min(2.0, 0.1 * 2**tries) * random.uniform(0.5, 1.0)
                elif wait > MAX_WAIT or target is not call.route[-1]:
                    raise
                if not entry.budget.take(now):
                    raise
                tries += 1
                tried.clear()
                _again(call, entry)
                try:
                    await asyncio.sleep(wait)
                finally:
                    call.upstream_s += monotonic() - now  # it is the upstream that keeps the call waiting
    except BaseException:
        del call.headers[mark:]
        entry.left(target.model, started)
        raise


def _note(call: Call, entry: ProviderEntry, error: UpstreamError) -> None:
    """Take our own keys out of what the upstream said, and count it."""
    error.message = entry.hide(error.message)
    if error.param is not None:
        error.param = entry.hide(error.param)
    call.runtime.metrics.upstream_errors.inc((entry.name, error.code))


def _again(call: Call, entry: ProviderEntry) -> None:
    call.retries += 1
    assert call.target is not None
    call.meter.retry(call.target.model)
    call.runtime.metrics.upstream_retries.inc((entry.name,))


def _usage_refused(error: UpstreamError, provider: Any, sent: UpstreamRequest) -> bool:
    """Tell whether the server does not know ``stream_options``: it is then never sent it again."""
    return (
        error.upstream_status in (400, 422)
        and sent.stream
        and getattr(provider, "stream_usage", False)
        and provider.settings.stream_usage == "auto"
        and ("stream_options" in error.message or "include_usage" in error.message)
    )


def _applied(sent: UpstreamRequest) -> list[tuple[str, str]]:
    headers = []
    if sent.dropped:
        headers.append(("x-llm-dropped-params", ", ".join(sent.dropped)))
    if sent.applied_max_tokens is not None:
        headers.append(("x-llm-applied-max-tokens", str(sent.applied_max_tokens)))
    return headers


async def _attempt(call: Call, entry: ProviderEntry, sent: UpstreamRequest, index: int, started: float) -> Source:
    """Send once; return when a whole answer, or a stream's first content, has been decoded."""
    provider = entry.provider
    meter = call.meter
    sent.began = False
    call.upstream_id = None
    began = monotonic()
    try:
        try:
            reply = await entry.upstream.send(sent, _own_headers(call, entry, index))
        except UpstreamError as error:
            # What a server that was lost before its reply's head has done with the request, nobody knows.
            meter.sent = sent.began and error.code not in ("upstream_unreachable", "upstream_tls")
            raise
        except BaseException:
            meter.sent = sent.began
            raise
        meter.sent = True
        headers = reply.headers
        for name in _UPSTREAM_IDS:
            if (value := headers.get(name)) and _REQUEST_ID.fullmatch(value):
                call.upstream_id = value
                break
        try:
            if reply.status != 200:
                meter.sent = False
                raise _refusal(call, entry, reply.status, headers, await _error_body(reply))
            kind = headers.get("content-type", "")
            if kind == "application/json" or not kind[:17].lower().startswith("text/event-stream"):
                body = await reply.body(MAX_REPLY)
                try:
                    if not body.startswith(b"{"):
                        body = body.removeprefix(_BOM)  # RFC 8259, 8.1: a reader may ignore it
                        if _events(body):
                            source = Source(call, entry, reply, None, started)
                            return _played(call, source, provider.decoder(sent), body, sent)
                    chunk = provider.decode(200, headers, body, sent)
                except MISREAD as error:
                    raise misread(call, entry, error) from error
                meter.see_whole(chunk, call.target.model)  # type: ignore[union-attr]
                if provider.finish_words:
                    watch_finish(call, entry, (chunk,))
                source = Source(call, entry, reply, None, started)
                source.hold([chunk], ended=True)
                return source
            source = Source(call, entry, reply, provider.decoder(sent), started)
            return await _begin(call, source, whole=not sent.stream)
        except BaseException:
            reply.close()
            raise
    finally:
        call.upstream_s += monotonic() - began


def _events(body: bytes) -> bool:
    """Tell whether a body of another content type holds a stream: some servers call theirs plain text."""
    return body[:64].lstrip()[:5] in (b"data:", b"event")


def _played(call: Call, source: Source, decoder: StreamDecoder, body: bytes, sent: UpstreamRequest) -> Source:
    """Return ``source`` with the answer that the events in ``body`` amount to."""
    parser = SseParser()
    chunks: list[Chunk] = []
    for event, payload in (*parser.feed(body), *parser.flush()):
        chunks.extend(decoder.feed(event, payload))
    chunks.extend(decoder.close())
    see_end(call, chunks, {})
    if sent.stream:
        source.whole = False
    else:
        fold = Fold()
        for chunk in chunks:
            fold.feed(chunk)
        chunks = [fold.whole()]
    source.hold(chunks, ended=True)
    return source


def _refusal(call: Call, entry: ProviderEntry, status: int, headers: Headers, body: bytes) -> UpstreamError:
    """Return the translator's error for a refusal; by the status alone where it cannot read the body."""
    try:
        return entry.provider.failure(status, headers, body)
    except MISREAD as error:
        misread(call, entry, error)
        return failure(status, snippet(body), headers=headers, vendor=entry.name)


async def _error_body(reply: UpstreamReply) -> bytes:
    """Return an error reply's body; a broken or endless one must not hide the status that came with it."""
    try:
        return await reply.body(MAX_ERROR)
    except UpstreamError:
        return b""


async def _begin(call: Call, source: Source, *, whole: bool) -> Source:
    """Read up to the first content, so that an error before it can still be retried."""
    if whole:
        fold = Fold()
        while (batch := await source.next()) is not None:
            for chunk in batch:
                fold.feed(chunk)
        chunk = fold.whole()
        source.whole = True
        source.hold([chunk], ended=True)
        return source
    held: list[Chunk] = []
    while True:
        batch = await source.next()
        if batch is not None:
            held.extend(batch)
            if all(chunk.startup for chunk in batch):
                continue
        source.hold(held, ended=batch is None)
        source.waited = 0.0  # so far the attempt's own time has it
        return source


def _own_headers(call: Call, entry: ProviderEntry, index: int) -> tuple[tuple[str, str], ...]:
    """Return what is ours to add: the credentials, the mark of this sidecar, the caller's trace context."""
    hop = call.notes.get("hop")
    if hop is None and call.trace is None:
        return entry.credentials(index, call.runtime.hop)  # the same tuple each time
    trace = (("traceparent", call.trace),) if call.trace is not None else ()
    return (*entry.credentials(index), (HOP, hop or call.runtime.hop), *trace)
