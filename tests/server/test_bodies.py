"""Bodies: limits, lies, 100-continue, and replies before the body was read (R11, T20)."""

from __future__ import annotations

import asyncio

import pytest

from tests.server.harness import on_uvloop, request, serving
from tests.server.stub import LIMIT


def chunked(body: bytes, size: int = 50_000) -> bytes:
    """Return a chunked request."""
    pieces = b"".join(
        b"%x\r\n%b\r\n" % (len(body[at : at + size]), body[at : at + size]) for at in range(0, len(body), size)
    )
    return b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"


@pytest.mark.parametrize(("size", "status"), [(LIMIT - 1, 200), (LIMIT, 200), (LIMIT + 1, 413)])
@pytest.mark.parametrize("make", [lambda body: request("/echo", body), chunked])
@on_uvloop
async def test_the_limit_is_exact(size: int, status: int, make: object) -> None:
    """One byte below and at the limit pass, one above is 413, counted or chunked."""
    assert callable(make)
    async with serving() as site, await site.raw() as client:
        reply = await client.ask(make(b"x" * size))
        assert reply.status == status
        if status == 413:
            reply.check_error(413, "request_too_large")
        else:
            assert b'"size":%d' % size in reply.body


@on_uvloop
async def test_an_endless_chunked_body_is_refused_at_the_limit() -> None:
    """A chunked body without end gets its 413 while the client still sends, and the connection closes."""
    async with serving() as site, await site.raw() as client:
        await client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")

        async def flood() -> None:
            for _ in range(100):
                await client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

        sending = asyncio.ensure_future(flood())
        (await client.response()).check_error(413, "request_too_large")
        await sending
        client.writer.write_eof()
        assert await client.closed() == b""


@on_uvloop
async def test_a_body_shorter_than_announced_is_a_bad_request() -> None:
    """A client that ends its half before the announced length gets 400."""
    async with serving() as site, await site.raw() as client:
        await client.send(request("/echo", b"x" * 100)[:-1])
        client.writer.write_eof()
        (await client.response()).check_error(400, "invalid_request")
        assert await client.closed() == b""


@on_uvloop
async def test_headers_cut_short_are_a_bad_request() -> None:
    """A client that ends its half within the headers gets 400."""
    async with serving() as site, await site.raw() as client:
        await client.send(b"POST /echo HTTP/1.1\r\nHost")
        client.writer.write_eof()
        (await client.response()).check_error(400, "invalid_request")
        assert await client.closed() == b""
        assert site.app.seen == []


@on_uvloop
async def test_100_continue_is_sent_only_once_the_body_is_asked_for() -> None:
    """An early refusal sends no 100; a request that is read gets exactly one."""
    async with serving() as site:
        async with await site.raw() as client:
            await client.send(request("/refuse", b"x" * 10, "Expect: 100-continue")[:-10])
            reply = await client.response()
            assert reply.status == 401
            assert reply.headers["connection"] == "close"
            client.writer.write_eof()
            assert await client.closed() == b""
        async with await site.raw() as client:
            await client.send(request("/slowauth", b"x" * 10, "Expect: 100-continue")[:-10])
            await asyncio.sleep(0.1)
            assert not client.reader._buffer  # type: ignore[attr-defined]
            assert (await client.response()).status == 100
            await client.send(b"x" * 10)
            assert (await client.response()).status == 200
            assert (await client.ask(request("/echo", b"{}"))).status == 200
        async with await site.raw() as client:  # too large: refused instead of invited
            await client.send(request("/echo", b"x" * (LIMIT + 1), "Expect: 100-continue")[: -(LIMIT + 1)])
            (await client.response()).check_error(413, "request_too_large")


@on_uvloop
async def test_an_early_refusal_reaches_a_client_that_is_still_sending() -> None:
    """A client that first sends 5 MB and only then reads still finds its 401: the server lingers."""
    async with serving() as site, await site.raw() as client:
        body = b"x" * 5_000_000
        await client.send(request("/refuse", body)[: -len(body)])
        await site.until(lambda: site.app.ended)
        for at in range(0, len(body), 100_000):
            await client.send(body[at : at + 100_000])
        reply = await client.response()
        assert reply.status == 401
        assert reply.headers["connection"] == "close"
        assert await client.closed() == b""


@on_uvloop
async def test_lingering_is_bounded() -> None:
    """A refused client that neither leaves nor stops sending is dropped at linger_timeout."""
    async with serving(linger_timeout=0.3) as site, await site.raw() as client:
        await client.send(request("/refuse", b"x" * 10_000_000)[:-10_000_000])
        assert (await client.response()).status == 401
        with pytest.raises(ConnectionError):
            for _ in range(100):
                await client.send(b"x" * 1000)
                await asyncio.sleep(0.02)
        assert not site.hub.connections


@on_uvloop
async def test_a_refused_request_that_has_arrived_whole_keeps_its_connection() -> None:
    """An early refusal closes only where part of the body is still to come."""
    async with serving() as site, await site.raw() as client:
        for _ in range(3):
            reply = await client.ask(request("/refuse", b"{}"))
            assert reply.status == 401
            assert "connection" not in reply.headers


@on_uvloop
async def test_bodies_nobody_asked_for_are_not_hoarded() -> None:
    """Until the application asks, a body is held to about 64 KiB and the client waits; then it flows."""
    async with serving() as site, await site.raw() as client:
        client.writer.transport.set_write_buffer_limits(high=0)
        size = LIMIT
        sending = asyncio.ensure_future(client.send(request("/slowauth", b"x" * size)))
        await site.until(lambda: site.app.seen)
        await asyncio.sleep(0.1)
        wire = next(iter(site.hub.running))
        assert wire.incoming.received < 400_000  # 64 KiB and at most one read beyond
        assert (await client.response()).status == 200
        await sending


@on_uvloop
async def test_all_bodies_together_are_bounded() -> None:
    """Above max_bodies_bytes in flight a request gets 503 overloaded; when others end there is room again."""
    async with serving(max_bodies_bytes=150_000) as site:
        async with await site.raw() as one, await site.raw() as two:
            await one.send(request("/hang", b'{"seconds": 0.3}' + b" " * 100_000))
            await site.until(lambda: site.app.calls)
            reply = await two.ask(request("/echo", b"x" * 100_000))
            reply.check_error(503, "overloaded")
            assert reply.headers["retry-after"] == "1"
            assert (await one.response()).status == 200
        await site.probe()


@on_uvloop
async def test_headers_above_16_kib_are_refused_with_431() -> None:
    """Request line and headers count together; at the cap they pass, above it 431, complete or not."""
    async with serving() as site:
        for extra, status in ((0, 200), (1, 431)):
            raw = b"GET /echo HTTP/1.1\r\nHost: a\r\nX-A: %b\r\n\r\n"
            raw %= b"x" * (16 * 1024 - len(raw) + 2 + extra)
            assert len(raw) == 16 * 1024 + extra
            async with await site.raw() as client:
                reply = await client.ask(raw)
                assert reply.status == status
                if status == 431:
                    reply.check_error(431, "headers_too_large")
        async with await site.raw() as client:
            (await client.ask(b"GET /" + b"x" * 17_000)).check_error(431, "headers_too_large")
        async with await site.raw() as client:
            (await client.ask(b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 3000)).check_error(431, "headers_too_large")


async def test_declared_bodies_are_reserved_so_that_they_do_not_starve_each_other():
    """With room for two bodies at once, two of four that arrive side by side get through whole; the others are told 503."""

    from proxy.server.options import ServerOptions
    from proxy.server.serve import Server

    size = 1 << 20

    async def app(scope, receive, send):
        if scope["type"] != "http":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        wire = scope["extensions"]["llm_sidecar"]
        try:
            body = await wire.read_body(size)
            wire.reply(200, b"", b"%d" % len(body))
        except Exception as error:
            wire.reply(getattr(error, "status", 500), b"", b"")

    urls: list[str] = []
    ready = asyncio.Event()
    options = ServerOptions(listen="127.0.0.1:0", drain_delay=0, shutdown_grace=1, max_bodies_bytes=2 * size)
    server = Server(app, options, on_started=lambda api, ops: (urls.extend(api), ready.set()))
    task = asyncio.create_task(server.serve())
    await ready.wait()
    port = int(urls[0].rpartition(":")[2])
    begun = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size
    for _, writer in begun:
        writer.write(head + b"x" * 1000)
    await asyncio.sleep(0.2)
    for _, writer in begun:
        writer.write(b"x" * (size - 1000))
    statuses = sorted([(await reader.readline())[9:12] for reader, _ in begun])
    for _, writer in begun:
        writer.close()
    server.stop(delay=False)
    await task
    assert statuses == [b"200", b"200", b"503", b"503"]
