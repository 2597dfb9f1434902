"""Slow and silent clients are cut at their deadline (R10)."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.server.harness import on_uvloop, request, serving


@on_uvloop
async def test_slow_headers_get_408_at_the_deadline_and_others_are_served_meanwhile() -> None:
    """One header byte at a time buys no time: 408 and close at receive_timeout, while good calls go on."""
    async with serving(receive_timeout=0.5) as site:

        async def loris() -> float:
            began = time.monotonic()
            async with await site.raw() as client:
                for byte in request("/echo", b"{}"):
                    client.writer.write(bytes([byte]))
                    if client.reader.at_eof() or client.reader._buffer:  # type: ignore[attr-defined]
                        break
                    await asyncio.sleep(0.05)
                (await client.response()).check_error(408, "request_timeout")
                assert await client.closed() == b""
            return time.monotonic() - began

        slow = [asyncio.ensure_future(loris()) for _ in range(30)]
        worst = 0.0
        while not all(task.done() for task in slow):
            began = time.monotonic()
            await site.probe()
            worst = max(worst, time.monotonic() - began)
            await asyncio.sleep(0.02)
        for task in slow:
            assert 0.45 <= task.result() < 1.5
        assert worst < 0.5
        assert len(site.app.seen) == sum(1 for _ in site.app.seen)
        assert all(path == "/echo" for _, path in site.app.seen)


@on_uvloop
async def test_slow_bodies_get_408_once_behind_the_minimum_rate() -> None:
    """A body below min_rate is refused after receive_timeout, however steadily it trickles; one above it is served."""
    async with serving(receive_timeout=0.3, min_rate=1000) as site:
        async with await site.raw() as client:
            await client.send(request("/echo", b"x" * 5000)[:-5000])
            began = time.monotonic()
            while not client.reader._buffer:  # type: ignore[attr-defined]
                client.writer.write(b"x")
                await asyncio.sleep(0.02)
                assert time.monotonic() - began < 2
            (await client.response()).check_error(408, "request_timeout")
            assert 0.25 < time.monotonic() - began < 1.0
        async with await site.raw() as client:
            await client.send(request("/echo", b"x" * 3000)[:-3000])
            began = time.monotonic()
            for _ in range(15):  # 0.75 s, longer than receive_timeout, at 4,000 bytes/s
                client.writer.write(b"x" * 200)
                await asyncio.sleep(0.05)
            assert time.monotonic() - began > 0.6
            assert (await client.response()).status == 200


@on_uvloop
async def test_a_body_that_never_begins_gets_408() -> None:
    """Silence behind the headers is cut at receive_timeout too."""
    async with serving(receive_timeout=0.3) as site, await site.raw() as client:
        began = time.monotonic()
        await client.send(request("/echo", b"x")[:-1])
        (await client.response()).check_error(408, "request_timeout")
        assert 0.25 < time.monotonic() - began < 1.0


@on_uvloop
async def test_time_the_application_takes_is_not_the_clients() -> None:
    """The body's clock runs only while somebody waits for the body."""
    async with serving(receive_timeout=0.2) as site, await site.raw() as client:
        raw = request("/slowauth", b"x" * 100)
        await client.send(raw[:-50])
        await asyncio.sleep(0.35)
        await client.send(raw[-50:])
        assert (await client.response()).status == 200


@on_uvloop
async def test_idle_connections_are_closed_without_a_word() -> None:
    """A connection that never says anything ends at receive_timeout, one between requests at keep_alive_timeout."""
    async with serving(receive_timeout=0.4, keep_alive_timeout=0.2) as site:
        async with await site.raw() as client:
            began = time.monotonic()
            assert await client.closed() == b""
            assert 0.3 < time.monotonic() - began < 1.0
        async with await site.raw() as client:
            await client.ask(request("/echo", b"{}"))
            began = time.monotonic()
            assert await client.closed() == b""
            assert 0.15 < time.monotonic() - began < 0.8
        assert site.hub.refused == {}


@on_uvloop
async def test_the_next_requests_headers_have_their_full_time() -> None:
    """On a kept connection the header deadline runs from the request's first byte."""
    async with serving(receive_timeout=0.3, keep_alive_timeout=5) as site, await site.raw() as client:
        await client.ask(request("/echo", b"{}"))
        await asyncio.sleep(0.5)
        began = time.monotonic()
        await client.send(b"POST /echo")
        (await client.response()).check_error(408, "request_timeout")
        assert 0.25 < time.monotonic() - began < 0.8


@on_uvloop
async def test_a_running_call_has_no_deadline_of_the_servers() -> None:
    """A call that takes longer than every receive deadline is let alone."""
    async with serving(receive_timeout=0.2, keep_alive_timeout=0.2) as site, await site.raw() as client:
        assert (await client.ask(request("/hang", b'{"seconds": 0.6}'))).status == 200


@pytest.mark.slow
@pytest.mark.alone
@on_uvloop
async def test_slow_loris_at_full_size() -> None:
    """500 slow headers, 500 slow bodies and 500 idle connects all end by their deadline plus one second."""
    async with serving(receive_timeout=5.0) as site:

        async def slow(kind: int) -> float:
            async with await site.raw() as client:
                began = time.monotonic()
                raw = request("/echo", b"x" * 100_000)
                if kind == 1:
                    await client.send(raw[:-100_000])
                    raw = raw[-100_000:]
                at = 0
                while kind < 2 and not client.reader._buffer and not client.reader.at_eof():  # type: ignore[attr-defined]
                    client.writer.write(raw[at : at + 1])
                    at += 1
                    await asyncio.sleep(1)
                await client.closed(10)
                return time.monotonic() - began

        tasks = [asyncio.ensure_future(slow(number % 3)) for number in range(1500)]
        latencies = []
        while not all(task.done() for task in tasks):
            began = time.monotonic()
            await site.probe()
            latencies.append(time.monotonic() - began)
            await asyncio.sleep(0.05)
        assert max(task.result() for task in tasks) < 7.1  # one byte a second looks once a second
        assert sorted(latencies)[int(len(latencies) * 0.9)] < 0.2
