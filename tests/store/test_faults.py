"""Redis slow, frozen, killed, emptied: nothing hangs, nothing is lost while the process lives, nothing counts twice."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.store.base import Claim, Hold, StoreUnavailable, UsageRecord
from proxy.store.redis import RedisStore
from proxy.telemetry.metrics import Metrics
from tests.store.conftest import MONTH, hold, quota, rate
from tests.store.servers import RedisServer, valkey_binary

_ids = itertools.count()
Open = Callable[..., Any]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own, with its log of commands on disk."""
    one = RedisServer(valkey_binary(), tmp_path / "redis", aof=True).start()
    yield one
    one.thaw() if one._process is not None else None
    one.kill()


@pytest.fixture
async def opened(server: RedisServer) -> AsyncIterator[Open]:
    stores: list[RedisStore] = []

    async def open_one(**options: Any) -> RedisStore:
        store = RedisStore(server.url, **options)
        await store.start()
        stores.append(store)
        return store

    yield open_one
    for store in stores:
        await store.aclose(0.1)


async def drained(store: RedisStore, seconds: float = 5.0) -> None:
    """Wait until everything queued has been acknowledged."""
    async with asyncio.timeout(seconds):
        while store._outbox:
            await asyncio.sleep(0.005)


async def back(store: RedisStore) -> None:
    """Wait until the store is up again."""
    async with asyncio.timeout(5):
        while store.down:
            await asyncio.sleep(0.01)


def record() -> UsageRecord:
    return UsageRecord(MONTH, "t", "u", "m", "f", "success", 1)


async def test_a_frozen_store_costs_its_deadline_three_times_and_then_nothing(
    opened: Open, server: RedisServer
) -> None:
    """Stopped in its tracks: p99 of the added time ≤ 150 ms, then refusals at once, and back without a restart."""
    metrics = Metrics()
    store = await opened(metrics=metrics)
    before = hold(quota(10, 1_000))
    await store.admit(before)
    server.freeze()
    waits = []
    for _ in range(60):
        start = time.perf_counter()
        one = hold(quota(10, 1_000))
        with pytest.raises(StoreUnavailable):
            await store.admit(one)
        waits.append(time.perf_counter() - start)
        store.settle(one, [0])
        await asyncio.sleep(0.001)
    assert max(waits) <= 0.15
    assert statistics.median(waits) < 0.002
    assert sum(wait > 0.05 for wait in waits) <= 3
    assert store.down
    assert not await store.ping()
    store.settle(before, [4], record())
    async with asyncio.timeout(3):
        while not metrics.store_degraded.values.get((), 0):
            await asyncio.sleep(0.01)
    assert metrics.store_degraded.values[()] <= 1.5
    server.thaw()
    await back(store)
    assert (await store.admit(hold(quota(10, 1_000)))).admitted
    await drained(store)
    (state,) = await store.peek([quota(0, 1_000)])
    assert (state.used, state.held) == (14, 10)


async def test_an_admission_that_timed_out_holds_nothing_once_it_is_released(opened: Open, server: RedisServer) -> None:
    """Its result is unknown: released by its id, whichever of the two reaches the store first."""
    store = await opened()
    server.freeze()
    lost = [hold(quota(10, 1_000)) for _ in range(5)]
    for one in lost:
        with pytest.raises(StoreUnavailable):
            await store.admit(one)
        store.settle(one, [0])
    server.thaw()
    await back(store)
    await drained(store)
    await asyncio.sleep(0.05)
    (state,) = await store.peek([quota(0, 1_000)])
    assert (state.used, state.held) == (0, 0)


async def test_a_release_that_overtakes_its_admission(opened: Open, server: RedisServer) -> None:
    """The admission that arrives after it had been given up takes nothing."""
    store = await opened()
    one = hold(quota(10, 1_000), Claim("slots", "t", "s", 1, 5))
    given_up = Hold(one.id, one.claims, sent=True)
    store.settle(given_up, [0, 0])
    await drained(store)
    with pytest.raises(StoreUnavailable):
        await store.admit(one)
    assert [s.used for s in await store.peek(one.claims)] == [0, 0]


async def test_a_call_that_was_let_in_without_the_store_is_booked_when_it_is_back(
    opened: Open, server: RedisServer
) -> None:
    """`store_down: allow`: what such calls used counts once the store returns, each once."""
    store = await opened()
    await store.admit(hold(quota(10, 1_000)))
    server.freeze()
    for n in range(40):
        one = hold(quota(10, 1_000))
        with pytest.raises(StoreUnavailable):
            await store.admit(one)
        store.settle(one, [n], record())
    server.thaw()
    await back(store)
    await drained(store)
    (state,) = await store.peek([quota(0, 1_000)])
    assert (state.used, state.held) == (10 + sum(range(40)), 10)
    (row,) = await store.usage(MONTH)
    assert row["calls"] == 40


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.slow)])
async def test_a_store_that_is_killed_and_restarted_under_load_loses_and_doubles_nothing(
    opened: Open, server: RedisServer, times: int
) -> None:
    """kill -9 in the middle of calls, a new process on the same log: every settlement counts exactly once."""
    store = await opened()
    dice = random.Random(7)
    spent: list[int] = []
    refused = 0
    stop = asyncio.Event()

    async def caller() -> None:
        nonlocal refused
        while not stop.is_set():
            one = hold(quota(100, 10**9), Claim("slots", "t", "s", 1, 1_000))
            try:
                await store.admit(one)
            except StoreUnavailable:
                refused += 1
                store.settle(one, [0, 0])
                await asyncio.sleep(0.01)
                continue
            await asyncio.sleep(dice.uniform(0, 0.02))
            actual = dice.randrange(150)
            store.settle(one, [actual, 0], record())
            spent.append(actual)

    callers = [asyncio.create_task(caller()) for _ in range(20)]
    for _ in range(times):
        await asyncio.sleep(0.2)
        server.kill()
        await asyncio.sleep(0.2)
        server.start()
        await back(store)
    await asyncio.sleep(0.1)
    stop.set()
    await asyncio.gather(*callers)
    await drained(store)
    state, slots = await store.peek([quota(0, None), Claim("slots", "t", "s", 0, None)])
    (row,) = await store.usage(MONTH)
    assert refused > 0
    assert (state.used, state.held, slots.used) == (sum(spent), 0, 0)
    assert row["calls"] == len(spent)


async def test_an_empty_store_in_its_place(opened: Open, server: RedisServer) -> None:
    """Holds of the lost epoch are booked when they are settled, once; nothing goes below zero; scripts come back."""
    store = await opened()
    holds = [hold(quota(100, 10**6), Claim("slots", "t", "s", 1, 100)) for _ in range(10)]
    for one in holds:
        await store.admit(one)
    server.ask("FLUSHALL")
    server.ask("SCRIPT", "FLUSH")
    for one in holds[:5]:
        store.settle(one, [30, 0])
    await drained(store)
    again = Hold(holds[0].id, holds[0].claims, holds[0].epoch)
    store.settle(again, [30, 0])
    new = hold(quota(100, 10**6))
    assert (await store.admit(new)).admitted
    for one in holds[5:]:
        store.settle(one, [30, 0])
    await drained(store)
    state, slots = await store.peek([quota(0, None), Claim("slots", "t", "s", 0, None)])
    assert (state.used, state.held, slots.used) == (300 + 100, 100, 0)
    assert new.epoch != holds[0].epoch


async def test_a_batch_whose_answer_was_lost_counts_once(opened: Open, server: RedisServer) -> None:
    """The same batch sent again, before or after the first was done, changes nothing."""
    store = await opened()
    one = hold(quota(100, 10**6))
    await store.admit(one)
    sent: list[Any] = []
    send = store._outbox._send

    async def lose(*batch: Any) -> None:
        sent.append(batch)
        await send(*batch)
        if len(sent) == 1:
            raise StoreUnavailable("the answer was lost")

    store._outbox._send = lose
    store.settle(one, [30], record())
    await drained(store)
    assert len(sent) == 2
    assert sent[0] == sent[1]
    (state,) = await store.peek([quota(0, None)])
    (row,) = await store.usage(MONTH)
    assert (state.used, row["calls"]) == (30, 1)


async def test_nobody_gets_anothers_answer(opened: Open, server: RedisServer) -> None:
    """A thousand readers, half of them cancelled at random moments, while the server stalls now and then."""
    store = await opened(deadline=0.5)
    for n in range(50):
        store.remember(f"k{n}", b"canary-%d" % n, 60)
    await drained(store)
    dice = random.Random(3)
    wrong = []

    async def reader(n: int) -> None:
        await asyncio.sleep(dice.uniform(0, 0.2))
        value = await store.recall(f"k{n % 50}")
        if value != b"canary-%d" % (n % 50):
            wrong.append((n, value))

    tasks = [asyncio.create_task(reader(n)) for n in range(1_000)]
    for _ in range(4):
        await asyncio.sleep(0.04)
        server.freeze()
        for task in dice.sample(tasks, 125):
            task.cancel()
        await asyncio.sleep(0.03)
        server.thaw()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert wrong == []
    assert sum(isinstance(one, asyncio.CancelledError) for one in done) > 100
    assert not [one for one in done if isinstance(one, Exception)]


async def test_the_queue_is_bounded(opened: Open, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that were never admitted are sums however many they are; of real holds at most 10,000 wait."""
    import proxy.store.outbox as outbox

    monkeypatch.setattr(outbox, "MAX_WAITING", 20)
    store = await opened()
    real = [hold(quota(1, None)) for _ in range(30)]
    for one in real:
        await store.admit(one)
    server.kill()
    async with asyncio.timeout(5):
        while not store.down:
            await asyncio.sleep(0.01)
    for one in real:
        store.settle(one, [1])
    for _ in range(1_000):
        one = hold(quota(1, None))
        with pytest.raises(StoreUnavailable):
            await store.admit(one)
        store.settle(one, [2], record())
    assert store._outbox.waiting == 20
    assert store._outbox.dropped == 10
    server.start()
    await back(store)
    await drained(store)
    (state,) = await store.peek([quota(0, None)])
    # What was dropped stays held: never less than what was used.
    assert (state.used, state.held) == (20 + 2_000 + 10, 10)


async def test_the_servers_clock_running_backwards_leaks_nothing_and_locks_nobody_out(
    opened: Open, server: RedisServer
) -> None:
    """A meter whose time lies in the future goes on from now; a heartbeat from the future dies in time."""
    store = await opened()
    for _ in range(5):
        await store.admit(hold(rate(5, 1.0)))
    key = f"{store._base('t')}c:rate:r"
    ahead = int((time.time() + 3_600) * 1e6)
    await store._ask("HSET", key, "a", ahead)
    await store._ask("ZADD", f"{store._base('t')}owners", ahead, "somebody")
    verdict = await store.admit(hold(rate(5, 1.0)))
    assert not verdict.admitted
    assert verdict.states[0].wait == pytest.approx(0.2, abs=0.05)
    score = float(await store._ask("ZSCORE", f"{store._base('t')}owners", "somebody"))
    assert score < time.time() * 1e6 + 1e6
    await asyncio.sleep(verdict.states[0].wait)
    assert (await store.admit(hold(rate(5, 1.0)))).admitted


async def test_closing_writes_what_waits(opened: Open, server: RedisServer) -> None:
    """`aclose` drains the queue within its deadline, and gives up after it."""
    store = await opened()
    one = hold(quota(100, 1_000))
    await store.admit(one)
    store.settle(one, [7])
    await store.aclose()
    reader = await opened()
    (state,) = await reader.peek([quota(0, None)])
    assert (state.used, state.held) == (7, 0)
    two = hold(quota(100, 1_000))
    await reader.admit(two)
    server.freeze()
    reader.settle(two, [7])
    start = time.perf_counter()
    await reader.aclose(0.3)
    assert time.perf_counter() - start < 1.0


async def test_a_store_that_is_not_there_at_the_start_is_found_later(tmp_path: Path) -> None:
    """Starting without Redis works: the store is down, says so, and comes up by itself."""
    server = RedisServer(valkey_binary(), tmp_path / "late")
    store = RedisStore(server.url)
    await store.start()
    try:
        assert store.down
        with pytest.raises(StoreUnavailable):
            await store.admit(hold(quota(1, 10)))
        server.start()
        await back(store)
        assert (await store.admit(hold(quota(1, 10)))).admitted
    finally:
        await store.aclose(0.1)
        server.kill()


async def test_every_accounting_key_carries_its_teams_tag(opened: Open, server: RedisServer) -> None:
    """So that a cluster keeps a team together: `{team}` in every key but the list of teams."""
    store = await opened(prefix="p:")
    one = hold(rate(5), quota(10, 100), Claim("slots", "t", "s", 1, 5))
    await store.admit(one)
    store.settle(one, [0, 3, 0], record())
    await drained(store)
    assert {name for name in server.names() if "p:{t}:" not in name} == {"p:teams"}
