"""The server on a free port of the test's own loop (uvloop, as in production), and clients made of bytes."""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import uvloop

from proxy.server.options import ServerOptions
from proxy.server.serve import Server
from tests.fakes.ports import free_port
from tests.server.stub import Stub

HOST = "127.0.0.1"


def on_uvloop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test on uvloop, with a time limit: a hang is a failure."""

    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        async def limited() -> None:
            await asyncio.wait_for(test(*args, **named), 30)

        uvloop.run(limited())

    return run


def request(path: str = "/echo", body: bytes = b"", *headers: str, method: str = "POST", version: str = "1.1") -> bytes:
    """Return a well-formed request."""
    lines = [f"{method} {path} HTTP/{version}", "Host: sidecar", *headers]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Response:
    """One parsed reply."""

    def __init__(self, head: bytes, body: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        self.body = body

    @property
    def code(self) -> str:
        code: str = orjson.loads(self.body)["error"]["code"]
        return code

    def check_error(self, status: int, code: str) -> None:
        """Assert that this is an error in OpenAI's shape."""
        assert (self.status, self.code) == (status, code), (self.status, self.body)
        error = orjson.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"].endswith(".")
        assert self.headers["content-type"] == "application/json"


class Raw:
    """A client connection that says exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def response(self, *, head_only: bool = False) -> Response:
        """Read one reply, by its own framing."""
        head = (await self.reader.readuntil(b"\r\n\r\n"))[:-4]
        found = Response(head, b"")
        if head_only or found.status == 100 or found.status in (204, 304):
            return found
        if found.headers.get("transfer-encoding") == "chunked":
            while True:
                size = int(await self.reader.readuntil(b"\r\n"), 16)
                data = await self.reader.readexactly(size + 2)
                assert data.endswith(b"\r\n")
                if not size:
                    return found
                found.body += data[:-2]
        if "content-length" in found.headers:
            found.body = await self.reader.readexactly(int(found.headers["content-length"]))
        else:
            found.body = await self.reader.read()
        return found

    async def ask(self, data: bytes) -> Response:
        await self.send(data)
        return await self.response()

    async def closed(self, within: float = 2.0) -> bytes:
        """Wait until the server has closed the connection; return what it still said."""
        try:
            return await asyncio.wait_for(self.reader.read(), within)
        except ConnectionError:
            return b""

    def reset(self) -> None:
        """Leave with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def __aenter__(self) -> Raw:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)


class Site:
    """A running server and its stub application."""

    def __init__(self, server: Server, app: Any, urls: list[str], ops_urls: list[str]) -> None:
        self.server = server
        self.app = app
        self.urls = urls
        self.ops_urls = ops_urls
        self.port = int(re.findall(r":(\d+)$", urls[0])[0]) if urls[0].startswith("http") else 0

    async def raw(self, *, receive_buffer: int = 0) -> Raw:
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (HOST, self.port))
        return Raw(*await asyncio.open_connection(sock=sock, limit=1 << 20))

    async def probe(self) -> None:
        """Assert that the next good call on a fresh connection is served."""
        async with await self.raw() as client:
            good = await client.ask(request("/echo", b"{}"))
            assert good.status == 200, good.body

    @property
    def hub(self) -> Any:
        assert self.server.hub is not None
        return self.server.hub

    async def until(self, condition: Callable[[], Any], within: float = 2.0) -> None:
        """Wait until ``condition`` holds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        while not condition():
            assert loop.time() < end, "the condition never held"
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(app: Any = None, *, ops_app: Any = None, **options: Any) -> AsyncIterator[Site]:
    """Run a server for the block; afterwards it must stop cleanly, with nothing left in work."""
    app = Stub() if app is None else app
    started: asyncio.Future[tuple[list[str], list[str]]] = asyncio.get_running_loop().create_future()
    options = {"listen": f"{HOST}:{free_port()}", "drain_delay": 0.0, "shutdown_grace": 0.5, **options}
    server = Server(
        app, ServerOptions(**options), ops_app=ops_app, on_started=lambda urls, ops: started.set_result((urls, ops))
    )
    task = asyncio.ensure_future(server.serve())
    await asyncio.wait({started, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    site = Site(server, app, *started.result())
    try:
        yield site
    finally:
        server.stop(delay=False)
        assert await asyncio.wait_for(task, 10) == 0
    assert not site.hub.running
    assert not site.hub.connections
    assert site.hub.bodies == 0
