"""Signals: drain, grace, second signal, reload (R18, R19)."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.server.harness import Raw, on_uvloop, request, serving


class Child:
    """A server process under test."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def raw(self) -> Raw:
        return Raw(*await asyncio.open_connection("127.0.0.1", self.port))

    async def said(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 10)
        assert line, "the child said nothing more"
        found: dict[str, Any] = json.loads(line)
        return found

    def signal(self, number: int) -> float:
        self.process.send_signal(number)
        return time.monotonic()

    async def wait(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 20)


@asynccontextmanager
async def child(**options: Any) -> AsyncIterator[Child]:
    """Start a server process; end it whatever happens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.server.child", json.dumps(options), stdout=asyncio.subprocess.PIPE
    )
    try:
        running = Child(process, 0)
        running.port = int((await running.said())["urls"][0].rpartition(":")[2])
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def stream(client: Raw, count: int, interval: float) -> None:
    """Start a stream and see its first event."""
    await client.send(request("/stream", json.dumps({"count": count, "interval": interval}).encode()))
    await client.reader.readuntil(b"data: 0")


@on_uvloop
async def test_sigterm_drains_then_ends_what_is_late_and_exits_with_0() -> None:
    """Accept during the delay, then refuse; calls that end within the grace end whole, others get an error frame."""
    async with child(drain_delay=0.5, shutdown_grace=1.0) as server:
        short, long, kept = [await server.raw() for _ in range(3)]
        await stream(short, 60, 0.02)  # 1.2 s: ends within delay + grace
        await stream(long, 100_000, 0.01)
        assert (await kept.ask(request("/echo", b"{}"))).status == 200
        began = server.signal(signal.SIGTERM)
        assert await server.said() == {"draining": True}
        assert time.monotonic() - began < 0.1
        while time.monotonic() - began < 0.4:
            async with await server.raw() as fresh:
                reply = await fresh.ask(request("/echo", b"{}"))
                assert (reply.status, reply.headers["connection"]) == (200, "close")
                assert await fresh.closed() == b""
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        with pytest.raises(ConnectionError):
            await server.raw()
        assert await kept.closed() == b""  # idle: closed with the listeners
        whole = await short.closed()
        assert whole.endswith(b"data: 59\n\n\r\n0\r\n\r\n")
        late = await long.closed()
        assert late.endswith(b'data: {"error":{"code":"shutdown"}}\n\n\r\n0\r\n\r\n')
        told = await server.said()
        assert told["closed"] is True
        assert told["reasons"] == [None, "shutdown"]
        assert await server.wait() == 0
        assert 1.4 < time.monotonic() - began < 0.5 + 1.0 + 1.0
        for client in (short, long, kept):
            client.writer.transport.abort()


@on_uvloop
async def test_sigint_skips_the_delay_and_an_idle_server_exits_at_once() -> None:
    """Ctrl-C on a server without calls takes no time."""
    async with child(drain_delay=20, shutdown_grace=20) as server:
        began = server.signal(signal.SIGINT)
        assert await server.wait() == 0
        assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@on_uvloop
async def test_a_second_signal_ends_at_once(second: int, code: int) -> None:
    """The second signal ends the process within a second, running calls or not, even while the loop is blocked."""
    for path in ("/hang", "/block"):
        async with child(drain_delay=20, shutdown_grace=20) as server, await server.raw() as client:
            await client.send(request(path, b"{}"))
            if path == "/block":
                await server.said()
            else:
                await asyncio.sleep(0.05)
            server.signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
            began = server.signal(second)
            assert await server.wait() == code
            assert time.monotonic() - began < 1.0


@on_uvloop
async def test_sighup_reloads_and_disturbs_nobody() -> None:
    """SIGHUP calls back each time, and running streams go on."""
    async with child(drain_delay=0) as server, await server.raw() as client:
        await stream(client, 40, 0.01)
        for _ in range(3):
            server.signal(signal.SIGHUP)
            assert await server.said() == {"reload": True}
        await client.reader.readuntil(b"data: 39\n\n\r\n0\r\n\r\n")


@on_uvloop
async def test_a_late_request_on_a_kept_connection_is_served_and_closed() -> None:
    """While draining, a kept connection still gets its reply, with connection: close."""
    async with serving(drain_delay=0.4) as site, await site.raw() as client:
        await client.ask(request("/echo", b"{}"))
        site.server.stop()
        reply = await client.ask(request("/echo", b"{}"))
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert await client.closed() == b""


@on_uvloop
async def test_a_call_without_a_handle_is_cancelled_and_answered_at_the_end_of_the_grace() -> None:
    """A request whose call was never set, still waiting for its body, gets 503 instead of silence."""
    async with serving(shutdown_grace=0.2) as site, await site.raw() as client:
        await client.send(request("/echo", b"x" * 100)[:-1])
        await site.until(lambda: site.app.seen)
        site.server.stop(delay=False)
        (await client.response()).check_error(503, "overloaded")


@pytest.mark.slow
@pytest.mark.alone
@on_uvloop
async def test_500_streams_are_drained_without_losing_one() -> None:
    """Of 500 streams all that can end in time do, whole; the others are told."""
    async with child(drain_delay=1, shutdown_grace=4) as server:
        clients = [await server.raw() for _ in range(500)]
        for number, client in enumerate(clients):
            await stream(client, 20 if number % 5 else 10_000, 0.1)
        began = server.signal(signal.SIGTERM)
        ends = await asyncio.gather(*(client.closed(15) for client in clients))
        for number, end in enumerate(ends):
            assert end.endswith(b"0\r\n\r\n")
            assert (b"shutdown" in end) == (number % 5 == 0)
        assert await server.wait() == 0
        assert time.monotonic() - began < 6
        for client in clients:
            client.writer.transport.abort()
