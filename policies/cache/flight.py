"""One upstream call that many read: what passes the cache's place on its way back, shared as it arrives.

The leader's reply passes through the flight as a filter, which serialises each chunk before the filters
above may change it. Readers parse copies of their own, each at its own pace. Nothing here awaits but readers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import orjson

from policies.base import ApiError, Call, Chunk, Target
from policies.cache.entry import complete

#: A reader may be so many bytes behind once the answer is too large to be held whole.
LAG: Final = 1024 * 1024
#: Chunks that a reader gets in one go.
_BATCH: Final = 64
_CUT_OFF: Final = "The shared answer ended before it was complete; send the request again."


class Flight:
    """An answer under way: recorded up to ``limit`` bytes, then only as far as its readers need it.

    ``complete`` once the whole answer has passed; ``open`` while new readers may come; ``begun`` once there is
    anything to read (or to raise); ``given_up`` if it ended before that for reasons of the leader's own.
    """

    # Most flights have no reader at all: what only readers need is made when the first of them comes.
    size = 0
    whole = False
    finished = False
    """A whole answer came to its natural end."""
    begun = False
    complete = False
    full = False
    """More than ``limit`` bytes: neither kept nor joined."""
    given_up = False
    open = True
    error: ApiError | None = None
    _base = 0
    """How many chunks were dropped from the record's front."""
    _readers: AbstractSet[Reader] = frozenset()
    _waiting: Sequence[asyncio.Future[None]] = ()
    _hunger: asyncio.Future[None] | None = None

    answered: Target | None = None
    """The target that the leader's answer, or error, came from; known at its end."""

    def __init__(self, key: str, leader: Call, target: Target, limit: int, close: Callable[[Flight], None]) -> None:
        self.key = key
        # Let go of at the end: a call and its flight hold each other, and reference counting alone frees neither.
        self.leader: Call | None = leader
        self.target = target
        """The target that the key stands for."""
        self.limit = limit
        self.record: list[bytes] = []
        self._close = close

    # --- the leader's filter ------------------------------------------------------------------------------
    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        raw = chunk.encode()
        if chunk.whole:
            self.whole = True
            self.finished = complete(chunk.data)
        self.begun = True
        size = self.size + len(raw)
        if size > self.limit:
            self._trim()
        self.size = size
        if not self.full or self._readers:
            self.record.append(raw)
        else:
            self._base += 1
        if self._waiting:
            self._wake()
        return (chunk,)

    def flush(self) -> Iterable[Chunk]:
        self.begun = self.complete = True
        if self._waiting:
            self._wake()
        return ()

    def _trim(self) -> None:
        """Forget what everybody has read; cut off who is too far behind."""
        if not self.full:
            self.full = True
            self.close()
        for reader in [reader for reader in self._readers if self.size - reader.bytes > LAG]:
            reader.cut = True
            self.drop(reader)
        read = min((reader.at for reader in self._readers), default=self._base + len(self.record)) - self._base
        if read:
            del self.record[:read]
            self._base += read

    # --- its end --------------------------------------------------------------------------------------------
    def fail(self, error: ApiError) -> None:
        """End with ``error`` for every reader, after what there is to read."""
        if not self.complete and self.error is None:
            self.begun = True
            self.error = error
            self.close()
            self._wake()

    def end(self, error: ApiError | None) -> None:
        """See the leader's call end: with ``error`` if it came from upstream, else for reasons of its own."""
        if self.leader is not None:
            self.answered = self.leader.target
            self.leader = None
        if self.complete or self.error is not None:
            self.close()
        elif error is not None:
            self.fail(error)
        elif self.begun:
            self.fail(ApiError("upstream_error", _CUT_OFF, retry_after=1.0))
        else:
            self.given_up = True
            self.close()
            self._wake()

    def close(self) -> None:
        """Let nobody join any more."""
        if self.open:
            self.open = False
            self._close(self)

    # --- its audience -----------------------------------------------------------------------------------------
    def join(self) -> Reader:
        """Return a new reader, from the first chunk on."""
        reader = Reader(self)
        if isinstance(self._readers, set):
            self._readers.add(reader)
        else:
            self._readers = {reader}
        return reader

    def drop(self, reader: Reader) -> None:
        """Take no more account of a reader."""
        if isinstance(self._readers, set):
            self._readers.discard(reader)

    def leave(self, reader: Reader) -> None:
        """Let a reader go; a leader that went on only for the last of them ends."""
        self.drop(reader)
        leader = self.leader
        if not self._readers and not self.complete and leader is not None and leader.alone:
            self.close()
            leader.desert()

    def present(self) -> bool:
        return bool(self._readers)

    def left(self) -> bool:
        """Tell whether the leader goes on without its client; without readers nobody may join any more."""
        if self._readers:
            return True
        self.close()
        return False

    def hunger(self) -> asyncio.Future[None]:
        hunger = self._hunger
        if hunger is None or hunger.done():
            hunger = self._hunger = asyncio.get_running_loop().create_future()
            if any(not waiter.done() for waiter in self._waiting):
                hunger.set_result(None)
        return hunger

    def after(self, at: int) -> list[bytes]:
        """Return recorded chunks from number ``at`` on."""
        begin = at - self._base
        return self.record[begin : begin + _BATCH]

    def wait(self) -> asyncio.Future[None]:
        """Return a future that is done when there is something new."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if isinstance(self._waiting, list):
            self._waiting.append(waiter)
        else:
            self._waiting = [waiter]
        if self._hunger is not None and not self._hunger.done():
            self._hunger.set_result(None)
        return waiter

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, ()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


class Reader:
    """One follower's place in a flight; iterating gives batches of chunks that nobody else holds."""

    __slots__ = ("at", "bytes", "cut", "flight")

    def __init__(self, flight: Flight) -> None:
        self.flight = flight
        self.at = 0
        self.bytes = 0
        """Chunks and bytes read so far."""
        self.cut = False

    async def begun(self) -> None:
        """Wait until there is something to read, or the flight is given up."""
        flight = self.flight
        while not (flight.begun or flight.given_up):
            await flight.wait()

    def leave(self, _: Any = None) -> None:
        """Stop reading; may be called again."""
        self.flight.leave(self)

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> list[Chunk]:
        flight = self.flight
        while True:
            if self.cut:
                raise ApiError(
                    "overloaded",
                    "The answer was shared and this connection read it too slowly; send the request again.",
                    retry_after=1.0,
                )
            some = flight.after(self.at)
            if some:
                self.at += len(some)
                self.bytes += sum(map(len, some))
                whole = flight.whole
                return [Chunk(orjson.loads(raw), raw, whole=whole) for raw in some]
            if flight.complete:
                raise StopAsyncIteration
            if flight.error is not None:
                raise _own(flight.error)
            await flight.wait()


def _own(error: ApiError) -> ApiError:
    """Return a copy to raise: an exception that many raise gathers all their tracebacks."""
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    return copy
