"""T27: certificates and versions are checked, connections kept, and early ends close at once, TLS or not."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from pathlib import Path

import pytest

from proxy.errors import UpstreamError
from proxy.upstream.base import Timeouts
from proxy.upstream.tls import client_context
from tests.upstream.authority import Authority
from tests.upstream.conftest import KEY, Connect, ask, pieces, post
from tests.upstream.origin import END, EVENTS, OK, Origin, Peer, chunk, eventually, saying, whole


async def test_whole_and_streamed(connect: Connect, authority: Authority) -> None:
    """Whole, streamed and big replies arrive over TLS as over plain TCP; http/1.1 is what ALPN agrees on."""
    big = bytes(range(256)) * 4000
    agreed = []

    async def script(peer: Peer) -> None:
        agreed.append(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        replies = [whole(b"1"), EVENTS + chunk(b"2") + END, whole(big)]
        while (got := await peer.request()) is not None:
            peer.write(replies[int(got.body)])

    async with Origin(script, authority.context()) as origin:
        upstream = connect(origin.url, ca_file=authority.file)
        assert [(await ask(upstream, post(b"%d" % n)))[1] for n in range(3)] == [b"1", b"2", big]
        assert agreed == ["http/1.1"]


async def test_big_requests_over_tls(connect: Connect, authority: Authority) -> None:
    """A request of 4 MB arrives whole over TLS."""
    body = bytes(range(256)) * 16_000

    async def script(peer: Peer) -> None:
        got = await peer.request()
        assert got is not None
        peer.write(whole(b"same" if got.body == body else b"other"))
        await peer.gone()

    async with Origin(script, authority.context()) as origin:
        assert await ask(connect(origin.url, ca_file=authority.file), post(body)) == (200, b"same")


async def test_the_connection_is_kept(connect: Connect, authority: Authority) -> None:
    """One handshake serves many calls."""
    async with Origin(saying(whole(b"1")), authority.context()) as origin:
        upstream = connect(origin.url, ca_file=authority.file)
        for _ in range(5):
            assert await ask(upstream) == (200, b"1")
        assert len(origin.peers) == 1


async def test_handshakes_that_must_fail(connect: Connect, authority: Authority, stranger: Authority) -> None:
    """Unknown authority, wrong name, expired, TLS 1.2 where 1.3 is asked: upstream_tls, 502, counted, nothing sent."""
    cases = [
        (stranger.context(), "1.3", "self.signed certificate|unable to get local issuer|certificate"),
        (authority.context("example.org"), "1.3", "hostname mismatch|not valid for"),
        (authority.context(expired=True), "1.3", "expired"),
        (authority.context(newest=ssl.TLSVersion.TLSv1_2), "1.3", "version|closed the connection in its middle"),
    ]
    for context, min_tls, why in cases:
        async with Origin(saying(whole(b"{}")), context) as origin:
            with pytest.raises(UpstreamError, match=why) as caught:
                await connect(origin.url, min_tls=min_tls, ca_file=authority.file).send(post(), KEY)
            assert (caught.value.code, caught.value.status, caught.value.counts) == ("upstream_tls", 502, True)
            assert origin.requests == 0


async def test_tls_1_2_where_it_is_allowed(connect: Connect, authority: Authority) -> None:
    """`min_version: "1.2"` takes a server that has nothing newer."""
    async with Origin(saying(whole(b"1")), authority.context(newest=ssl.TLSVersion.TLSv1_2)) as origin:
        assert await ask(connect(origin.url, min_tls="1.2", ca_file=authority.file)) == (200, b"1")


async def test_the_systems_authorities_by_default(connect: Connect, authority: Authority) -> None:
    """Without ca_file only the system's authorities count: ours is a stranger."""
    async with Origin(saying(whole(b"1")), authority.context()) as origin:
        with pytest.raises(UpstreamError) as caught:
            await connect(origin.url).send(post(), KEY)
        assert caught.value.code == "upstream_tls"


async def test_plain_http_on_a_tls_port(connect: Connect, authority: Authority) -> None:
    """A server that answers the handshake in plain HTTP: upstream_tls."""

    async def script(peer: Peer) -> None:
        await peer.reader.read(10)
        peer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.gone()

    async with Origin(script) as origin:
        url = origin.url.replace("http://127.0.0.1", "https://localhost")
        with pytest.raises(UpstreamError) as caught:
            await connect(url, ca_file=authority.file).send(post(), KEY)
        assert caught.value.code == "upstream_tls"


async def test_a_silent_handshake_is_a_timeout(connect: Connect, authority: Authority) -> None:
    """A server that accepts and says nothing: the connect limit covers TLS too, and the socket is closed."""

    async def script(peer: Peer) -> None:
        await peer.gone()

    async with Origin(script) as origin:
        url = origin.url.replace("http://127.0.0.1", "https://localhost")
        began = time.monotonic()
        with pytest.raises(UpstreamError, match="accept a connection") as caught:
            await connect(url, Timeouts(0.2, 5, 5, 5), ca_file=authority.file).send(post(), KEY)
        assert caught.value.code == "upstream_timeout"
        assert time.monotonic() - began < 0.45
        await eventually(lambda: origin.peers[0].gone_at is not None, 0.1)


async def test_a_reset_handshake(connect: Connect, authority: Authority) -> None:
    """A server that resets in the handshake: upstream_tls, and this one may be retried."""

    async def script(peer: Peer) -> None:
        await peer.reader.read(10)
        peer.rst()

    async with Origin(script) as origin:
        url = origin.url.replace("http://127.0.0.1", "https://localhost")
        with pytest.raises(UpstreamError) as caught:
            await connect(url, ca_file=authority.file).send(post(), KEY)
        assert (caught.value.code, caught.value.retryable) == ("upstream_tls", True)


async def test_cancelled_in_the_handshake(connect: Connect, authority: Authority) -> None:
    """Cancelled in the middle of the handshake: the socket is closed within 100 ms."""
    hello = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        hello.set()
        await peer.gone()

    async with Origin(script) as origin:
        url = origin.url.replace("http://127.0.0.1", "https://localhost")
        task = asyncio.create_task(connect(url, ca_file=authority.file).send(post(), KEY))
        await asyncio.wait_for(hello.wait(), 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: origin.peers[0].gone_at is not None, 0.1)


async def test_early_ends_close_at_once(connect: Connect, authority: Authority) -> None:
    """close() in mid-stream over TLS reaches a server that never says goodbye within 100 ms."""
    ready = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(EVENTS + chunk(b"1"))
        sock: socket.socket = peer.writer.get_extra_info("socket")
        ready.set_result(sock)
        await peer.gone()

    async with Origin(script, authority.context()) as origin:
        reply = await connect(origin.url, ca_file=authority.file).send(post(), KEY)
        assert await reply.read() == b"1"
        await ready
        reply.close()
        await eventually(lambda: origin.peers[0].gone_at is not None, 0.1)


async def test_idle_connections_say_goodbye_quickly(raw: Connect, authority: Authority) -> None:
    """aclose() ends kept TLS connections in well under the 30 s that uvloop would take."""
    async with Origin(saying(whole(b"1")), authority.context()) as origin:
        upstream = raw(origin.url, ca_file=authority.file)
        await asyncio.gather(*(ask(upstream) for _ in range(5)))
        began = time.monotonic()
        await upstream.aclose()
        assert upstream.pool.size == 0
        assert time.monotonic() - began < 0.3


async def test_a_body_without_length_needs_tls_goodbye(raw: Connect, authority: Authority) -> None:
    """A TLS connection cut without close_notify is no end for a body that only the end delimits.

    uvloop tells; asyncio's own TLS does not, and there the missing terminal event has to.
    """

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(OK + b"connection: close\r\n\r\nhalf")
        await peer.writer.drain()
        await asyncio.sleep(0.02)
        sock = peer.writer.get_extra_info("socket")
        with socket.socket(fileno=socket.dup(sock.fileno())) as twin:
            twin.shutdown(socket.SHUT_WR)
        await peer.gone()

    async with Origin(script, authority.context()) as origin:
        data, error = await pieces(await raw(origin.url, ca_file=authority.file).send(post(), KEY))
        assert data == b"half"
        assert isinstance(error, UpstreamError)


@pytest.mark.parametrize(
    ("options", "why"),
    [({"min_version": "1.1"}, "use 1.2 or 1.3"), ({"ca_file": "/no/such/file.pem"}, "cannot be read")],
)
def test_unfit_tls_settings(options: dict[str, str], why: str) -> None:
    """An unknown version or an unreadable ca_file is refused when the file is loaded, in a sentence."""
    with pytest.raises(ValueError, match=why):
        client_context(**options)


def test_an_empty_ca_file_is_refused(tmp_path: Path) -> None:
    """A ca_file without a certificate would trust nobody: refused at load."""
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ValueError, match="cannot be read"):
        client_context(ca_file=str(tmp_path / "empty.pem"))
