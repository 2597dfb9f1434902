"""The generating routes: from a request's headers to the last byte of its reply."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from proxy.auth import GENERATE, require
from proxy.call import Call, Caller, End
from proxy.decisions import PolicyFault
from proxy.errors import ApiError, UpstreamError
from proxy.filters import Filters, Replayed
from proxy.forward import forward
from proxy.headers import feature, hops, request_id, traceparent
from proxy.outcome import count_early, finish
from proxy.pipeline import ask
from proxy.reply import Keeper, error_lines, send_error, send_stream, send_whole
from proxy.request import REQUESTS, parse_object
from proxy.server.wire import Wire
from proxy.source import Source
from proxy.telemetry.log import describe
from proxy.telemetry.meter import Meter

if TYPE_CHECKING:
    from proxy.app import Sidecar

_BIG: Final = 1024 * 1024


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
            kind = REQUESTS[endpoint]
            request = kind(body, size) if size < _BIG else await asyncio.to_thread(kind, body, size)
            route = runtime.router.plan(request.model, endpoint, started)
        except ApiError as error:
            refuse_early(side, wire, headers, rid, caller, endpoint, error, started, body.get("model"))
            return
        except ConnectionError:
            left = ApiError("invalid_request", "The client left before its request was complete.")
            refuse_early(side, wire, headers, rid, caller, endpoint, left, started, gone=True)
            return
        serves = feature(headers)
        call = Call(rid, runtime, caller, request, route, serves and runtime.feature_label(serves), started)
        _prepare(call, headers)
        call.task = wire.task
        wire.call = call
        side.calls.add(call)
        if side.tells_starts:
            _tell_start(call)
        if wire.gone:
            call.leave()
        try:
            await _serve(side, call, wire)
            if wire.paused:  # the call has ended; its place and its memory are taken until the client has read enough
                await wire.drain()
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
    call.trace = traceparent(headers)
    wish = headers.get(b"cache-control")
    if wish is not None:
        call.wants_cache = wish.decode("latin-1")
    if b"x-llm-sidecar-hop" in headers:
        call.notes["hop"] = f"{hops(headers)},{runtime.hop}"
    if headers.get(b"x-llm-explain") == b"1" and "llm:manage" in call.caller.permissions:
        call.explain = []
    if runtime.teams:
        set_team(call)


def _tell_start(call: Call) -> None:
    """Log that a call begins (at DEBUG): one that never ends is found by its lonely line."""
    fields = {"request_id": call.id, "endpoint": call.endpoint, "team": call.caller.team, "user": call.caller.user,
              "key_id": call.caller.key_id, "model": call.model, "stream": call.request.stream}  # fmt: skip
    call.runtime.log.debug("llm_request_started", extra={"fields": fields})


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
    torn: BaseException | None = None
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
            if call.leave_reason is not None:  # told by a cancel, which a policy turned into something else
                raise asyncio.CancelledError
            filters = Filters(call, runtime.steps[:above]) if runtime.filters else None
            if reply is not None:
                call.headers.extend(reply.headers)
                source = Replayed(call, runtime.steps[above], reply, whole=not call.request.stream)
            if source is None:
                source = await forward(call, wire)
            if keeper is not None:
                await send_stream(call, wire, source, filters, keeper)
            else:
                await send_whole(call, wire, source, filters)
            if call.alone:
                end = "client_gone"
        except asyncio.CancelledError as caught:
            task = asyncio.current_task()
            if call.leave_reason is None and not call.gone:
                if task is None or not task.cancelling():
                    raise LookupError("a wait ended that nobody cancelled") from caught
                torn = caught  # the process is being torn down: whoever does so has to hear of it again
            elif task is not None:
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
    except BaseException as caught:  # `sys.exit()` in somebody's policy or provider is not the sidecar's end
        if source is not None:
            source.abort()
        call.runtime.log.error("internal_error", extra={"fields": {"request_id": call.id, **describe(caught)}})
        end = "fault"
        error = ApiError("internal_error", f"The sidecar failed; its operator finds the reason under {call.id}.")
    finally:
        if keeper is not None:
            keeper.stop()
    try:
        if error is not None:
            status = error.status
            if rest is not None:
                wire.last()
            send_error(call, wire, error)
            if rest is not None and source is not None:
                await _carry_on(call, source, rest)
    finally:
        finish(side, call, end, error, status)
    if torn is not None:
        raise torn


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
    began = monotonic()
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
    finally:
        call.others_s += monotonic() - began


def _shutting_down() -> ApiError:
    return ApiError("overloaded", "The sidecar is shutting down; send the request again.", retry_after=1.0)


def refuse_early(
    side: Sidecar, wire: Wire, headers: dict[bytes, bytes], rid: str, caller: Caller | None, endpoint: str,
    error: ApiError, started: float, model: Any = None, *, gone: bool = False,
) -> None:  # fmt: skip
    """Refuse a request that never became a call."""
    if not gone and not wire.gone:
        wire.reply(error.status, "".join(error_lines(rid, error)).encode("ascii", "replace"), error.body())
    count_early(side, headers, rid, caller, endpoint, error, started, model, gone=gone)
