"""Moments as the log writes them: RFC 3339, milliseconds, UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from time import time
from typing import Final

_MS: Final = tuple(f"{number:03d}Z" for number in range(1000))


class Stamps:
    """Writes moments that come mostly in order: the date is formatted once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def now(self) -> str:
        """Return the stamp of this moment."""
        return self.at(time())

    def at(self, moment: float) -> str:
        """Return the stamp of ``moment``, in seconds since the epoch."""
        second = int(moment)
        if second != self._second:
            self._second = second
            self._text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return self._text + _MS[int((moment - second) * 1000.0)]
