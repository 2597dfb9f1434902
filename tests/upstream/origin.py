"""A provider's server that does exactly what a test's script says, to the byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

from tests.fakes.ports import free_port

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def whole(body: bytes, *lines: bytes) -> bytes:
    """Return a reply with a content-length."""
    return OK + b"".join(line + b"\r\n" for line in lines) + b"content-length: %d\r\n\r\n" % len(body) + body


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Received:
    """A request as it arrived."""

    def __init__(self, line: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.method, self.target, self.version = line.split(" ")
        self.headers = headers
        self.body = body

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.gone_at: float | None = None
        self.requests = 0

    async def request(self) -> Received | None:
        """Return the next request, None when the client has closed."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        line, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = [(name, value) for name, _, value in (item.partition(": ") for item in lines)]
        length = next((int(value) for name, value in headers if name == "content-length"), 0)
        self.requests += 1
        return Received(line, headers, await self.reader.readexactly(length))

    async def head(self) -> bytes:
        """Return a request's head and leave its body unread."""
        return await self.reader.readuntil(b"\r\n\r\n")

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def fin(self) -> None:
        self.writer.close()

    def rst(self) -> None:
        """Reset the connection: what the client has not read yet may be lost to it."""
        sock: Any = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> float:
        """Wait until the client has closed; return when that was."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while await self.reader.read(65536):
                pass
        self.gone_at = time.monotonic()
        return self.gone_at


Script = Callable[[Peer], Awaitable[None]]


class Origin:
    """A listening server; ``script`` runs once for every connection."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._script = script
        self._context = context
        self._host = host
        self.port = free_port()
        self.peers: list[Peer] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.failed: list[BaseException] = []

    async def __aenter__(self) -> Self:
        options: dict[str, Any] = {"ssl": self._context, "ssl_shutdown_timeout": 0.1} if self._context else {}
        self._server = await asyncio.start_server(self._serve, self._host, self.port, limit=1 << 20, **options)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for peer in self.peers:
            with contextlib.suppress(AttributeError):  # asyncio's, of a transport that has written its rest and closed
                peer.writer.transport.abort()
        await asyncio.sleep(0.01)
        if self.failed and exc[0] is None:
            raise self.failed[0]

    @property
    def url(self) -> str:
        scheme = "https" if self._context else "http"
        host = "localhost" if self._context else self._host
        return f"{scheme}://{host}:{self.port}/v1"

    @property
    def requests(self) -> int:
        return sum(peer.requests for peer in self.peers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        try:
            await self._script(peer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass
        except BaseException as error:
            self.failed.append(error)
        finally:
            writer.close()


def saying(*replies: bytes) -> Script:
    """Return a script that answers the requests of each connection with ``replies`` in turn, the last for ever."""

    async def script(peer: Peer) -> None:
        count = 0
        while await peer.request() is not None:
            peer.write(replies[min(count, len(replies) - 1)])
            count += 1

    return script


def once(reply: bytes) -> Script:
    """Return a script that answers one request with these bytes and closes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(reply)

    return script


async def eventually(check: Callable[[], bool], within: float = 2.0) -> None:
    """Wait until ``check()`` holds."""
    end = time.monotonic() + within
    while not check():
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.002)
