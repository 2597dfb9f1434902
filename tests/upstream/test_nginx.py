"""Against nginx, a server that nobody here wrote: framing, keep-alive, early refusals, TLS."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.upstream.base import UpstreamRequest
from tests.fakes.ports import free_port
from tests.upstream.authority import Authority
from tests.upstream.conftest import KEY, Connect, ask, post
from tests.upstream.origin import EVENTS, Origin, Peer, chunk, eventually

CONF = """
daemon off; master_process off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s; types {{ }} default_type text/plain;
  keepalive_timeout 65s 2s; client_max_body_size 100k; gzip on; gzip_types *; gzip_min_length 1;
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{secure} ssl;
    ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/cert.pem; ssl_protocols TLSv1.3;
    root {dir}/www;
    location /v1/hello {{ return 200 "hello"; }}
    location /v1/short {{ keepalive_timeout 1s; return 200 "short"; }}
    location /v1/few {{ keepalive_requests 2; return 200 "few"; }}
    location /v1/moved {{ return 302 http://127.0.0.1:1/; }}
    location /v1/none {{ return 204; }}
    location /v1/through {{ proxy_pass http://127.0.0.1:{origin}/v1/through; proxy_http_version 1.1;
                           proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""


class Nginx:
    """A private nginx and the port of the server it forwards /v1/through to."""

    def __init__(self, folder: Path, program: str, authority: Authority) -> None:
        self.plain, self.secure, self.origin = free_port(), free_port(), free_port()
        www = folder / "www" / "v1"
        www.mkdir(parents=True)
        (www / "file").write_bytes(bytes(range(256)) * 12_000)
        authority.write_pem(folder / "cert.pem")
        conf = folder / "nginx.conf"
        conf.write_text(CONF.format(dir=folder, plain=self.plain, secure=self.secure, origin=self.origin))
        self.process = subprocess.Popen([program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(conf)])
        end = time.monotonic() + 5
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.plain), 0.2).close()
                return
            except OSError:
                assert self.process.poll() is None, (folder / "error.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.02)

    def url(self, secure: bool) -> str:
        return f"https://localhost:{self.secure}/v1" if secure else f"http://127.0.0.1:{self.plain}/v1"


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Nginx]:
    program = os.environ.get("NGINX") or shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed (`make programs` does it on Debian; or set NGINX to the program)")
    server = Nginx(tmp_path_factory.mktemp("nginx"), program, authority)
    yield server
    server.process.terminate()
    server.process.wait(5)


def get(path: str) -> UpstreamRequest:
    return UpstreamRequest(path, b"", method="GET")


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_everyday_replies(connect: Connect, nginx: Nginx, authority: Authority, secure: bool) -> None:
    """Content-length, no content, a redirect, a missing file, three megabytes: and never compressed."""
    upstream = connect(nginx.url(secure), ca_file=authority.file) if secure else connect(nginx.url(secure))
    assert await ask(upstream, get("/hello")) == (200, b"hello")
    assert await ask(upstream, get("/none")) == (204, b"")
    assert (await ask(upstream, get("/moved")))[0] == 302
    assert (await ask(upstream, get("/nothing")))[0] == 404
    assert await ask(upstream, get("/file")) == (200, bytes(range(256)) * 12_000)
    assert await ask(upstream, UpstreamRequest("/file", b"", method="HEAD")) == (200, b"")


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_one_connection_serves_many(raw: Connect, nginx: Nginx, authority: Authority, secure: bool) -> None:
    """A hundred calls, one connection; nginx's Keep-Alive hint of two seconds is seen."""
    upstream = raw(nginx.url(secure), ca_file=authority.file) if secure else raw(nginx.url(secure))
    for _ in range(100):
        assert await ask(upstream, get("/hello")) == (200, b"hello")
    assert upstream.pool.opened == 1
    if not secure:
        await eventually(lambda: upstream.pool.size == 0, 1.5)


async def test_connections_that_nginx_ends(raw: Connect, nginx: Nginx) -> None:
    """keepalive_requests and keepalive_timeout end connections under us; no call fails."""
    upstream = raw(nginx.url(False))
    for _ in range(7):
        assert await ask(upstream, get("/few")) == (200, b"few")
    for pause in (0.5, 1.0):
        assert await ask(upstream, get("/short")) == (200, b"short")
        await asyncio.sleep(pause)
    assert await ask(upstream, get("/short")) == (200, b"short")


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_nginx_refuses_early(raw: Connect, nginx: Nginx, authority: Authority, secure: bool) -> None:
    """nginx answers 413 from the head alone and closes while we write: the caller gets the 413, every time."""
    upstream = raw(nginx.url(secure), ca_file=authority.file) if secure else raw(nginx.url(secure))
    for _ in range(10):
        status, _ = await ask(upstream, post(b"x" * 5_000_000, "/through"))
        assert status == 413
    assert await ask(upstream, get("/hello")) == (200, b"hello")


async def test_streams_through_nginx(connect: Connect, nginx: Nginx, authority: Authority) -> None:
    """A stream that nginx passes on arrives piece by piece, as it was made.

    (Cut behind nginx it ends like a whole one: only the missing terminal event tells. Not ours to see here.)
    """

    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            peer.write(EVENTS)
            for n in range(5):
                peer.write(chunk(b"data: %d\n\n" % n))
                await asyncio.sleep(0.03)
            peer.write(b"0\r\n\r\n")

    origin = Origin(script)
    origin.port = nginx.origin
    async with origin:
        reply = await connect(nginx.url(True), ca_file=authority.file).send(post(b"{}", "/through"), KEY)
        pieces = []
        while piece := await reply.read():
            pieces.append(piece)
        assert b"".join(pieces) == b"".join(b"data: %d\n\n" % n for n in range(5))
        assert len(pieces) >= 3
