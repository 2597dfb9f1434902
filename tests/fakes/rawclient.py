"""Clients that do what no library lets you do: read or write slowly, reset, half-close, pipeline."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from typing import Any

from tests.fakes.httpwire import Reply, ReplyReader

_RESET = struct.pack("ii", 1, 0)


def request(
    path: str = "/v1/chat/completions",
    body: Any = None,
    *,
    method: str = "POST",
    key: str | None = None,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    host: str = "sidecar",
    length: bool = True,
) -> bytes:
    """Return one HTTP/1.1 request's bytes; ``body`` is sent as it is if bytes, else as JSON."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}"]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lines += [f"{name}: {value}" for name, value in pairs]
    if body is not None:
        lines.append("content-type: application/json")
        if length:
            lines.append(f"content-length: {len(data)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + data


def chat(model: str, *, stream: bool = False, text: str = "hello", **more: Any) -> dict[str, Any]:
    """Return a chat request's body."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    if stream:
        body["stream"] = True
    return body


class _Ends:
    """The ways to end a connection."""

    sock: socket.socket

    def half_close(self) -> None:
        """Send FIN, and go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> float:
        """Send RST; return when."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()
        return time.monotonic()

    def close(self) -> float:
        """Send FIN (or RST, if unread bytes lie in the buffer); return when."""
        self.sock.close()
        return time.monotonic()


class RawClient(_Ends):
    """A blocking client on one socket."""

    def __init__(self, port: int, *, receive_buffer: int | None = None, timeout: float = 20.0) -> None:
        self.sock = socket.socket()
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.sock.connect(("127.0.0.1", port))
        except BaseException:
            self.sock.close()
            raise
        self.reader = ReplyReader()
        self._ready: list[Reply] = []
        self.ended = False

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def try_send(self, data: bytes) -> bool:
        """Send; return False where the peer does not want it any more."""
        try:
            self.sock.sendall(data)
        except (ConnectionError, TimeoutError):
            return False
        return True

    def send_slowly(self, data: bytes, *, step: int = 1, pause: float = 0.1, until: float = 60.0) -> float:
        """Send ``step`` bytes every ``pause`` seconds; return after how long the peer closed, or all was sent."""
        began = time.monotonic()
        for i in range(0, len(data), step):
            if not self.try_send(data[i : i + step]) or time.monotonic() - began > until:
                break
            self.sock.settimeout(pause)
            try:
                got = self.sock.recv(65536)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            self._take(got)
            if not got:
                break
        self.sock.settimeout(20.0)
        return time.monotonic() - began

    def _take(self, data: bytes) -> None:
        if data:
            self._ready += self.reader.feed(data)
        else:
            self.ended = True

    def reply(self, *, timeout: float = 20.0) -> Reply:
        """Return the next reply. One cut short has ``complete`` False; ConnectionError if none began."""
        limit = time.monotonic() + timeout
        while not self._ready:
            if self.ended:
                broken = self.reader.eof()
                if broken is None:
                    raise ConnectionError("the connection ended without a reply")
                return broken
            self.sock.settimeout(max(0.01, limit - time.monotonic()))
            try:
                data = self.sock.recv(262_144)
            except ConnectionResetError:
                data = b""
            self._take(data)
        return self._ready.pop(0)

    def read_until(self, marker: bytes, *, timeout: float = 20.0) -> bytes:
        """Read until the body under way contains ``marker``; return it as far as it came."""
        limit = time.monotonic() + timeout
        while True:
            current = self.reader.current
            if current is not None and marker in current.body:
                return current.body
            if self._ready or self.ended:
                raise AssertionError(f"the reply ended without {marker!r}: {self._ready or current}")
            self.sock.settimeout(max(0.01, limit - time.monotonic()))
            self._take(self.sock.recv(65536))

    def read_slowly(self, *, step: int = 1024, pause: float = 1.0, seconds: float = 10.0) -> int:
        """Read ``step`` bytes every ``pause`` seconds; return how many came (fewer if the peer closed)."""
        limit = time.monotonic() + seconds
        total = 0
        while time.monotonic() < limit:
            try:
                data = self.sock.recv(step)
            except ConnectionError:
                data = b""
            if not data:
                self.ended = True
                break
            total += len(data)
            time.sleep(pause)
        return total

    def ask(self, data: bytes, **options: Any) -> Reply:
        self.send(data)
        return self.reply(**options)

    def closed_within(self, seconds: float) -> float | None:
        """Return after how long the peer closed the connection, None if it did not in time."""
        began = time.monotonic()
        while (left := seconds - (time.monotonic() - began)) > 0:
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                return None
            except ConnectionError:
                data = b""
            if not data:
                self.ended = True
                return time.monotonic() - began
            self._take(data)
        return None


class KeptClient:
    """A client that keeps its connection as long as the server does, and opens another when it must."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.opened = 0
        self._client: RawClient | None = None

    def __enter__(self) -> KeptClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def drop(self) -> None:
        """Close the connection; the next request opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def ask(self, data: bytes, *, head: bool = False, timeout: float = 20.0) -> Reply:
        """Send one request; ``head``: it is a HEAD request."""
        fresh = self._client is None
        if self._client is None:
            self._client = RawClient(self.port)
            self.opened += 1
        client = self._client
        client.reader.heads_only = head
        try:
            client.try_send(data)
            reply = client.reply(timeout=timeout)
        except ConnectionError:
            self.drop()
            if fresh:
                raise
            return self.ask(data, head=head, timeout=timeout)
        except BaseException:
            self.drop()
            raise
        if reply.header("connection") == "close" or not reply.complete or client.reader.rest:
            self.drop()
        return reply


class AsyncRawClient(_Ends):
    """The same for many at once, on one event loop."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = ReplyReader()
        self._ready: list[Reply] = []
        self.ended = False
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, port: int, *, receive_buffer: int | None = None) -> AsyncRawClient:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def __aenter__(self) -> AsyncRawClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def _more(self) -> None:
        try:
            data = await self._loop.sock_recv(self.sock, 262_144)
        except ConnectionResetError:
            data = b""
        if data:
            self._ready += self.reader.feed(data)
        else:
            self.ended = True

    async def reply(self, *, timeout: float = 30.0) -> Reply:
        async with asyncio.timeout(timeout):
            while not self._ready:
                if self.ended:
                    broken = self.reader.eof()
                    if broken is None:
                        raise ConnectionError("the connection ended without a reply")
                    return broken
                await self._more()
            return self._ready.pop(0)

    async def read_until(self, marker: bytes, *, timeout: float = 30.0) -> bytes:
        async with asyncio.timeout(timeout):
            while True:
                current = self.reader.current
                if current is not None and marker in current.body:
                    return current.body
                if self._ready or self.ended:
                    raise AssertionError(f"the reply ended without {marker!r}: {self._ready or current}")
                await self._more()

    async def head(self, *, timeout: float = 30.0) -> Reply:
        """Return the reply under way as soon as its head is in."""
        async with asyncio.timeout(timeout):
            while self.reader.current is None:
                if self._ready:
                    return self._ready[0]
                if self.ended:
                    raise ConnectionError("the connection ended without a reply")
                await self._more()
            return self.reader.current

    async def closed_within(self, seconds: float) -> float | None:
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.ended:
                    await self._more()
                return time.monotonic() - began
        return None

    async def ask(self, data: bytes, **options: Any) -> Reply:
        await self.send(data)
        return await self.reply(**options)
