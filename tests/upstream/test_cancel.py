"""E14, R7, R8: whoever is cancelled takes its socket along, and leaves no place behind."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from contextlib import suppress

import pytest

from proxy.upstream.base import Timeouts
from tests.upstream.conftest import KEY, Connect, ask, post
from tests.upstream.origin import EVENTS, Origin, Peer, chunk, eventually, saying, whole


async def _cancelled(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_before_the_first_byte(connect: Connect) -> None:
    """Cancelled while waiting for the head: the provider sees the close within 100 ms."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async with Origin(script) as origin:
        task = asyncio.create_task(connect(origin.url).send(post(), KEY))
        await eventually(lambda: origin.requests == 1)
        await _cancelled(task)
        await eventually(lambda: origin.peers[0].gone_at is not None, 0.1)


async def test_in_the_middle_of_a_read(connect: Connect) -> None:
    """Cancelled while waiting for the next piece: the same."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(EVENTS + chunk(b"1"))
        await peer.gone()

    async with Origin(script) as origin:
        reply = await connect(origin.url).send(post(), KEY)
        assert await reply.read() == b"1"
        task = asyncio.create_task(reply.read())
        await asyncio.sleep(0.02)
        await _cancelled(task)
        await eventually(lambda: origin.peers[0].gone_at is not None, 0.1)


async def test_while_a_big_body_is_written(connect: Connect) -> None:
    """Cancelled while the provider does not read: the same."""
    accepted: list[socket.socket] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(5)
        server.setblocking(False)
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(
            connect(f"http://127.0.0.1:{server.getsockname()[1]}").send(post(b"x" * 20_000_000), KEY)
        )
        accepted.append((await loop.sock_accept(server))[0])
        await asyncio.sleep(0.1)
        assert not task.done()
        await _cancelled(task)
        with accepted[0] as peer:
            peer.setblocking(False)
            end = time.monotonic() + 0.5

            async def drained() -> None:
                with suppress(ConnectionError):
                    while await loop.sock_recv(peer, 1 << 20):
                        pass

            await asyncio.wait_for(drained(), 0.5)
            assert time.monotonic() < end


async def test_while_connecting(connect: Connect) -> None:
    """Cancelled before the connection stands: at once, and nothing remains."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        fill = [socket.socket() for _ in range(8)]
        for sock in fill:
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        task = asyncio.create_task(connect(f"http://127.0.0.1:{server.getsockname()[1]}").send(post(), KEY))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await _cancelled(task)
        assert time.monotonic() - began < 0.1
        for sock in fill:
            sock.close()


async def test_head_and_cancel_in_the_same_moment(raw: Connect) -> None:
    """The reply's head and the cancel arrive together: the call is cancelled and the socket closed, not leaked."""
    async with Origin(saying(EVENTS + chunk(b"1"))) as origin:
        upstream = raw(origin.url)
        for delay in range(40):
            task = asyncio.create_task(upstream.send(post(), KEY))
            for _ in range(delay):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                (await task).close()
        await eventually(lambda: upstream.pool.size == 0)


async def _storm(upstream: object, origin: Origin, cancels: int, at_once: int) -> None:
    chance = random.Random(8)
    running: set[asyncio.Task[object]] = set()
    for n in range(cancels):
        task = asyncio.create_task(ask(upstream, post(b"%d" % n)))  # type: ignore[arg-type]
        running.add(task)
        asyncio.get_running_loop().call_later(chance.random() * 0.02, task.cancel)
        if len(running) >= at_once:
            _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    if running:
        await asyncio.wait(running)


async def _serve(peer: Peer) -> None:
    while await peer.request() is not None:
        await asyncio.sleep(0.01)
        peer.write(EVENTS + chunk(b"1") + chunk(b"2") + b"0\r\n\r\n")


async def _calls(upstream: object, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count // 20):
        answers = await asyncio.gather(*(ask(upstream) for _ in range(20)))  # type: ignore[arg-type]
        assert answers == [(200, b"12")] * 20
    return time.perf_counter() - began


async def _as_fast_as_new(stormed: object, fresh: object, count: int) -> None:
    """Compare the best of five turns each, taken alternately: the machine's own moods cancel out."""
    times = [(await _calls(stormed, count), await _calls(fresh, count)) for _ in range(5)]
    assert min(stormed for stormed, _ in times) < 2 * min(fresh for _, fresh in times)


async def test_cancel_storm(raw: Connect) -> None:
    """R8, small: after 600 cancelled calls at random moments, normal calls all succeed, as fast as on a new client."""
    async with Origin(_serve) as origin:
        upstream = raw(origin.url, Timeouts(5, 5, 5, 30))
        await _storm(upstream, origin, 600, 64)
        assert upstream.pool.size <= 64
        await _as_fast_as_new(upstream, raw(origin.url), 40)
        await eventually(lambda: upstream.pool.size == upstream.pool.idle)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(600)
async def test_cancel_storm_at_full_size(connect: Connect, kind: str) -> None:
    """R8: 10,000 cancels at up to 200 at once, then 200 of 200 normal calls in less than twice a new client's time."""
    async with Origin(_serve) as origin:
        upstream = connect(origin.url, Timeouts(5, 5, 5, 30))
        await _storm(upstream, origin, 10_000, 200)
        if kind == "raw":
            assert upstream.pool.size <= 200
        await _as_fast_as_new(upstream, connect(origin.url), 200)


async def test_other_calls_keep_their_replies(raw: Connect) -> None:
    """Cancelling one call never touches another one's reply, though connections pass from hand to hand."""

    async def script(peer: Peer) -> None:
        while (got := await peer.request()) is not None:
            await asyncio.sleep(0.002)
            peer.write(whole(got.body))

    async with Origin(script) as origin:
        upstream = raw(origin.url)

        async def one(n: int) -> None:
            task = asyncio.create_task(ask(upstream, post(b"%d" % n)))
            if n % 3 == 0:
                await asyncio.sleep(0.003)
                task.cancel()
            with suppress(asyncio.CancelledError):
                assert await task == (200, b"%d" % n)

        for start in range(0, 300, 30):
            await asyncio.gather(*(one(n) for n in range(start, start + 30)))
