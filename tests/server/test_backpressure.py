"""Slow readers slow the call down, readers that stopped are cut, and neither costs memory (R9)."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from tests.server.harness import on_uvloop, request, serving

ENDLESS = request("/endless", b'{"pad": 8000}')


@on_uvloop
async def test_a_client_that_does_not_read_stops_the_call_not_the_memory() -> None:
    """The application is paused at 64 KiB of our memory, and goes on when the client reads."""
    async with serving() as site, await site.raw(receive_buffer=4096) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(ENDLESS)
        wire = None
        await site.until(lambda: any(cycle.paused for cycle in site.hub.running))
        await asyncio.sleep(0.1)
        written = site.app.written
        wire = next(iter(site.hub.running))
        assert wire.connection.transport.get_write_buffer_size() <= 64 * 1024 + 8200
        kernel = wire.connection.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert kernel <= 256 * 1024
        assert written < 1_000_000
        await asyncio.sleep(0.1)
        assert site.app.written == written
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await site.until(lambda: site.app.written > written + 500_000, 5)


@on_uvloop
async def test_a_client_that_reads_nothing_is_cut_at_the_write_deadline() -> None:
    """A stalled reader ends its call with gone, and its memory is given back at once."""
    async with serving(write_timeout=0.4) as site, await site.raw(receive_buffer=4096) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        loop = asyncio.get_running_loop()
        await client.send(ENDLESS)
        await site.until(lambda: any(cycle.paused for cycle in site.hub.running))
        began = loop.time()
        await site.until(lambda: site.app.calls[0].reason)
        assert site.app.calls[0].reason == "gone"
        assert 0.3 < loop.time() - began < 1.0
        await site.until(lambda: not site.hub.connections and not site.hub.running)


@on_uvloop
async def test_a_stalled_reader_that_closes_its_half_ends_its_call_at_once() -> None:
    """Half-close is gone even while our own half is stuck behind unsent bytes."""
    async with serving() as site, await site.raw(receive_buffer=4096) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(ENDLESS)
        await site.until(lambda: any(cycle.paused for cycle in site.hub.running))
        client.writer.write_eof()
        await site.until(lambda: site.app.calls[0].reason, 0.3)
        await site.until(lambda: not site.hub.connections, 0.3)


@on_uvloop
async def test_a_slow_reader_is_never_cut() -> None:
    """Whoever takes anything within the write deadline may go on, however slowly."""
    async with serving(write_timeout=0.2) as site:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", site.port))
        await loop.sock_sendall(sock, ENDLESS)
        await site.until(lambda: any(cycle.paused for cycle in site.hub.running))
        end = loop.time() + 0.8
        while loop.time() < end:
            await loop.sock_recv(sock, 2048)
            await asyncio.sleep(0.05)
        assert site.app.calls[0].reason is None
        sock.close()
        await site.until(lambda: site.app.calls[0].reason)


@on_uvloop
async def test_a_whole_reply_larger_than_every_buffer_arrives() -> None:
    """A 20 MB reply in one write reaches a client that reads it bit by bit, and the connection serves on."""
    async with serving() as site, await site.raw(receive_buffer=65536) as client:
        reply = await client.ask(request("/big", b"20000000"))
        assert len(reply.body) == 20_000_000
        assert (await client.ask(request("/echo", b"{}"))).status == 200


@on_uvloop
async def test_requests_wait_until_the_last_reply_was_taken() -> None:
    """A client that pipelines without reading gets one reply's worth of memory, not one per request."""
    async with serving(write_timeout=5) as site, await site.raw(receive_buffer=4096) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(request("/big", b"1000000"))
        await site.until(lambda: site.app.ended)
        for _ in range(9):
            await client.send(request("/big", b"1000000"))
            await asyncio.sleep(0.005)
        assert len(site.app.seen) == 1
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(10):
            assert len((await client.response()).body) == 1_000_000
        assert len(site.app.seen) == 10


@on_uvloop
async def test_a_last_reply_that_is_not_taken_is_cut_too() -> None:
    """A connection that closes after its reply does not wait for ever for a reader who stopped."""
    async with serving(write_timeout=0.3) as site, await site.raw(receive_buffer=4096) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(request("/big", b"5000000", "Connection: close"))
        await site.until(lambda: site.app.ended)
        assert site.hub.connections
        await site.until(lambda: not site.hub.connections, 3)


@pytest.mark.slow
@pytest.mark.alone
@on_uvloop
async def test_slow_and_stopped_readers_at_full_size() -> None:
    """100 slow readers and 20 stopped ones: bounded memory each, the stopped cut, the slow served."""
    async with serving(write_timeout=3) as site:
        loop = asyncio.get_running_loop()
        sockets = []
        for _ in range(120):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", site.port))
            await loop.sock_sendall(sock, ENDLESS)
            sockets.append(sock)
        for _ in range(80):
            await asyncio.sleep(0.1)
            for sock in sockets[:100]:
                with contextlib.suppress(BlockingIOError):
                    sock.recv(1024)
            held = [connection.transport.get_write_buffer_size() for connection in site.hub.connections]
            assert max(held) < 256 * 1024
        reasons = [call.reason for call in site.app.calls]
        assert reasons.count("gone") == 20
        assert reasons.count(None) == 100
        for sock in sockets:
            sock.close()
        await site.until(lambda: not site.hub.running, 5)
