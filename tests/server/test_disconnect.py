"""A client that leaves ends its call at once (R7)."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.server.harness import Raw, on_uvloop, request, serving

WAYS = ("close", "reset", "half")


def leave(client: Raw, way: str) -> float:
    """Leave in one of three ways; return when."""
    if way == "reset":
        client.reset()
    elif way == "half":
        client.writer.write_eof()
    else:
        client.writer.transport.abort()
    return time.monotonic()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", ["/hang", "/stream"])
@pytest.mark.parametrize("behind", [b"", request("/echo", b"{}"), request("/hang", b"{}")[:20]])
@on_uvloop
async def test_a_call_is_told_within_100_ms_that_its_client_left(way: str, path: str, behind: bytes) -> None:
    """FIN, RST and half-close end the running call at once, before and after the first byte, whatever is pipelined."""
    async with serving() as site, await site.raw() as client:
        body = b'{"count": 100000, "interval": 0.01}' if path == "/stream" else b"{}"
        await client.send(request(path, body) + behind)
        await site.until(lambda: site.app.calls)
        if path == "/stream":
            await client.reader.readuntil(b"data: 1")
        left = leave(client, way)
        call = site.app.calls[0]
        await site.until(lambda: call.reason)
        assert call.reason == "gone"
        assert call.left_at - left < 0.1
        await site.until(lambda: not site.hub.running)
        await asyncio.sleep(0.05)
        assert len(site.app.seen) == 1  # what was pipelined never ran
        await site.until(lambda: not site.hub.connections)


@on_uvloop
async def test_pipelined_requests_are_answered_one_after_the_other() -> None:
    """Requests sent at once run singly, in order, on a connection that stays open."""
    async with serving() as site, await site.raw() as client:
        bodies = [b"x" * number for number in range(1, 30)]
        await client.send(b"".join(request(f"/echo/{len(body)}", body) for body in bodies))
        for body in bodies:
            reply = await client.response()
            assert b'"path":"/echo/%d","size":%d' % (len(body), len(body)) in reply.body


@on_uvloop
async def test_later_requests_wait_for_a_stream() -> None:
    """Bytes behind a running stream stay unparsed until it ends, then are served."""
    async with serving() as site, await site.raw() as client:
        await client.send(request("/stream", b'{"count": 20, "interval": 0.005}'))
        await client.reader.readuntil(b"\r\n\r\n")
        for piece in (b"POST /echo HT", b"TP/1.1\r\nHost: a\r\nContent-", b"Length: 2\r\n\r\n{", b"}"):
            await client.send(piece)
            await asyncio.sleep(0.01)
        assert len(site.app.seen) == 1
        await client.reader.readuntil(b"0\r\n\r\n")
        assert (await client.response()).status == 200


@on_uvloop
async def test_more_than_64_kib_behind_a_call_closes_the_connection() -> None:
    """A client cannot make the sidecar hold unbounded input: above 64 KiB its connection and call end."""
    async with serving() as site, await site.raw() as client:
        await client.send(request("/hang", b"{}") + b"P" * 64 * 1024)
        await site.until(lambda: site.app.calls)
        await asyncio.sleep(0.05)
        assert site.app.calls[0].reason is None
        await client.send(b"P")
        await client.closed()
        assert site.app.calls[0].reason == "gone"
    async with serving() as site, await site.raw() as client:
        await client.send(request("/hang", b"{}") + b"P" * 200 * 1024)
        await client.closed()
        await site.until(lambda: not site.hub.running)


@pytest.mark.parametrize("way", ["close", "reset"])
@on_uvloop
async def test_a_client_that_leaves_within_its_body_ends_the_wait_for_it(way: str) -> None:
    """read_body raises ConnectionError, once, when the client leaves before the body is whole."""
    async with serving() as site, await site.raw() as client:
        await client.send(request("/echo", b"x" * 1000)[:-1])
        await site.until(lambda: site.app.seen)
        await asyncio.sleep(0.02)
        leave(client, way)
        await site.until(lambda: not site.hub.running)
        assert site.app.ended == 1


@on_uvloop
async def test_a_client_that_left_while_it_was_authenticated_costs_nothing_more() -> None:
    """The wire says gone to an endpoint that was busy elsewhere when the client left."""
    async with serving() as site:
        async with await site.raw() as client:
            await client.send(request("/slowauth", b"{}"))
            await site.until(lambda: site.app.seen)
        await site.until(lambda: not site.hub.connections)
        assert len(site.hub.running) == 1
        wire = next(iter(site.hub.running))
        assert wire.gone
        await site.until(lambda: not site.hub.running)


@on_uvloop
async def test_a_hundred_comings_and_goings_leave_nothing() -> None:
    """After clients left at every stage, no task, connection or byte count remains."""
    async with serving() as site:
        before = len(asyncio.all_tasks())
        for number in range(100):
            client = await site.raw()
            raw = request(("/hang", "/stream", "/echo")[number % 3], b'{"count": 1000, "interval": 0.001}')
            await client.send(raw[: len(raw) - (number % 7) * 12])
            if number % 2:
                await asyncio.sleep(0.001)
            leave(client, WAYS[number % 3])
            if number % 3 == 2:
                client.writer.transport.abort()
        await site.until(lambda: not site.hub.running and not site.hub.connections)
        assert site.hub.bodies == 0
        await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) <= before
        await site.probe()
