"""Keeps one connection to Redis, knows whether the store is down, and comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from proxy.store.address import Address, connect
from proxy.store.base import StoreUnavailable
from proxy.store.resp import Connection, RedisError

#: After so many deadlines missed in a row, or vain attempts to connect, the store counts as down.
MISSES: Final = 3
PROBE_EVERY: Final = 1.0
RETRY_EVERY: Final = 0.03
_LUA: Final = Path(__file__).parent / "lua"
#: The server is there but cannot serve this command now; it did nothing.
_NOT_NOW: Final = (
    "LOADING",
    "BUSY",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "MISCONF",
    "OOM",
    "TRYAGAIN",
    "NOREPLICAS",
)


class Script:
    """A Lua script of this package, with its SHA-1 for EVALSHA."""

    __slots__ = ("sha", "source")

    def __init__(self, name: str) -> None:
        self.source = (_LUA / "common.lua").read_text("utf-8") + (_LUA / f"{name}.lua").read_text("utf-8")
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class Link:
    """Commands to one Redis. ``down`` is True after three misses, until a probe, one a second, is answered."""

    def __init__(
        self,
        address: Address,
        deadline: float,
        *,
        log: logging.Logger,
        metrics: Any = None,
        on_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.address = address
        self.deadline = deadline
        self.down = False
        self._log = log
        self._metrics = metrics
        self._on_up = on_up
        self._connection: Connection | None = None
        self._down_since = 0.0
        self._misses = 0
        self._closed = False
        self._ready: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._scripts: list[Script] = []

    def script(self, name: str) -> Script:
        """Return a script that every new connection loads."""
        script = Script(name)
        self._scripts.append(script)
        return script

    async def start(self) -> None:
        """Connect; where that fails, say so and go on trying in the background."""
        try:
            await self._connect()
        except StoreUnavailable as error:
            self._go_down(str(error))
            self._reconnect()

    async def aclose(self) -> None:
        """Drop the connection and stop trying."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._connection is not None:
            self._connection.close()

    async def command(self, *command: str | bytes | int) -> Any:
        """Return the reply to one command.

        Raises:
            StoreUnavailable: no answer within the deadline (the result is unknown), or the store is down.
            RedisError: the server refused the command.
        """
        connection = self._connection
        if connection is None:
            connection = await self._await_connection()
        try:
            return await connection.send(*command)
        except RedisError as error:
            word = str(error).split(" ", 1)[0]
            if word in _NOT_NOW:
                self._miss()
                if word == "READONLY":  # a failover made a replica of it
                    self._drop(connection)
                raise StoreUnavailable(f"The store cannot serve now: {error}") from error
            raise

    async def run(self, script: Script, key: str, *arguments: str | bytes | int) -> Any:
        """Return a script's reply; load it again where the server has forgotten it."""
        try:
            return await self.command("EVALSHA", script.sha, 1, key, *arguments)
        except RedisError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        return await self.command("EVAL", script.source, 1, key, *arguments)

    # --- up and down ------------------------------------------------------------------------------------
    async def _await_connection(self) -> Connection:
        if not self.down and self._ready is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._ready), self.deadline)
        if self._connection is None:
            raise StoreUnavailable(f"The store {self.address} is down.")
        return self._connection

    async def _connect(self) -> None:
        def make() -> Connection:
            return Connection(
                max(self.deadline, 0.5) if self._connection is None else self.deadline,
                missed=self._miss, answered=self._answer, lost=self._lose,
            )  # fmt: skip

        connection = await connect(self.address, make)
        try:
            await asyncio.gather(*[connection.send("SCRIPT", "LOAD", script.source) for script in self._scripts])
        except RedisError as error:
            connection.close()
            raise StoreUnavailable(f"The store {self.address} cannot serve now: {error}") from error
        except BaseException:
            connection.close()
            raise
        connection.deadline = self.deadline
        self._connection = connection
        self._misses = 0
        if self.down:
            self._count_degraded()
            self.down = False
            self._log.warning("store_back", extra={"fields": {"store": str(self.address)}})
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
        self._ready = None
        self._on_up()

    def _count_degraded(self) -> None:
        now = time.monotonic()
        if self._metrics is not None:
            self._metrics.store_degraded.inc(amount=now - self._down_since)
        self._down_since = now

    def _answer(self) -> None:
        self._misses = 0

    def _miss(self) -> None:
        self._misses += 1
        if self._misses >= MISSES and self._connection is not None:
            self._go_down("it missed its deadline three times")
            self._drop(self._connection)

    def _lose(self, connection: Connection) -> None:
        if connection is self._connection:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        connection.close()
        self._reconnect()

    def _reconnect(self) -> None:
        if self._closed or (self._task is not None and not self._task.done()):
            return
        self._ready = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._come_back(), name="store-reconnect")

    async def _come_back(self) -> None:
        attempts = 0
        while True:
            began = time.monotonic()
            try:
                await self._connect()
                return
            except StoreUnavailable as error:
                attempts += 1
                if attempts >= MISSES or self.down:
                    self._go_down(str(error))
            if self.down:
                self._count_degraded()
                await asyncio.sleep(max(RETRY_EVERY, began + PROBE_EVERY - time.monotonic()))
            else:
                await asyncio.sleep(RETRY_EVERY)

    def _go_down(self, reason: str) -> None:
        """Count as down; said again in every second that lasts."""
        if not self.down:
            self.down = True
            self._down_since = time.monotonic()
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
        self._log.error("store_unavailable", extra={"fields": {"store": str(self.address), "reason": reason}})
