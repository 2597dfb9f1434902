"""How limits are written in headers and sentences."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from math import ceil
from typing import Final

#: The most that a limit may be, in its unit. Sums above it are exact neither in Lua's numbers (2^53) nor in SQLite's.
MOST: Final = 10**15
MOST_USD: Final = 10**8
#: Of a percentage of the budget.
MOST_PER_CENT: Final = 1_000


def reset_in(seconds: float) -> str:
    """Return a wait as OpenAI's ``x-ratelimit-reset-*`` write it: ``20ms``, ``7.66s``, ``6m0s``, ``1h2m3s``
    (platform.openai.com/docs/guides/rate-limits, "Rate limits in headers")."""
    if seconds <= 0:
        return "0s"
    milliseconds = ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    whole, rest = divmod(milliseconds, 1000)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    tail = f"{whole}.{rest:03d}".rstrip("0") if rest else str(whole)
    if hours:
        return f"{hours}h{minutes}m{tail}s"
    return f"{minutes}m{tail}s" if minutes else f"{tail}s"


@lru_cache(maxsize=64)
def rfc3339(timestamp: float) -> str:
    """Return a wall time as RFC 3339 writes it, in UTC and whole seconds."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def every(seconds: float) -> str:
    """Return a window in words: ``second``, ``minute``, ``5 minutes``, ``90 seconds``."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= length and seconds % length == 0:
            count = int(seconds // length)
            return unit if count == 1 else f"{count} {unit}s"
    return f"{seconds:g} seconds"


def plural(count: int, word: str) -> str:
    """Return ``1 request`` or ``2,000 requests``."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
