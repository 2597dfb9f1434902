"""The SQLite file behind the embedded store: what must survive a kill -9.

Every turn of the event loop that changed something appends one row to the table ``log`` (17 µs, where
changing the tables in place costs 50 to 90: each table is a page more to copy and sum up). Once a second
the sums of those rows go into the tables and the log is emptied, in one transaction.

WAL mode with synchronous=NORMAL: a commit reaches the operating system, not the platter. It survives the
death of the process; a power cut may cost the last seconds. One sidecar owns a file: an flock on a file
beside it says so, since SQLite's own exclusive mode would shut out the thread that writes checkpoints.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from proxy.store.ledger import KEYS, SUMS, Ledger, RowKey, as_mapping

VERSION: Final = 1
_SCHEMA: Final = f"""
create table if not exists meta (name text primary key, value text not null) without rowid;
create table if not exists log (seq integer primary key, turn blob not null);
create table if not exists counter (
    kind text, team text, key text, period text, used real not null, at real not null,
    max integer not null, span real not null, primary key (kind, team, key, period)) without rowid;
create table if not exists hold (id text primary key, parts text not null) without rowid;
create table if not exists tomb (id text primary key, at real not null, parts text not null) without rowid;
create table if not exists once (name text primary key, until real not null) without rowid;
create table if not exists generation (name text primary key, number integer not null) without rowid;
create table if not exists usage ({", ".join(f"{key} text not null" for key in KEYS)},
    {", ".join(f"{name} integer not null" for name in SUMS)}, primary key ({", ".join(KEYS)})) without rowid;
create table if not exists cache (key text primary key, until real not null, used real not null, value blob not null);
create index if not exists cache_until on cache (until);
create index if not exists cache_used on cache (used);
"""
_ADD_USAGE: Final = (
    f"insert into usage values ({', '.join('?' * (len(KEYS) + len(SUMS)))}) on conflict do update set "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)
)
_PUT_COUNTER: Final = (
    "insert into counter values (?,?,?,?,?,?,?,?) on conflict do update set "
    "used = excluded.used, at = excluded.at, max = excluded.max, span = excluded.span"
)


class Journal:
    """One open file. Not thread-safe but for :meth:`checkpoint`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = _lock(path)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        try:
            self._check()
            self._prepare()
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise OSError(f"{path} cannot be used as a store: {error}.") from error
            raise

    def _check(self) -> None:
        """See that the file is new or ours, before anything in it is touched."""
        (version,) = self._db.execute("pragma user_version").fetchone()
        if version not in (0, VERSION):
            raise OSError(
                f"{self.path} was written by another version of llm-sidecar (format {version}); use a new file."
            )
        if version == 0 and self._db.execute("select count(*) from sqlite_master").fetchone() != (0,):
            raise OSError(f"{self.path} cannot be used as a store: it is a database of something else.")

    def _prepare(self) -> None:
        db = self._db
        with contextlib.suppress(OSError):
            os.chmod(self.path, 0o600)
        db.execute("pragma auto_vacuum = incremental")
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = normal")
        db.execute("pragma wal_autocheckpoint = 0")
        db.execute("pragma secure_delete = fast")
        db.executescript(_SCHEMA)
        db.execute(f"pragma user_version = {VERSION}")

    def epoch(self, fresh: str) -> str:
        """Return the file's epoch, ``fresh`` if the file is new."""
        self._db.execute("insert or ignore into meta values ('epoch', ?)", (fresh,))
        epoch: str = self._db.execute("select value from meta where name = 'epoch'").fetchone()[0]
        return epoch

    def rows(self, sql: str, arguments: Sequence[Any] = ()) -> list[Any]:
        """Return a query's rows."""
        return self._db.execute(sql, arguments).fetchall()

    def append(self, turn: bytes) -> None:
        """Add one turn's changes to the log; raise :class:`sqlite3.Error` if that fails."""
        self._db.execute("insert into log (turn) values (?)", (turn,))

    def fold(
        self,
        *,
        counters: Iterable[Sequence[Any]] = (),
        holds: Iterable[tuple[str, str]] = (),
        ended: Iterable[str] = (),
        tombs: Iterable[tuple[str, float, str]] = (),
        untombed: Iterable[str] = (),
        usage: Mapping[RowKey, Sequence[int]] | None = None,
        cache: Iterable[tuple[str, float, float, bytes]] = (),
    ) -> None:
        """Write what the log's rows amount to and empty the log; raising :class:`sqlite3.Error`, do nothing."""
        db = self._db
        db.execute("begin immediate")
        try:
            db.executemany(_PUT_COUNTER, counters)
            db.executemany("insert or replace into hold values (?,?)", holds)
            db.executemany("delete from hold where id = ?", [(id,) for id in ended])
            if tombs:
                db.executemany("insert or replace into tomb values (?,?,?)", tombs)
            if untombed:
                db.executemany("delete from tomb where id = ?", [(id,) for id in untombed])
            if usage:
                db.executemany(_ADD_USAGE, [(*key, *sums) for key, sums in usage.items()])
            if cache:
                db.executemany("insert or replace into cache (key, until, used, value) values (?,?,?,?)", cache)
            db.execute("delete from log")
            db.execute("commit")
        except BaseException:
            if db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("rollback")
            raise

    def change(self, sql: str, arguments: Sequence[Any] = ()) -> int:
        """Run one statement in a transaction of its own; return how many rows it changed."""
        return self._db.execute(sql, arguments).rowcount

    def change_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for many rows, in one transaction."""
        self._db.execute("begin immediate")
        try:
            self._db.executemany(sql, rows)
        finally:
            self._db.execute("commit")

    def checkpoint(self, *, empty: bool = False) -> None:
        """Move the log into the file. Meant for a thread: opens a connection of its own.

        ``empty``: cut the log to nothing, too, so that no deleted text stays in it; next time, if somebody writes.
        """
        with contextlib.closing(sqlite3.connect(self.path, timeout=0.0)) as db, contextlib.suppress(sqlite3.Error):
            db.execute(f"pragma wal_checkpoint({'truncate' if empty else 'passive'})")

    def close(self) -> None:
        """Close the file and give up its lock."""
        try:
            self._db.close()
        finally:
            os.close(self._lock)


def _lock(path: str) -> int:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise OSError(
            f"{path} is in use by another sidecar; a SQLite file belongs to one. "
            "Give this one a file of its own, or let both share Redis (`store: redis://…`)."
        ) from error
    return handle


def read_usage(path: str, month: str) -> list[Mapping[str, Any]]:
    """Return the ledger's rows of ``month`` from a file that a running sidecar may own.

    Raises:
        OSError: there is no such file, or it is no store.
    """
    if not os.path.exists(path):
        raise OSError(f"There is no store at {path}.")
    try:
        with contextlib.closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as db:
            rows = db.execute(f"select {', '.join((*KEYS, *SUMS))} from usage where month = ?", (month,)).fetchall()
            turns = db.execute("select turn from log").fetchall()
    except sqlite3.Error as error:
        raise OSError(f"{path} is no store of llm-sidecar ({error}).") from error
    ledger = Ledger()
    ledger.merge({tuple(row[: len(KEYS)]): list(row[len(KEYS) :]) for row in rows})
    for (blob,) in turns:  # what no sidecar has folded in yet
        ledger.merge({tuple(key): sums for key, sums in orjson.loads(blob)[4] if key[0] == month})
    return [as_mapping(key, sums) for key, sums in ledger.rows.items()]
