"""Shares over the last minutes, in constant memory."""

from __future__ import annotations

from typing import Final

_SLOT: Final = 10.0
_SLOTS: Final = 30


class HitWindow:
    """The share of look-ups that hit in the last 5 minutes, to the nearest 10 seconds. Times are monotonic."""

    __slots__ = ("_hits", "_lookups", "_slots")

    def __init__(self) -> None:
        self._slots = [-1] * _SLOTS
        self._lookups = [0] * _SLOTS
        self._hits = [0] * _SLOTS

    def add(self, now: float, *, hit: bool) -> None:
        """Count one look-up."""
        slot = int(now / _SLOT)
        i = slot % _SLOTS
        if self._slots[i] != slot:
            self._slots[i] = slot
            self._lookups[i] = self._hits[i] = 0
        self._lookups[i] += 1
        if hit:
            self._hits[i] += 1

    def ratio(self, now: float) -> float:
        """Return hits by look-ups, NaN without look-ups."""
        oldest = int(now / _SLOT) - _SLOTS
        recent = [i for i, slot in enumerate(self._slots) if slot > oldest]
        lookups = sum(self._lookups[i] for i in recent)
        return sum(self._hits[i] for i in recent) / lookups if lookups else float("nan")
