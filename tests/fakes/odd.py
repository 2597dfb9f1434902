"""Ports that are no server at all: what connect, TLS and HTTP meet when something else listens, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Any


class OddListener:
    """One odd port.

    ``refuse`` answers connects with RST; ``full`` never completes them (its queue is full); ``silent``
    accepts and reads, and says nothing; ``reset`` accepts and resets; ``garbage`` says what is not HTTP.
    """

    def __init__(self, kind: str, raw: socket.socket) -> None:
        self.kind = kind
        self.raw = raw
        self.port: int = raw.getsockname()[1]
        self.accepted = 0
        self.received = b""
        self._kept: list[socket.socket] = []
        self._server: asyncio.Server | None = None

    @classmethod
    async def open(cls, kind: str) -> OddListener:
        raw = socket.socket()
        raw.bind(("127.0.0.1", 0))
        odd = cls(kind, raw)
        if kind == "full":
            raw.listen(0)
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    filler.connect(("127.0.0.1", odd.port))
                odd._kept.append(filler)
        elif kind in ("silent", "reset", "garbage"):
            odd._server = await asyncio.start_server(odd._serve, sock=raw)
        elif kind != "refuse":
            raise ValueError(f"no odd listener called {kind!r}")
        return odd

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.kind == "reset":
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return
        if self.kind == "garbage":
            writer.write(b"220 smtp.invalid ESMTP\r\n" * 10)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.received = (self.received + data)[:100_000]
        writer.close()

    def export(self) -> dict[str, Any]:
        return {"kind": self.kind, "accepted": self.accepted, "received": self.received.decode("latin-1")}

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for kept in self._kept:
            kept.close()
        self.raw.close()
