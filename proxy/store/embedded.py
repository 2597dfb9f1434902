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
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from proxy.clock import Clock
from proxy.store.base import Claim, ClaimState, Hold, Store, StoreUnavailable, UsageRecord, Verdict
from proxy.store.book import KEEP_TOMB, Book, Counter, Part
from proxy.store.entries import Entries
from proxy.store.journal import Journal
from proxy.store.ledger import KEYS, SUMS, Ledger, as_mapping
from proxy.store.period import month_of, months_before

SETTLE_DELAY: Final = 0.005
FOLD_EVERY: Final = 1.0
SWEEP_EVERY: Final = 60.0


class Changes:
    """What has to go into the file."""

    __slots__ = ("counters", "ended", "holds", "ledger", "untombed")

    def __init__(self) -> None:
        self.counters: set[Counter] = set()
        self.holds: dict[str, tuple[Part, ...]] = {}
        self.ended: list[str] = []
        self.untombed: list[str] = []
        self.ledger = Ledger()

    def __bool__(self) -> bool:
        return bool(self.counters or self.holds or self.ended or self.untombed or self.ledger.rows)

    def clear(self) -> None:
        """Forget the holds and ends, which went into the log."""
        self.holds.clear()
        self.ended.clear()
        self.untombed.clear()


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
        self._journal: Journal | None = None
        self._book = Book(secrets.token_hex(8))
        self._ledger = Ledger(hash_user)
        self._entries = Entries()
        self._once: dict[str, float] = {}
        self._generations: dict[str, int] = {}
        # What this turn changed, and what the turns since the last fold amount to.
        self._turn = Changes()
        self._since = Changes()
        self._cache: dict[str, tuple[float, bytes]] = {}
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
        journal = self._journal
        if journal is not None:
            try:
                self._fold()
            except sqlite3.Error as error:
                self._failed(error)
            self._journal = None
            journal.close()

    # --- limits -----------------------------------------------------------------------------------------
    async def admit(self, hold: Hold) -> Verdict:
        clock = self._clock
        verdict = self._book.admit(hold, clock.monotonic(), clock.time())
        if self.path is not None and verdict.admitted:
            parts = self._book.holds.get(hold.id)
            if parts is not None:
                self._turn.holds[hold.id] = parts
            waiter: asyncio.Future[None] = (loop := asyncio.get_running_loop()).create_future()
            if not self._waiters:
                loop.call_soon(self._acknowledge)
            self._waiters.append((waiter, hold))
            await waiter
        return verdict

    def settle(self, hold: Hold, actual: Sequence[int], record: UsageRecord | None = None) -> None:
        if record is not None:
            self._ledger.add(record)
        if not hold.settled:
            hold.settled = True
            clock = self._clock
            tombs = len(self._book.tombs)
            if self._book.settle(hold, actual, clock.monotonic(), clock.time()) and self.path is not None:
                if len(self._book.tombs) != tombs:
                    self._turn.untombed.append(hold.id)
                elif self._turn.holds.pop(hold.id, None) is None:
                    self._turn.ended.append(hold.id)
        self._flush_later()

    def record(self, record: UsageRecord) -> None:
        self._ledger.add(record)
        self._flush_later()

    async def peek(self, claims: Sequence[Claim]) -> Sequence[ClaimState]:
        return self._book.peek(claims, self._clock.monotonic(), self._clock.time())

    async def usage(self, month: str, team: str | None = None) -> list[Mapping[str, Any]]:
        journal = self._journal
        if journal is None:
            return [
                as_mapping(key, sums)
                for key, sums in self._ledger.rows.items()
                if key[0] == month and (team is None or key[1] == team)
            ]
        self._now()
        columns = ", ".join((*KEYS, *SUMS))
        sql = f"select {columns} from usage where month = ?" + (" and team = ?" if team is not None else "")
        rows = journal.rows(sql, (month,) if team is None else (month, team))
        return [as_mapping(row[: len(KEYS)], row[len(KEYS) :]) for row in rows]

    async def prune(self, before: str) -> int:
        if self._journal is not None:
            months = self._journal.rows("select distinct month from usage where month < ?", (before,))
            self._journal.change("delete from usage where month < ?", (before,))
            return len(months)
        gone = [key for key in self._ledger.rows if key[0] < before]
        for key in gone:
            del self._ledger.rows[key]
        return len({key[0] for key in gone})

    # --- cache ------------------------------------------------------------------------------------------
    async def recall(self, key: str) -> bytes | None:
        journal = self._journal
        if journal is None:
            return self._entries.get(key, self._clock.monotonic())
        now = self._clock.time()
        waiting = self._cache.get(key)
        if waiting is not None:
            return waiting[1] if waiting[0] > now else None
        try:
            rows = journal.rows("select value from cache where key = ? and until > ?", (key, now))
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return rows[0][0] if rows else None

    def remember(self, key: str, value: bytes, ttl: float) -> None:
        if self.path is None:
            self._entries.put(key, value, self._clock.monotonic() + ttl)
        else:
            self._cache[key] = (self._clock.time() + ttl, value)

    def bound_cache(self, max_items: int, max_bytes: int) -> None:
        self._entries.max_items = max_items
        self._entries.max_bytes = max_bytes

    async def generation(self, names: Sequence[str]) -> Sequence[int]:
        return [self._generations.get(name, 0) for name in names]

    async def forget(self, name: str) -> int:
        number = self._generations[name] = self._generations.get(name, 0) + 1
        if self._journal is not None:
            self._journal.change("insert or replace into generation values (?,?)", (name, number))
        return number

    # --- small things -----------------------------------------------------------------------------------
    async def once(self, key: str, ttl: float) -> bool:
        now = self._clock.time()
        if self._once.get(key, 0.0) > now:
            return False
        if self._journal is not None:
            self._journal.change("insert or replace into once values (?,?)", (key, now + ttl))
        self._once[key] = now + ttl
        return True

    async def ping(self) -> bool:
        return not self.down

    # --- the file ---------------------------------------------------------------------------------------
    def _open(self, path: str) -> None:
        clock, book = self._clock, self._book
        journal = Journal(path)
        mono, wall = clock.monotonic(), clock.time()
        book.epoch = journal.epoch(book.epoch)
        counters = {tuple(row[:4]): row[4:] for row in journal.rows("select * from counter")}
        holds = {id: orjson.loads(text) for id, text in journal.rows("select id, parts from hold")}
        tombs = {id: (at, orjson.loads(text)) for id, at, text in journal.rows("select id, at, parts from tomb")}
        for (blob,) in journal.rows("select turn from log order by seq"):
            changed, held, ended, untombed, usage = orjson.loads(blob)
            counters.update((tuple(row[:4]), row[4:]) for row in changed)
            holds.update(held)
            for id in ended:
                holds.pop(id, None)
            for id in untombed:
                tombs.pop(id, None)
                self._since.untombed.append(id)
            self._since.ledger.merge({tuple(key): sums for key, sums in usage})
        for key, (used, at, limit, window) in counters.items():
            counter = book.counter(key)
            counter.used = used if key[0] in ("rate", "tokens") else int(used)
            # A wall clock that ran backwards meanwhile means: no time has passed.
            counter.at = mono - max(0.0, wall - at)
            counter.limit, counter.window = limit, window
            book.dirty.add(counter)
        for id, (at, rows) in tombs.items():
            book.tombs[id] = (at, self._parts(rows))
        for id, rows in holds.items():
            book.holds[id] = parts = self._parts(rows)
            for part in parts:
                part.counter.held += part.amount
        self._once = dict(journal.rows("select name, until from once where until > ?", (wall,)))
        self._generations = dict(journal.rows("select name, number from generation"))
        # The lock is ours, so whoever held these is dead.
        dead = list(holds)
        book.bury(dead, mono, wall)
        try:
            journal.fold(
                counters=self._rows(book.dirty, mono, wall),
                ended=[id for (id,) in journal.rows("select id from hold")],
                tombs=[(id, wall, orjson.dumps(_plain(book.tombs[id][1])).decode()) for id in dead],
                untombed=self._since.untombed,
                usage=self._since.ledger.rows,
            )
        except sqlite3.Error as error:
            journal.close()
            raise OSError(f"The store {path} cannot be written: {error}.") from error
        self._since = Changes()
        book.dirty.clear()
        self._journal = journal

    def _parts(self, rows: list[Any]) -> tuple[Part, ...]:
        parts = []
        for at, kind, team, key, period, amount, limit, window in rows:
            counter = self._book.counter((kind, team, key, period))
            if not counter.limit:
                counter.limit, counter.window = limit, window
            parts.append(Part(at, kind, counter, amount))
        return tuple(parts)

    def _rows(self, counters: Iterable[Counter], mono: float, wall: float) -> list[tuple[Any, ...]]:
        return [(*c.key, c.used, wall - (mono - c.at), c.limit, c.window) for c in counters]

    def _flush_later(self) -> None:
        if self._journal is not None and self._flush_timer is None and not self._waiters:
            self._flush_timer = asyncio.get_running_loop().call_later(SETTLE_DELAY, self._flush_due)

    def _flush_due(self) -> None:
        self._flush_timer = None
        try:
            self._flush()
        except sqlite3.Error as error:
            self._failed(error)
            # Nothing is lost: it goes with the next flush, which is tried again in a second.
            self._flush_timer = asyncio.get_running_loop().call_later(1.0, self._flush_due)

    def _acknowledge(self) -> None:
        """Journal this turn's admissions; take back what cannot be journalled."""
        waiters, self._waiters = self._waiters, []
        try:
            self._flush()
        except sqlite3.Error as error:
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
        self._turn.holds.pop(hold.id, None)
        for part in self._book.holds.pop(hold.id, ()):
            part.counter.held -= part.amount
        hold.epoch = ""

    def _flush(self) -> None:
        """Append this turn's changes to the log; nothing is forgotten if that fails."""
        journal, book, turn = self._journal, self._book, self._turn
        usage = self._ledger.rows
        if journal is None or not (book.dirty or turn.holds or turn.ended or turn.untombed or usage):
            return
        clock = self._clock
        changed = self._rows(book.dirty, clock.monotonic(), clock.time()) if book.dirty else ()
        held = [(id, _plain(parts)) for id, parts in turn.holds.items()]
        journal.append(orjson.dumps((changed, held, turn.ended, turn.untombed, list(usage.items()))))
        self.down = False
        since = self._since
        since.counters |= book.dirty
        book.dirty.clear()
        for id in turn.ended:
            if since.holds.pop(id, None) is None:
                since.ended.append(id)
        since.holds.update(turn.holds)
        since.untombed += turn.untombed
        since.ledger.merge(usage)
        self._ledger.rows = {}
        turn.clear()

    def _fold(self) -> None:
        """Bring the tables up to the log's end and empty it."""
        self._flush()
        journal, since = self._journal, self._since
        if journal is None or not (since or self._cache):
            return
        clock = self._clock
        wall = clock.time()
        journal.fold(
            counters=self._rows(since.counters, clock.monotonic(), wall),
            holds=[(id, orjson.dumps(_plain(parts)).decode()) for id, parts in since.holds.items()],
            ended=since.ended,
            untombed=since.untombed,
            usage=since.ledger.rows,
            cache=[(key, until, wall, value) for key, (until, value) in self._cache.items()],
        )
        self._since = Changes()
        self._cache.clear()

    def _failed(self, error: sqlite3.Error) -> StoreUnavailable:
        if not self.down:
            self.down = True
            self._log.error("store_unavailable", extra={"fields": {"store": self.kind, "reason": str(error)}})
        return StoreUnavailable(f"The store {self.path} cannot be written: {error}.")

    def _now(self) -> None:
        """Bring the tables up to date at once; raise :class:`StoreUnavailable` where that fails."""
        try:
            self._fold()
        except sqlite3.Error as failure:
            raise self._failed(failure) from failure

    # --- housekeeping -----------------------------------------------------------------------------------
    async def _folds(self) -> None:
        while True:
            await asyncio.sleep(FOLD_EVERY)
            if self.down and self._metrics is not None:
                self._metrics.store_degraded.inc(amount=FOLD_EVERY)
            try:
                self._fold()
            except sqlite3.Error as error:
                self._failed(error)
            if self._journal is not None:
                await asyncio.to_thread(self._journal.checkpoint)

    async def _sweeps(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            try:
                await self.sweep()
            except (sqlite3.Error, StoreUnavailable) as error:
                self._log.warning("store_sweep_failed", extra={"fields": {"reason": str(error)}})

    async def sweep(self) -> None:
        """Delete what has expired: cache entries, idle counters, ended periods, old tombstones and months."""
        clock, journal = self._clock, self._journal
        mono, wall = clock.monotonic(), clock.time()
        gone = self._book.sweep(mono, wall)
        self._entries.sweep(mono)
        for key in [key for key, until in self._once.items() if until <= wall]:
            del self._once[key]
        await self.prune(months_before(month_of(wall), self._keep_months))
        if journal is None:
            return
        self._now()
        journal.change_many("delete from counter where kind = ? and team = ? and key = ? and period = ?", gone)
        journal.change("delete from tomb where at < ?", (wall - KEEP_TOMB,))
        journal.change("delete from once where until <= ?", (wall,))
        journal.change("delete from cache where until <= ?", (wall,))
        self._bound_cache_file(journal)
        journal.change("pragma incremental_vacuum(1000)")

    def _bound_cache_file(self, journal: Journal) -> None:
        count, size = journal.rows("select count(*), coalesce(sum(length(value)), 0) from cache")[0]
        while count and (count > self._entries.max_items or size > self._entries.max_bytes):
            oldest = journal.rows("select key, length(value) from cache order by used limit 100")
            drop = []
            for key, length in oldest:
                if count <= self._entries.max_items and size <= self._entries.max_bytes:
                    break
                drop.append((key,))
                count -= 1
                size -= length
            journal.change_many("delete from cache where key = ?", drop)


def _plain(parts: tuple[Part, ...]) -> list[tuple[Any, ...]]:
    return [(at, *counter.key, amount, counter.limit, counter.window) for at, _, counter, amount in parts]
