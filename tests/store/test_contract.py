"""What every store promises, run against each kind of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.store.base import ClaimState, Store, UsageRecord
from tests.store.conftest import MONTH, OpenStore, hold, money, pause, quota, rate, slots, tokens


async def state(store: Store, claim: Any) -> ClaimState:
    """Return a claim's counter once what was queued has arrived."""
    await settled(store)
    return (await store.peek([claim]))[0]


async def settled(store: Store) -> None:
    """Wait until the store's queue is empty."""
    outbox = getattr(store, "_outbox", None)
    while outbox:
        await asyncio.sleep(0.002)


def record(team: str = "t", **fields: Any) -> UsageRecord:
    return UsageRecord(MONTH, team, fields.pop("user", "u"), "m", "f", fields.pop("status", "success"), **fields)


async def test_exactly_as_many_calls_enter_as_there_is_room_for(store: Store) -> None:
    """500 concurrent admissions against room for 37 admit exactly 37, and the refused ones take nothing."""
    verdicts = await asyncio.gather(*[store.admit(hold(rate(1000), quota(27, 1_000))) for _ in range(500)])
    assert sum(v.admitted for v in verdicts) == 37
    assert {v.refused for v in verdicts if not v.admitted} == {1}
    assert (await state(store, quota(0, 1_000))).used == 37 * 27
    assert (await state(store, rate(1000))).used == 37


async def test_all_or_nothing(store: Store) -> None:
    """A refused claim leaves every other claim of its hold as it was, earlier and later ones alike."""
    await store.admit(hold(slots(1)))
    claims = [rate(10), tokens(5, 100), quota(5, 100), slots(1), money(5, 100)]
    verdict = await store.admit(hold(*claims))
    assert not verdict.admitted
    assert verdict.refused == 3
    assert [s.used for s in verdict.states] == [0, 0, 0, 1, 0]
    assert [s.refused for s in verdict.states] == [False, False, False, True, False]
    assert [s.used for s in await store.peek(claims)] == [0, 0, 0, 1, 0]


async def test_settling_books_the_truth_and_gives_back_the_rest(store: Store) -> None:
    """After settlement quota and money stand at the actual amounts, slots are free, requests stay taken."""
    one = hold(rate(10), tokens(50, 100), slots(3), quota(500, 1_000), money(900, 1_000))
    assert (await store.admit(one)).admitted
    held = [await state(store, claim) for claim in one.claims]
    assert [(s.used, s.held) for s in held] == [(1, 0), (50, 50), (1, 1), (500, 500), (900, 900)]
    store.settle(one, [0, 20, 0, 120, 77])
    left = [await state(store, claim) for claim in one.claims]
    assert [(s.used, s.held) for s in left] == [(1, 0), (20, 0), (0, 0), (120, 0), (77, 0)]


async def test_settling_twice_counts_once(store: Store) -> None:
    """A settlement is known by its hold's id: a second one, by the same object or another, changes nothing."""
    one = hold(quota(500, 1_000), slots(5))
    await store.admit(one)
    again = hold(*one.claims, id=one.id)
    again.epoch = one.epoch
    store.settle(one, [100, 0])
    store.settle(one, [100, 0])
    await settled(store)
    store.settle(again, [100, 0])
    assert (await state(store, one.claims[0])).used == 100
    assert (await state(store, one.claims[1])).used == 0


async def test_a_hold_of_a_store_that_is_no_more_is_booked_once(store: Store) -> None:
    """A hold from another epoch, or of an admission whose result is unknown: the truth counts, and counts once."""
    for n, epoch in enumerate(("another", "")):
        for _ in range(3):
            one = hold(quota(500, 1_000, key=f"q{n}"), rate(5), slots(5), id=f"lost{n}")
            one.epoch, one.sent = epoch, True
            store.settle(one, [70, 0, 0])
        assert (await state(store, quota(0, 1_000, key=f"q{n}"))).used == 70
    assert (await state(store, slots(5))).used == 0


async def test_an_actual_above_the_hold_is_booked_in_full(store: Store) -> None:
    """The truth counts even where it exceeds hold and limit; the next call is refused."""
    one = hold(quota(10, 100), tokens(10, 100))
    await store.admit(one)
    store.settle(one, [5_000, 5_000])
    assert (await state(store, quota(0, 100))).used == 5_000
    verdict = await store.admit(hold(quota(1, 100)))
    assert not verdict.admitted
    assert verdict.states[0].remaining == 0


async def test_a_negative_actual_counts_as_zero(store: Store) -> None:
    """No counter ever falls below zero, whatever an upstream claims."""
    one = hold(quota(10, 100), tokens(10, 100))
    await store.admit(one)
    store.settle(one, [-5, -5])
    assert [s.used for s in [await state(store, claim) for claim in one.claims]] == [0, 0]


async def test_a_refused_call_settles_to_nothing(store: Store) -> None:
    """Settling a hold that was refused records the call and books nothing."""
    await store.admit(hold(quota(100, 100)))
    refused = hold(quota(1, 100))
    assert not (await store.admit(refused)).admitted
    store.settle(refused, [50], record(status="refused"))
    assert (await state(store, quota(0, 100))).used == 100
    assert (await store.usage(MONTH))[0]["refused"] == 1


async def test_no_limit_only_counts(store: Store) -> None:
    """A claim without a limit is always taken and settled."""
    one = hold(quota(10**9, None), money(10**12, None), slots(None))
    assert (await store.admit(one)).admitted
    store.settle(one, [7, 10**11, 0])
    assert [(await state(store, claim)).used for claim in one.claims] == [7, 10**11, 0]


async def test_a_shadow_claim_reports_and_never_refuses(store: Store) -> None:
    """`enforce` off: decided, told, not taken where it would refuse; settled where it was taken."""
    first = hold(quota(60, 100, enforce=False), rate(5))
    second = hold(quota(60, 100, enforce=False), rate(5))
    one, two = await store.admit(first), await store.admit(second)
    assert (one.admitted, one.states[0].refused) == (True, False)
    assert (two.admitted, two.states[0].refused, two.refused) == (True, True, -1)
    assert two.states[0].used == 60
    store.settle(second, [999, 0])
    store.settle(first, [30, 0])
    assert (await state(store, quota(0, 100))).used == 30
    assert (await state(store, rate(5))).used == 2


async def test_two_claims_on_one_counter_are_both_taken(store: Store) -> None:
    """Claims of one hold see each other: two of 60 do not fit into 100."""
    assert not (await store.admit(hold(quota(60, 100), quota(60, 100)))).admitted
    both = hold(quota(40, 100), quota(40, 100))
    assert (await store.admit(both)).admitted
    assert (await state(store, quota(0, 100))).used == 80
    store.settle(both, [10, 20])
    assert (await state(store, quota(0, 100))).used == 30


async def test_a_throttle_applies_only_above_its_mark(store: Store) -> None:
    """A rate claim with `above` is not taken while less is booked, holds aside, and refuses once it is."""

    def call() -> Any:
        return hold(money(10, None), rate(1, 3600.0, key="throttle", above=100))

    first = call()
    assert all([(await store.admit(call())).admitted for _ in range(20)])
    await store.admit(first)
    assert (await state(store, rate(1, 3600.0, key="throttle"))).used == 0
    store.settle(first, [100, 0])
    await settled(store)
    assert (await store.admit(call())).admitted
    verdict = await store.admit(call())
    assert not verdict.admitted
    assert verdict.refused == 1
    assert verdict.states[1].wait == pytest.approx(3600, abs=2)


async def test_a_meter_refuses_for_exactly_as_long_as_it_says(store: Store) -> None:
    """After `wait` an identical lone request is admitted, a little earlier it is not."""
    for _ in range(5):
        assert (await store.admit(hold(rate(5, 1.0)))).admitted
    wait = (await store.admit(hold(rate(5, 1.0)))).states[0].wait
    assert 0.0 < wait <= 0.2
    await pause(store, wait)
    assert (await store.admit(hold(rate(5, 1.0)))).admitted
    again = (await store.admit(hold(rate(5, 1.0)))).states[0].wait
    assert 0.1 < again <= 0.2 + 1e-6


async def test_tokens_of_running_calls_do_not_leak(store: Store) -> None:
    """What is held counts in full until the end; giving it back cannot make room that was used meanwhile."""
    one = hold(tokens(100, 100, 0.2))
    assert (await store.admit(one)).admitted
    await pause(store, 0.25)
    assert not (await store.admit(hold(tokens(1, 100, 0.2)))).admitted
    store.settle(one, [100])
    await settled(store)
    assert not (await store.admit(hold(tokens(90, 100, 0.2)))).admitted
    await pause(store, 0.2)
    assert (await store.admit(hold(tokens(90, 100, 0.2)))).admitted


async def test_more_than_a_limit_can_ever_hold_is_refused(store: Store) -> None:
    """A claim above its limit is refused with a wait, and a limit of zero refuses everything."""
    for claim in (tokens(101, 100), rate(0), slots(0), quota(101, 100), tokens(1, 0)):
        verdict = await store.admit(hold(claim))
        assert not verdict.admitted
        assert verdict.states[0].wait > 0


async def test_each_period_and_team_counts_for_itself(store: Store) -> None:
    """A call that began in one month is settled there after the next has begun; teams never share."""
    old = hold(quota(50, 100, period="2026-10"))
    await store.admit(old)
    assert (await store.admit(hold(quota(100, 100, period="2026-11")))).admitted
    assert (await store.admit(hold(quota(100, 100, team="other:{x}")))).admitted
    store.settle(old, [30])
    assert (await state(store, quota(0, 100, period="2026-10"))).used == 30
    assert (await state(store, quota(0, 100, period="2026-11"))).used == 100
    assert (await state(store, quota(0, 100, team="other:{x}"))).used == 100


async def test_the_ledger_sums_by_month_team_user_model_and_feature(store: Store) -> None:
    """Calls add up in their row, with tokens, money, latency, ends and cache results."""
    store.record(record(prompt=10, completion=5, cost=30, duration=120, cached=4, cache="miss"))
    one = hold(quota(5, 100))
    await store.admit(one)
    store.settle(one, [3], record(prompt=2, completion=1, cost=5, duration=30, status="client_closed"))
    store.record(record(cache="hit"))
    store.record(record(team="other", user="ü:{}\n", status="refused"))
    await settled(store)
    rows = sorted(await store.usage(MONTH), key=lambda row: row["team"])
    assert [row["team"] for row in rows] == ["other", "t"]
    assert rows[0]["user"] == "ü:{}\n"
    assert rows[0]["refused"] == 1
    assert rows[1] == {
        "month": MONTH, "team": "t", "user": "u", "model": "m", "feature": "f", "calls": 3, "success": 2, "refused": 0,
        "error": 0, "client_closed": 1, "prompt": 12, "completion": 6, "cached": 4, "cost": 35, "duration": 150,
        "tokens_completed": 15, "hits": 1, "misses": 1,
    }  # fmt: skip
    assert [row["team"] for row in await store.usage(MONTH, "t")] == ["t"]
    assert await store.usage("2026-10") == []


async def test_users_can_be_hashed_in_the_ledger(opened: OpenStore) -> None:
    """With `hash_users` no name reaches the ledger, and one user stays one row."""
    store = await opened(hash_users=True, secret=lambda purpose: purpose.encode().ljust(32, b"."))
    store.record(record(user="ann@example.com"))
    store.record(record(user="ann@example.com"))
    await settled(store)
    (row,) = await store.usage(MONTH)
    assert row["calls"] == 2
    assert len(row["user"]) == 16
    assert "ann" not in row["user"]


async def test_cache_entries_expire(store: Store) -> None:
    """An entry is there until its time is over, bytes untouched, and then it is not."""
    blob = bytes(range(256)) * 40
    store.remember("k", blob, 0.2)
    store.remember("gone", b"x", 0.01)
    await settled(store)
    assert await store.recall("k") == blob
    assert await store.recall("nothing") is None
    await pause(store, 0.21)
    assert await store.recall("k") is None
    assert await store.recall("gone") is None


async def test_a_flush_raises_a_generation(store: Store) -> None:
    """`forget` changes the number of its name alone, at once for the sidecar that did it."""
    assert list(await store.generation(["a", "b"])) == [0, 0]
    assert await store.forget("a") == 1
    assert await store.forget("a") == 2
    assert list(await store.generation(["a", "b"])) == [2, 0]


async def test_once_is_true_for_one(store: Store) -> None:
    """Of many that ask at the same time one is told True, until the time is over."""
    assert sum(await asyncio.gather(*[store.once("alert", 0.1) for _ in range(50)])) == 1
    assert await store.once("another", 60.0)
    await pause(store, 0.11)
    assert await store.once("alert", 0.1)


async def test_a_store_that_answers_says_so(store: Store) -> None:
    """`ping` is True and `down` False while everything is well."""
    assert await store.ping()
    assert store.down is False
