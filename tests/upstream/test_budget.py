"""R22, with a clock passed in: a provider that fails sees at most 1.2 times the calls plus 3 per 10 seconds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.budget import RetryBudget


def test_a_quiet_sidecar_may_retry_three_times() -> None:
    """The floor: three retries in ten seconds whatever the calls, and again ten seconds later."""
    budget = RetryBudget()
    assert [budget.take(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert not budget.take(109.9)
    assert budget.take(110.0)


def test_a_busy_one_may_retry_a_fifth() -> None:
    """The share: 1,000 calls earn 200 retries beside the floor."""
    budget = RetryBudget()
    for _ in range(1000):
        budget.call(50.0)
    assert [budget.take(51.0) for _ in range(1000)].count(True) == 203


def test_old_calls_earn_nothing() -> None:
    """What was earned more than ten seconds ago has lapsed."""
    budget = RetryBudget()
    for _ in range(1000):
        budget.call(50.0)
    assert [budget.take(60.0) for _ in range(100)].count(True) == 3


def test_total_failure_at_200_calls_a_second() -> None:
    """R22: sixty seconds in which everything fails and every failure asks for retries."""
    budget = RetryBudget()
    calls = retries = 0
    for tick in range(60 * 200):
        now = 1000.0 + tick / 200
        budget.call(now)
        calls += 1
        for _ in range(3):
            retries += budget.take(now)
    assert retries <= 0.2 * calls + 3 * 6
    assert retries >= 0.15 * calls


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 15)), max_size=200))
def test_no_ten_seconds_exceed_the_share(steps: list[tuple[bool, float]]) -> None:
    """In every ten whole seconds the retries stay within a fifth of their calls plus three."""
    budget = RetryBudget()
    now = 5.0
    calls: list[int] = []
    retries: list[int] = []
    for is_call, seconds in steps:
        now += seconds
        if is_call:
            budget.call(now)
            calls.append(int(now))
        elif budget.take(now):
            retries.append(int(now))
            recent = [second for second in retries if second > int(now) - 10]
            earned = [second for second in calls if second > int(now) - 10]
            assert len(recent) <= 0.2 * len(earned) + 3


def test_a_clock_that_jumps_back_breaks_nothing() -> None:
    """Time that runs backwards neither frees retries nor raises."""
    budget = RetryBudget()
    assert [budget.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not budget.take(50.0)
    assert not budget.take(100.0)
