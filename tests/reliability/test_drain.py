"""R18, R19: ending the process: what can end in time does, the rest is told and settled, nothing hangs."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

import pytest

from tests.fakes.httpwire import Reply, stream
from tests.fakes.process import Upstream
from tests.fakes.rawclient import AsyncRawClient, chat, request
from tests.fakes.sidecar import CLIENT_KEY, Sidecar
from tests.reliability.load import Strain, call

Start = Callable[..., Sidecar]


async def drain(
    own_sidecar: Start, upstream: Upstream, strain: Strain, tag: str, streams: int, delay: float, grace: float
) -> None:
    """SIGTERM with ``streams`` open, two thirds of which can end within the grace."""
    # 2,000 chunks a second at most: this process shares the cores with those that it watches.
    interval = max(0.05, streams / 2_000)
    one = own_sidecar(server={"drain_delay": f"{delay}s", "shutdown_grace": f"{grace}s"})
    late = streams // 3
    steps = int((delay + grace) * 0.4 / interval)
    short = [f"m;{tag};chunks={steps};interval={interval};short{i}" for i in range(streams - late)]
    long = [f"m;{tag};chunks=100000;interval={interval};long{i}" for i in range(late)]
    tasks = [asyncio.create_task(call(one, name, stream=True)) for name in short + long]
    idle = await AsyncRawClient.open(one.port)
    begun = await asyncio.to_thread(upstream.wait_calls, tag, streams, timeout=20, ended=False)
    assert len(begun) == streams, [(line["status"], line["code"]) for line in one.calls()][:20]
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
    assert served and unready is not None and unready <= 0.1 + 0.02 + strain.slack, unready
    replies: list[Reply] = await asyncio.gather(*tasks)
    idle.close()
    code = await asyncio.to_thread(one.wait, delay + grace + 5)
    took = time.monotonic() - began
    assert code == 0 and took <= delay + grace + 1.0 + strain.slack, (code, took)
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
        assert (
            line["outcome"] == "shutdown"
            and line["estimated"]
            and line["completion_tokens"] > 0
            and line["prompt_tokens"] > 0
        )
    gone = [c["gone"] for c in upstream.calls(f"{tag};chunks=100000") if c["end"] == "gone"]
    assert len(gone) == late, "the upstream's streams are closed too"


async def test_draining(own_sidecar: Start, upstream: Upstream, strain: Strain, tag: str) -> None:
    """R18 with 30 streams: unready at once, no connect refused in the delay, none dropped, late ones told, exit 0."""
    await drain(own_sidecar, upstream, strain, tag, 30, 0.5, 0.7)


@pytest.mark.slow
@pytest.mark.alone
async def test_draining_five_hundred(own_sidecar: Start, upstream: Upstream, strain: Strain, tag: str) -> None:
    """R18 in full."""
    await drain(own_sidecar, upstream, strain, tag, 500, 3.0, 6.0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGTERM, signal.SIGTERM),
        pytest.param(signal.SIGINT, signal.SIGINT, marks=pytest.mark.slow),
    ],
)
async def test_a_second_signal_ends_at_once(
    own_sidecar: Start, upstream: Upstream, strain: Strain, tag: str, first: signal.Signals, second: signal.Signals
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
    assert time.monotonic() - began <= 1.0 + strain.slack
    reply = await task
    assert reply.status == 200 and not stream(reply.body).done
    assert [line["outcome"] for line in one.calls()] in (["shutdown"], []), "settled, or left to the next start"


async def test_sigint_skips_the_delay(own_sidecar: Start, strain: Strain, tag: str) -> None:
    """SIGINT without calls: gone at once, exit 0."""
    one = own_sidecar(server={"drain_delay": "10s"})
    await call(one, f"m;{tag}")
    began = time.monotonic()
    one.signal(signal.SIGINT)
    assert await asyncio.to_thread(one.wait, 5) == 0
    assert time.monotonic() - began <= 1.0 + strain.slack


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
