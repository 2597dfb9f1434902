"""R5: a provider that hangs, wherever it hangs, ends in upstream_timeout within its limit plus 250 ms."""

from __future__ import annotations

import asyncio
import time

import pytest

from proxy.errors import UpstreamError
from proxy.upstream.base import Timeouts
from tests.upstream.conftest import KEY, Connect, ask, pieces, post
from tests.upstream.origin import EVENTS, OK, Origin, Peer, chunk, whole

SHORT = 0.2
SLACK = 0.25


async def _hang(peer: Peer) -> None:
    await peer.gone()


async def _fails_in(seconds: float, waiting: asyncio.Future[object] | asyncio.Task[object], words: str) -> None:
    began = time.monotonic()
    with pytest.raises(UpstreamError, match=words) as caught:
        await waiting
    took = time.monotonic() - began
    assert (caught.value.code, caught.value.status) == ("upstream_timeout", 504)
    assert caught.value.retryable and caught.value.counts
    assert seconds - 0.02 <= took <= seconds + SLACK, took


async def test_no_answer_at_all(connect: Connect) -> None:
    """Silence after the request: the first-byte limit, and the socket is closed."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await _hang(peer)

    async with Origin(script) as origin:
        upstream = connect(origin.url, Timeouts(5, SHORT, 5, 5))
        await _fails_in(SHORT, asyncio.ensure_future(upstream.send(post(), KEY)), "begin to answer within 0.2 s")
        await asyncio.sleep(0.05)
        assert origin.peers[0].gone_at is not None


async def test_half_a_head(raw: Connect) -> None:
    """A head that stops in its middle: the idle limit runs from its first byte, a drip does not extend it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for byte in OK * 40:
            peer.write(bytes((byte,)))
            await asyncio.sleep(0.01)

    async with Origin(script) as origin:
        upstream = raw(origin.url, Timeouts(5, 5, SHORT, 5))
        await _fails_in(SHORT, asyncio.ensure_future(upstream.send(post(), KEY)), "begin to answer within")


@pytest.mark.parametrize("sent", [b"", b"data: 1\n\n", b"data: 1\n\ndata: ha"])
async def test_silence_in_a_stream(connect: Connect, sent: bytes) -> None:
    """No first event, none between events, half an event: the idle limit; what came was delivered."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(EVENTS + (chunk(sent) if sent else b""))
        await _hang(peer)

    async with Origin(script) as origin:
        reply = await connect(origin.url, Timeouts(5, 5, SHORT, 5)).send(post(), KEY)
        if sent:
            assert await reply.read() == sent
        await _fails_in(SHORT, asyncio.ensure_future(reply.read()), "fell silent in the middle of its answer for 0.2 s")


async def test_a_trickle_keeps_a_stream_alive(connect: Connect) -> None:
    """A stream whose pauses are all shorter than the idle limit goes on beyond it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(EVENTS)
        for _ in range(8):
            peer.write(chunk(b"x"))
            await asyncio.sleep(0.06)
        peer.write(b"0\r\n\r\n")

    async with Origin(script) as origin:
        assert await ask(connect(origin.url, Timeouts(5, 5, SHORT, 5))) == (200, b"x" * 8)


async def test_the_total_limit_ends_even_a_busy_stream(connect: Connect) -> None:
    """However lively it is, a reply ends at the total limit."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(EVENTS)
        while not peer.writer.is_closing():
            peer.write(chunk(b"x"))
            await asyncio.sleep(0.02)

    async with Origin(script) as origin:
        reply = await connect(origin.url, Timeouts(5, 5, 5, 0.3)).send(post(), KEY)
        began = time.monotonic()
        data, error = await pieces(reply)
        assert len(data) > 5
        assert isinstance(error, UpstreamError)
        assert error.code == "upstream_timeout"
        assert "did not finish its answer within 0.3 s" in error.message
        assert time.monotonic() - began < 0.3 + SLACK


async def test_no_connection(connect: Connect) -> None:
    """A listener whose backlog is full answers no SYN: the connect limit."""
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        fill = [socket.socket() for _ in range(8)]
        for sock in fill:
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        await asyncio.sleep(0.05)
        upstream = connect(f"http://127.0.0.1:{server.getsockname()[1]}", Timeouts(SHORT, 5, 5, 5))
        await _fails_in(SHORT, asyncio.ensure_future(upstream.send(post(), KEY)), "accept a connection within 0.2 s")
        for sock in fill:
            sock.close()


async def test_a_provider_that_does_not_read(raw: Connect) -> None:
    """A big request that nobody reads: the first-byte limit; each slice taken extends it."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await asyncio.sleep(5)

    async with Origin(script) as origin:
        upstream = raw(origin.url, Timeouts(5, 0.3, 5, 5))
        began = time.monotonic()
        with pytest.raises(UpstreamError, match="begin to answer") as caught:
            await upstream.send(post(b"x" * 30_000_000), KEY)
        assert caught.value.code == "upstream_timeout"
        assert 0.28 < time.monotonic() - began < 1.5


async def test_interim_replies_restart_the_first_byte_limit(raw: Connect) -> None:
    """102 Processing says that somebody works on it: the wait for the real head begins anew."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for _ in range(3):
            await asyncio.sleep(0.15)
            peer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        peer.write(whole(b"ok"))

    async with Origin(script) as origin:
        assert await ask(raw(origin.url, Timeouts(5, 0.3, 0.3, 5))) == (200, b"ok")


async def test_a_reader_that_rests_is_no_silence(raw: Connect) -> None:
    """While reading is paused because the caller does not take the data, the idle limit stands still."""
    body = b"x" * 3_000_000

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(whole(body))
        await peer.gone()

    async with Origin(script) as origin:
        reply = await raw(origin.url, Timeouts(5, 5, SHORT, 5)).send(post(), KEY)
        await asyncio.sleep(0.6)
        data, error = await pieces(reply)
        assert (data == body, error) == (True, None)


async def test_other_streams_go_on(raw: Connect) -> None:
    """R5: fifty streams flow unharmed beside fifty that hang."""

    async def script(peer: Peer) -> None:
        got = await peer.request()
        assert got is not None
        peer.write(EVENTS)
        if got.body == b"hang":
            return await _hang(peer)
        for n in range(10):
            peer.write(chunk(b"%d" % n))
            await asyncio.sleep(0.04)
        peer.write(b"0\r\n\r\n")

    async with Origin(script) as origin:
        upstream = raw(origin.url, Timeouts(5, 5, SHORT, 5))

        async def one(body: bytes) -> object:
            return await pieces(await upstream.send(post(body), KEY))

        ends = await asyncio.gather(*(one(b"hang" if n % 2 else b"go") for n in range(100)))
        assert ends[::2] == [(b"0123456789", None)] * 50
        assert all(getattr(end[1], "code", None) == "upstream_timeout" for end in ends[1::2])
