"""Any interleaving of admit, settle, death and late settlement leaves what a plain model says it must."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from proxy.store.base import Claim, Hold, Store
from proxy.store.embedded import EmbeddedStore
from proxy.store.redis import RedisStore
from tests.store.conftest import MONTH
from tests.store.model import Model, key_of
from tests.store.servers import RedisServer

DAY = 86_400.0
LIMITS = {"rate": 6, "tokens": 100, "slots": 3, "quota": 120, "money": 150}
OWNERS = 3
_run = itertools.count()

claim = st.tuples(
    st.sampled_from(sorted(LIMITS)), st.sampled_from("ab"), st.integers(0, 70), st.sampled_from([True, True, True, False]),
    st.sampled_from([True, True, True, False]),
)  # fmt: skip
operation = st.one_of(
    st.tuples(st.just("admit"), st.integers(0, OWNERS - 1), st.lists(claim, min_size=1, max_size=4)),
    st.tuples(st.just("settle"), st.integers(0, 30), st.lists(st.integers(0, 90), min_size=4, max_size=4)),
    st.tuples(st.just("again"), st.integers(0, 30), st.lists(st.integers(0, 90), min_size=4, max_size=4)),
    st.tuples(st.just("expire"), st.integers(0, OWNERS - 1), st.just(None)),
    st.tuples(st.just("fold"), st.just(0), st.just(None)),
)
script = st.lists(operation, min_size=1, max_size=16)


def build(row: tuple[str, str, int, bool, bool]) -> Claim:
    kind, key, amount, enforce, limited = row
    one = kind in ("rate", "slots")
    return Claim(
        kind, "t", key, 1 if one else amount, LIMITS[kind] if limited or kind in ("rate", "tokens") else None,  # type: ignore[arg-type]
        DAY if kind in ("rate", "tokens") else 0.0, MONTH if kind in ("quota", "money") else "", enforce,
    )  # fmt: skip


class World:
    """Stores that share their counters, one for each owner, and a way for an owner to die."""

    async def open(self) -> None:
        raise NotImplementedError

    def store(self, owner: int) -> Store:
        raise NotImplementedError

    async def expire(self, owner: int) -> list[int]:
        """Let an owner die; return those that died."""
        raise NotImplementedError

    async def settled(self) -> None:
        return

    async def close(self) -> None:
        raise NotImplementedError


class FileWorld(World):
    """One file; its owner dies by losing the file without a word, and is followed by another."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / f"{next(_run)}.db")
        self._store = EmbeddedStore(self._path)

    async def open(self) -> None:
        await self._store.start()

    def store(self, owner: int) -> Store:
        return self._store

    async def expire(self, owner: int) -> list[int]:
        # What was acknowledged is in the file; the settlements are flushed, for those that wait would be lost.
        assert self._store._keeper is not None
        self._store._keeper.flush()
        await crash(self._store)
        self._store = EmbeddedStore(self._path)
        await self._store.start()
        return list(range(OWNERS))

    async def close(self) -> None:
        await self._store.aclose()


async def crash(store: EmbeddedStore) -> None:
    """End a file store as kill -9 would: nothing more is written."""
    for task in store._tasks:
        task.cancel()
    await asyncio.wait(store._tasks)
    store._tasks.clear()
    if store._flush_timer is not None:
        store._flush_timer.cancel()
    assert store._keeper is not None
    store._keeper.journal.close()
    store._keeper = None


class RedisWorld(World):
    """Sidecars on one Redis; an owner dies when its heartbeat is older than 15 s."""

    def __init__(self, server: RedisServer, stores: list[RedisStore]) -> None:
        self._stores = stores
        self._prefix = f"i{next(_run)}:"
        for store in stores:
            store._prefix = self._prefix
            store._bases.clear()
            store._outbox._teams.clear()

    async def open(self) -> None:
        return

    def store(self, owner: int) -> Store:
        return self._stores[owner]

    async def settled(self) -> None:
        while any(store._outbox for store in self._stores):
            await asyncio.sleep(0)

    async def expire(self, owner: int) -> list[int]:
        await self.settled()
        store = self._stores[owner]
        owners = f"{store._base('t')}owners"
        await store._ask("ZADD", owners, "XX", int((time.time() - 16) * 1e6), store.owner)
        # Another one's admission buries it.
        other = self._stores[(owner + 1) % OWNERS]
        await other.admit(Hold(f"probe{next(_run)}", [Claim("rate", "t", "probe", 1, 10**6, 1.0)]))
        return [owner]

    async def close(self) -> None:
        return


async def play(world: World, operations: list[Any]) -> None:
    """Do the same to the stores and to the model, and compare after each step."""
    await world.open()
    model = Model()
    entered: list[tuple[Hold, int]] = []
    seen: dict[Any, Claim] = {}
    try:
        for n, (what, number, argument) in enumerate(operations):
            if what == "admit":
                claims = [build(row) for row in argument]
                seen.update((key_of(c), Claim(c.kind, "t", c.key, 0, None, c.window, c.period)) for c in claims)
                hold = Hold(f"h{n}", claims)
                verdict = await world.store(number).admit(hold)
                refused, flags = model.admit(str(number), hold.id, claims)
                assert verdict.refused == refused
                assert [state.refused for state in verdict.states] == flags
                if verdict.admitted:
                    entered.append((hold, number))
            elif what == "fold":
                await world.store(0).usage(MONTH)
            elif what == "expire":
                for owner in await world.expire(number):
                    model.expire(str(owner))
            elif entered:
                hold, owner = entered[number % len(entered)]
                if what == "again":
                    hold = Hold(hold.id, hold.claims, hold.epoch, hold.skip)
                elif hold.settled:
                    continue
                actual = argument[: len(hold.claims)]
                world.store(owner).settle(hold, actual)
                await world.settled()
                model.settle(hold.id, hold.claims, actual)
            states = await world.store(0).peek(list(seen.values())) if seen else ()
            for key, state in zip(seen, states, strict=True):
                assert (state.used, state.held) == (model.used(key), model.held(key)), key
                assert state.used >= state.held >= 0
    finally:
        await world.close()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as one:
        yield one


@pytest.fixture(scope="module")
def sidecars(valkey: RedisServer, runner: asyncio.Runner) -> Iterator[list[RedisStore]]:
    stores = [RedisStore(valkey.url, deadline=5.0) for _ in range(OWNERS)]

    async def start() -> None:
        for store in stores:
            await store.start()

    async def end() -> None:
        for store in stores:
            await store.aclose()

    runner.run(start())
    yield stores
    runner.run(end())


few = settings(
    max_examples=60, deadline=None, derandomize=False, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)  # fmt: skip
fewer = settings(few, max_examples=30)
many = settings(few, max_examples=2_500)


@fewer
@given(operations=script)
def test_a_file_agrees_with_the_model(operations: list[Any], runner: asyncio.Runner, tmp_path_factory: Any) -> None:
    """A file store, its process killed and followed by others, against the model."""
    runner.run(play(FileWorld(tmp_path_factory.getbasetemp()), operations))


@few
@given(operations=script)
def test_redis_agrees_with_the_model(
    operations: list[Any], runner: asyncio.Runner, sidecars: list[RedisStore], valkey: Any
) -> None:
    """Three sidecars on one Redis, each dying now and then, against the model."""
    runner.run(play(RedisWorld(valkey, sidecars), operations))


@pytest.mark.slow
@pytest.mark.timeout(900)
@many
@given(operations=script)
def test_a_file_agrees_with_the_model_in_full(
    operations: list[Any], runner: asyncio.Runner, tmp_path_factory: Any
) -> None:
    """2,500 interleavings on a file store."""
    runner.run(play(FileWorld(tmp_path_factory.getbasetemp()), operations))


@pytest.mark.slow
@pytest.mark.timeout(900)
@many
@given(operations=script)
def test_redis_agrees_with_the_model_in_full(
    operations: list[Any], runner: asyncio.Runner, sidecars: list[RedisStore], valkey: Any
) -> None:
    """2,500 interleavings on Redis."""
    runner.run(play(RedisWorld(valkey, sidecars), operations))
