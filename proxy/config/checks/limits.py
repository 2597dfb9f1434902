"""Limits that can never let a call through, or never hold one back."""

from __future__ import annotations

from typing import Any

from proxy.config.checks.scope import Scope
from proxy.config.problem import Path, listed


def check(scope: Scope) -> None:
    """Compare the limits with the tokens that a call without ``max_tokens`` holds."""
    quota = scope.policy("quota")
    hold = 0
    if quota is not None:
        path, entry = quota
        settings: Any = entry.config
        hold = getattr(settings, "default_max_tokens", 0) or 0
        tokens = getattr(settings, "tokens", None)
        if tokens and hold > tokens:
            message = (
                f"a call without max_tokens holds {hold:,} tokens (`default_max_tokens`), more than the whole quota of "
                f"{tokens:,}; lower the one or raise the other"
            )
            if _given(settings, "default_max_tokens"):
                scope.bad((*path, "default_max_tokens"), message)
            else:
                scope.warn((*path, "tokens"), message)
        for name, team in scope.config.teams.items():
            if team.token_quota and hold > team.token_quota:
                scope.warn(
                    ("teams", name, "token_quota"),
                    f"a call without max_tokens holds {hold:,} tokens (`quota.default_max_tokens`), more than this whole "
                    "quota",
                )
    _rates(scope, hold)
    _budget(scope)


def _budget(scope: Scope) -> None:
    found = scope.policy("budget")
    if found is None:
        return
    path, entry = found
    settings: Any = entry.config
    unsaid = getattr(settings, "usd", 0) is None and "usd" not in scope.settings(path)  # a bad one is told already
    if unsaid and not any(team.budget_usd for team in scope.config.teams.values()):
        scope.bad(path, "there is no budget to keep to; set `usd` here, or `budget_usd` for a team")
    throttle, stop = getattr(settings, "throttle", None), getattr(settings, "hard_stop", None)
    if throttle is not None and stop is not None and _given(settings, "throttle") and stop <= throttle.at:
        scope.bad(
            (*path, "throttle"),
            f"`hard_stop` ends all calls at {stop:g} %, before the throttle of {throttle.at:g} % begins; lower `at`",
        )


def _given(settings: Any, key: str) -> bool:
    return key in getattr(settings, "model_fields_set", ())


def _rates(scope: Scope, hold: int) -> None:
    found = scope.policy("rate_limit")
    if found is None:
        return
    path, entry = found
    limits = tuple(getattr(entry.config, "limits", ()))
    if scope.settings(path).get("limits") == []:
        scope.bad(
            (*path, "limits"),
            "the list is empty; give one limit or more, such as `[{by: user, requests: 100, per: 60s}]`",
        )
    for i, limit in enumerate(limits):
        place: Path = (*path, "limits", i)
        if place not in scope.document.lines:
            place = path
        if getattr(limit, "by", "") == "feature" and not scope.config.features:
            scope.warn(place, "there are no `features:`, so that every call counts as the one feature `other`")
        _rate(scope, limit, place, hold)
    for name, team in scope.config.teams.items():
        if team.rate_limit is not None:
            _own(scope, team.rate_limit, "team", limits, ("teams", name, "rate_limit"), hold)
        for user, settings in team.users.items():
            if settings.rate_limit is not None:
                _own(scope, settings.rate_limit, "user", limits, ("teams", name, "users", user, "rate_limit"), hold)


def _own(scope: Scope, own: Any, by: str, limits: tuple[Any, ...], path: Path, hold: int) -> None:
    """Check a team's or a user's own limit; warn where it lifts what it does not speak of."""
    _rate(scope, own, path, hold)
    kinds = ("requests", "tokens", "concurrent")
    replaced = [kind for kind in kinds if any(limit.by == by and getattr(limit, kind) is not None for limit in limits)]
    if lifted := [kind for kind in replaced if getattr(own, kind) is None]:
        scope.warn(
            path,
            f"this stands in for every limit that is `by: {by}`, so that none of {listed(lifted)} is left; "
            "say here which should hold",
        )


def _rate(scope: Scope, limit: Any, path: Path, hold: int) -> None:
    tokens = getattr(limit, "tokens", None)
    if tokens and hold > tokens:
        scope.warn(
            path,
            f"a call without max_tokens takes {hold:,} tokens (`quota.default_max_tokens`), more than this limit of "
            f"{tokens:,} ever allows",
        )
