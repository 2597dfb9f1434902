"""One pipelined connection to a Redis server.

redis-py costs 63 to 131 µs of CPU a command here; commands of one turn of the event loop written
together on one connection, parsed by hiredis, cost 4 to 54. A command is never cancelled: whoever waits
may give up, its place in the line stays and takes the reply that belongs to it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import hiredis

from proxy.store.base import StoreUnavailable

LATE: Final = "The store did not answer within its deadline."


class RedisError(Exception):
    """An error reply of the server. The command did nothing."""


class Connection(asyncio.Protocol):
    """Send commands, one future each, answered in order.

    ``deadline`` seconds each; ``missed()`` is called for every command that passes it, ``answered()``
    for every read, ``lost()`` once, when the connection ends unless by :meth:`close`.
    """

    def __init__(
        self,
        deadline: float,
        *,
        missed: Callable[[], None] = lambda: None,
        answered: Callable[[], None] = lambda: None,
        lost: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        self.deadline = deadline
        self.open = False
        self._missed = missed
        self._answered = answered
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(replyError=RedisError, protocolError=RedisError)
        self._out: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._watched: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def send(self, *command: str | bytes | int) -> asyncio.Future[Any]:
        """Send a command with this turn's others; the future fails with RedisError or StoreUnavailable."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self.open:
            future.set_exception(StoreUnavailable("The connection to the store is closed."))
            return future
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(hiredis.pack_command(command))  # type: ignore[arg-type]
        self._waiting.append(future)
        due = self._loop.time() + self.deadline
        self._watched.append((due, future))
        if self._timer is None or due < self._due:
            self._arm(due)
        return future

    def close(self) -> None:
        """Drop the connection; what waits fails with StoreUnavailable."""
        self._lost = lambda _: None
        if self._transport is not None:
            self._transport.abort()
        self._end(StoreUnavailable("The connection to the store is closed."))

    # --- asyncio.Protocol -------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport by class
        self.open = True

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                future = waiting.popleft()
                if not future.done():
                    if isinstance(reply, RedisError):
                        future.set_exception(reply)
                    else:
                        future.set_result(reply)
        except (RedisError, IndexError):  # not RESP, or more replies than commands: nothing here can be trusted
            if self._transport is not None:
                self._transport.abort()
            self._end(StoreUnavailable("The store's answer is no Redis reply."), lost=True)
            return
        self._answered()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(StoreUnavailable("The connection to the store was lost."), lost=True)

    # --- inside -----------------------------------------------------------------------------------------
    def _flush(self) -> None:
        out, self._out = self._out, []
        if self.open and self._transport is not None:
            self._transport.write(b"".join(out))

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_at(due, self._check)

    def _check(self) -> None:
        self._timer = None
        watched, now = self._watched, self._loop.time()
        while watched:
            due, future = watched[0]
            if not future.done():
                if due > now:
                    self._arm(due)
                    return
                future.set_exception(StoreUnavailable(LATE))
                self._missed()
            if watched:
                watched.popleft()

    def _end(self, error: StoreUnavailable, *, lost: bool = False) -> None:
        was_open, self.open = self.open, False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, deque()
        self._watched.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)
        if was_open and lost:
            self._lost(self)
