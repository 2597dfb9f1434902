"""Accounting periods: months and days in UTC, written as ``2026-11`` and ``2026-11-22``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

#: The day last asked for, which is nearly always today: its begin, its end, its month's and its own name.
_last = (0.0, 0.0, "", "")


def _day(timestamp: float) -> tuple[float, float, str, str]:
    global _last
    begin = timestamp // 86400 * 86400
    date = datetime.fromtimestamp(begin, UTC)
    _last = (begin, begin + 86400, f"{date:%Y-%m}", f"{date:%Y-%m-%d}")
    return _last


def month_of(timestamp: float) -> str:
    """Return the month of a wall time (seconds since 1970), in UTC."""
    day = _last
    if not day[0] <= timestamp < day[1]:
        day = _day(timestamp)
    return day[2]


def day_of(timestamp: float) -> str:
    """Return the day of a wall time (seconds since 1970), in UTC."""
    day = _last
    if not day[0] <= timestamp < day[1]:
        day = _day(timestamp)
    return day[3]


@lru_cache(maxsize=256)
def period_end(period: str) -> float:
    """Return when a month or a day ends, in seconds since 1970; 0.0 for no period."""
    if not period:
        return 0.0
    if len(period) == 7:
        year, month = int(period[:4]), int(period[5:])
        end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    else:
        end = datetime.fromisoformat(period).replace(tzinfo=UTC) + timedelta(days=1)
    return end.timestamp()


def months_before(month: str, count: int) -> str:
    """Return the month that lies ``count`` months before ``month``."""
    index = int(month[:4]) * 12 + int(month[5:]) - 1 - count
    return f"{index // 12:04d}-{index % 12 + 1:02d}"
