"""R15, R19: a hard quota under concurrency, aborts and kills: never more in than fits, never less booked than produced."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Sidecars
from tests.fakes.httpwire import openai_error
from tests.fakes.ledger import Ledger
from tests.fakes.process import Upstream
from tests.fakes.rawclient import AsyncRawClient, chat, request
from tests.fakes.sidecar import CLIENT_KEY, OPS_KEY, Sidecar, config
from tests.reliability.load import call, together

SECRET = "a-secret-for-tests-that-is-long-enough"


def quota_of(sidecar: Sidecar, team: str = "platform") -> dict[str, Any]:
    """Return the team's row of /admin/quotas."""
    reply = sidecar.ask("GET", "/admin/quotas", key=OPS_KEY)
    assert reply.status == 200, reply
    (row,) = [row for row in reply.json()["teams"] if row["team"] == team]
    return dict(row["quota"])


async def exactly_k(sidecar: Sidecar, upstream: Upstream, tag: str, callers: int, limit: int) -> None:
    """Let ``callers`` ask at once for 10,000 tokens each where 37 such holds fit into ``limit``."""
    books = Ledger(sidecar, upstream, tag)
    sampled: list[int] = []

    async def sample() -> None:
        while True:
            quota = await asyncio.to_thread(quota_of, sidecar)
            sampled.append(quota["used_tokens"] + quota["held_tokens"])
            await asyncio.sleep(0.05)

    # The ledger knows the team only after its first call.
    await call(sidecar, f"m;{tag};first", max_tokens=5)
    used = quota_of(sidecar)["used_tokens"]
    sampling = asyncio.create_task(sample())
    replies = await together(
        [lambda: call(sidecar, f"m;{tag};headers=0.7", max_tokens=10_000) for _ in range(callers)], callers
    )
    sampling.cancel()
    statuses = [reply.status for reply in replies]
    assert (statuses.count(200), statuses.count(402)) == (37, callers - 37), statuses
    refused = next(reply for reply in replies if reply.status == 402)
    assert openai_error(refused)["code"] == "token_quota_exceeded"
    assert refused.header("x-should-retry") == "false" and refused.header("x-quota-reset")
    assert sampled and max(sampled) <= limit, "held and booked never exceed the limit"
    rows = books.check(callers + 1, upstream=38)
    booked = sum(sum(row.booked) for row in rows)
    after = quota_of(sidecar)
    assert (after["used_tokens"], after["held_tokens"]) == (booked, 0), (
        "what was held is given back, what was used stays"
    )
    assert booked == used + 37 * (9 + 8)


async def test_exactly_as_many_as_fit(own_sidecar: Callable[..., Sidecar], upstream: Upstream, tag: str) -> None:
    """R15 with 80 callers in one process: exactly 37 of them, at no sampled moment more than the limit."""
    one = own_sidecar(policies=[{"quota": {"tokens": 375_000}}])
    await exactly_k(one, upstream, tag, 80, 375_000)


@pytest.mark.slow
@pytest.mark.alone
async def test_exactly_as_many_as_fit_of_five_hundred(
    own_sidecar: Callable[..., Sidecar], upstream: Upstream, tag: str, tmp_path: Path
) -> None:
    """R15 in full, on SQLite."""
    one = own_sidecar(
        policies=[{"quota": {"tokens": 375_000}}], store=f"sqlite:///{tmp_path}/ledger.db", server={"secret": SECRET}
    )
    await exactly_k(one, upstream, tag, 500, 375_000)


async def test_aborts_are_counted_and_paid(sidecars: Sidecars, upstream: Upstream, tag: str) -> None:
    """With the vocabulary loaded, an aborted stream's tokens are counted, and the quota pays exactly what the log says."""
    counted = sidecars(policies=[{"quota": {"tokens": 10_000_000}}])
    await call(counted, f"m;{tag}warm")
    before = quota_of(counted)["used_tokens"]
    books = Ledger(counted, upstream, f"{tag};")

    async def one(i: int) -> None:
        async with await AsyncRawClient.open(counted.port) as client:
            model = f"m;{tag};chunks=500;interval=0.004;no{i}"
            await client.send(request(body=chat(model, stream=True), key=CLIENT_KEY))
            await client.read_until(b'" 0000%02d"' % random.randrange(10, 60))
            client.reset() if i % 2 else client.close()

    await together([lambda i=i: one(i) for i in range(20)], 20)
    rows = books.check(20, upstream=20, outcome="client_gone", unread=3 * 15)
    assert all(row.line["estimated"] and row.booked[1] >= 3 * 10 for row in rows)
    assert quota_of(counted)["used_tokens"] - before == sum(sum(row.booked) for row in rows)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(600)
async def test_fifty_kills(upstream: Upstream, tag: str, tmp_path: Path) -> None:
    """R19 in full: `kill -9` at 50 random moments under load; in the end the quota is no less than was produced."""
    settings = config(
        upstream.base(), server={"secret": SECRET}, store=f"sqlite:///{tmp_path}/ledger.db",
        policies=[{"quota": {"tokens": 50_000_000}}],
    )  # fmt: skip
    rng = random.Random(19)
    for _ in range(50):
        one = Sidecar(settings)

        async def caller(i: int, port: int) -> None:
            while True:
                try:
                    async with await AsyncRawClient.open(port) as client:
                        body = chat(f"m;{tag};chunks=20;interval=0.01", stream=bool(i % 3), max_tokens=1000)
                        await client.send(request(body=body, key=CLIENT_KEY))
                        await client.reply(timeout=5)
                except (OSError, TimeoutError):
                    return

        callers = [asyncio.create_task(caller(i, one.port)) for i in range(20)]
        await asyncio.sleep(0.05 + rng.random() * 0.6)
        one.kill()
        await asyncio.gather(*callers)
        one.cleanup()
    last = Sidecar(settings)
    try:
        await asyncio.sleep(21)  # a dead sidecar's holds expire 15 s after its last sign of life
        await call(last, f"m;{tag};last", max_tokens=5)
        time.sleep(0.2)
        quota = quota_of(last)
        calls = upstream.calls(tag, bodies=0)
        produced = sum(record["tokens"] + 7 for record in calls if record["status"] == 200)
        assert produced <= quota["used_tokens"] <= 50_000_000, (produced, quota)
        # In full at most: every call's hold is a thousand tokens and its prompt.
        assert quota["used_tokens"] <= len(calls) * 1_100, quota
        assert quota["held_tokens"] == 0, "no hold is stuck"
    finally:
        last.stop()
        last.cleanup()
