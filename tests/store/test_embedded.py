"""What only the embedded store has: its clocks, its file, its bounds."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from proxy.store.base import Claim, StoreUnavailable, UsageRecord
from proxy.store.embedded import EmbeddedStore
from proxy.store.entries import Entries
from proxy.telemetry.metrics import Metrics
from tests.fakes.clock import StillClock
from tests.store.conftest import MONTH, hold, quota, rate, slots, tokens

Open = Callable[..., Awaitable[EmbeddedStore]]


@pytest.fixture(params=["memory", "file"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    stores: list[EmbeddedStore] = []

    async def open_one(clock: StillClock | None = None, **more: Any) -> EmbeddedStore:
        store = EmbeddedStore(None if request.param == "memory" else str(tmp_path / "s.db"), clock=clock, **more)
        await store.start()
        stores.append(store)
        return store

    yield open_one
    for store in stores:
        await store.aclose()


async def test_wall_clock_jumps_do_not_move_a_rate(opened: Open) -> None:
    """An hour forward or back: nobody is let in early, nobody is locked out."""
    clock = StillClock()
    store = await opened(clock)
    for _ in range(10):
        assert (await store.admit(hold(rate(10, 60.0)))).admitted
    for jump in (3_600, -7_200, 3_600):
        clock.wall += jump
        verdict = await store.admit(hold(rate(10, 60.0)))
        assert not verdict.admitted
        assert verdict.states[0].wait == pytest.approx(6.0)
    clock.advance(6.0)
    assert (await store.admit(hold(rate(10, 60.0)))).admitted
    assert not (await store.admit(hold(rate(10, 60.0)))).admitted


async def test_a_meter_never_lets_in_more_than_its_limit_and_its_leak(opened: Open) -> None:
    """Over any stretch of time: at most limit + limit/window per second, and nearly as much for those who wait."""
    clock = StillClock()
    store = await opened(clock)
    entered = 0
    for _ in range(2_000):
        entered += (await store.admit(hold(rate(7, 3.0)))).admitted
        clock.advance(0.01)
    assert entered == 7 + int(2_000 * 0.01 * 7 / 3.0)


async def test_waiting_exactly_as_long_as_told_is_enough(opened: Open) -> None:
    """For odd limits and windows too, where nothing is exact in binary."""
    clock = StillClock()
    store = await opened(clock)
    for n, (limit, window) in enumerate([(7, 60.0), (3, 1.0), (1, 0.7), (333, 86_400.0), (100, 60.0)]):
        claims = [rate(limit, window, key=f"r{n}"), tokens(1, limit, window, key=f"t{n}")]
        for claim in claims:
            for _ in range(limit):
                one = hold(claim)
                assert (await store.admit(one)).admitted
                store.settle(one, [1])
            for _ in range(20):
                refused = (await store.admit(hold(claim))).states[0]
                assert refused.wait > 0
                clock.advance(refused.wait)
                one = hold(claim)
                assert (await store.admit(one)).admitted
                store.settle(one, [1])


async def test_the_month_ends_for_new_calls_alone(opened: Open) -> None:
    """What is told of the reset, and what a full month's team may do a second later."""
    clock = StillClock(datetime(2026, 11, 30, 23, 59, 58, tzinfo=UTC).timestamp())
    store = await opened(clock)
    assert (await store.admit(hold(quota(100, 100)))).admitted
    refused = (await store.admit(hold(quota(1, 100)))).states[0]
    assert (refused.wait, refused.reset) == (2.0, 2.0)
    clock.advance(2)
    assert (await store.admit(hold(quota(100, 100, period="2026-12")))).admitted


async def test_idle_counters_and_ended_periods_are_forgotten(opened: Open) -> None:
    """A counter per user does not stay for ever; a running call's does."""
    clock = StillClock()
    store = await opened(clock)
    for n in range(50):
        await store.admit(hold(rate(5, 60.0, key=f"u{n}"), quota(1, 10, key=f"u{n}"), slots(1, key=f"s{n}")))
    running = hold(quota(1, 10, key="late", period="2026-09"))
    await store.admit(running)
    ended = hold(quota(1, 10, key="old", period="2026-09"))
    await store.admit(ended)
    store.settle(ended, [1])
    clock.advance(61)
    await store.sweep()
    kinds = [key[0] for key in store._book.counters]
    assert kinds.count("rate") == 0
    assert kinds.count("quota") == 51
    assert kinds.count("slots") == 50
    assert ("quota", "t", "late", "2026-09") in store._book.counters


async def test_old_months_leave_the_ledger(opened: Open) -> None:
    """`usage.keep`: thirteen months by default, older ones are deleted."""
    clock = StillClock()
    store = await opened(clock, keep_months=2)
    for month in ("2026-08", "2026-09", "2026-10", MONTH):
        store.record(UsageRecord(month, "t", "u", "m", "f", "success"))
    await store.usage(MONTH)
    await store.sweep()
    assert [len(await store.usage(month)) for month in ("2026-08", "2026-09", "2026-10", MONTH)] == [0, 1, 1, 1]


async def test_expired_entries_are_really_gone(opened: Open, tmp_path: Path) -> None:
    """After a sweep neither the map nor the file holds an expired entry's bytes."""
    clock = StillClock()
    store = await opened(clock)
    store.remember("k", b"CANARY-answer" * 50, 10)
    store.remember("stay", b"STAYING" * 50, 1_000)
    await store.usage(MONTH)
    clock.advance(11)
    await store.sweep()
    assert await store.recall("k") is None
    assert await store.recall("stay") is not None
    if store.path is None:
        assert len(store._entries) == 1
        return
    # While the sidecar runs: the file itself and what SQLite keeps beside it.
    held = {
        part: Path(f"{store.path}{part}").read_bytes() for part in ("", "-wal") if Path(f"{store.path}{part}").exists()
    }
    assert [part for part, text in held.items() if b"CANARY" in text] == []
    assert b"STAYING" in b"".join(held.values())


async def test_the_cache_is_bounded(opened: Open) -> None:
    """Items and bytes: the least recent go first."""
    store = await opened(StillClock())
    store.bound_cache(3, 100)
    for n in range(5):
        store.remember(f"k{n}", b"x" * 10, 60)
    await store.usage(MONTH)
    await store.sweep()
    left = [n for n in range(5) if await store.recall(f"k{n}") is not None]
    assert len(left) == 3
    store.remember("big", b"x" * 90, 60)
    await store.usage(MONTH)
    await store.sweep()
    left = [n for n in range(5) if await store.recall(f"k{n}") is not None]
    assert len(left) <= 1


async def test_what_was_read_stays_longest(opened: Open) -> None:
    """Above the bounds the least recently used entry goes first, in memory and in the file."""
    clock = StillClock()
    store = await opened(clock)
    store.bound_cache(3, 1000)
    for n in range(3):
        store.remember(f"k{n}", b"x", 600)
        await store.usage(MONTH)
        clock.advance(1)
    assert await store.recall("k0") == b"x"
    clock.advance(1)
    store.remember("k3", b"x", 600)
    await store.sweep()
    assert [n for n in range(4) if await store.recall(f"k{n}") is not None] == [0, 2, 3]


def test_the_least_recently_used_entry_goes_first() -> None:
    """Reading keeps an entry; one larger than everything is not kept."""
    entries = Entries(max_items=2, max_bytes=10)
    entries.put("a", b"1", 9.0)
    entries.put("b", b"2", 9.0)
    assert entries.get("a", 0.0) == b"1"
    entries.put("c", b"3", 9.0)
    assert [entries.get(key, 0.0) for key in "abc"] == [b"1", None, b"3"]
    entries.put("d", b"x" * 11, 9.0)
    assert entries.get("d", 0.0) is None
    entries.put("a", b"12345", 9.0)
    entries.put("e", b"123456", 9.0)
    assert (len(entries), entries.bytes) == (1, 6)


async def reopen(path: Path, clock: StillClock) -> EmbeddedStore:
    store = EmbeddedStore(str(path), clock=clock)
    await store.start()
    return store


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """Rates go on where they were, sums and ledger stay, open holds are booked, a once stays once."""
    clock = StillClock()
    path = tmp_path / "s.db"
    store = await reopen(path, clock)
    ended, open_ = hold(quota(50, 1_000), tokens(30, 100)), hold(quota(200, 1_000), tokens(40, 100), slots(2))
    for _ in range(4):
        await store.admit(hold(rate(5, 100.0)))
    await store.admit(ended)
    await store.usage(MONTH)  # what is in the log goes into the tables
    store.settle(ended, [20, 10], UsageRecord(MONTH, "t", "u", "m", "f", "success", 20))
    await store.admit(open_)
    assert await store.once("alert", 500)
    assert await store.forget("name") == 1
    store.remember("k", b"v", 500)
    await store.aclose()
    clock.mono = 5.0  # another process has another monotonic clock
    clock.wall += 20
    store = await reopen(path, clock)
    try:
        claims = [quota(0, 1_000), tokens(0, 100), slots(2), rate(5, 100.0)]
        states = await store.peek(claims)
        assert [(s.used, s.held) for s in states] == [(220, 0), (50, 0), (0, 0), (3, 0)]
        assert not await store.once("alert", 500)
        assert list(await store.generation(["name"])) == [1]
        assert await store.recall("k") == b"v"
        assert (await store.usage(MONTH))[0]["prompt"] == 20
        store.settle(open_, [30, 5, 0])
        states = await store.peek(claims)
        assert [(s.used, s.held) for s in states] == [(50, 0), (50, 0), (0, 0), (3, 0)]
    finally:
        await store.aclose()


async def test_a_clock_that_ran_backwards_over_a_restart_leaks_nothing(tmp_path: Path) -> None:
    """A file from the future is no reason to let anybody in, nor to lock anybody out."""
    clock = StillClock()
    store = await reopen(tmp_path / "s.db", clock)
    for _ in range(5):
        await store.admit(hold(rate(5, 10.0)))
    await store.aclose()
    clock.wall -= 3_600
    store = await reopen(tmp_path / "s.db", clock)
    try:
        verdict = await store.admit(hold(rate(5, 10.0)))
        assert not verdict.admitted
        assert verdict.states[0].wait == pytest.approx(2.0)
    finally:
        await store.aclose()


async def test_a_file_that_cannot_be_written_refuses_and_takes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: StoreUnavailable, nothing held; what was settled meanwhile is written once there is room."""
    metrics = Metrics()
    store = EmbeddedStore(str(tmp_path / "s.db"), metrics=metrics)
    await store.start()
    try:
        before = hold(quota(10, 100))
        await store.admit(before)
        assert store._keeper is not None
        journal = store._keeper.journal
        (pages,) = journal.rows("pragma page_count")[0]
        journal.change(f"pragma max_page_count = {pages}")
        held = 0
        with pytest.raises(StoreUnavailable):
            for n in range(500):
                await store.admit(hold(quota(1, None, key="x" * 200 + str(n))))
                held += 1
        assert store.down
        assert not await store.ping()
        store.settle(before, [4])
        journal.change("pragma max_page_count = 1000000")
        assert (await store.admit(hold(quota(10, 100)))).admitted
        assert not store.down
        (state,) = await store.peek([quota(0, 100)])
        assert (state.used, state.held) == (14, 10)
        assert len(store._book.holds) == held + 1
    finally:
        await store.aclose()


async def test_what_the_file_cannot_hold_refuses_its_call_and_never_hangs(tmp_path: Path) -> None:
    """A value that the journal cannot write is StoreUnavailable at once, as a full disk is."""
    store = EmbeddedStore(str(tmp_path / "s.db"))
    await store.start()
    entering = store.admit(hold(quota(1, 10), rate(1, key="\ud800")))
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(entering, 1)
    assert store._book.holds == {}
    await store.aclose()


async def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    """Mode 0600, whatever the umask."""
    old = os.umask(0)
    try:
        store = await reopen(tmp_path / "s.db", StillClock())
        await store.aclose()
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "s.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("sql", ["", "pragma user_version = 99", "create table theirs (x)"])
async def test_a_file_of_something_else_is_refused(tmp_path: Path, sql: str) -> None:
    """A text, a store of another version, another's database: a sentence, and the file stays as it was."""
    path = tmp_path / "s.db"
    if sql:
        with sqlite3.connect(path) as db:
            db.execute(sql)
        db.close()
    else:
        path.write_bytes(b"this is no database, but a text that somebody wrote" * 100)
    before = path.read_bytes()
    store = EmbeddedStore(str(path))
    with pytest.raises(OSError, match=r"another version|cannot be used as a store"):
        await store.start()
    assert path.read_bytes() == before


def test_an_unlimited_claim_needs_no_window() -> None:
    """Claims without limits have no meter to leak."""
    from proxy.store.book import Book

    book = Book("e")
    for _ in range(3):
        assert book.admit(
            hold(Claim("rate", "t", "k", 1, None, 0.0), Claim("tokens", "t", "k", 5, None, 0.0)), 0.0, 0.0
        ).admitted
    book.sweep(1_000.0, 1_000.0)
    assert [key[0] for key in book.counters] == ["tokens"]
