"""R21, with a clock passed in: when the breaker opens, whom it lets through, and what never counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.breaker import CLOSED, HALF_OPEN, OPEN, Breaker


def opened(at: float = 100.0, **options: float) -> Breaker:
    breaker = Breaker(5, 300.0, **options)
    for _ in range(5):
        assert breaker.allow(at)
        breaker.failure(at)
    return breaker


def test_it_opens_at_the_fifth_failure_in_a_row() -> None:
    """Four failures change nothing, the fifth opens."""
    breaker = Breaker(5, 300.0)
    for n in range(4):
        breaker.failure(100.0 + n)
        assert breaker.allow(100.0 + n)
        assert breaker.state(100.0 + n) == CLOSED
    breaker.failure(104.0)
    assert not breaker.allow(104.0)
    assert breaker.state(104.0) == OPEN
    assert breaker.retry_after(104.0) == 300.0


def test_a_success_resets_the_count() -> None:
    """Failures count only in a row."""
    breaker = Breaker(5, 300.0)
    for _ in range(10):
        for _ in range(4):
            breaker.failure(1.0)
        breaker.success()
    assert breaker.allow(1.0)


def test_nothing_passes_while_open() -> None:
    """For five minutes not one call goes out, and the wait it names is true."""
    breaker = opened()
    for now in range(100, 400):
        assert not breaker.allow(float(now))
        assert breaker.retry_after(float(now)) == 400.0 - now
    assert breaker.retry_after(400.0) == 0.0
    assert breaker.allow(400.0)


def test_half_open_lets_exactly_one_probe_through() -> None:
    """Of a hundred that wait, one goes."""
    breaker = opened()
    assert [breaker.allow(400.0) for _ in range(100)].count(True) == 1
    assert breaker.state(400.0) == HALF_OPEN
    assert 0 < breaker.retry_after(400.0) <= 1.0


def test_the_probes_verdict_decides() -> None:
    """Its success closes; its failure opens for the whole time again."""
    breaker = opened()
    assert breaker.allow(400.0)
    breaker.failure(401.0)
    assert breaker.state(401.0) == OPEN
    assert breaker.retry_after(401.0) == 300.0
    assert breaker.allow(701.0)
    breaker.success()
    assert breaker.state(702.0) == CLOSED
    assert all(breaker.allow(702.0) for _ in range(10))
    for _ in range(4):
        breaker.failure(703.0)
    assert breaker.allow(703.0)


def test_an_abandoned_probe_makes_place_for_the_next() -> None:
    """A client that leaves is no verdict: neither open nor closed, the next call probes."""
    breaker = opened()
    assert breaker.allow(400.0)
    breaker.abandon()
    assert breaker.state(400.0) == HALF_OPEN
    assert breaker.allow(400.1)
    assert not breaker.allow(400.2)


def test_a_lost_probe_frees_its_place() -> None:
    """A probe that never reports back blocks for its bound, not for ever."""
    breaker = opened(probe_seconds=60.0)
    assert breaker.allow(400.0)
    assert not breaker.allow(459.9)
    assert breaker.allow(460.0)


def test_abandoning_while_closed_is_nothing() -> None:
    """Clients that leave never count, for or against."""
    breaker = Breaker(5, 300.0)
    for _ in range(4):
        breaker.failure(1.0)
        breaker.abandon()
    assert breaker.allow(1.0)
    breaker.failure(1.0)
    assert not breaker.allow(1.0)


def test_failures_while_open_prolong_nothing() -> None:
    """Calls that were out already when it opened may fail late: the wait stays as it was told."""
    breaker = opened()
    for now in range(100, 150):
        breaker.failure(float(now))
    assert breaker.retry_after(150.0) == 250.0


def test_verdicts_of_old_calls_are_not_the_probes() -> None:
    """With `started` given, only calls let through after the opening speak for the probe."""
    breaker = opened()
    breaker.success(started=90.0)
    assert breaker.state(101.0) == OPEN
    assert breaker.allow(400.0)
    for verdict in (breaker.success, breaker.abandon):
        verdict(started=90.0)
    breaker.failure(401.0, started=90.0)
    assert breaker.state(401.0) == HALF_OPEN
    assert not breaker.allow(401.0)
    breaker.success(started=400.0)
    assert breaker.state(401.0) == CLOSED


@given(st.lists(st.tuples(st.sampled_from(["allow", "success", "failure", "abandon"]), st.floats(0, 50)), max_size=80))
def test_it_never_locks_for_ever(steps: list[tuple[str, float]]) -> None:
    """Whatever happens in whatever order, after the open time and a probe's bound a call is let through."""
    breaker = Breaker(3, 30.0, probe_seconds=10.0)
    now = 0.0
    for what, seconds in steps:
        now += seconds
        if what == "allow":
            wait = breaker.retry_after(now)
            assert breaker.allow(now) == (wait == 0.0)
        elif what == "success":
            breaker.success()
        elif what == "failure":
            breaker.failure(now)
        else:
            breaker.abandon()
        assert 0.0 <= breaker.retry_after(now) <= 30.001
    assert breaker.allow(now + 41.0)
