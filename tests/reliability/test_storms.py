"""R22, R23: an upstream that only fails, and callers beyond the cap: no storm, no queue, a true retry-after."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.conftest import Sidecars
from tests.fakes.httpwire import openai_error, stream
from tests.fakes.ledger import Ledger
from tests.fakes.process import Upstream
from tests.fakes.rawclient import AsyncRawClient, chat, request
from tests.fakes.sidecar import CLIENT_KEY, Sidecar
from tests.reliability.load import Strain, call, percentile


async def storm(eager: Sidecar, upstream: Upstream, tag: str, provider: str, rate: float, seconds: float) -> None:
    """An upstream that answers 503 to everything, at ``rate`` calls a second."""
    total = int(rate * seconds)
    ledger = Ledger(eager, upstream, tag)
    began = time.monotonic()
    tasks = []
    for i in range(total):
        tasks.append(asyncio.create_task(call(eager, f"{provider}/m;{tag};status=503;no{i}", stream=bool(i % 2))))
        await asyncio.sleep(max(0.0, began + i / rate - time.monotonic()))
    replies = await asyncio.gather(*tasks)
    took = time.monotonic() - began
    assert {(reply.status, openai_error(reply)["code"]) for reply in replies} == {(502, "upstream_error")}
    attempts = len(upstream.calls(tag, bodies=0))
    assert total < attempts <= 1.2 * total + 3 * (took / 10 + 1), (total, attempts)
    joined = ledger.check(total, upstream=attempts, outcome="upstream_error")
    assert sum(1 + row.line["retries"] for row in joined) == attempts


async def test_retries_do_not_make_a_storm(eager: Sidecar, upstream: Upstream, tag: str) -> None:
    """R22 at 100 calls/s: retries stay within 20 % of the calls plus 3 per 10 s."""
    await storm(eager, upstream, tag, "r2", 100, 1.0)


@pytest.mark.slow
@pytest.mark.alone
async def test_retries_do_not_make_a_storm_at_200(eager: Sidecar, upstream: Upstream, tag: str) -> None:
    """R22 in full: 200 calls/s for 30 s."""
    await storm(eager, upstream, tag, "r5", 200, 30)


async def test_retry_after_is_honoured(eager: Sidecar, upstream: Upstream, strain: Strain, tag: str) -> None:
    """A retry waits as long as the upstream asked, in any spelling; longer than the cap, it is left to the caller."""
    for spec, wait in (("afterms=300", 0.3), ("reset=250ms", 0.25)):
        reply = await call(eager, f"r3/m;{tag};status=429;{spec};fails=1")
        assert reply.status == 200
        first, second = upstream.calls(f"{tag};status=429;{spec}")
        assert wait - 0.02 <= second["started"] - first["ended"] <= wait + 0.3 + strain.slack, spec
    reply = await call(eager, f"r3/m;{tag};status=429;after=60")
    assert (reply.status, reply.header("retry-after")) == (429, "60")
    assert len(upstream.calls(f"{tag};status=429;after=60")) == 1


async def test_nothing_is_retried_after_the_first_byte(eager: Sidecar, upstream: Upstream, tag: str) -> None:
    """Once content has gone to the client, an error is an error frame, never a second attempt."""
    for spec in ("error=1", "cut=rst@chunk1", "bad=json@1", "omit=finish+done"):
        reply = await call(eager, f"r4/m;{tag};{spec}", stream=True)
        assert len(stream(reply.body).errors) == 1
        assert len(upstream.calls(f"{tag};{spec}")) == 1, spec


async def overload(one: Sidecar, upstream: Upstream, strain: Strain, tag: str, cap: int, seconds: float) -> None:
    """Five times as many callers as the cap allows, each calling again and again."""
    skip = len(one.calls())
    ledger = Ledger(one, upstream, tag)
    work = "headers=0.1"

    async def pace(callers: int, seconds: float) -> tuple[list[float], list[float]]:
        admitted: list[float] = []
        refused: list[float] = []
        until = time.monotonic() + seconds

        async def caller() -> None:
            client = await AsyncRawClient.open(one.port)
            data = request(body=chat(f"m;{tag};{work}"), key=CLIENT_KEY)
            while time.monotonic() < until:
                began = time.monotonic()
                try:
                    reply = await client.ask(data)
                except ConnectionError:
                    client.close()
                    client = await AsyncRawClient.open(one.port)
                    continue
                took = time.monotonic() - began
                if reply.status == 200:
                    admitted.append(took)
                else:
                    assert (reply.status, openai_error(reply)["code"], reply.header("retry-after")) == (
                        503,
                        "overloaded",
                        "1",
                    )
                    refused.append(took)
                    await asyncio.sleep(0.05)
                if reply.header("connection") == "close":
                    client.close()
                    client = await AsyncRawClient.open(one.port)
            client.close()

        await asyncio.gather(*(caller() for _ in range(callers)))
        return admitted, refused

    calm, none = await pace(cap // 2, min(1.0, seconds / 2))
    assert not none
    admitted, refused = await pace(5 * cap, seconds)
    assert len(admitted) >= cap * seconds / 0.1 * 0.3 and len(refused) > len(admitted) / 2
    assert percentile(refused, 0.9) <= 0.02 + strain.slack, (percentile(refused, 0.5), percentile(refused, 0.99))
    # A percentile needs a crowd: p99 of the full size, p90 of the reduced one.
    share = 0.99 if len(admitted) > 1000 else 0.9
    assert percentile(admitted, share) <= 2 * percentile(calm, share) + strain.slack
    await asyncio.sleep(0.2)
    again, none = await pace(cap // 2, min(1.0, seconds / 2))
    assert not none and percentile(again, 0.5) <= 1.5 * percentile(calm, 0.5) + strain.slack
    assert one.metrics().sum("llm_in_flight") == 0
    limit = time.monotonic() + 5
    while (
        len(lines := one.calls()[skip:]) < len(calm) + len(admitted) + len(refused) + len(again)
        and time.monotonic() < limit
    ):
        await asyncio.sleep(0.05)
    assert len(lines) == len(calm) + len(admitted) + len(refused) + len(again), "one line each, refusals included"
    served = len(calm) + len(admitted) + len(again)
    ledger.check(served, upstream=served, outcome="completed")


async def test_overload(capped: Sidecar, upstream: Upstream, strain: Strain, tag: str) -> None:
    """R23 for a moment: the excess gets 503 at once, those admitted are served as usual, then all is normal."""
    await overload(capped, upstream, strain, tag, 10, 0.6)


@pytest.mark.slow
@pytest.mark.alone
async def test_overload_for_half_a_minute(sidecars: Sidecars, upstream: Upstream, strain: Strain, tag: str) -> None:
    """R23 in full."""
    await overload(sidecars(server={"max_in_flight": 40}), upstream, strain, tag, 40, 30.0)
