"""One connection to the fake upstream: requests parsed in order, writes that know what the kernel took."""

from __future__ import annotations

import asyncio
import fcntl
import socket as sockets
import struct
import termios
import time
from typing import TYPE_CHECKING, Any

import httptools

from tests.fakes.records import Record, Socket

if TYPE_CHECKING:
    from tests.fakes.upstream import FakeServer

KEEP_BODY = 1 << 20


class Gone(Exception):
    """The peer left."""


class Cut(Exception):
    """We cut the connection, as told."""


class Connection(asyncio.Protocol):
    """Parses requests, hands each to the server in turn, and never writes past what was asked."""

    def __init__(self, server: FakeServer, listener: str) -> None:
        self.server = server
        self.listener = listener
        self.loop = asyncio.get_running_loop()
        self.transport: Any = None
        self.socket: Socket | None = None
        self.gone = False
        self.paused = False
        self.cut_by_us = False
        self.current: Record | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._requests: asyncio.Queue[Record | None] = asyncio.Queue()
        self._building: Record | None = None
        self._parts: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self._body_waiter: asyncio.Future[None] | None = None
        self._speed = 0.0

    # --- the transport's side ---------------------------------------------------------------------
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=0)
        self.socket = self.server.accepted(self.listener)
        self._task = self.loop.create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        assert self.socket is not None
        self.socket.received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.server.garbage.append(data[:2000])
            self.transport.close()
            return
        if self._speed and self._building is not None:
            self.transport.pause_reading()
            self.loop.call_later(self._speed, self._resume)

    def _resume(self) -> None:
        if not self.gone and not self.transport.is_closing():
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        self._lost(True)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._lost(not self.cut_by_us and not self.transport.is_closing())
        self._requests.put_nowait(None)

    def _lost(self, by_peer: bool) -> None:
        if self.gone:
            return
        self.gone = True
        now = time.monotonic()
        assert self.socket is not None
        self.socket.closed = now
        self.socket.by_peer = by_peer
        if self.current is not None and not self.current.ended and not self.cut_by_us:
            self.current.gone = now
        elif self._building is not None:
            self._building.gone = now
        self._wake()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._wake()

    def _wake(self) -> None:
        for waiter in (self._waiter, self._body_waiter):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    # --- the parser's side ------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        assert self.socket is not None
        self._building = Record("", self.socket, started=time.monotonic())
        self._parts = []

    def on_url(self, url: bytes) -> None:
        assert self._building is not None
        self._building.path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._building is not None
        self._building.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        record = self._building
        assert record is not None
        record.method = self._parser.get_method().decode()
        if not record.path.startswith("/__"):
            record.id = self.server.next_id()
            self.server.records.append(record)
        path_behaviour = self.server.path_behaviour(record)
        self._speed = path_behaviour.slow if path_behaviour else 0.0
        if path_behaviour and path_behaviour.early:
            record.end = "early"
            self._requests.put_nowait(record)

    def on_body(self, data: bytes) -> None:
        assert self._building is not None
        self._building.body_size += len(data)
        self._parts.append(data)

    def on_message_complete(self) -> None:
        record, self._building = self._building, None
        assert record is not None
        record.body = b"".join(self._parts)
        record.received = time.monotonic()
        self._parts = []
        if record.end != "early":
            self._requests.put_nowait(record)
        elif self._body_waiter is not None and not self._body_waiter.done():
            self._body_waiter.set_result(None)

    async def _serve(self) -> None:
        while (record := await self._requests.get()) is not None:
            self.current = record
            try:
                await self.server.handle(self, record)
            except Gone:
                record.end = "gone"
            except Cut:
                record.end = "cut"
            except Exception as error:
                # The test's mistake, or this fake's: say so where `calls` looks, and let nobody wait.
                record.problem = f"{type(error).__name__}: {error}"
                self.transport.abort()
            finally:
                record.ended = time.monotonic()
                record.body = record.body[:KEEP_BODY]
            self.current = None
            if self.gone:
                return

    # --- the player's side ------------------------------------------------------------------------
    async def pause(self, seconds: float) -> None:
        """Wait, or raise Gone as soon as the peer leaves."""
        if self.gone:
            raise Gone
        waiter = self._waiter = self.loop.create_future()
        timer = self.loop.call_later(seconds, lambda: waiter.done() or waiter.set_result(None))
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None
        if self.gone:
            raise Gone

    async def write(self, data: bytes) -> None:
        """Write and wait until the kernel took all of it; raise Gone if the peer leaves first."""
        if self.gone or self.transport.is_closing():
            raise Gone
        self.transport.write(data)
        while self.paused:
            waiter = self._waiter = self.loop.create_future()
            try:
                await waiter
            finally:
                self._waiter = None
            if self.gone:
                raise Gone

    async def cut(self, kind: str) -> None:
        """End the connection now, with FIN or RST, and raise Cut."""
        # This is about what arrived, not about races: a moment for the peer to read, and nothing left in our
        # own send queue, which RST would throw away.
        await self.pause(0.01)
        raw = self.transport.get_extra_info("socket")
        until = time.monotonic() + 2
        while (
            time.monotonic() < until and struct.unpack("i", fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
        ):
            await self.pause(0.005)
        self.cut_by_us = True
        if kind == "rst":
            raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()
        raise Cut

    async def body_read(self) -> None:
        """Wait until the rest of an early-answered request's body is in."""
        if self._building is not None and not self.gone:
            self._body_waiter = self.loop.create_future()
            await self._body_waiter
