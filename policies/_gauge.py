"""The series `llm_token_quota` and `llm_token_quota_used`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from policies.base import Kit

_OTHER: Final = ("other",)
_MOST_OTHERS: Final = 10_000


class Gauge:
    """What each listed team may use and has used in the period, and all others together.

    Teams that llm.yml does not list share the label ``other``, as in every metric: its two series are the sums
    over those that called this sidecar in the period, their limits and what they used, so that
    one is comparable with the other. Of a single such team `/admin/quotas` tells.
    """

    __slots__ = ("_others", "_period", "_quota", "_sum", "_teams", "_used")

    def __init__(self, kit: Kit) -> None:
        self._teams = kit.teams
        self._quota = kit.metrics.token_quota.values
        self._used = kit.metrics.token_quota_used.values
        self._others: dict[str, int] = {}
        self._sum = 0
        self._period = ""

    def listed(self, limits: Mapping[str, int]) -> None:
        """Show the limits of teams that have not called yet."""
        for team, limit in limits.items():
            self._quota[team,] = limit

    def saw(self, team: str, period: str, limit: int, used: int) -> None:
        """Show what the store said at a call's admission."""
        if period != self._period:
            if period < self._period:
                return  # admitted across midnight
            self._begin(period)
        if team in self._teams:
            self._quota[team,] = limit
            self._used[team,] = used
            return
        others = self._others
        before = others.get(team)
        if before is None and len(others) >= _MOST_OTHERS:
            self._sum -= others.pop(next(iter(others)))
        others[team] = used
        self._sum = total = self._sum + used - (before or 0)
        self._quota[_OTHER] = limit * len(others)  # one limit holds for all of them
        self._used[_OTHER] = total

    def settled(self, team: str, period: str, change: int) -> None:
        """Show what a call gave back, or took beyond its hold, before the team's next call tells anyway."""
        if period != self._period:
            return
        if team in self._teams:
            self._used[team,] = max(0, self._used.get((team,), 0) + change)
        elif (before := self._others.get(team)) is not None:
            after = self._others[team] = max(0, before + change)
            self._sum += after - before
            self._used[_OTHER] = self._sum

    def _begin(self, period: str) -> None:
        """Forget what was used in the last period: a team that has not called yet has used nothing in this one."""
        if self._period:
            self._used.update(dict.fromkeys(self._used, 0))
            self._quota.pop(_OTHER, None)
            self._used.pop(_OTHER, None)
        self._period = period
        self._others.clear()
        self._sum = 0
