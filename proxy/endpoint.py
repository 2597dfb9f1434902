"""The generating routes: from a request's headers to the last byte of its reply, and the one line about it."""

from __future__ import annotations

import asyncio
import re
from random import getrandbits
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import orjson

from proxy.auth import GENERATE, require
from proxy.call import STATUS, Call, Caller, End, Outcome, Usage
from proxy.chunk import Chunk
from proxy.errors import ApiError, UpstreamError
from proxy.forward import Source, forward
from proxy.pipeline import Filters, PolicyFault, Replayed, ask, settle_claims
from proxy.request import REQUESTS, parse_object
from proxy.server.wire import Wire
from proxy.shape import unfold
from proxy.telemetry.log import describe
from proxy.telemetry.meter import Meter
from proxy.ticker import NEVER, Watched, ticker

if TYPE_CHECKING:
    from proxy.app import Sidecar

_ID: Final = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_TRACE: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_BIG: Final = 1024 * 1024
#: A caller whose answer others read too may be so many bytes behind; then it is dropped, and they go on.
_LAG: Final = 1024 * 1024
_NO_USAGE: Final = b',"usage":null}'
_DONE: Final = b"data: [DONE]\n\n"
_JSON: Final = "content-type: application/json\r\n"
_SSE: Final = "content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
_BAD_HEADER: Final = re.compile(r"[^\t\x20-\x7e]")


def request_id(headers: dict[bytes, bytes]) -> str:
    """Return the caller's ``x-request-id`` if it is fit to be kept, else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _ID.fullmatch(given):
        return given.decode("ascii")
    return f"req_{getrandbits(96):024x}"


async def generate(
    side: Sidecar, wire: Wire, headers: dict[bytes, bytes], endpoint: str, path_model: str | None = None
) -> None:
    """Serve one call on a generating route, whatever happens."""
    started = monotonic()
    rid = request_id(headers)
    caller: Caller | None = None
    runtime = side.runtime
    admitted = False
    body: dict[str, Any] = {}
    try:
        try:
            caller = runtime.auth.caller(headers)
            require(caller, GENERATE)
            side.enter(headers)
            admitted = True
            raw = await wire.read_body(side.max_body)
            size = len(raw)
            # Parsing a large body holds the interpreter for milliseconds; a thread lets others in between.
            body = parse_object(raw) if size < _BIG else await asyncio.to_thread(parse_object, raw)
            del raw
            if path_model is not None:
                body["model"] = path_model
            request = REQUESTS[endpoint](body, size)
            route = runtime.router.plan(request.model, endpoint, started)
        except ApiError as error:
            refuse_early(side, wire, headers, rid, caller, endpoint, error, started, body.get("model"))
            return
        except ConnectionError:
            left = ApiError("invalid_request", "The client left before its request was complete.")
            refuse_early(side, wire, headers, rid, caller, endpoint, left, started, gone=True)
            return
        feature = headers.get(b"x-llm-feature", b"").decode("utf-8", "replace")
        call = Call(rid, runtime, caller, request, route, feature if feature in runtime.features else "other", started)
        if not feature:
            call.feature = ""
        _prepare(call, headers)
        call.task = wire.task
        wire.call = call
        side.calls.add(call)
        if wire.gone:
            call.leave()
        try:
            await _serve(side, call, wire)
        finally:
            side.calls.discard(call)
    except asyncio.CancelledError:
        if caller is None or wire.started:
            raise
        refuse_early(side, wire, headers, rid, caller, endpoint, _shutting_down(), started, gone=wire.gone)
    finally:
        if admitted:
            side.leave()


def _prepare(call: Call, headers: dict[bytes, bytes]) -> None:
    runtime = call.runtime
    if len(headers) > 4:
        trace = headers.get(b"traceparent")
        if trace is not None and _TRACE.fullmatch(trace):
            call.trace = trace.decode("ascii")
        wish = headers.get(b"cache-control")
        if wish is not None:
            call.wants_cache = wish.decode("latin-1")
        hop = headers.get(b"x-llm-sidecar-hop")
        if hop is not None:
            seen = hop.decode("latin-1")[:512]
            call.notes["hop"] = f"{_BAD_HEADER.sub('', seen)},{runtime.hop}"
        if headers.get(b"x-llm-explain") == b"1" and "llm:manage" in call.caller.permissions:
            call.explain = []
    if runtime.teams:
        set_team(call)


def set_team(call: Call) -> None:
    """Give the call its team's settings (the default team's, for teams not listed), and the parameters they add."""
    teams = call.runtime.teams
    settings = teams.get(call.caller.team) or teams.get("default")
    call.team_settings = settings
    if settings is None:
        return
    user = settings.users.get(call.caller.user)
    parameters = settings.parameters if user is None else {**settings.parameters, **user.parameters}
    if parameters:
        call.notes["parameters"] = dict(parameters)


async def _serve(side: Sidecar, call: Call, wire: Wire) -> None:
    """Run the call to its end: exactly one outcome, whatever is raised on the way."""
    call.meter = Meter(call.request)
    end: End = "completed"
    error: ApiError | None = None
    source: Source | Replayed | None = None
    filters: Filters | None = None
    rest: Filters | None = None
    keeper: Keeper | None = None
    status = 200
    try:
        try:
            runtime = call.runtime
            if call.request.stream:
                keeper = Keeper(call, wire, runtime.config.server.keep_alive)
            reply, above = None, 0
            if runtime.steps or "template" in call.request.body:
                reply, above = await ask(call, runtime.steps)
            call.policy_s = monotonic() - call.started
            if call.gone and call.on_leave is None:
                raise asyncio.CancelledError
            filters = Filters(call, runtime.steps[:above]) if runtime.filters else None
            if reply is not None:
                call.headers.extend(reply.headers)
                source = Replayed(reply, whole=not call.request.stream)
            if source is None:
                source = await forward(call, wire)
            if keeper is not None:
                await _stream(call, wire, source, filters, keeper)
            else:
                await _whole(call, wire, source, filters)
            if call.alone:
                end = "client_gone"
        except asyncio.CancelledError:
            if call.leave_reason is None and not call.gone:
                raise  # not ours: the process is being torn down
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            if source is not None:
                source.abort()
            end = "client_gone" if call.gone else "shutdown"
            if end == "shutdown":
                error = _shutting_down()
        except PolicyFault as caught:
            end, error = "fault", caught
            rest = _stopped(call, source, filters)
        except UpstreamError as caught:
            end, error = "upstream_error", caught
            if isinstance(source, Source):
                source.fail(caught)
            elif source is not None:
                source.abort()
        except ApiError as caught:
            end = "upstream_error" if caught.code == "circuit_open" else "refused"
            error = caught
            rest = _stopped(call, source, filters)
        except ConnectionError:
            end = "client_gone"
            if source is not None:
                source.abort()
    except Exception as caught:
        if source is not None:
            source.abort()
        call.runtime.log.error("internal_error", extra={"fields": {"request_id": call.id, **describe(caught)}})
        end = "fault"
        error = ApiError("internal_error", f"The sidecar failed; its operator finds the reason under {call.id}.")
    finally:
        if keeper is not None:
            keeper.stop()
    if error is not None:
        status = error.status
        if rest is not None:
            wire.last()
        _send_error(call, wire, error)
        if rest is not None and source is not None:
            await _carry_on(call, source, rest)
    finish(side, call, end, error, status)


def _stopped(call: Call, source: Source | Replayed | None, filters: Filters | None) -> Filters | None:
    """Drop the upstream; or, if a policy ended only this caller's part, return what the answer still passes."""
    audience = call.audience
    if source is None:
        return None
    if audience is not None and filters is not None and audience.present():
        rest = filters.below(audience)
        if rest is not None:
            return rest
    source.abort()
    return None


async def _carry_on(call: Call, source: Source | Replayed, rest: Filters) -> None:
    """Bring the answer to its end for those who share it; this call's own reply has ended."""
    assert call.audience is not None
    call.alone = True
    call.no_store("stopped")
    try:
        while (batch := await source.next()) is not None:
            rest.feed(batch)
        rest.flush()
        source.settle()
    except asyncio.CancelledError:
        source.abort()
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
    except UpstreamError as error:
        call.audience.fail(error)
        if isinstance(source, Source):
            source.fail(error)
    except ApiError as error:
        call.audience.fail(error)
        source.abort()


def _shutting_down() -> ApiError:
    return ApiError("overloaded", "The sidecar is shutting down; send the request again.", retry_after=1.0)


# --- the two forms of a reply -----------------------------------------------------------------------------


async def _whole(call: Call, wire: Wire, source: Source | Replayed, filters: Filters | None) -> None:
    batch = await source.next()
    chunks = batch or ()
    if filters:
        chunks = [*filters.feed(chunks), *filters.flush()]
    if not chunks:
        raise UpstreamError("upstream_invalid_response", "The provider's answer was empty; send the request again.")
    source.settle()
    wire.reply(200, _head(call, _JSON), chunks[0].encode())
    while wire.paused and not wire.gone:
        await wire.drain()


async def _stream(call: Call, wire: Wire, source: Source | Replayed, filters: Filters | None, keeper: Keeper) -> None:
    wants_usage = call.request.include_usage
    meter = call.meter
    if source.whole:
        # The upstream answered a stream with a whole reply: say the same as a stream.
        batch = await source.next()
        batch = [piece for chunk in batch or () for piece in unfold(chunk)]
    else:
        batch = await source.next()

    def take(batch: list[Chunk]) -> bool:
        data = _frames(batch if filters is None else filters.feed(batch), wants_usage)
        if data:
            wire.write(data)
            keeper.touch()
        return not wire.paused

    # The first batch decides about the head; with followers, the pace is a matter of waiting.
    pump = source.pump if isinstance(source, Source) and not source.whole and call.audience is None else None
    behind = 0
    paused = 0.0
    while batch is not None:
        if filters:
            batch = filters.feed(batch)
        data = _frames(batch, wants_usage)
        if data:
            if meter.first is None and not all(chunk.startup for chunk in batch):
                meter.first = monotonic()
            if not wire.started:
                wire.start(200, _head(call, _SSE))
            wire.write(data)
            keeper.touch()
            if wire.paused:
                paused -= monotonic()
                if call.audience is None:
                    batch, data = (), b""  # a slow reader holds what it was sent once, not three times
                    await wire.drain()
                else:
                    behind = await _room(call, wire, behind + len(data))
                paused += monotonic()
        if pump is not None:
            await pump(take)
            if wire.paused:
                paused -= monotonic()
                await wire.drain()
                paused += monotonic()
        batch = None if source.whole else await source.next()
    tail = _frames(filters.flush(), wants_usage) if filters else b""
    source.settle()
    if not wire.started:
        wire.start(200, _head(call, _SSE))
    wire.write(tail + _DONE)
    wire.end()
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


def _frames(chunks: Any, wants_usage: bool) -> bytes:
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

    The first comment commits the status: until then, retries and fallbacks stay open.
    """

    __slots__ = ("_call", "_loop", "_silence", "_wire")

    def __init__(self, call: Call, wire: Wire, silence: float) -> None:
        super().__init__()
        self._call = call
        self._wire = wire
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        if silence > 0:
            self.deadline = self._loop.time() + silence
            ticker().watch(self)

    def touch(self) -> None:
        """Begin to wait anew."""
        self.deadline = self._loop.time() + self._silence if self._silence > 0 else NEVER

    def expired(self) -> None:
        wire = self._wire
        if wire.gone:
            return
        if not wire.paused:
            if not wire.started:
                wire.start(200, _head(self._call, _SSE))
            wire.write(b": keep-alive\n\n")
        self.touch()

    def stop(self) -> None:
        """Stop waiting."""
        self.deadline = NEVER
        ticker().forget(self)


def _head(call: Call, kind: str) -> bytes:
    target = call.target
    parts = [kind, "x-request-id: ", call.id, "\r\n"]
    if target is not None:
        parts += ["x-llm-provider: ", target.name, "\r\nx-llm-model: ", _clean(target.model), "\r\n"]
    if call.upstream_id is not None:
        parts += ["x-llm-upstream-request-id: ", call.upstream_id, "\r\n"]
    if call.cache:
        parts += ["x-llm-cache: ", call.cache, "\r\n"]
    policy = call.policy_s
    if policy >= 0:
        parts.append(f"server-timing: policy;dur={policy * 1000:.1f}, upstream;dur={call.upstream_s * 1000:.1f}\r\n")
    for name, value in call.headers:
        parts.append(f"{name}: {_clean(value)}\r\n")
    if call.explain is not None:
        decided = ", ".join(f"{row['policy']}={row['decision']}" for row in call.explain)
        parts.append(f"x-llm-policies: {_clean(decided)}\r\n")
    return "".join(parts).encode("ascii", "replace")


def _clean(value: str) -> str:
    return value if value.isascii() and value.isprintable() else _BAD_HEADER.sub("?", value)


def _error_head(rid: str, error: ApiError) -> list[str]:
    parts = [_JSON, "x-request-id: ", rid, "\r\n"]
    parts.extend(f"{name}: {_clean(value)}\r\n" for name, value in error.headers)
    return parts


def _send_error(call: Call, wire: Wire, error: ApiError) -> None:
    if wire.gone:
        return
    if wire.started:
        wire.write(b"data: " + error.body() + b"\n\n")
        wire.end()
        return
    own = {name for name, _ in error.headers}
    call.headers = [pair for pair in call.headers if pair[0] not in own]
    head = _head(call, _JSON) + "".join(f"{n}: {_clean(v)}\r\n" for n, v in error.headers).encode("ascii", "replace")
    wire.reply(error.status, head, error.body())


# --- the end ------------------------------------------------------------------------------------------------


def finish(side: Sidecar, call: Call, end: End, error: ApiError | None, status: int) -> None:
    """Write the outcome: finishers, settlement, metrics and the log line, once."""
    if call.outcome is not None:
        return
    runtime = call.runtime
    target = call.target
    usage: Usage = call.meter.total(target.model if target is not None else "")
    call.error = error
    outcome = Outcome(end, status, usage, code=error.code if error is not None else None, target=target)
    outcome.cost = runtime.cost(call, outcome)
    for raised in call.finish(outcome):
        runtime.metrics.finisher_errors.inc()
        runtime.log.error("finisher_failed", extra={"fields": {"request_id": call.id, **describe(raised)}})
    settle_claims(call, outcome)
    _count(call, outcome)
    side.log_call(_line(call, outcome, side.stamp()))


def _count(call: Call, outcome: Outcome) -> None:
    runtime = call.runtime
    metrics = runtime.metrics
    labels = runtime.labels(outcome.target, call)
    metrics.requests.inc(labels.by_status[STATUS[outcome.end]])
    usage = outcome.usage
    if usage.prompt:
        metrics.tokens.inc(labels.prompt, usage.prompt)
    if usage.completion:
        metrics.tokens.inc(labels.completion, usage.completion)
    if usage.cached:
        metrics.token_details.inc(("cached",), usage.cached)
    if usage.cache_write:
        metrics.token_details.inc(("cache_write",), usage.cache_write)
    if usage.reasoning:
        metrics.token_details.inc(("reasoning",), usage.reasoning)
    if usage.estimated:
        metrics.token_details.inc(("estimated",), usage.total)
    if outcome.cost:
        metrics.cost.inc(labels.money, outcome.cost / 1_000_000)
    now = monotonic()
    duration = now - call.started
    metrics.duration.observe(duration, labels.duration)
    if call.meter.first is not None:
        metrics.first_token.observe(call.meter.first - call.started)
    if outcome.end == "completed" and call.cache != "coalesced":
        metrics.overhead.observe(max(0.0, duration - call.upstream_s - call.others_s))


def _line(call: Call, outcome: Outcome, stamp: str) -> dict[str, Any]:
    usage = outcome.usage
    target = outcome.target
    now = monotonic()
    duration = now - call.started
    first = call.meter.first
    line: dict[str, Any] = {
        "ts": stamp,
        "level": "info",
        "event": "llm_request_completed",
        "request_id": call.id,
        "upstream_request_id": call.upstream_id,
        "trace_id": call.trace[3:35] if call.trace else None,
        "endpoint": call.endpoint,
        "team": call.caller.team,
        "user": call.caller.user,
        "key_id": call.caller.key_id,
        "feature": call.feature or None,
        "model": call.model[:256],
        "provider": target.name if target is not None else None,
        "upstream_model": target.model[:256] if target is not None else None,
        "status": outcome.status,
        "outcome": outcome.end,
        "code": outcome.code,
        "stream": call.request.stream,
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "cached_tokens": usage.cached,
        "reasoning_tokens": usage.reasoning,
        "estimated": usage.estimated,
        "cost_usd": None if outcome.cost is None else outcome.cost / 1_000_000,
        "duration_ms": round(duration * 1000, 2),
        "ttft_ms": None if first is None else round((first - call.started) * 1000, 2),
        "overhead_ms": None
        if call.cache == "coalesced"  # it waited for another call, which says why
        else round(max(0.0, duration - call.upstream_s - call.others_s) * 1000, 3),
        "cache": call.cache or None,
        "stored": call.kept,
        "detectors": sorted(call.detectors) if call.detectors else None,
        "retries": call.retries,
    }
    if call.log:
        line.update(call.log)
    return line


def refuse_early(
    side: Sidecar, wire: Wire, headers: dict[bytes, bytes], rid: str, caller: Caller | None, endpoint: str,
    error: ApiError, started: float, model: Any = None, *, gone: bool = False,
) -> None:  # fmt: skip
    """Refuse a request that never became a call."""
    if not gone and not wire.gone:
        wire.reply(error.status, "".join(_error_head(rid, error)).encode("ascii", "replace"), error.body())
    count_early(side, headers, rid, caller, endpoint, error, started, model, gone=gone)


def count_early(
    side: Sidecar, headers: dict[bytes, bytes], rid: str, caller: Caller | None, endpoint: str | None,
    error: ApiError, started: float, model: Any = None, *, gone: bool = False,
) -> None:  # fmt: skip
    """Count and log a request that never became a call, in the same words as one that did."""
    runtime = side.runtime
    team = runtime.team_label(caller.team) if caller is not None else "other"
    end: End = "client_gone" if gone else "fault" if error.code == "internal_error" else "refused"
    runtime.metrics.requests.inc(("", "other", team, "other", STATUS[end]))
    trace = headers.get(b"traceparent", b"")
    feature = headers.get(b"x-llm-feature", b"").decode("utf-8", "replace")
    duration = round((monotonic() - started) * 1000, 3)
    side.log_call(
        {
            "ts": side.stamp(),
            "level": "info",
            "event": "llm_request_completed",
            "request_id": rid,
            "upstream_request_id": None,
            "trace_id": trace[3:35].decode("ascii") if _TRACE.fullmatch(trace) else None,
            "endpoint": endpoint,
            "team": caller.team if caller is not None else None,
            "user": caller.user if caller is not None else None,
            "key_id": caller.key_id if caller is not None else None,
            "feature": (feature if feature in runtime.features else "other") if feature else None,
            "model": model[:256] if type(model) is str else None,
            "provider": None,
            "upstream_model": None,
            "status": error.status,
            "outcome": end,
            "code": None if gone else error.code,
            "stream": False,
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "cached_tokens": 0,
            "reasoning_tokens": 0,
            "estimated": False,
            "cost_usd": None,
            "duration_ms": duration,
            "ttft_ms": None,
            "overhead_ms": duration,
            "cache": None,
            "stored": False,
            "detectors": None,
            "retries": 0,
        }
    )


def whole_chunk(text: str, model: str) -> Chunk:
    """Return a completion that says ``text``: the stand-in upstream of the policy tests."""
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return Chunk(
        {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [choice],
            "usage": usage,
        },
        whole=True,
    )
