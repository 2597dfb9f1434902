"""A clock that a test moves."""

from __future__ import annotations

from proxy.clock import Clock


class StillClock(Clock):
    """Wall and monotonic time that stand still until told; 2026-11-22 12:00:00 UTC to begin with."""

    def __init__(self, wall: float = 1_795_348_800.0, mono: float = 1_000.0) -> None:
        self.wall = wall
        self.mono = mono

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.mono += seconds
