"""A reply on a raw connection: what has arrived and was not read yet, and how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.errors import UpstreamError
from proxy.upstream import faults
from proxy.upstream.base import Headers, UpstreamReply

if TYPE_CHECKING:
    from proxy.upstream.connection import Connection

HIGH_WATER: Final = 64 * 1024
"""Queued bytes at which reading from the network pauses. A read takes all of them, so it resumes at none."""
_NO_HEADERS: Final[Headers] = {}


class RawReply(UpstreamReply):
    """One exchange as its owner sees it; the connection may long serve another one.

    ``status`` is 0 until the final reply's head is in. Data that arrived before an error is read first.
    """

    __slots__ = (
        "_loop",
        "_pieces",
        "_waiter",
        "complete",
        "conn",
        "error",
        "headers",
        "queued",
        "sink",
        "stale",
        "status",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, conn: Connection) -> None:
        self._loop = loop
        self._pieces: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self.conn: Connection | None = conn
        """The connection while it still works for this reply."""
        self.status = 0
        self.headers = _NO_HEADERS
        self.queued = 0
        self.sink: Callable[[bytes], None] | None = None
        self.complete = False
        """The message's end has been parsed."""
        self.error: UpstreamError | None = None
        self.stale = False
        """The connection was a kept one and ended without a byte: the request was probably never seen."""

    # The connection's side.

    def put(self, data: bytes) -> None:
        """Queue a piece of the body."""
        if self.sink is not None:
            self.sink(data)
        else:
            self._pieces.append(data)
            self.queued += len(data)

    def wake(self) -> None:
        """Wake the owner, if it waits."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    # The owner's side.

    def waiter(self) -> asyncio.Future[None]:
        """Return a future that is done when anything changes; whoever is cancelled in it has to close the reply."""
        waiter = self._waiter = self._loop.create_future()
        return waiter

    async def wait(self) -> None:
        """Wait until anything changes; cancelling closes the connection."""
        try:
            await self.waiter()
        except BaseException:
            self.close()
            raise

    async def read(self) -> bytes:
        while True:
            if self._pieces:
                return self._take()
            if self.complete:
                return b""
            if self.error is not None:
                raise self.error
            if (conn := self.conn) is not None and conn.paused:
                conn.resume()
            try:
                await self.waiter()  # wait(), without its frame
            except BaseException:
                self.close()
                raise

    def read_nowait(self) -> bytes | None:
        if self._pieces:
            return self._take()
        if self.complete:
            return b""
        if self.error is not None:
            raise self.error
        return None

    def push_to(self, sink: Callable[[bytes], None] | None) -> bool:
        if sink is None:
            self.sink = None
            self.wake()
            return True
        if self._pieces or self.complete or self.error is not None:
            return False
        self.sink = sink
        if (conn := self.conn) is not None and conn.paused:
            conn.resume()
        return True

    def pause(self) -> None:
        if self.conn is not None:
            self.conn.pause()

    async def pushed(self) -> None:
        while self.sink is not None and not self.complete and self.error is None:
            await self.wait()

    async def body(self, limit: int) -> bytes:
        if not self.complete or self.queued > limit:
            return await super().body(limit)
        return self._take() if self._pieces else b""

    def close(self) -> None:
        conn = self.conn
        if conn is not None:
            self.conn = None
            self.error = faults.closed()
            self._pieces.clear()
            self.queued = 0
            conn.give_up(self)
            self.wake()

    def release(self) -> None:
        conn = self.conn
        if conn is not None:
            self.conn = None  # close() has nothing to end any more
            self._pieces.clear()
            self.queued = 0
            conn.linger()

    def _take(self) -> bytes:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.queued = 0
        conn = self.conn
        if conn is not None and conn.paused:
            conn.resume()
        return data
