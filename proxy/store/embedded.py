"""The store of one sidecar: counters in memory, and, with a file, every change in a SQLite journal.

Nothing is acknowledged before it is journalled: an admission waits for the end of the same turn of the
event loop, where one row takes the turn's admissions and settlements to the file. Settlements reach it
with the next admission or within ``SETTLE_DELAY``, whichever comes first; so no admission ever stands on
a settlement that a kill -9 could undo.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from proxy.clock import Clock
from proxy.store.base import Claim, ClaimState, Hold, Store, StoreUnavailable, UsageRecord, Verdict
from proxy.store.book import KEEP_TOMB, Book
from proxy.store.entries import Entries
from proxy.store.journal import Journal
from proxy.store.keeper import Keeper
from proxy.store.ledger import KEYS, SUMS, Ledger, as_mapping
from proxy.store.period import month_of, months_before

SETTLE_DELAY: Final = 0.005
FOLD_EVERY: Final = 1.0
SWEEP_EVERY: Final = 60.0
#: What a write may fail with: the file's own errors, and values that it cannot hold. Whoever waits must hear of either.
UNWRITABLE: Final = (sqlite3.Error, OverflowError, TypeError, ValueError)


class EmbeddedStore(Store):
    """Counters, cache and ledger of one process; ``path`` None keeps them in memory only."""

    kind = "memory"

    def __init__(
        self,
        path: str | None = None,
        *,
        clock: Clock | None = None,
        log: logging.Logger | None = None,
        metrics: Any = None,
        hash_user: Callable[[str], str] | None = None,
        keep_months: int = 13,
    ) -> None:
        self.path = path
        if path is not None:
            self.kind = "sqlite"
        self._clock = clock or Clock()
        self._log = log or logging.getLogger("llm_sidecar.store")
        self._metrics = metrics
        self._keep_months = keep_months
        self._book = Book(secrets.token_hex(8))
        self._ledger = Ledger(hash_user)
        self._entries = Entries()
        self._once: dict[str, float] = {}
        self._generations: dict[str, int] = {}
        self._keeper: Keeper | None = None
        self._waiters: list[tuple[asyncio.Future[None], Hold]] = []
        self._flush_timer: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        if self.path is not None:
            self._open(self.path)
            self._tasks.append(asyncio.create_task(self._folds(), name="store-fold"))
        self._tasks.append(asyncio.create_task(self._sweeps(), name="store-sweep"))

    async def aclose(self, deadline: float = 5.0) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            try:
                keeper.fold()
            except UNWRITABLE as error:
                self._failed(error)
            keeper.journal.close()

    # --- limits -----------------------------------------------------------------------------------------
    async def admit(self, hold: Hold) -> Verdict:
        clock = self._clock
        verdict = self._book.admit(hold, clock.monotonic(), clock.time())
        keeper = self._keeper
        if keeper is not None and verdict.admitted:
            keeper.took(hold.id)
            waiter: asyncio.Future[None] = (loop := asyncio.get_running_loop()).create_future()
            if not self._waiters:
                loop.call_soon(self._acknowledge)
            self._waiters.append((waiter, hold))
            await waiter
        return verdict

    def settle(self, hold: Hold, actual: Sequence[int], record: UsageRecord | None = None) -> None:
        if record is not None:
            self._ledger.add(record)
        keeper = self._keeper
        if not hold.settled:
            hold.settled = True
            book, clock = self._book, self._clock
            tomb = hold.id in book.tombs
            if book.settle(hold, actual, clock.monotonic(), clock.time()) and keeper is not None:
                keeper.settled(hold.id, tomb=tomb)
        if keeper is not None:
            self._flush_later()

    def record(self, record: UsageRecord) -> None:
        self._ledger.add(record)
        if self._keeper is not None:
            self._flush_later()

    async def peek(self, claims: Sequence[Claim]) -> Sequence[ClaimState]:
        return self._book.peek(claims, self._clock.monotonic(), self._clock.time())

    async def usage(self, month: str, team: str | None = None) -> list[Mapping[str, Any]]:
        rows: Iterable[tuple[Sequence[str], Sequence[int]]]
        if self._keeper is None:
            rows = list(self._ledger.rows.items())
        else:
            columns = ", ".join((*KEYS, *SUMS))
            sql = f"select {columns} from usage where month = ?" + (" and team = ?" if team is not None else "")
            with self._writing():
                self._keeper.fold()
                found = self._keeper.journal.rows(sql, (month,) if team is None else (month, team))
            rows = [(row[: len(KEYS)], row[len(KEYS) :]) for row in found]
        # A month may have as many rows as there are users: in a thread, calls go on meanwhile.
        return await asyncio.to_thread(
            lambda: [
                as_mapping(key, sums) for key, sums in rows if key[0] == month and (team is None or key[1] == team)
            ]
        )

    async def prune(self, before: str) -> int:
        if self._keeper is not None:
            with self._writing():
                months = self._keeper.journal.rows("select distinct month from usage where month < ?", (before,))
                self._keeper.journal.change("delete from usage where month < ?", (before,))
            return len(months)
        gone = [key for key in self._ledger.rows if key[0] < before]
        for key in gone:
            del self._ledger.rows[key]
        return len({key[0] for key in gone})

    # --- cache ------------------------------------------------------------------------------------------
    async def recall(self, key: str) -> bytes | None:
        if self._keeper is None:
            return self._entries.get(key, self._clock.monotonic())
        with self._writing():
            return self._keeper.recall(key)

    def remember(self, key: str, value: bytes, ttl: float) -> None:
        if self._keeper is None:
            self._entries.put(key, value, self._clock.monotonic() + ttl)
        else:
            self._keeper.cache(key, value, self._clock.time() + ttl)

    def bound_cache(self, max_items: int, max_bytes: int) -> None:
        self._entries.max_items = max_items
        self._entries.max_bytes = max_bytes

    async def generation(self, names: Sequence[str]) -> Sequence[int]:
        return [self._generations.get(name, 0) for name in names]

    async def forget(self, name: str) -> int:
        number = self._generations[name] = self._generations.get(name, 0) + 1
        if self._keeper is not None:
            with self._writing():
                self._keeper.journal.change("insert or replace into generation values (?,?)", (name, number))
        return number

    # --- small things -----------------------------------------------------------------------------------
    async def once(self, key: str, ttl: float) -> bool:
        now = self._clock.time()
        if self._once.get(key, 0.0) > now:
            return False
        if self._keeper is not None:
            with self._writing():
                self._keeper.journal.change("insert or replace into once values (?,?)", (key, now + ttl))
        self._once[key] = now + ttl
        return True

    async def ping(self) -> bool:
        return not self.down

    # --- the file ---------------------------------------------------------------------------------------
    def _open(self, path: str) -> None:
        journal = Journal(path)
        keeper = Keeper(journal, self._book, self._ledger, self._clock)
        try:
            keeper.recover()
            self._once = dict(journal.rows("select name, until from once"))
            self._generations = dict(journal.rows("select name, number from generation"))
        except UNWRITABLE as error:
            journal.close()
            raise OSError(f"The store {path} cannot be used: {error}.") from error
        self._keeper = keeper

    def _flush_later(self) -> None:
        if self._keeper is not None and self._flush_timer is None and not self._waiters:
            self._flush_timer = asyncio.get_running_loop().call_later(SETTLE_DELAY, self._flush_due)

    def _flush_due(self) -> None:
        self._flush_timer = None
        try:
            self._flush()
        except UNWRITABLE as error:
            self._failed(error)
            # Nothing is lost: it goes with the next flush, which is tried again in a second.
            self._flush_timer = asyncio.get_running_loop().call_later(1.0, self._flush_due)

    def _acknowledge(self) -> None:
        """Journal this turn's admissions; take back what cannot be journalled."""
        waiters, self._waiters = self._waiters, []
        try:
            self._flush()
        except UNWRITABLE as error:
            failed = self._failed(error)
            for waiter, hold in waiters:
                self._take_back(hold)
                if not waiter.done():
                    waiter.set_exception(failed)
            self._flush_later()
        else:
            for waiter, _ in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _take_back(self, hold: Hold) -> None:
        if self._keeper is not None:
            self._keeper.gave_up(hold.id)
        for _, _, counter, amount in self._book.holds.pop(hold.id, ()):
            counter.held -= amount
        hold.epoch = ""

    def _flush(self) -> None:
        if self._keeper is not None:
            self._keeper.flush()
            self.down = False

    def _failed(self, error: Exception) -> StoreUnavailable:
        if not self.down:
            self.down = True
            self._log.error("store_unavailable", extra={"fields": {"store": self.kind, "reason": str(error)}})
        return StoreUnavailable(f"The store {self.path} cannot be written: {error}.")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except UNWRITABLE as error:
            raise self._failed(error) from error

    # --- housekeeping -----------------------------------------------------------------------------------
    async def _folds(self) -> None:
        while True:
            await asyncio.sleep(FOLD_EVERY)
            if self.down and self._metrics is not None:
                self._metrics.store_degraded.inc(amount=FOLD_EVERY)
            keeper = self._keeper
            if keeper is not None:
                try:
                    keeper.fold()
                    self.down = False
                except UNWRITABLE as error:
                    self._failed(error)
                await asyncio.to_thread(keeper.journal.checkpoint)

    async def _sweeps(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            try:
                await self.sweep()
            except (*UNWRITABLE, StoreUnavailable) as error:
                self._log.warning("store_sweep_failed", extra={"fields": {"reason": str(error)}})

    async def sweep(self) -> None:
        """Delete what has expired: cache entries, idle counters, ended periods, old tombstones and months."""
        clock = self._clock
        mono, wall = clock.monotonic(), clock.time()
        gone = self._book.sweep(mono, wall)
        self._entries.sweep(mono)
        for key in [key for key, until in self._once.items() if until <= wall]:
            del self._once[key]
        await self.prune(months_before(month_of(wall), self._keep_months))
        if self._keeper is not None:
            with self._writing():
                self._keeper.sweep(gone, wall - KEEP_TOMB, self._entries.max_items, self._entries.max_bytes)
            await asyncio.to_thread(self._keeper.journal.checkpoint, empty=True)
