"""What calls came to, on its way to a shared store: bounded, in numbered batches, sent until acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson

from proxy.store.base import StoreUnavailable
from proxy.store.ledger import SUMS, Ledger

#: Settlements that may wait. Above it the oldest is given up: its hold stays booked in full, never less.
MAX_WAITING: Final = 10_000
MAX_BATCH: Final = 256
MAX_ENTRY_BYTES: Final = 64 * 1024 * 1024
#: Calls that end close together share a batch.
GATHER: Final = 0.002
RETRY: Final = 0.05
Send = Callable[[str, int, bytes, int], Awaitable[None]]
Keep = Callable[[list[tuple[str, bytes, int]]], Awaitable[None]]


class _Team:
    __slots__ = ("books", "settles")

    def __init__(self) -> None:
        self.settles: list[Any] = []
        self.books: dict[tuple[Any, ...], tuple[Any, int]] = {}


class Outbox:
    """Collects settlements and ledger rows; one task sends them, one flight at a time, in order.

    What was never admitted (the store was down and the policy lets calls pass) and the ledger's rows are
    sums, so they stay small however long the store is away.
    """

    def __init__(self, send: Send, keep: Keep, log: logging.Logger, ledger: Ledger, keep_months: int) -> None:
        self.ledger = ledger
        self.waiting = 0
        self.dropped = 0
        self._send = send
        self._log = log
        self._keep = keep
        self._keep_seconds = (keep_months + 1) * 31 * 86400
        self._entries: list[tuple[str, bytes, int]] = []
        self._entry_bytes = 0
        self._flying: list[tuple[str, int, bytes, int]] = []
        self._teams: dict[str, _Team] = {}
        self._number = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run(), name="store-outbox")

    async def aclose(self, deadline: float) -> None:
        """Send what waits, within ``deadline`` seconds."""
        if self._task is None:
            return
        self.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                while self:
                    self._idle.clear()
                    await self._idle.wait()
        if self:
            self._log.error("settlements_lost", extra={"fields": {"waiting": self.waiting}})
        self._task.cancel()
        await asyncio.wait([self._task])

    def __bool__(self) -> bool:
        return bool(self._flying or self._teams or self.ledger.rows or self._entries)

    def settle(self, team: str, item: Any) -> None:
        """Queue one settlement: id, epoch, claims, actuals, mask."""
        if self.waiting >= MAX_WAITING:
            # The hold stays: it is booked in full when this sidecar ends.
            if not self.dropped:
                self._log.error("settlements_dropped", extra={"fields": {"waiting": self.waiting}})
            self.dropped += 1
            return
        self.waiting += 1
        self._team(team).settles.append(item)

    def book(self, team: str, row: tuple[Any, ...], amount: int) -> None:
        """Queue the truth of a claim that was never admitted."""
        books = self._team(team).books
        key = row[:2]
        books[key] = (row, amount + (books[key][1] if key in books else 0))

    def remember(self, key: str, value: bytes, milliseconds: int) -> None:
        """Queue a cache entry, which is dropped where there is no room or the store is away."""
        if self._entry_bytes + len(value) <= MAX_ENTRY_BYTES:
            self._entry_bytes += len(value)
            self._entries.append((key, value, milliseconds))
            self.wake()

    def wake(self) -> None:
        """Say that something waits."""
        self._wake.set()

    def _team(self, team: str) -> _Team:
        found = self._teams.get(team)
        if found is None:
            found = self._teams[team] = _Team()
        return found

    # --- the task ---------------------------------------------------------------------------------------
    async def _run(self) -> None:
        while True:
            if not self:
                self._idle.set()
                await self._wake.wait()
                await asyncio.sleep(GATHER)
            self._wake.clear()
            if self._entries:
                entries = self._entries.copy()
                with contextlib.suppress(StoreUnavailable):
                    await self._keep(entries)
                del self._entries[: len(entries)]
                self._entry_bytes -= sum(len(value) for _, value, _ in entries)
            self._flying = self._batches()
            said = 0.0
            while self._flying:
                results = await asyncio.gather(*[self._send(*batch) for batch in self._flying], return_exceptions=True)
                left = []
                for batch, result in zip(self._flying, results, strict=True):
                    if result is None:
                        self.waiting -= batch[3]
                    else:
                        left.append(batch)
                        if not isinstance(result, StoreUnavailable) and time.monotonic() - said > 1.0:
                            said = time.monotonic()
                            self._log.error("settlement_failed", extra={"fields": {"reason": repr(result)}})
                self._flying = left
                if left:
                    await asyncio.sleep(RETRY)

    def _batches(self) -> list[tuple[str, int, bytes, int]]:
        usage: dict[str, list[Any]] = {}
        for (month, team, *row), sums in self.ledger.take().items():
            some = [(name, amount) for name, amount in zip(SUMS, sums, strict=True) if amount]
            usage.setdefault(team, []).append((month, orjson.dumps(row).decode(), some))
        batches = []
        for team in self._teams.keys() | usage.keys():
            queued = self._teams.get(team)
            settles: list[Any] = []
            books: list[Any] = []
            if queued is not None:
                settles, queued.settles = queued.settles[:MAX_BATCH], queued.settles[MAX_BATCH:]
                books, queued.books = list(queued.books.values()), {}
                if not queued.settles:
                    del self._teams[team]
            self._number += 1
            content = {"settle": settles, "book": books, "usage": usage.get(team, ()), "keep": self._keep_seconds}
            batches.append((team, self._number, orjson.dumps(content), len(settles)))
        return batches
