"""Takes an embedded store's state to its file and back: what changed in a turn, what a second amounts to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from proxy.clock import Clock
from proxy.store.book import Book, Counter, CounterKey, Part
from proxy.store.journal import Journal
from proxy.store.ledger import Ledger

#: Cache entries that may wait for the next second's write, in bytes; what does not fit is not kept.
MAX_CACHE_WAITING: Final = 8 * 1024 * 1024


class Changes:
    """What has to go into the file."""

    __slots__ = ("counters", "ended", "holds", "ledger", "untombed")

    def __init__(self) -> None:
        self.counters: set[Counter] = set()
        self.holds: dict[str, Sequence[Part]] = {}
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


class Keeper:
    """One file and the state that it holds. What is not written yet is kept until it can be."""

    def __init__(self, journal: Journal, book: Book, ledger: Ledger, clock: Clock) -> None:
        self.journal = journal
        self._book = book
        self._ledger = ledger
        self._clock = clock
        self._turn = Changes()
        self._since = Changes()
        self._cache: dict[str, tuple[float, bytes]] = {}
        self._cache_bytes = 0
        self._read: dict[str, float] = {}
        """When entries in the file were last read; written with the next sweep, which drops the least recent."""

    def recover(self) -> None:
        """Read the state; book the holds of the process that had the file before, for it is dead: the lock is ours.

        Raises:
            sqlite3.Error: the file cannot be read or written.
        """
        clock, book, journal = self._clock, self._book, self.journal
        mono, wall = clock.monotonic(), clock.time()
        book.epoch = journal.epoch(book.epoch)
        counters = {tuple(row[:4]): row[4:] for row in journal.rows("select * from counter")}
        holds = {id: orjson.loads(text) for id, text in journal.rows("select id, parts from hold")}
        tombs = {id: (at, orjson.loads(text)) for id, at, text in journal.rows("select id, at, parts from tomb")}
        since = Changes()
        for (blob,) in journal.rows("select turn from log order by seq"):
            changed, held, ended, untombed, usage = orjson.loads(blob)
            counters.update((tuple(row[:4]), row[4:]) for row in changed)
            holds.update(held)
            for id in ended:
                holds.pop(id, None)
            for id in untombed:
                tombs.pop(id, None)
                since.untombed.append(id)
            since.ledger.merge({tuple(key): sums for key, sums in usage})
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
            for _, _, counter, amount in parts:
                counter.held += amount
        dead = list(holds)
        book.bury(dead, mono, wall)
        journal.fold(
            counters=self._rows(book.dirty, mono, wall),
            ended=[id for (id,) in journal.rows("select id from hold")],
            tombs=[(id, wall, orjson.dumps(_plain(book.tombs[id][1])).decode()) for id in dead],
            untombed=since.untombed,
            usage=since.ledger.rows,
        )
        book.dirty.clear()

    # --- what changed -----------------------------------------------------------------------------------
    def took(self, id: str) -> None:
        """Note that a hold was taken."""
        parts = self._book.holds.get(id)
        if parts is not None:
            self._turn.holds[id] = parts

    def gave_up(self, id: str) -> None:
        """Forget a hold that was never written."""
        self._turn.holds.pop(id, None)

    def settled(self, id: str, *, tomb: bool) -> None:
        """Note that a hold, or the tombstone of one, was settled."""
        if tomb:
            self._turn.untombed.append(id)
        elif self._turn.holds.pop(id, None) is None:
            self._turn.ended.append(id)

    def cache(self, key: str, value: bytes, until: float) -> None:
        """Keep a cache entry with the next second's write, if there is room."""
        if self._cache_bytes + len(value) <= MAX_CACHE_WAITING:
            self._cache_bytes += len(value)
            self._cache[key] = (until, value)

    def recall(self, key: str) -> bytes | None:
        """Return an unexpired cache entry; raise :class:`sqlite3.Error` where the file cannot be read."""
        now = self._clock.time()
        waiting = self._cache.get(key)
        if waiting is not None:
            return waiting[1] if waiting[0] > now else None
        rows = self.journal.rows("select value from cache where key = ? and until > ?", (key, now))
        if not rows:
            return None
        self._read[key] = now
        value: bytes = rows[0][0]
        return value

    def flush(self) -> None:
        """Append this turn's changes to the log; raising :class:`sqlite3.Error`, forget nothing."""
        book, turn, usage = self._book, self._turn, self._ledger.rows
        if not (book.dirty or turn.holds or turn.ended or turn.untombed or usage):
            return
        clock = self._clock
        changed = self._rows(book.dirty, clock.monotonic(), clock.time()) if book.dirty else ()
        held = [(id, _plain(parts)) for id, parts in turn.holds.items()]
        self.journal.append(orjson.dumps((changed, held, turn.ended, turn.untombed, list(usage.items()))))
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

    def fold(self) -> None:
        """Flush, bring the tables up to the log's end and empty it; raising :class:`sqlite3.Error`, forget nothing."""
        self.flush()
        since = self._since
        if not (since or self._cache):
            return
        clock = self._clock
        wall = clock.time()
        self.journal.fold(
            counters=self._rows(since.counters, clock.monotonic(), wall),
            holds=[(id, orjson.dumps(_plain(parts)).decode()) for id, parts in since.holds.items()],
            ended=since.ended,
            untombed=since.untombed,
            usage=since.ledger.rows,
            cache=[(key, until, wall, value) for key, (until, value) in self._cache.items()],
        )
        self._since = Changes()
        self._cache.clear()
        self._cache_bytes = 0

    def sweep(self, counters: list[CounterKey], tombs_before: float, max_items: int, max_bytes: int) -> None:
        """Delete what has expired or gone, and the least recent cache entries above the bounds."""
        journal, wall = self.journal, self._clock.time()
        self.fold()
        journal.change_many("delete from counter where kind = ? and team = ? and key = ? and period = ?", counters)
        journal.change("delete from tomb where at < ?", (tombs_before,))
        journal.change("delete from once where until <= ?", (wall,))
        journal.change("delete from cache where until <= ?", (wall,))
        read, self._read = self._read, {}
        journal.change_many("update cache set used = ? where key = ?", [(at, key) for key, at in read.items()])
        count, size = journal.rows("select count(*), coalesce(sum(length(value)), 0) from cache")[0]
        while count > max_items or size > max_bytes:
            drop = []
            for key, length in journal.rows("select key, length(value) from cache order by used limit 100"):
                if count <= max_items and size <= max_bytes:
                    break
                drop.append((key,))
                count -= 1
                size -= length
            journal.change_many("delete from cache where key = ?", drop)
        journal.change("pragma incremental_vacuum(1000)")

    def _parts(self, rows: list[Any]) -> list[Part]:
        parts: list[Part] = []
        for at, kind, team, key, period, amount, limit, window in rows:
            counter = self._book.counter((kind, team, key, period))
            if not counter.limit:
                counter.limit, counter.window = limit, window
            parts.append((at, kind, counter, amount))
        return parts

    def _rows(self, counters: Iterable[Counter], mono: float, wall: float) -> list[tuple[Any, ...]]:
        return [(*c.key, c.used, wall - (mono - c.at), c.limit, c.window) for c in counters]


def _plain(parts: Sequence[Part]) -> list[tuple[Any, ...]]:
    return [(at, *counter.key, amount, counter.limit, counter.window) for at, _, counter, amount in parts]
