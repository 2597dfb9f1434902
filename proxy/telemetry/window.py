"""Shares over the last minutes, in constant memory."""

from __future__ import annotations

from typing import Final

_SLOT: Final = 10
_SLOTS: Final = 30


class HitWindow:
    """The share of look-ups that hit in the last 5 minutes, to the nearest 10 seconds. Times are monotonic."""

    __slots__ = ("_hits", "_lookups", "_past", "_slot")

    def __init__(self) -> None:
        self._slot = -1
        self._lookups = 0
        self._hits = 0
        self._past: dict[int, tuple[int, int]] = {}
        """Slot -> look-ups and hits, of the slots before the current one."""

    def add(self, now: float, *, hit: bool) -> None:
        """Count one look-up; a moment before the current slot counts in it."""
        slot = int(now) // _SLOT
        if slot > self._slot:
            self._roll(slot)
        self._lookups += 1
        if hit:
            self._hits += 1

    def _roll(self, slot: int) -> None:
        """Begin a slot; forget those that are past."""
        if self._lookups:
            self._past[self._slot] = (self._lookups, self._hits)
        self._past = {old: row for old, row in self._past.items() if old > slot - _SLOTS}
        self._slot = slot
        self._lookups = self._hits = 0

    def ratio(self, now: float) -> float:
        """Return hits by look-ups, NaN without look-ups."""
        slot = int(now) // _SLOT
        if slot > self._slot:
            self._roll(slot)
        lookups = self._lookups + sum(row[0] for row in self._past.values())
        hits = self._hits + sum(row[1] for row in self._past.values())
        return hits / lookups if lookups else float("nan")
