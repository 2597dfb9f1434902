"""Sidecars that compete and sidecars that die: what their holds leave behind."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from proxy.store.base import Claim, Hold
from proxy.store.factory import open_store
from proxy.store.redis import RedisStore
from tests.store.conftest import MONTH, hold, quota
from tests.store.servers import RedisServer

ROOT = Path(__file__).parents[2]


def spawn(*arguments: Any) -> subprocess.Popen[str]:
    """Start a worker."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.store.worker", *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def tell(worker: subprocess.Popen[str], text: str = "go\n") -> None:
    assert worker.stdin is not None
    worker.stdin.write(text)
    worker.stdin.flush()


def hear(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def end(worker: subprocess.Popen[str]) -> list[str]:
    """Kill a worker; return the lines that it wrote meanwhile."""
    worker.kill()
    assert worker.stdout is not None
    assert worker.stdin is not None
    lines = worker.stdout.read().splitlines()
    worker.stdin.close()
    worker.stdout.close()
    worker.wait()
    return lines


def test_two_processes_admit_together_what_there_is_room_for(valkey: RedisServer) -> None:
    """Two sidecars with 250 concurrent calls each against room for 37 let in exactly 37."""
    workers = [spawn("enter", valkey.url, "two:", 250, 27, 1_000) for _ in range(2)]
    try:
        assert [hear(worker) for worker in workers] == ["ready", "ready"]
        for worker in workers:
            tell(worker)
        assert sum(int(hear(worker)) for worker in workers) == 37
    finally:
        for worker in workers:
            end(worker)


def told(lines: list[str]) -> tuple[set[str], set[str], dict[str, int]]:
    """Return what a killed worker tried to begin, had begun, and had ended with what actual amount."""
    tried, begun, ended = set(), set(), {}
    for line in lines:
        what, *rest = line.split()
        if what == "try":
            tried.add(rest[0])
        elif what == "in":
            begun.add(rest[0])
        elif what == "out" and len(rest) == 2:
            ended[rest[0]] = int(rest[1])
    return tried, begun, ended


AMOUNT = 1_000
SEEDS = [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 10))]


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_file_survives_its_process(tmp_path: Path, seed: int) -> None:
    """After kill -9 at a random moment the file holds every acknowledged call: its actual amount, or all of it."""
    url = f"sqlite://{tmp_path}/store.db"
    worker = spawn("live", url, "-", 100_000, AMOUNT, seed)
    assert hear(worker).startswith("try")
    await asyncio.sleep(random.Random(seed).uniform(0.05, 0.5))
    lines = ["try first", *end(worker)]
    _, begun, ended = told(lines)
    store = open_store(url)
    await store.start()
    try:
        (state,) = await store.peek([quota(0, None, key="team")])
        rows = await store.usage(MONTH)
    finally:
        await store.aclose()
    calls = sum(row["calls"] for row in rows)
    prompt = sum(row["prompt"] for row in rows)
    # The ledger tells which calls are settled: exactly these, in order of their ends, are booked with their truth.
    order = list(ended.items())
    assert prompt == sum(actual for _, actual in order[:calls])
    inside = len(begun) - calls
    assert state.held == 0
    assert state.used - prompt in (AMOUNT * inside, AMOUNT * (inside + 1)), (
        "Σ actual of ended + Σ holds of dead, exactly"
    )
    assert calls >= len(ended) - 200


async def bury(store: RedisStore, server: RedisServer) -> None:
    """Let every other owner's heartbeat be older than it may be."""
    owners = f"{store._base('t')}owners"
    for owner in await store._ask("ZRANGE", owners, 0, -1):
        await store._ask("ZADD", owners, "XX", int((time.time() - 16) * 1e6), owner)
    await store.admit(Hold("probe", [Claim("rate", "t", "probe", 1, 10**6, 1.0)]))


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_killed_sidecars_holds_are_booked_in_full(valkey: RedisServer, seed: int) -> None:
    """On Redis: Σ actual of ended calls + Σ holds of the dead sidecar's, exactly, and no slot is left taken."""
    prefix = f"killed{seed}:"
    worker = spawn("live", valkey.url, prefix, 100_000, AMOUNT, seed)
    assert hear(worker).startswith("try")
    await asyncio.sleep(random.Random(seed).uniform(0.05, 0.4))
    lines = ["try first", *end(worker)]
    _, begun, ended = told(lines)
    store = open_store(valkey.url, prefix=prefix, deadline=5.0)
    assert isinstance(store, RedisStore)
    await store.start()
    try:
        await bury(store, valkey)
        state, slots = await store.peek([quota(0, None, key="team"), Claim("slots", "t", "s", 0, None)])
        rows = await store.usage(MONTH)
        keys = {key for key in valkey.names() if key.startswith(prefix)}
    finally:
        await store.aclose()
    calls = sum(row["calls"] for row in rows)
    prompt = sum(row["prompt"] for row in rows)
    assert prompt == sum(actual for _, actual in list(ended.items())[:calls])
    assert (state.held, slots.used) == (0, 0)
    inside = len(begun) - calls
    assert state.used - prompt in (AMOUNT * inside, AMOUNT * (inside + 1))
    assert not any(":holds:" in key for key in keys)


async def test_a_live_sidecar_is_not_buried(valkey: RedisServer) -> None:
    """A heartbeat keeps holds alive: what is old but beats is left alone."""
    one = open_store(valkey.url, prefix="beat:", deadline=5.0)
    two = open_store(valkey.url, prefix="beat:", deadline=5.0)
    assert isinstance(one, RedisStore)
    await one.start()
    await two.start()
    try:
        await one.admit(hold(quota(10, 100)))
        owners = f"{one._base('t')}owners"
        await one._ask("ZADD", owners, "XX", int((time.time() - 14) * 1e6), one.owner)
        await one._link.run(one._beat, owners, one._base("t"), one.owner)
        (_, score) = await one._ask("ZRANGE", owners, 0, -1, "WITHSCORES")
        assert time.time() * 1e6 - float(score) < 5e6
        await two.admit(hold(quota(10, 100)))
        (state,) = await two.peek([quota(0, 100)])
        assert (state.used, state.held) == (20, 20)
    finally:
        await one.aclose()
        await two.aclose()


@pytest.mark.slow
async def test_a_long_call_outlives_the_time_of_death(valkey: RedisServer) -> None:
    """In real time: a call of 20 s keeps its hold, and a process that was killed loses its own within that time."""
    worker = spawn("enter", valkey.url, "long:", 1, 300, 1_000)
    assert hear(worker) == "ready"
    tell(worker)
    assert hear(worker) == "1"
    end(worker)
    one, two = (open_store(valkey.url, prefix="long:", deadline=5.0) for _ in range(2))
    await one.start()
    await two.start()
    try:
        running = hold(quota(100, 1_000, key="team"))
        await one.admit(running)
        (state,) = await two.peek([quota(0, 1_000, key="team")])
        assert (state.used, state.held) == (400, 400)
        await asyncio.sleep(20)
        await two.admit(hold(quota(1, 1_000, key="team")))
        (state,) = await two.peek([quota(0, 1_000, key="team")])
        assert (state.used, state.held) == (401, 101)
    finally:
        await one.aclose()
        await two.aclose()


async def test_a_sidecar_that_was_thought_dead_corrects_what_was_booked(valkey: RedisServer) -> None:
    """Booked in full after 15 s of silence, corrected by the settlement that still comes."""
    one = open_store(valkey.url, prefix="late:", deadline=5.0)
    two = open_store(valkey.url, prefix="late:", deadline=5.0)
    assert isinstance(one, RedisStore)
    assert isinstance(two, RedisStore)
    await one.start()
    await two.start()
    try:
        late = hold(quota(400, 1_000))
        await one.admit(late)
        await bury(two, valkey)
        (state,) = await two.peek([quota(0, 1_000)])
        assert (state.used, state.held) == (400, 0)
        one.settle(late, [30])
        while one._outbox:
            await asyncio.sleep(0.001)
        (state,) = await two.peek([quota(0, 1_000)])
        assert (state.used, state.held) == (30, 0)
    finally:
        await one.aclose()
        await two.aclose()


async def test_a_second_sidecar_on_one_file_is_refused(tmp_path: Path) -> None:
    """Starting on a file in use fails with a sentence that names Redis; once it is free it can be had."""
    url = f"sqlite://{tmp_path}/store.db"
    one, two = open_store(url), open_store(url)
    await one.start()
    with pytest.raises(OSError, match=r"in use by another sidecar.*Redis"):
        await two.start()
    await one.aclose()
    await two.start()
    await two.aclose()
