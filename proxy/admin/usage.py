"""What `/v1/usage`, `/admin/usage` and `/admin/quotas` answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from policies._shape import rfc3339
from proxy.call import Caller
from proxy.errors import ApiError
from proxy.store.base import Claim, ClaimState, StoreUnavailable
from proxy.store.period import month_of, period_end
from proxy.store.report import report

if TYPE_CHECKING:
    from proxy.runtime import Runtime

#: What a claim's unit is called outside.
_WHAT = {"rate": "requests", "tokens": "tokens", "slots": "concurrent"}


async def own_usage(runtime: Runtime, caller: Caller) -> dict[str, Any]:
    """Return the caller's limits, quota and budget, with what is left and when they are renewed.

    Raises:
        ApiError: ``store_unavailable`` where the counters cannot be read now.
    """
    claims, policies = _claims(runtime, caller.team, caller.user, caller.key_id)
    with _readable():
        states = await runtime.store.peek(claims)
    found: dict[str, Any] = {
        "object": "usage", "team": caller.team, "user": caller.user, "limits": [], "quota": None, "budget": None
    }  # fmt: skip
    for policy, claim, state in zip(policies, claims, states, strict=True):
        if claim.kind == "quota":
            found["quota"] = _quota(claim, state)
        elif claim.kind == "money":
            found["budget"] = _budget(policy.usd(claim.team), claim, state)
        else:
            found["limits"].append(_limit(claim, state))
    return found


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
    for team in teams:
        claims, policies = _claims(runtime, team, "", "")
        row: dict[str, Any] = {"team": team, "listed": team in runtime.teams, "quota": None, "budget": None}
        wanted = [
            (policy, claim)
            for policy, claim in zip(policies, claims, strict=True)
            if claim.kind == "money" or (claim.kind == "quota" and policy.config.by == "team")
        ]
        with _readable():
            states = await runtime.store.peek([claim for _, claim in wanted])
        for (policy, claim), state in zip(wanted, states, strict=True):
            if claim.kind == "quota":
                row["quota"] = _quota(claim, state)
            else:
                row["budget"] = _budget(policy.usd(team), claim, state)
        rows.append(row)
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
        return report(month, await runtime.store.usage(month), names)


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


def _claims(runtime: Runtime, team: str, user: str, key_id: str) -> tuple[list[Claim], list[Any]]:
    claims: list[Claim] = []
    policies: list[Any] = []
    for policy in runtime.policies:
        ask = getattr(policy, "report", None)
        if ask is not None:
            found = ask(team, user, key_id)
            claims += found
            policies += [policy] * len(found)
    return claims, policies


def _limit(claim: Claim, state: ClaimState) -> dict[str, Any]:
    row: dict[str, Any] = {
        "by": claim.note.by,
        "type": _WHAT[claim.kind],
        "limit": claim.limit,
        "remaining": state.remaining,
    }
    if claim.kind != "slots":
        row["per_seconds"] = claim.window
        row["reset_seconds"] = round(state.reset, 3)
    return row


def _quota(claim: Claim, state: ClaimState) -> dict[str, Any]:
    return {
        "limit_tokens": claim.limit,
        "used_tokens": state.used - state.held,
        "held_tokens": state.held,
        "remaining_tokens": state.remaining,
        "period": claim.period,
        "reset": rfc3339(period_end(claim.period)),
    }


def _budget(usd: float | None, claim: Claim, state: ClaimState) -> dict[str, Any]:
    used = (state.used - state.held) / 1e6
    return {
        "limit_usd": usd,
        "used_usd": used,
        "held_usd": state.held / 1e6,
        "remaining_usd": max(0.0, round((usd or 0.0) - used - state.held / 1e6, 6)),
        "period": claim.period,
        "reset": rfc3339(period_end(claim.period)),
    }
