"""Time as the sidecar sees it; tests pass their own."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """The machine's clocks behind three names."""

    def now(self) -> datetime:
        """Return the wall time, in UTC."""
        return datetime.fromtimestamp(self.time(), UTC)

    def time(self) -> float:
        """Return the wall time, in seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Return a time that never runs backwards, in seconds."""
        return time.monotonic()
