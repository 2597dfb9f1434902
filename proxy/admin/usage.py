"""What `/v1/usage`, `/admin/usage` and `/admin/quotas` answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from policies._shape import rfc3339
from policies.base import Counter
from proxy.call import Caller
from proxy.errors import ApiError
from proxy.store.base import ClaimState, StoreUnavailable
from proxy.store.period import month_of, period_end
from proxy.store.report import report

if TYPE_CHECKING:
    from proxy.runtime import Runtime

#: What a claim's unit is called outside.
_WHAT: Final = {"rate": "requests", "tokens": "tokens", "slots": "concurrent"}
_PIECE: Final = 64


async def own_usage(runtime: Runtime, caller: Caller) -> dict[str, Any]:
    """Return the caller's limits, quota and budget, with what is left and when they are renewed.

    A limit that is `by: feature` has a row for each feature of llm.yml, and one for all other words. Of several
    quotas ``quota`` is the one with the least left; ``quotas`` are all of them.

    Raises:
        ApiError: ``store_unavailable`` where the counters cannot be read now.
    """
    counters = _counters(runtime, caller)
    states = await _peek(runtime, counters)
    limits, quotas, budget = [], [], None
    for counter, state in zip(counters, states, strict=True):
        if counter.claim.kind == "quota":
            quotas.append(_quota(counter, state))
        elif counter.claim.kind == "money":
            budget = _budget(counter, state)
        else:
            limits.append(_limit(counter, state))
    return {
        "object": "usage", "team": caller.team, "user": caller.user, "limits": limits, "quota": _tightest(quotas),
        "quotas": quotas, "budget": budget,
    }  # fmt: skip


async def admin_quotas(runtime: Runtime) -> dict[str, Any]:
    """Return every listed team's quota and budget, and those of others that called this month.

    The team `default` is one of the others: its entry in llm.yml stands for teams that are not listed.

    Raises:
        ApiError: ``store_unavailable`` where the counters cannot be read now.
    """
    month = month_of(runtime.clock.time())
    with _readable():
        seen = {str(row["team"]) for row in await runtime.store.usage(month)}
    listed = [name for name in runtime.teams if name != "default"]
    teams = [*listed, *sorted(seen - set(listed))]
    rows = []
    for number, team in enumerate(teams):
        if not number % _PIECE:
            await asyncio.sleep(0)  # a store in memory answers at once: calls go on in between
        counters = [
            counter
            for counter in _counters(runtime, Caller("", team, "", frozenset()))
            if counter.claim.kind in ("quota", "money") and counter.by in ("team", "feature")
        ]
        states = await _peek(runtime, counters)
        quotas, budget = [], None
        for counter, state in zip(counters, states, strict=True):
            if counter.claim.kind == "quota":
                quotas.append(_quota(counter, state))
            else:
                budget = _budget(counter, state)
        rows.append(
            {
                "team": team,
                "listed": team in runtime.teams,
                "quota": _tightest(quotas),
                "quotas": quotas,
                "budget": budget,
            }
        )
    return {"month": month, "teams": rows}


async def admin_usage(runtime: Runtime, month: str | None = None, by: str | None = None) -> dict[str, Any]:
    """Return the usage report of ``month`` (this one by default); ``by`` is a comma list, ``team,model`` by default.

    Raises:
        ApiError: ``invalid_request`` where ``by`` or ``month`` is not one that a report can have,
            ``store_unavailable`` where the ledger cannot be read now.
    """
    month = month or month_of(runtime.clock.time())
    names = [name.strip() for name in by.split(",") if name.strip()] if by else ["team", "model"]
    try:
        check_month(month)
        report(month, (), names)
    except ValueError as error:
        raise ApiError("invalid_request", str(error)) from error
    with _readable():
        rows = await runtime.store.usage(month)
    return await asyncio.to_thread(report, month, rows, names)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except StoreUnavailable as error:
        raise ApiError(
            "store_unavailable", "The counters cannot be read at the moment; try again shortly.", retry_after=1.0
        ) from error


def check_month(month: str) -> None:
    """Raise ValueError unless ``month`` is written as ``2026-11``."""
    try:
        good = len(month) == 7 and 1 <= int(month[5:]) <= 12 and period_end(month) > 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("A month is written as YYYY-MM, such as 2026-11.")


def _counters(runtime: Runtime, caller: Caller) -> list[Counter]:
    """Return every shared counter that applies to ``caller``; what is no listed feature counts as ``other``."""
    features = (*runtime.config.features, "other")
    return [counter for policy in runtime.policies for counter in policy.counters(caller, features)]


async def _peek(runtime: Runtime, counters: list[Counter]) -> list[ClaimState]:
    """Return the counters' states, asked for in small pieces: a shared store serves others in between."""
    states: list[ClaimState] = []
    with _readable():
        for start in range(0, len(counters), _PIECE):
            states += await runtime.store.peek([counter.claim for counter in counters[start : start + _PIECE]])
    return states


def _limit(counter: Counter, state: ClaimState) -> dict[str, Any]:
    claim = counter.claim
    row: dict[str, Any] = {
        **_whose(counter),
        "type": _WHAT[claim.kind],
        "limit": claim.limit,
        "remaining": state.remaining,
    }
    if claim.kind != "slots":
        row["per_seconds"] = claim.window
        row["reset_seconds"] = round(state.reset, 3)
    return row


def _quota(counter: Counter, state: ClaimState) -> dict[str, Any]:
    claim = counter.claim
    return {
        **_whose(counter),
        "limit_tokens": claim.limit,
        "used_tokens": state.used - state.held,
        "held_tokens": state.held,
        "remaining_tokens": state.remaining,
        "period": claim.period,
        "reset": rfc3339(period_end(claim.period)),
    }


def _whose(counter: Counter) -> dict[str, str]:
    return {"by": counter.by} if counter.feature is None else {"by": counter.by, "feature": counter.feature}


def _tightest(quotas: list[dict[str, Any]]) -> dict[str, Any] | None:
    return min(quotas, key=lambda row: row["remaining_tokens"], default=None)


def _budget(counter: Counter, state: ClaimState) -> dict[str, Any]:
    claim = counter.claim
    limit, used, held = (claim.limit or 0) / 1e6, (state.used - state.held) / 1e6, state.held / 1e6
    return {
        "limit_usd": limit,
        "used_usd": used,
        "held_usd": held,
        "remaining_usd": max(0.0, round(limit - used - held, 6)),
        "period": claim.period,
        "reset": rfc3339(period_end(claim.period)),
    }
