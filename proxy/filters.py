"""The way back: what the policies let through of a reply, and the replies that they give themselves."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, NoReturn

import orjson

from policies.base import ChunkFilter
from proxy.call import Call, Reply
from proxy.chunk import Chunk, check
from proxy.decisions import Step, fault, stopped, thrown_in, verdict
from proxy.errors import ApiError
from proxy.shape import Fold, unfold
from proxy.shortcut import stands


class Filters:
    """The reply filters of one call, bottom of the list first."""

    __slots__ = ("_call", "_chain", "_stopped", "hears")

    def __init__(self, call: Call, steps: Sequence[Step]) -> None:
        self._call = call
        self._stopped: ChunkFilter | None = None
        self._chain: list[tuple[Step, ChunkFilter]] = []
        for step in reversed(steps):
            if not step.replies:
                continue
            try:
                found = step.policy.on_reply(call)
            except BaseException as error:
                stopped(call, step, error)
                continue
            if found is not None:
                self._chain.append((step, found if step.enforce else Shadow(call, step, found)))
        self.hears = len(self._chain) == 1 and _hears(self._chain[0][1])
        """There is one filter, and it takes text without a chunk made of it: :meth:`hear` may be used."""

    def __bool__(self) -> bool:
        return bool(self._chain)

    def below(self, audience: Any) -> Filters | None:
        """Return the filters up to ``audience`` if one above it stopped the reply: what the others still get.

        None if one below stopped it, which ends the answer for all.
        """
        chain = self._chain
        at = next((i for i, (_, one) in enumerate(chain) if one is audience), -1)
        if at < 0 or not any(one is self._stopped for _, one in chain[at + 1 :]):
            return None
        rest = Filters(self._call, ())
        rest._chain = chain[: at + 1]
        return rest

    def feed(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """Return what the client gets for ``chunks``."""
        for step, one in self._chain:
            chunks = self._through(step, one, chunks)
        return chunks

    def hear(self, text: str, data: bytes, choice: int) -> str | bytes | None:
        """Ask the only filter about an event that says nothing but text; see :class:`policies.base.TextFilter`."""
        step, one = self._chain[0]
        try:
            out: str | bytes | None = one.hear(text, data, choice)  # type: ignore[attr-defined]
            if type(out) is bytes or type(out) is str or out is None:
                return out
            raise TypeError("hear returned neither a text nor bytes nor None")
        except BaseException as error:
            self._stop(step, one, error)

    def unfit(self, error: BaseException) -> NoReturn:
        """End the reply: of the text that the only filter made of an event, none can be made."""
        self._stop(*self._chain[0], error)

    def _through(self, step: Step, one: ChunkFilter, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        out: list[Chunk] = []
        try:
            for chunk in chunks:
                out.extend(one.feed(chunk))
            if step.foreign:
                for chunk in out:
                    check(chunk)
        except BaseException as error:
            self._stop(step, one, error)
        return out

    def _stop(self, step: Step, one: ChunkFilter, error: BaseException) -> NoReturn:
        """End the reply: a filter refused it or failed. Nothing is awaited in one: whatever it raises is its own."""
        self._stopped = one
        raise verdict(self._call, step, error)

    def flush(self) -> Sequence[Chunk]:
        """Return what the filters held back, each one's remainder passed through those above it."""
        chunks: Sequence[Chunk] = ()
        for step, one in self._chain:
            chunks = [*self._through(step, one, chunks), *self._rest(step, one)]
        return chunks

    def _rest(self, step: Step, one: ChunkFilter) -> list[Chunk]:
        try:
            rest = [*one.flush()]
            if step.foreign:
                for chunk in rest:
                    check(chunk)
        except BaseException as error:
            self._stop(step, one, error)
        return rest

    def whole(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """Return what the client gets for a whole reply: it stays one chunk, with whatever a filter adds in others."""
        for step, one in self._chain:
            chunks = [*self._through(step, one, chunks), *self._rest(step, one)]
            if len(chunks) > 1 and chunks[0].choices:
                try:
                    chunks = (_joined(chunks),)
                except BaseException as error:
                    self._stop(step, one, error)
        return chunks


def _joined(chunks: Iterable[Chunk]) -> Chunk:
    """Return the whole completion that says what ``chunks`` say, some of which may be whole ones."""
    fold = Fold()
    for chunk in chunks:
        for piece in unfold(chunk) if chunk.whole else (chunk,):
            fold.feed(piece)
    return fold.whole()


def _hears(one: ChunkFilter) -> bool:
    """Tell whether words may go to a filter's ``hear``: not if its ``feed`` is another than ``hear`` was made for."""
    return stands(type(one), "hear", "feed") and "feed" not in getattr(one, "__dict__", ())


class Shadow:
    """A filter in shadow mode: it sees copies, and nothing it does reaches the client."""

    __slots__ = ("_call", "_dead", "_inner", "_step")

    def __init__(self, call: Call, step: Step, inner: ChunkFilter) -> None:
        self._call = call
        self._step = step
        self._inner = inner
        self._dead = False

    def _quietly(self, run: Any) -> None:
        if self._dead:
            return
        try:
            for chunk in run():
                if self._step.foreign:
                    check(chunk)
        except BaseException as error:
            self._dead = True
            stopped(self._call, self._step, error)

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        copy = Chunk(orjson.loads(chunk.encode()), whole=chunk.whole)
        self._quietly(lambda: self._inner.feed(copy))
        return (chunk,)

    def flush(self) -> Iterable[Chunk]:
        self._quietly(lambda: self._inner.flush())
        return ()


class Replayed:
    """A policy's own answer as a source: batches of chunks in the form that the client asked for."""

    __slots__ = ("_call", "_held", "_iterator", "_step", "_sync", "waited", "whole")

    def __init__(self, call: Call, step: Step, reply: Reply, *, whole: bool) -> None:
        source: Any = reply.source
        self._call = call
        self._step = step
        self.whole = whole
        self.waited = 0.0
        self._held: Sequence[Chunk] | None = None
        self._sync: Iterator[Any] | None = None
        self._iterator: AsyncIterator[Any] | None = None
        try:
            if whole and type(source) is tuple and len(source) == 1 and source[0].whole:
                self._held = source  # what is wanted, as it is wanted
                if step.foreign:
                    check(source[0])
            elif hasattr(source, "__aiter__"):
                self._iterator = source.__aiter__()
            else:
                self._sync = iter(source)
        except BaseException as error:  # nothing is awaited here
            raise fault(call, step, error) from error

    async def _some(self) -> Sequence[Chunk] | None:
        found: Any = None
        if self._sync is not None:
            found = next(self._sync, None)
        elif self._iterator is not None:
            try:
                found = await self._iterator.__anext__()
            except StopAsyncIteration:
                return None
        if found is None:
            return None
        some: Sequence[Chunk] = found if type(found) is list else (found,)
        if self._step.foreign:
            for chunk in some:
                check(chunk)
        return some

    def held(self) -> Sequence[Chunk] | None:
        """Return a whole answer that is there already, if the client asked for one."""
        held, self._held = self._held, None
        return held

    async def next(self) -> Sequence[Chunk] | None:
        """Return the next batch, None at the end.

        Raises:
            ApiError: what the source raised of this kind, or a :class:`PolicyFault` for anything else.
        """
        try:
            some = self.held() or await self._some()
            if not self.whole:
                if some and some[0].whole:
                    return [piece for chunk in some for piece in unfold(chunk)]
                return some
            if some and some[0].whole:
                return some
            if some is None:
                raise LookupError("the reply that a policy gave is empty")
            fold = Fold()
            while some is not None:
                for chunk in some:
                    fold.feed(chunk)
                some = await self._some()
            return (fold.whole(),)
        except BaseException as error:
            if thrown_in(error) or (isinstance(error, ApiError) and error.sound()):
                raise
            raise fault(self._call, self._step, error) from error

    def settle(self) -> None:
        return

    def pause(self) -> None:
        return

    def fail(self, error: ApiError) -> None:
        self.abort()

    def abort(self) -> None:
        """Stop listening; a generator's ``finally`` runs."""
        if self._iterator is not None and inspect.isasyncgen(self._iterator):
            # `aclose` of a generator that waits for nothing ends at once; the task only carries it.
            asyncio.ensure_future(_close(self._iterator))  # noqa: RUF006


async def _close(generator: AsyncGenerator[Any, Any]) -> None:
    """End a policy's generator; whatever it raises on its way out, an exit included, ends nothing else."""
    with contextlib.suppress(BaseException):
        await generator.aclose()
