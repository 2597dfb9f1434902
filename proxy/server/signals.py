"""SIGTERM, SIGINT and SIGHUP while the server runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

_FLUSH: Final = 0.2


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


class Signals:
    """Turn the first SIGTERM or SIGINT into ``stop(signal)``, the second into the process's end, SIGHUP into ``reload``.

    Python-level handlers, not the loop's: a second signal must end the process even while a policy blocks
    the loop. Outside the main thread signals are left alone.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, stop: Callable[[int], None], reload: Callable[[], None] | None
    ) -> None:
        self._loop = loop
        self._stop = stop
        self._reload = reload
        self._stopping = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._end)
            if self._reload is not None:
                self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._again)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _end(self, number: int, _: FrameType | None) -> None:
        if self._stopping:
            flushing = threading.Thread(target=_flush, daemon=True)  # it may block: a full pipe, a write cut in half
            flushing.start()
            flushing.join(_FLUSH)
            os._exit(128 + number)
        self._stopping = True
        self._loop.call_soon_threadsafe(self._stop, number)

    def _again(self, _: int, __: FrameType | None) -> None:
        assert self._reload is not None
        self._loop.call_soon_threadsafe(self._reload)
