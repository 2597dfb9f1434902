"""Which client serves a provider, and the twin's own trades: forward proxies and mock transports."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from collections.abc import AsyncIterator

import httpx2
import pytest

from proxy.errors import UpstreamError
from proxy.upstream.base import Timeouts
from proxy.upstream.client import RawUpstream
from proxy.upstream.factory import open_upstream
from proxy.upstream.httpx_twin import HttpxUpstream
from tests.upstream.authority import Authority
from tests.upstream.conftest import KEY, ask, pieces, post
from tests.upstream.origin import END, EVENTS, Origin, Peer, chunk, saying, whole

T = Timeouts(2, 2, 2, 10)


async def test_the_raw_client_unless_there_is_a_proxy() -> None:
    """Our own client is the rule, httpx2 the exception for forward proxies; both take the same settings."""
    plain = open_upstream("https://h/v1", T, extra_headers=[("x", "y")])
    assert isinstance(plain, RawUpstream)
    through = open_upstream("https://h/v1", T, extra_headers=[("x", "y")], proxy="http://127.0.0.1:1")
    assert isinstance(through, HttpxUpstream)
    for upstream in (plain, through):
        await upstream.aclose()


def test_httpx2_is_not_imported_for_nothing() -> None:
    """Without a proxy nothing of httpx2 is loaded: it would cost a tenth of a second at every start."""
    code = (
        "import sys; from proxy.upstream.factory import open_upstream; from proxy.upstream.base import Timeouts\n"
        "open_upstream('https://h/v1', Timeouts()); sys.exit(any(m.startswith('httpx') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("proxy", ["ftp://x", "nonsense", "http://"])
def test_unfit_proxies(proxy: str) -> None:
    """A proxy URL that cannot work is refused when the file is loaded."""
    with pytest.raises(ValueError, match="proxy"):
        open_upstream("https://h/v1", T, proxy=proxy)


@pytest.mark.parametrize("options", [{"min_tls": "1.0"}, {"ca_file": "/no/such"}, {"extra_headers": [("host", "x")]}])
@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:1"])
def test_unfit_settings_are_refused_alike(options: dict[str, object], proxy: str | None) -> None:
    """Both clients refuse the same settings."""
    with pytest.raises(ValueError, match=r"tls|header"):
        open_upstream("https://h/v1", T, proxy=proxy, **options)  # type: ignore[arg-type]


class ForwardProxy:
    """A forward proxy that tunnels CONNECT and forwards absolute requests to ``target``."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.auth: list[str] = []
        self.refuse = False

    async def __call__(self, peer: Peer) -> None:
        head = (await peer.head()).decode()
        self.seen.append(head.split("\r\n")[0])
        self.auth += [line for line in head.split("\r\n") if line.lower().startswith("proxy-authorization")]
        if self.refuse:
            peer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            return
        method, target, _ = self.seen[-1].split(" ")
        address = target if method == "CONNECT" else target.split("/")[2]
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        if method == "CONNECT":
            peer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            writer.write(head.replace(f"http://{address}", "").encode())
        await asyncio.gather(_pump(peer.reader, writer), _pump(reader, peer.writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def test_through_a_forward_proxy(authority: Authority) -> None:
    """HTTPS goes through a CONNECT tunnel, checked end to end; the key is never shown to the proxy."""
    forward = ForwardProxy()
    async with (
        Origin(saying(whole(b"1"), EVENTS + chunk(b"2") + END), authority.context()) as origin,
        Origin(forward) as proxy,
    ):
        upstream = open_upstream(
            origin.url, T, ca_file=authority.file, proxy=f"http://user:pass@127.0.0.1:{proxy.port}"
        )  # fmt: skip
        assert await ask(upstream) == (200, b"1")
        assert await ask(upstream) == (200, b"2")
        await upstream.aclose()
    assert forward.seen == [f"CONNECT localhost:{origin.port} HTTP/1.1"]
    assert forward.auth[0].split()[-1] == base64.b64encode(b"user:pass").decode()


async def test_plain_http_through_a_forward_proxy() -> None:
    """Plain http is sent to the proxy in absolute form."""
    forward = ForwardProxy()
    async with Origin(saying(whole(b"1"))) as origin, Origin(forward) as proxy:
        upstream = open_upstream(origin.url, T, proxy=f"http://127.0.0.1:{proxy.port}")
        assert await ask(upstream) == (200, b"1")
        await upstream.aclose()
    assert forward.seen == [f"POST http://127.0.0.1:{origin.port}/v1/chat/completions HTTP/1.1"]


async def test_a_proxy_that_refuses(authority: Authority) -> None:
    """A proxy that wants other credentials, or is not there: upstream_unreachable."""
    forward = ForwardProxy()
    forward.refuse = True
    async with Origin(forward) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        upstream = open_upstream("https://localhost:1/v1", T, ca_file=authority.file, proxy=url)
        with pytest.raises(UpstreamError) as caught:
            await ask(upstream)
        assert caught.value.code == "upstream_unreachable"
        await upstream.aclose()
    upstream = open_upstream("https://localhost:1/v1", T, ca_file=authority.file, proxy=url)
    with pytest.raises(UpstreamError) as caught:
        await ask(upstream)
    assert caught.value.code == "upstream_unreachable"
    await upstream.aclose()


async def test_a_stranger_behind_the_proxy(authority: Authority, stranger: Authority) -> None:
    """The certificate behind the tunnel is checked like any other: upstream_tls."""
    async with Origin(saying(whole(b"1")), stranger.context()) as origin, Origin(ForwardProxy()) as proxy:
        upstream = open_upstream(origin.url, T, ca_file=authority.file, proxy=f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(UpstreamError) as caught:
            await ask(upstream)
        assert caught.value.code == "upstream_tls"
        await upstream.aclose()


async def test_a_mock_transport() -> None:
    """An injected transport sees the request as the network would, and its replies pass the same checks."""
    seen: list[httpx2.Request] = []

    async def events() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        yield b"data: 2\n\n"

    async def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        if request.content == b"slow":
            await asyncio.sleep(5)
        if request.content == b"gzip":
            return httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=httpx2.ByteStream(b"x"))
        if request.content == b"stream":
            return httpx2.Response(200, content=events())
        return httpx2.Response(201, json={"a": 1})

    upstream = HttpxUpstream("https://h/v1", Timeouts(1, 0.1, 1, 5), transport=httpx2.MockTransport(handler))
    assert await ask(upstream) == (201, b'{"a":1}')
    assert str(seen[0].url) == "https://h/v1/chat/completions"
    assert seen[0].headers["authorization"] == "Bearer sk-canary"
    assert await pieces(await upstream.send(post(b"stream"), KEY)) == (b"data: 1\n\ndata: 2\n\n", None)
    with pytest.raises(UpstreamError, match="compressed"):
        await upstream.send(post(b"gzip"), KEY)
    with pytest.raises(UpstreamError, match="begin to answer"):
        await upstream.send(post(b"slow"), KEY)
    await upstream.aclose()
