"""Many calls at once, and what to say about them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from tests.fakes.httpwire import Reply
from tests.fakes.rawclient import AsyncRawClient, chat, request
from tests.fakes.sidecar import CLIENT_KEY, Sidecar

T = TypeVar("T")


async def together(works: Iterable[Callable[[], Awaitable[T]]], at_once: int = 32) -> list[T]:
    """Run ``works``, at most ``at_once`` at a time; return their results in order."""
    gate = asyncio.Semaphore(at_once)

    async def one(work: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await work()

    return list(await asyncio.gather(*(one(work) for work in works)))


async def call(sidecar: Sidecar, model: str, *, stream: bool = False, timeout: float = 60.0, **more: Any) -> Reply:
    """Make one chat call on a connection of its own and return the reply, however it ends."""
    async with await AsyncRawClient.open(sidecar.port) as client:
        return await client.ask(request(body=chat(model, stream=stream, **more), key=CLIENT_KEY), timeout=timeout)


async def timed(work: Awaitable[T]) -> tuple[float, T]:
    """Return how long ``work`` took, and its result."""
    began = time.monotonic()
    result = await work
    return time.monotonic() - began, result


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of ``values`` lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Strain:
    """How late this process wakes: what the machine adds to every time measured here.

    Limits in the tests are the promises' own plus ``slack``: on an idle machine next to nothing, on one
    that others keep busy as much as they take.
    """

    def __init__(self) -> None:
        self.late: list[float] = []

    async def __aenter__(self) -> Strain:
        self._task = asyncio.create_task(self._watch())
        return self

    async def _watch(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            self.late.append(time.monotonic() - began - 0.005)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    @property
    def slack(self) -> float:
        """Return what to allow on top of a limit, in seconds: sidecar, upstream and client wait for the core in turn."""
        return 3 * max(self.late, default=0.0)


class Pulse:
    """Ask for /healthz again and again, on one connection, in a thread of its own, whatever this loop is busy with.

    ``lags`` says how long each answer took, in seconds: how long the sidecar's loop lets others wait.
    """

    def __init__(self, sidecar: Sidecar, every: float = 0.005) -> None:
        self.lags: list[float] = []
        self._sidecar = sidecar
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat)

    def _beat(self) -> None:
        data = request("/healthz", method="GET")
        with self._sidecar.raw() as client:
            while not self._stop.wait(self._every):
                began = time.monotonic()
                assert client.ask(data).status == 200
                self.lags.append(time.monotonic() - began)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class Memory:
    """Watch a sidecar's memory while something goes on: ``peak`` and ``end`` above the start, in bytes."""

    def __init__(self, sidecar: Sidecar, every: float = 0.05) -> None:
        self.sidecar = sidecar
        self.every = every
        self.peak = 0
        self.end = 0

    async def __aenter__(self) -> Memory:
        self.start = self.sidecar.rss
        self._task = asyncio.create_task(self._watch())
        return self

    async def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.sidecar.rss - self.start)
            await asyncio.sleep(self.every)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        self.end = self.sidecar.rss - self.start
        self.peak = max(self.peak, self.end)
