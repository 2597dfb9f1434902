"""R6, T25: a hostile provider is refused at the cap, and what it sent is not kept."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os

import pytest

from proxy.errors import UpstreamError
from proxy.upstream.sse import SseParser
from tests.upstream.conftest import KEY, Connect, ask, pieces, post
from tests.upstream.origin import END, EVENTS, OK, Origin, Peer, chunk, once, whole

KIB = 1024


def rss() -> int:
    """Return this process's resident bytes."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _endless(peer: Peer, start: bytes, piece: bytes, most: int) -> None:
    await peer.request()
    peer.write(start)
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < most and not peer.writer.is_closing():
            peer.write(piece)
            sent += len(piece)
            await peer.writer.drain()
    await peer.gone()


@pytest.mark.parametrize(
    ("size", "fits"), [(1 * KIB, True), (60 * KIB, True), (70 * KIB, False), (300 * KIB, False), (2000 * KIB, False)]
)
@pytest.mark.parametrize("shape", ["one", "many"])
async def test_head_bombs(connect: Connect, size: int, fits: bool, shape: str) -> None:
    """Heads up to 64 KiB pass, larger ones end in upstream_invalid_response, in one header or in hundreds."""
    if shape == "one":
        lines = [b"x-big: " + b"a" * size]
    else:
        lines = [b"x-%06d: %b" % (n, b"a" * 87) for n in range(size // 100)]
    async with Origin(once(whole(b"ok", *lines))) as origin:
        upstream = connect(origin.url)
        if fits:
            assert await ask(upstream) == (200, b"ok")
        else:
            with pytest.raises(UpstreamError) as caught:
                await upstream.send(post(), KEY)
            assert caught.value.code == "upstream_invalid_response"


@pytest.mark.parametrize("status", [b"100 Continue", b"103 Early Hints", b"102 Processing"])
async def test_interim_floods(raw: Connect, status: bytes) -> None:
    """Sixteen interim replies are skipped, more are refused."""
    interim = b"HTTP/1.1 " + status + b"\r\nx: y\r\n\r\n"
    async with Origin(once(interim * 16 + whole(b"ok"))) as origin:
        assert await ask(raw(origin.url)) == (200, b"ok")
    async with Origin(once(interim * 17 + whole(b"ok"))) as origin:
        with pytest.raises(UpstreamError, match="interim") as caught:
            await ask(raw(origin.url))
        assert caught.value.code == "upstream_invalid_response"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (EVENTS + b"5;", b"x" * 8192),  # a chunk extension without end
        (EVENTS + b"0\r\nx-trailer: ", b"x" * 8192),  # a trailer without end
        (EVENTS + b"0\r\n", b"x-trailer: y\r\n" * 500),  # trailers without end
        (EVENTS, b"0" * 8192),  # a chunk size of zeros without end
    ],
)
async def test_framing_without_end(raw: Connect, start: bytes, piece: bytes) -> None:
    """Bytes that never become body are refused after 64 KiB."""
    async with Origin(lambda peer: _endless(peer, start, piece, 4_000_000)) as origin:
        _, error = await pieces(await raw(origin.url).send(post(), KEY))
        assert isinstance(error, UpstreamError)
        assert error.code == "upstream_invalid_response"


async def _swallow(upstream: object, parser: SseParser) -> UpstreamError:
    reply = await upstream.send(post(), KEY)  # type: ignore[attr-defined]
    with pytest.raises(UpstreamError) as caught:
        while data := await reply.read():
            parser.feed(data)
    reply.close()
    return caught.value


@pytest.mark.parametrize("size", [pytest.param(12, id="small"), pytest.param(100, id="full", marks=pytest.mark.slow)])
async def test_a_line_without_end(raw: Connect, size: int) -> None:
    """A line of 100 MiB is refused at the event's cap of 8 MiB; memory grows by little more than that."""
    piece = chunk(b"x" * 65_536)
    async with Origin(lambda peer: _endless(peer, EVENTS + chunk(b"data: "), piece, size << 20)) as origin:
        upstream = raw(origin.url)
        await _swallow(upstream, SseParser(1 << 20))
        before = rss()
        error = await _swallow(upstream, SseParser())
        assert error.code == "upstream_invalid_response"
        assert rss() - before < 20 << 20


async def test_a_compressed_bomb_is_never_inflated(connect: Connect) -> None:
    """A gzip reply nobody asked for is refused by its head; nothing is unpacked (T25)."""
    bomb = gzip.compress(bytes(64 << 20))
    before = rss()
    async with Origin(once(whole(bomb, b"content-encoding: gzip"))) as origin:
        with pytest.raises(UpstreamError, match="compressed") as caught:
            await ask(connect(origin.url))
        assert caught.value.code == "upstream_invalid_response"
    assert rss() - before < 8 << 20


async def test_many_tiny_chunks_in_one_read_come_joined(raw: Connect) -> None:
    """Ten thousand one-byte chunks cost a few reads, not ten thousand, and the loop is never held long."""
    wire = EVENTS + chunk(b"x") * 10_000 + END
    async with Origin(once(wire)) as origin:
        reply = await raw(origin.url).send(post(), KEY)
        loop = asyncio.get_running_loop()
        reads = 0
        size = 0
        slowest = 0.0
        while True:
            data = await reply.read()
            began = loop.time()
            if not data:
                break
            reads += 1
            size += len(data)
            await asyncio.sleep(0)
            slowest = max(slowest, loop.time() - began)
        assert size == 10_000
        assert reads < 100
        assert slowest < 0.2


async def test_a_flood_after_the_message_is_cut(raw: Connect) -> None:
    """A provider that sends on and on after its reply: the reply is delivered, the connection closed."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(OK + b"content-length: 2\r\n\r\nok")
        with contextlib.suppress(ConnectionError):
            while not peer.writer.is_closing():
                peer.write(b"x" * 65_536)
                await peer.writer.drain()

    async with Origin(script) as origin:
        upstream = raw(origin.url)
        assert await ask(upstream) == (200, b"ok")
        assert await ask(upstream) == (200, b"ok")
        assert len(origin.peers) == 2
