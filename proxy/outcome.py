"""The end of a call, however it came: one outcome, its holds settled, its metrics, its one line in the log."""

from __future__ import annotations

from bisect import bisect_left
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from proxy.call import STATUS, Call, Caller, End, Outcome, Usage
from proxy.errors import ApiError
from proxy.headers import feature, traceparent
from proxy.pipeline import settle_claims
from proxy.telemetry.line import line, who
from proxy.telemetry.log import describe
from proxy.telemetry.metrics import DURATION, FIRST_TOKEN, OVERHEAD

if TYPE_CHECKING:
    from proxy.app import Sidecar

_NO_USAGE: Final = Usage()


def finish(side: Sidecar, call: Call, end: End, error: ApiError | None, status: int) -> None:
    """Write the outcome: finishers, settlement, metrics and the log line, once."""
    if call.outcome is not None:
        return
    runtime = call.runtime
    target = call.target
    meter = call.meter
    usage: Usage = meter.total(target.model if target is not None else "")
    call.error = error
    code = error.code if error is not None else None
    outcome = Outcome(end, status, usage, code=code, target=target)
    outcome.cost = cost = runtime.cost(call, outcome)
    raised = call.finish(outcome)
    try:
        settle_claims(call, outcome)
    except Exception as unsettled:  # claims that the store cannot read; the call has its line all the same
        raised.append(unsettled)
    for one in raised:
        runtime.metrics.finisher_errors.inc()
        runtime.log.error("finisher_failed", extra={"fields": {"request_id": call.id, **describe(one)}})

    series = runtime.series(target, call)
    metrics = runtime.metrics
    series.ends[end][0] += 1
    series.prompt[0] += usage.prompt
    series.completion[0] += usage.completion
    if usage.cached or usage.cache_write or usage.reasoning or usage.estimated:
        _details(metrics.token_details.inc, usage)
    if cost:
        series.cost[0] += cost / 1_000_000
    duration = monotonic() - call.started
    row = series.duration
    row[bisect_left(DURATION, duration)] += 1
    row[-1] += duration
    first = meter.first
    if first is not None:
        first -= call.started
        row = metrics.first_token_row
        row[bisect_left(FIRST_TOKEN, first)] += 1
        row[-1] += first
    overhead: float | None = None
    if call.cache != "coalesced":  # that one waited for another call, whose line says why
        overhead = duration - call.upstream_s - call.others_s
        if overhead < 0:
            overhead = 0.0
        if end == "completed":
            row = metrics.overhead_row
            row[bisect_left(OVERHEAD, overhead)] += 1
            row[-1] += overhead
    side.writer.write(
        line(
            side.stamps.now(), call.id, call.upstream_id, call.trace, series.who, status, end, code,
            call.request.stream, usage, cost, duration, first, overhead, call.cache, call.kept, call.detectors,
            call.retries, call.log,
        )
    )  # fmt: skip


def _details(inc: Any, usage: Usage) -> None:
    """Count the parts of the tokens that have a name of their own."""
    for name in ("cached", "cache_write", "reasoning"):
        if tokens := getattr(usage, name):
            inc((name,), tokens)
    if usage.estimated and usage.total:
        inc(("estimated",), usage.total)


def count_early(
    side: Sidecar, headers: dict[bytes, bytes], rid: str, caller: Caller | None, endpoint: str | None,
    error: ApiError, started: float, model: Any = None, *, gone: bool = False,
) -> None:  # fmt: skip
    """Count and log a request that never became a call, in the same words as one that did."""
    runtime = side.runtime
    team = runtime.team_label(caller.team) if caller is not None else "other"
    end: End = "client_gone" if gone else "fault" if error.code == "internal_error" else "refused"
    runtime.metrics.requests.inc(("", "other", team, "other", STATUS[end]))
    serves = feature(headers)
    caused_by = who(
        endpoint,
        caller.team if caller is not None else None,
        caller.user if caller is not None else None,
        caller.key_id if caller is not None else None,
        runtime.feature_label(serves) if serves else None,
        model[:256] if type(model) is str else None,
        None,
        None,
    )
    duration = monotonic() - started
    side.writer.write(
        line(
            side.stamps.now(), rid, None, traceparent(headers), caused_by,
            error.status, end, None if gone else error.code, False, _NO_USAGE, None, duration, None, duration, "",
            False, (), 0, {},
        )
    )  # fmt: skip
