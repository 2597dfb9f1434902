"""Months and days in UTC, asked for in any order."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from proxy.store.period import day_of, month_of, period_end

#: Around the turns of days, months and years, with which the last answer must not be confused.
_TURNS = [datetime(year, month, 1, tzinfo=UTC).timestamp() for year in (1999, 2024, 2026) for month in (1, 2, 3, 12)]


@given(st.lists(st.builds(float.__add__, st.sampled_from(_TURNS), st.floats(-90_000, 90_000)), max_size=30))
def test_every_moment_has_its_own_day_and_month(moments: list[float]) -> None:
    """Whatever moment was asked for before, each has the names that the calendar gives it."""
    for moment in moments:
        date = datetime.fromtimestamp(moment // 1, UTC)  # rounding to microseconds could reach the next day
        assert (month_of(moment), day_of(moment)) == (f"{date:%Y-%m}", f"{date:%Y-%m-%d}")


def test_a_period_ends_where_the_next_begins() -> None:
    """The last moment of a month or a day is its own, its end is the next one's."""
    for period, after in (("2026-11", "2026-12"), ("2026-12", "2027-01")):
        end = period_end(period)
        assert (month_of(end - 0.001), month_of(end)) == (period, after)
    end = period_end("2024-02-29")
    assert (day_of(end - 0.001), day_of(end)) == ("2024-02-29", "2024-03-01")
