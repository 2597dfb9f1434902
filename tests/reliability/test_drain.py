"""R18, R19: ending the process: what can end in time does, the rest is told and settled, nothing hangs."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

import pytest

from tests.fakes.httpwire import Reply, openai_error, stream
from tests.fakes.process import Upstream
from tests.fakes.rawclient import AsyncRawClient, chat, request
from tests.fakes.sidecar import CLIENT_KEY, Sidecar
from tests.reliability.load import call, percentile

Start = Callable[..., Sidecar]


async def drain(own_sidecar: Start, upstream: Upstream, tag: str, streams: int, delay: float, grace: float) -> None:
    """SIGTERM with ``streams`` open, two thirds of which can end within the grace."""
    one = own_sidecar(server={"drain_delay": f"{delay}s", "shutdown_grace": f"{grace}s"})
    late = streams // 3
    steps = int((delay + grace) * 0.5 / 0.05)
    short = [f"m;{tag};chunks={steps};interval=0.05;short{i}" for i in range(streams - late)]
    long = [f"m;{tag};chunks=100000;interval=0.05;long{i}" for i in range(late)]
    tasks = [asyncio.create_task(call(one, name, stream=True)) for name in short + long]
    idle = await AsyncRawClient.open(one.port)
    limit = time.monotonic() + 20
    while len(upstream.calls(tag, bodies=0)) < streams:
        assert time.monotonic() < limit
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)

    began = time.monotonic()
    one.signal(signal.SIGTERM)
    unready: float | None = None
    refused: list[float] = []
    served = 0
    while (now := time.monotonic() - began) < delay - 0.1:
        try:
            async with await AsyncRawClient.open(one.port) as probe:
                reply = await probe.ask(request("/readyz", method="GET"))
                if reply.status == 503 and unready is None:
                    unready = time.monotonic() - began
                assert unready is None or reply.json()["reasons"] == ["draining"]
            assert (await call(one, f"m;{tag}during;chunks=1")).status == 200
            served += 1
        except ConnectionError:
            refused.append(now)
        await asyncio.sleep(0.02)
    assert not refused, f"connects refused during the drain delay: {refused}"
    assert served > 2 and unready is not None and unready <= 0.1 + 0.05, unready
    replies: list[Reply] = await asyncio.gather(*tasks)
    idle.close()
    code = await asyncio.to_thread(one.wait, delay + grace + 5)
    took = time.monotonic() - began
    assert code == 0 and took <= delay + grace + 1.0 + 0.3, (code, took)
    for reply in replies[: len(short)]:
        seen = stream(reply.body)
        assert (seen.numbers, seen.done, seen.errors) == ([*range(1, steps + 1)], 1, []), "cut though it ended in time"
    for reply in replies[len(short) :]:
        seen = stream(reply.body)
        assert reply.complete and not seen.done
        assert [error["code"] for error in seen.errors] == ["overloaded"] and seen.after_end == 0
    ends = {line["model"]: line for line in one.calls() if f"{tag};" in line["model"]}
    assert len(ends) == streams
    assert {ends[name]["outcome"] for name in short} == {"completed"}
    for name in long:
        line = ends[name]
        assert line["outcome"] == "shutdown" and line["estimated"] and line["completion_tokens"] > 0 and line["prompt_tokens"] > 0
    gone = [c["gone"] for c in upstream.calls(f"{tag};chunks=100000") if c["end"] == "gone"]
    assert len(gone) == late, "the upstream's streams are closed too"


async def test_draining(own_sidecar: Start, upstream: Upstream, tag: str) -> None:
    """R18 with 30 streams: unready at once, no connect refused in the delay, none dropped, late ones told, exit 0."""
    await drain(own_sidecar, upstream, tag, 30, 0.5, 0.7)


@pytest.mark.slow
async def test_draining_five_hundred(own_sidecar: Start, upstream: Upstream, tag: str) -> None:
    """R18 in full."""
    await drain(own_sidecar, upstream, tag, 500, 3.0, 6.0)


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)])
async def test_a_second_signal_ends_at_once(
    own_sidecar: Start, upstream: Upstream, tag: str, first: signal.Signals, second: signal.Signals
) -> None:
    """R19: exit within a second of the second signal, streams or not."""
    one = own_sidecar(server={"drain_delay": "10s", "shutdown_grace": "20s"})
    task = asyncio.create_task(call(one, f"m;{tag};chunks=10000;interval=0.05", stream=True))
    await asyncio.sleep(0.3)
    one.signal(first)
    await asyncio.sleep(0.3)
    assert one.running
    began = time.monotonic()
    one.signal(second)
    one.codes = {128 + second}
    await asyncio.to_thread(one.wait, 5)
    assert time.monotonic() - began <= 1.0
    reply = await task
    assert reply.status == 200 and not stream(reply.body).done
    assert [line["outcome"] for line in one.calls()] in (["shutdown"], []), "settled, or left to the next start"


async def test_sigint_skips_the_delay(own_sidecar: Start, tag: str) -> None:
    """SIGINT without calls: gone at once, exit 0."""
    one = own_sidecar(server={"drain_delay": "10s"})
    await call(one, f"m;{tag}")
    began = time.monotonic()
    one.signal(signal.SIGINT)
    assert await asyncio.to_thread(one.wait, 5) == 0
    assert time.monotonic() - began <= 1.0


async def test_keep_alive_connections_are_told_to_close(own_sidecar: Start, tag: str) -> None:
    """While draining every reply says `connection: close`, so that clients move on."""
    one = own_sidecar(server={"drain_delay": "600ms", "shutdown_grace": "1s"})
    async with await AsyncRawClient.open(one.port) as client:
        data = request(body=chat(f"m;{tag}"), key=CLIENT_KEY)
        assert (await client.ask(data)).header("connection") is None
        one.signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        reply = await client.ask(data)
        assert (reply.status, reply.header("connection")) == (200, "close")
        assert await client.closed_within(1) is not None
    assert await asyncio.to_thread(one.wait, 5) == 0


# --- R22, R23 ---------------------------------------------------------------------------------------------


async def storm(own_sidecar: Start, upstream: Upstream, tag: str, rate: float, seconds: float) -> None:
    """An upstream that answers 503 to everything, at ``rate`` calls a second."""
    one = own_sidecar(providers={"openai": {"max_retries": 3, "breaker": {"failures": 1_000_000}}})
    total = int(rate * seconds)
    began = time.monotonic()
    tasks = []
    for i in range(total):
        tasks.append(asyncio.create_task(call(one, f"m;{tag};status=503;no{i}", stream=bool(i % 2))))
        await asyncio.sleep(max(0.0, began + i / rate - time.monotonic()))
    replies = await asyncio.gather(*tasks)
    took = time.monotonic() - began
    assert {(reply.status, openai_error(reply)["code"]) for reply in replies} == {(502, "upstream_error")}
    attempts = len(upstream.calls(tag, bodies=0))
    assert total < attempts <= 1.2 * total + 3 * (took / 10 + 1), (total, attempts)
    lines = one.wait_calls(total)
    assert sum(1 + line["retries"] for line in lines) == attempts


async def test_retries_do_not_make_a_storm(own_sidecar: Start, upstream: Upstream, tag: str) -> None:
    """R22 at 100 calls/s: retries stay within 20 % of the calls plus 3 per 10 s."""
    await storm(own_sidecar, upstream, tag, 100, 1.0)


@pytest.mark.slow
async def test_retries_do_not_make_a_storm_at_200(own_sidecar: Start, upstream: Upstream, tag: str) -> None:
    """R22 in full: 200 calls/s for 30 s."""
    await storm(own_sidecar, upstream, tag, 200, 30)


async def test_retry_after_is_honoured(own_sidecar: Start, upstream: Upstream, tag: str) -> None:
    """A retry waits as long as the upstream asked, in any spelling; longer than the cap, it is left to the caller."""
    one = own_sidecar(providers={"openai": {"max_retries": 1, "breaker": {"failures": 1_000_000}}})
    for spec, wait in (("afterms=300", 0.3), ("reset=250ms", 0.25)):
        reply = await call(one, f"m;{tag};status=429;{spec};fails=1")
        assert reply.status == 200
        first, second = upstream.calls(f"{tag};status=429;{spec}")
        assert wait - 0.02 <= second["started"] - first["ended"] <= wait + 0.3, spec
    reply = await call(one, f"m;{tag};status=429;after=60")
    assert (reply.status, reply.header("retry-after")) == (429, "60")
    assert len(upstream.calls(f"{tag};status=429;after=60")) == 1


async def test_nothing_is_retried_after_the_first_byte(own_sidecar: Start, upstream: Upstream, tag: str) -> None:
    """Once content has gone to the client, an error is an error frame, never a second attempt."""
    one = own_sidecar(providers={"openai": {"max_retries": 3, "breaker": {"failures": 1_000_000}}})
    for spec in ("error=1", "cut=rst@chunk1", "bad=json@1", "omit=finish+done"):
        reply = await call(one, f"m;{tag};{spec}", stream=True)
        assert len(stream(reply.body).errors) == 1
        assert len(upstream.calls(f"{tag};{spec}")) == 1, spec


async def overload(own_sidecar: Start, upstream: Upstream, tag: str, cap: int, seconds: float) -> None:
    """Five times as many callers as the cap allows, each calling again and again."""
    one = own_sidecar(server={"max_in_flight": cap})
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
                    assert (reply.status, openai_error(reply)["code"], reply.header("retry-after")) == (503, "overloaded", "1")
                    refused.append(took)
                    await asyncio.sleep(0.05)
                if reply.header("connection") == "close":
                    client.close()
                    client = await AsyncRawClient.open(one.port)
            client.close()

        await asyncio.gather(*(caller() for _ in range(callers)))
        return admitted, refused

    calm, none = await pace(cap // 2, min(1.0, seconds))
    assert not none
    admitted, refused = await pace(5 * cap, seconds)
    assert len(admitted) >= cap * seconds / 0.1 * 0.5 and len(refused) > len(admitted) / 2
    assert percentile(refused, 0.9) <= 0.02 + 0.03, (percentile(refused, 0.5), percentile(refused, 0.99))
    assert percentile(admitted, 0.99) <= 2 * percentile(calm, 0.99) + 0.05
    await asyncio.sleep(0.5)
    again, none = await pace(cap // 2, min(1.0, seconds))
    assert not none and percentile(again, 0.5) <= 1.5 * percentile(calm, 0.5)
    assert one.metrics().sum("llm_in_flight") == 0
    limit = time.monotonic() + 5
    while len(lines := one.calls()) < len(calm) + len(admitted) + len(refused) + len(again) and time.monotonic() < limit:
        await asyncio.sleep(0.05)
    assert len(lines) == len(calm) + len(admitted) + len(refused) + len(again), "one line each, refusals included"


async def test_overload(own_sidecar: Start, upstream: Upstream, tag: str) -> None:
    """R23 for a second: the excess gets 503 at once, those admitted are served as usual, then all is normal."""
    await overload(own_sidecar, upstream, tag, 10, 0.6)


@pytest.mark.slow
async def test_overload_for_half_a_minute(own_sidecar: Start, upstream: Upstream, tag: str) -> None:
    """R23 in full."""
    await overload(own_sidecar, upstream, tag, 40, 30.0)
