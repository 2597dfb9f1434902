"""Which connection is used again, for how long, and when never."""

from __future__ import annotations

import asyncio

import pytest

from proxy.errors import UpstreamError
from proxy.upstream.base import Timeouts
from proxy.upstream.client import RawUpstream
from proxy.upstream.pool import keep_seconds
from tests.upstream.conftest import KEY, Connect, ask, post
from tests.upstream.origin import END, EVENTS, OK, Origin, Peer, chunk, eventually, saying, whole


@pytest.mark.parametrize(
    ("hint", "seconds"),
    [("timeout=5", 4.0), ("timeout=5, max=100", 4.0), ("max=9, Timeout = 2", 1.0), ('timeout="10"', 9.0),
     ("timeout=0", 0.0), ("timeout=1", 0.5), ("max=7", 30.0), ("nonsense", 30.0), ("timeout=99999999999", 999999998.0)],
)  # fmt: skip
def test_keep_alive_hints(hint: str, seconds: float) -> None:
    """A connection is given up a second before the server's own limit, or at half of a very short one."""
    assert keep_seconds(hint, 30.0) == seconds


async def test_the_last_used_is_used_first(raw: Connect) -> None:
    """LIFO: one caller after another needs one connection, the others age and go."""
    async with Origin(saying(whole(b"1"))) as origin:
        upstream: RawUpstream = raw(origin.url)
        await asyncio.gather(*(ask(upstream) for _ in range(5)))
        assert upstream.pool.idle == 5
        before = [peer.requests for peer in origin.peers]
        for _ in range(10):
            await ask(upstream)
        grown = [peer.requests - was for peer, was in zip(origin.peers, before, strict=True)]
        assert sorted(grown) == [0, 0, 0, 0, 10]


@pytest.mark.parametrize("limit", ["idle_seconds", "max_age"])
async def test_idle_connections_are_closed_in_time(raw: Connect, limit: str) -> None:
    """Past its idle time, or its age, a kept connection is closed by the ticker without any call."""
    async with Origin(saying(whole(b"1"))) as origin:
        upstream = raw(origin.url)
        setattr(upstream.pool, "_" + limit, 0.15)
        await ask(upstream)
        assert upstream.pool.size == 1
        await eventually(lambda: upstream.pool.size == 0, 0.6)
        await ask(upstream)
        assert len(origin.peers) == 2


async def test_an_overdue_connection_is_not_handed_out(raw: Connect) -> None:
    """Between its time and the ticker's next look a connection is already too old to use."""
    async with Origin(saying(whole(b"1"))) as origin:
        upstream = raw(origin.url)
        await ask(upstream)
        (kept,) = upstream.pool._idle
        kept.deadline = asyncio.get_running_loop().time() - 0.001
        await ask(upstream)
        assert len(origin.peers) == 2


async def test_a_servers_zero_timeout_forbids_reuse(raw: Connect) -> None:
    """`Keep-Alive: timeout=0` means what it says."""
    async with Origin(saying(whole(b"1", b"Keep-Alive: timeout=0"))) as origin:
        upstream = raw(origin.url)
        await ask(upstream)
        assert upstream.pool.idle == 0


async def test_no_more_than_the_idle_cap_are_kept(raw: Connect) -> None:
    """Above max_idle a connection is closed after its reply; in use there may be any number."""

    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(0.02)
            peer.write(whole(b"1"))

    async with Origin(script) as origin:
        upstream = raw(origin.url)
        upstream.pool._max_idle = 3
        await asyncio.gather(*(ask(upstream) for _ in range(8)))
        await eventually(lambda: upstream.pool.size == upstream.pool.idle == 3)
        assert len(origin.peers) == 8


@pytest.mark.parametrize("surprise", [b"HTTP/1.1 408 Timeout\r\n\r\n", b"\r\n", b"x"])
async def test_any_byte_on_an_idle_connection_discards_it(connect: Connect, surprise: bytes) -> None:
    """What nobody asked for is never taken for the next call's reply."""

    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            peer.write(whole(b"mine"))
            await asyncio.sleep(0.02)
            peer.write(surprise)

    async with Origin(script) as origin:
        upstream = connect(origin.url)
        assert await ask(upstream) == (200, b"mine")
        await asyncio.sleep(0.05)
        assert await ask(upstream) == (200, b"mine")
        assert len(origin.peers) == 2


@pytest.mark.parametrize("extra", [b"x", b"HTTP/1.1 2", whole(b"poison"), b"\r\n\r\nHTTP"])
@pytest.mark.parametrize("first", [whole(b"mine"), EVENTS + chunk(b"mine") + END, b"HTTP/1.1 204 No\r\n\r\n"])
async def test_bytes_beyond_the_message_forbid_reuse(connect: Connect, first: bytes, extra: bytes) -> None:
    """A second reply in the first one's packet poisons nobody: the first is delivered, the connection closed."""
    async with Origin(saying(first + extra)) as origin:
        upstream = connect(origin.url)
        for _ in range(2):
            status, body = await ask(upstream)
            assert (status, body) in ((200, b"mine"), (204, b""))
        assert len(origin.peers) == 2


async def test_stale_connections_are_retried_once(raw: Connect) -> None:
    """The server closes a kept connection just as the next request goes out: sent again on a new one, unseen."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(whole(b"ok"))
        await peer.request()
        peer.rst()

    async with Origin(script) as origin:
        upstream = raw(origin.url)
        for _ in range(3):
            assert await ask(upstream) == (200, b"ok")
        assert len(origin.peers) == 3


async def test_the_second_attempt_is_the_last(raw: Connect) -> None:
    """A server that is gone for good sees a stale request once more and no further: one retry, however it ends."""
    served = 0

    async def script(peer: Peer) -> None:
        nonlocal served
        await peer.request()
        served += 1
        if served == 1:
            peer.write(whole(b"ok"))
            await peer.request()
        peer.rst()

    asked: list[int] = []
    async with Origin(script) as origin:
        upstream = raw(origin.url, allow_retry=lambda: not asked.append(1))
        assert await ask(upstream) == (200, b"ok")
        with pytest.raises(UpstreamError) as caught:
            await ask(upstream)
        assert caught.value.code == "upstream_unreachable"
        assert (len(origin.peers), asked) == (2, [1])


async def test_stale_retries_ask_the_budget(raw: Connect) -> None:
    """With the retry budget spent there is no second attempt: upstream_unreachable, retryable."""
    asked = []

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(whole(b"ok"))
        await peer.request()
        peer.rst()

    async with Origin(script) as origin:
        upstream = raw(origin.url, allow_retry=lambda: bool(asked.append(1)))
        await ask(upstream)
        with pytest.raises(UpstreamError) as caught:
            await ask(upstream)
        assert (caught.value.code, caught.value.retryable, asked) == ("upstream_unreachable", True, [1])
        assert len(origin.peers) == 1


async def test_a_byte_of_the_reply_forbids_the_retry(raw: Connect) -> None:
    """A kept connection lost after the reply began: the provider may have done its work, so no second attempt."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(whole(b"ok"))
        await peer.request()
        peer.write(b"H")
        await asyncio.sleep(0.01)
        peer.fin()

    async with Origin(script) as origin:
        upstream = raw(origin.url)
        await ask(upstream)
        with pytest.raises(UpstreamError, match="closed the connection"):
            await ask(upstream)
        assert len(origin.peers) == 1


async def test_a_new_connection_is_never_retried(raw: Connect) -> None:
    """A server that closes every new connection sees each request once."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.rst()

    async with Origin(script) as origin:
        upstream = raw(origin.url)
        with pytest.raises(UpstreamError):
            await ask(upstream)
        assert len(origin.peers) == 1


async def test_the_race_between_closing_and_sending(connect: Connect) -> None:
    """Servers that close after every other reply, at every delay around the next request: no call fails."""
    delay = 0.0

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(whole(b"ok"))
        await asyncio.sleep(delay)
        peer.fin()

    async with Origin(script) as origin:
        upstream = connect(origin.url)
        for n in range(30):
            delay = n * 0.0002
            assert await ask(upstream) == (200, b"ok")
            await asyncio.sleep(0.003)


async def test_unread_replies_give_their_connection_back_all_the_same(raw: Connect) -> None:
    """A reply that arrived whole frees its connection before anybody reads it; late close() harms nobody."""
    async with Origin(saying(whole(b"first"), whole(b"second"))) as origin:
        upstream = raw(origin.url)
        first = await upstream.send(post(), KEY)
        second = await upstream.send(post(), KEY)
        first.close()
        assert await second.body(10) == b"second"
        assert await first.body(10) == b"first"
        assert len(origin.peers) == 1


async def test_nothing_is_read_ahead_without_bound(raw: Connect) -> None:
    """Backpressure: with nobody reading, at most the high-water mark and one read are queued; then it flows on."""
    written = 0

    async def script(peer: Peer) -> None:
        nonlocal written
        await peer.request()
        peer.write(OK + b"content-length: 50000000\r\n\r\n")
        for _ in range(500):
            peer.write(b"x" * 100_000)
            written += 100_000
            await peer.writer.drain()

    async with Origin(script) as origin:
        reply = await raw(origin.url).send(post(), KEY)
        await asyncio.sleep(0.3)
        assert reply.queued <= 128 * 1024
        assert written < 40_000_000
        size = 0
        while piece := await reply.read():
            size += len(piece)
            assert len(piece) <= 128 * 1024
        assert size == 50_000_000


@pytest.mark.parametrize("push", [False, True])
async def test_a_paused_reply_leaves_the_rest_to_the_network(raw: Connect, push: bool) -> None:
    """pause(): while its reader waits for somebody else, a reply takes nothing in; read or pushed again, it flows on."""
    quick = Timeouts(connect=2, first_byte=2, idle=0.2, total=10)

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(OK + b"content-length: 20000000\r\n\r\n")
        for _ in range(200):
            peer.write(b"x" * 100_000)
            await peer.writer.drain()

    async with Origin(script) as origin:
        reply = await raw(origin.url, quick).send(post(), KEY)
        size = len(await reply.read())
        reply.pause()
        queued = reply.queued
        await asyncio.sleep(0.4)  # longer than a silence of the server's may last
        assert reply.queued == queued
        if push:
            while (piece := reply.read_nowait()) is not None:
                size += len(piece)
                reply.pause()
            taken: list[bytes] = []
            assert reply.push_to(taken.append)
            await reply.pushed()
            size += sum(map(len, taken))
        while piece := await reply.read():
            size += len(piece)
        assert size == 20_000_000


async def test_read_nowait_takes_what_is_there(raw: Connect) -> None:
    """read_nowait(): None while nothing is queued, then the data joined, then the end."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(EVENTS)
        await go.wait()
        peer.write(chunk(b"1") + chunk(b"2"))
        peer.write(END)

    async with Origin(script) as origin:
        reply = await raw(origin.url).send(post(), KEY)
        assert reply.read_nowait() is None
        go.set()
        await eventually(lambda: reply.complete)
        assert (reply.read_nowait(), reply.read_nowait()) == (b"12", b"")


async def test_closing_leaves_nothing_open(raw: Connect) -> None:
    """aclose() closes the idle connections; what is sent later closes its own."""
    async with Origin(saying(whole(b"1"))) as origin:
        upstream = raw(origin.url)
        await asyncio.gather(*(ask(upstream) for _ in range(4)))
        await upstream.aclose()
        assert upstream.pool.size == 0
        assert await ask(upstream) == (200, b"1")
        await eventually(lambda: upstream.pool.size == 0)
