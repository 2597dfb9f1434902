"""How long something takes on a machine that others use, too."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Awaitable, Callable, Iterator


def slowness() -> float:
    """Return how much slower this machine is, just now, than one where a bare loop's turn takes 15 ns; at least 1."""
    best = 1e9
    for _ in range(5):
        started = time.thread_time()
        for _ in range(100_000):
            pass
        best = min(best, time.thread_time() - started)
    return max(1.0, best / 100_000 / 15e-9)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keep the collector away.

    It would go through all that this process's other tests have left, and the more often the more the measured work
    makes: in a sidecar that is frozen.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def least(work: Callable[[], object], enough: float = 0.0, tries: int = 3) -> float:
    """Return the CPU seconds of ``work`` in this thread: the least of ``tries``, or the first of at most ``enough``."""
    best = 1e9
    with uncollected():
        for _ in range(tries):
            started = time.thread_time()
            work()
            best = min(best, time.thread_time() - started)
            if best <= enough:
                break
    return best


async def stalls(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Await ``work``; return the longest time in which nothing else ran, and the whole, in this thread's CPU seconds."""
    worst, last, done = 0.0, 0.0, False

    async def watch() -> None:
        nonlocal worst, last
        while not done:
            now = time.thread_time()
            worst, last = max(worst, now - last), now
            await asyncio.sleep(0)

    with uncollected():
        last = started = time.thread_time()
        watcher = asyncio.create_task(watch())
        await asyncio.sleep(0)
        await work()
        now = time.thread_time()
        worst, whole = max(worst, now - last), now - started  # the last piece ends with nobody else's turn
        done = True
        await watcher
    return worst, whole
