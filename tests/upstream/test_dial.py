"""Names, addresses and the race between them (RFC 8305)."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from proxy.upstream import resolve
from proxy.upstream.dial import dial
from proxy.upstream.resolve import Address, Resolver, interleave
from tests.fakes.ports import free_port
from tests.upstream.conftest import Connect, ask
from tests.upstream.origin import Origin, Peer, eventually, saying, whole

V4, V6 = int(socket.AF_INET), int(socket.AF_INET6)


def test_families_take_turns() -> None:
    """IPv6 and IPv4 alternate, the system's first choice first; doubles go, eight at most."""
    four: list[Address] = [(V4, (f"10.0.0.{n}", 1)) for n in range(10)]
    six: list[Address] = [(V6, (f"::{n}", 1)) for n in range(2)]
    assert interleave([*six, *four[:3]]) == [six[0], four[0], six[1], four[1], four[2]]
    assert interleave([four[0], four[0], six[0]]) == [four[0], six[0]]
    assert len(interleave(four)) == 8
    assert interleave([]) == []


class Names:
    """The loop's getaddrinfo, counted and scripted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.answer: Any = [(V4, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]
        self.delay = 0.0
        monkeypatch.setattr(resolve, "_getaddrinfo", self._ask)

    async def _ask(self, host: str, port: int, flags: int) -> Any:
        self.asked += 1
        await asyncio.sleep(self.delay)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


async def test_lookups_are_kept_and_shared(names: Names) -> None:
    """A hundred connections at once ask once; the answer is kept for its time, then asked anew."""
    names.delay = 0.02
    resolver = Resolver("name.test", 1, keep=0.1)
    answers = await asyncio.gather(*(resolver.addresses() for _ in range(100)))
    assert answers == [[(V4, ("127.0.0.1", 1))]] * 100
    await resolver.addresses()
    assert names.asked == 1
    await asyncio.sleep(0.12)
    await resolver.addresses()
    assert names.asked == 2


async def test_old_answers_serve_while_dns_is_down(names: Names) -> None:
    """A failing lookup falls back on the last answer, until that is too old."""
    resolver = Resolver("name.test", 1, keep=0.0, stale=0.1)
    first = await resolver.addresses()
    names.answer = socket.gaierror("down")
    assert await resolver.addresses() == first
    await asyncio.sleep(0.12)
    with pytest.raises(socket.gaierror):
        await resolver.addresses()


async def test_a_cancelled_caller_leaves_the_lookup_to_others(names: Names) -> None:
    """One that leaves in the middle of a lookup takes nobody's answer along."""
    names.delay = 0.05
    resolver = Resolver("name.test", 1)
    leaver, stayer = (asyncio.create_task(resolver.addresses()) for _ in range(2))
    await asyncio.sleep(0.01)
    leaver.cancel()
    assert await stayer == [(V4, ("127.0.0.1", 1))]
    assert names.asked == 1


async def test_a_slow_lookup_is_a_connect_timeout(names: Names, raw: Connect) -> None:
    """The connect limit covers the lookup: a DNS server that hangs ends in upstream_timeout."""
    from proxy.errors import UpstreamError
    from proxy.upstream.base import Timeouts

    names.delay = 5
    began = time.monotonic()
    with pytest.raises(UpstreamError, match="accept a connection within") as caught:
        await ask(raw("http://name.test", Timeouts(0.1, 5, 5, 5)))
    assert caught.value.code == "upstream_timeout"
    assert time.monotonic() - began < 0.35


def _silent() -> tuple[socket.socket, list[socket.socket], Address]:
    """Return an address that answers no SYN: a listener whose backlog is full."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(0)
    fill = [socket.socket() for _ in range(8)]
    for sock in fill:
        sock.setblocking(False)
        sock.connect_ex(server.getsockname())
    return server, fill, (V4, server.getsockname())


def _refusing() -> Address:
    return (V4, ("127.0.0.1", free_port()))


async def test_the_next_address_is_tried_beside_a_silent_one() -> None:
    """A first address that does not answer costs a quarter of a second, not the connect limit; it is closed then."""
    server, fill, silent = _silent()
    async with Origin(saying(whole(b""))) as origin:
        began = time.monotonic()
        transport, _ = await dial([silent, (V4, ("127.0.0.1", origin.port))], asyncio.Protocol)
        assert 0.2 < time.monotonic() - began < 0.6
        assert transport.get_extra_info("peername")[1] == origin.port
        await asyncio.sleep(0.01)
        assert [task for task in asyncio.all_tasks() if "_connect" in repr(task.get_coro())] == []
        transport.abort()
    for sock in (server, *fill):
        sock.close()


async def test_the_next_address_is_tried_at_once_after_a_refusal() -> None:
    """A refusing first address costs nothing."""
    async with Origin(saying(whole(b""))) as origin:
        began = time.monotonic()
        transport, _ = await dial([_refusing(), _refusing(), (V4, ("127.0.0.1", origin.port))], asyncio.Protocol)
        assert time.monotonic() - began < 0.2
        transport.abort()


async def test_the_first_error_is_told_when_all_refuse() -> None:
    """With no address left the first one's error is raised."""
    with pytest.raises(ConnectionRefusedError):
        await dial([_refusing(), _refusing()], asyncio.Protocol)


async def test_a_cancelled_race_leaves_no_socket() -> None:
    """Cancelled in the middle of the race: every attempt is given up."""
    server, fill, silent = _silent()
    task = asyncio.create_task(dial([silent, silent, silent], asyncio.Protocol))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.01)
    assert [task for task in asyncio.all_tasks() if "_connect" in repr(task.get_coro())] == []
    for sock in (server, *fill):
        sock.close()


async def test_localhost_by_name_whichever_family_listens(raw: Connect) -> None:
    """A server on 127.0.0.1 alone is reached by the name localhost, whatever else that name means."""
    async with Origin(saying(whole(b"1"))) as origin:
        assert await ask(raw(f"http://localhost:{origin.port}")) == (200, b"1")


async def test_an_ipv6_origin(raw: Connect) -> None:
    """A literal IPv6 base URL works, its Host header in brackets."""
    seen = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        peer.write(whole(b"1"))

    try:
        async with Origin(script, host="::1") as origin:
            assert await ask(raw(f"http://[::1]:{origin.port}")) == (200, b"1")
            await eventually(lambda: len(seen) == 1)
            assert seen[0].header("host") == [f"[::1]:{origin.port}"]
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
