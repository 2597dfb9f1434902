"""How many retries a provider may be sent: a share of the calls, so that a failing one is not stormed."""

from __future__ import annotations

from typing import Final

WINDOW: Final = 10
"""Seconds, in buckets of one."""


class RetryBudget:
    """Allow retries up to ``share`` of the calls of the last ten seconds plus ``floor``: pure, time passed in.

    The rule of Finagle and linkerd2-proxy, over a sliding window.
    """

    __slots__ = ("_calls", "_floor", "_retries", "_second", "_share", "_sum_calls", "_sum_retries")

    def __init__(self, share: float = 0.2, floor: int = 3) -> None:
        self._share = share
        self._floor = floor
        self._calls = [0] * WINDOW
        self._retries = [0] * WINDOW
        self._sum_calls = 0
        self._sum_retries = 0
        self._second = 0

    def call(self, now: float) -> None:
        """Count a call (its first attempt)."""
        second = int(now)
        if second != self._second:
            self._turn(second)
        self._calls[second % WINDOW] += 1
        self._sum_calls += 1

    def take(self, now: float) -> bool:
        """Tell whether one more retry may go out now, and count it if so."""
        second = int(now)
        if second != self._second:
            self._turn(second)
        if self._sum_retries + 1 > self._share * self._sum_calls + self._floor:
            return False
        self._retries[second % WINDOW] += 1
        self._sum_retries += 1
        return True

    def _turn(self, second: int) -> None:
        """Empty the buckets of the seconds that went by; a clock that stands still or runs back empties none."""
        for passed in range(self._second + 1, min(second, self._second + WINDOW) + 1):
            slot = passed % WINDOW
            self._sum_calls -= self._calls[slot]
            self._sum_retries -= self._retries[slot]
            self._calls[slot] = self._retries[slot] = 0
        self._second = max(second, self._second)
