"""What accounting costs, in CPU time of this process: the issue's goals, with room for a machine that is busy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from policies.quota import Quota
from policies.rate_limit import RateLimit
from proxy.store.base import Claim, Hold, Store, UsageRecord
from proxy.store.factory import open_store
from tests.fakes.clock import StillClock
from tests.policies import build
from tests.store.conftest import MONTH
from tests.store.servers import RedisServer

pytestmark = pytest.mark.bench
CALLS = 5_000


async def spent(work: Callable[[int], Awaitable[None]], at_once: int) -> float:
    """Return the CPU microseconds of one of CALLS works."""

    async def some(first: int) -> None:
        for n in range(first, CALLS, at_once):
            await work(n)

    began = time.process_time()
    await asyncio.gather(*[some(first) for first in range(at_once)])
    return (time.process_time() - began) / CALLS * 1e6


def one_call(store: Store) -> Callable[[int], Awaitable[None]]:
    async def work(n: int) -> None:
        claims = [Claim("rate", "t", "r", 1, 10**9, 60.0), Claim("quota", "t", "team", 500, 10**12, period=MONTH)]
        hold = Hold(f"h{n}", claims)
        await store.admit(hold)
        store.settle(hold, [0, 100], UsageRecord(MONTH, "t", "u", "m", "f", "completed", 50, 50, 0, 12, 33))

    return work


@pytest.mark.parametrize(
    ("kind", "at_once", "goal"), [("memory", 1, 30), ("memory", 50, 30), ("file", 1, 120), ("file", 50, 30)]
)
async def test_embedded(
    kind: str, at_once: int, goal: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Admission and settlement of rate and quota, the ledger's row included."""
    store = open_store("memory" if kind == "memory" else f"sqlite://{tmp_path}/s.db")
    await store.start()
    cost = await spent(one_call(store), at_once)
    await store.aclose()
    with capsys.disabled():
        print(f"\n{kind}, {at_once} at once: {cost:.1f} µs a call")
    assert cost <= goal


@pytest.mark.parametrize("at_once", [1, 50])
async def test_redis(at_once: int, valkey: RedisServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The same on Redis: one round trip for the admission, settlements in batches."""
    store = open_store(valkey.url, prefix=f"bench{at_once}:", deadline=10.0)
    await store.start()
    cost = await spent(one_call(store), at_once)
    await store.aclose(10.0)
    with capsys.disabled():
        print(f"\nredis, {at_once} at once: {cost:.1f} µs a call")
    assert cost <= (100 if at_once > 1 else 250)


async def test_policies_and_store(capsys: pytest.CaptureFixture[str]) -> None:
    """rate_limit and quota as the core asks them: request, claims, admission, headers, settlement."""
    store = open_store("memory", clock=StillClock())
    await store.start()
    kit = build.kit(store=store, clock=StillClock())
    policies: list[Any] = [
        RateLimit(RateLimit.Config(requests=10**6), kit),  # type: ignore[call-arg]
        Quota(Quota.Config(tokens=10**12), kit),
    ]
    calls = [build.call(text="a question of some length " * 8, max_tokens=500) for _ in range(CALLS)]
    for call in calls[:1]:
        await policies[1].on_request(call)

    async def work(n: int) -> None:
        call = calls[n]
        claims: list[Claim] = []
        parts = []
        for policy in policies:
            await policy.on_request(call)
            own = policy.claims(call)
            parts.append((policy, own))
            claims += own
        hold = Hold(f"h{n}", claims)
        verdict = await store.admit(hold)
        at = 0
        for policy, own in parts:
            policy.admitted(call, own, verdict.states[at : at + len(own)])
            at += len(own)
        store.settle(hold, [0, 100])

    cost = await spent(work, 1)
    await store.aclose()
    with capsys.disabled():
        print(f"\nrate_limit + quota with the store in memory: {cost:.1f} µs a call")
    assert cost <= 40
