"""JSON lines on a stream, never blocking a call: what cannot be written is dropped and counted."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import traceback
from typing import Any, Final

import orjson

from proxy.telemetry.metrics import Counter
from proxy.telemetry.stamps import Stamps

#: A pipe that polls as writable takes at least this much without blocking (PIPE_BUF).
_SLICE: Final = 4096
_MAX_WAITING: Final = 4 * 1024 * 1024
_FLUSH_AFTER: Final = 0.002
_MAX_TEXT: Final = 2_000


class LineWriter:
    """Write lines to a file descriptor in small batches, without ever waiting for its reader."""

    def __init__(self, fd: int, dropped: Counter) -> None:
        self._fd = fd
        self._dropped = dropped
        self._lines: list[bytes] = []
        self._waiting = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Batch on ``loop`` from now on; before that every line is written at once."""
        self._loop = loop

    def write(self, line: bytes) -> None:
        """Take one line, newline included."""
        if self._loop is None:
            self._lines.append(line)
            self.flush()
            return
        self._lines.append(line)
        if self._timer is None:
            self._timer = self._loop.call_later(_FLUSH_AFTER, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.flush()
        if self._waiting and self._loop is not None:
            self._timer = self._loop.call_later(0.05, self._on_timer)

    def flush(self) -> None:
        """Write what the descriptor takes now."""
        lines, self._lines = self._lines, []
        if len(self._waiting) > _MAX_WAITING:
            self._dropped.inc((), len(lines))
        else:
            self._waiting += b"".join(lines)
        waiting = self._waiting
        while waiting:
            events = self._poll.poll(0)
            if not events or not events[0][1] & select.POLLOUT:
                if events and events[0][1] & (select.POLLERR | select.POLLNVAL):
                    self._dropped.inc((), waiting.count(b"\n"))
                    waiting.clear()
                return
            try:
                written = os.write(self._fd, waiting[:_SLICE])
            except BlockingIOError:
                return
            except OSError:
                # The reader is gone or the disk is full: the lines are lost, and counted.
                self._dropped.inc((), waiting.count(b"\n"))
                waiting.clear()
                return
            del waiting[:written]

    def close(self) -> None:
        """Write what can still be written; stop batching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop = None
        self.flush()


class JsonHandler(logging.Handler):
    """Turn a logging record into one JSON line; a traceback shows frames and the error's type, never values."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self.writer = writer
        self._stamps = Stamps()

    def emit(self, record: logging.LogRecord) -> None:
        line: dict[str, Any] = {
            "ts": self._stamps.at(record.created),
            "level": record.levelname.lower(),
            "event": str(record.msg)[:_MAX_TEXT] if not record.args else record.getMessage()[:_MAX_TEXT],
        }
        for name, value in getattr(record, "fields", {}).items():
            line[name] = value[:_MAX_TEXT] if isinstance(value, str) else value
        if record.exc_info and record.exc_info[1] is not None:
            line |= describe(record.exc_info[1])
        self.writer.write(orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS) + b"\n")


def describe(error: BaseException) -> dict[str, Any]:
    """Return the error's type and where it arose; its text may hold a secret or a prompt and stays out."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
    return {"error": type(error).__name__, "where": where}


def setup(writer: LineWriter, level: str) -> logging.Logger:
    """Send the ``llm_sidecar`` logger to ``writer`` as JSON lines and return it."""
    logger = logging.getLogger("llm_sidecar")
    logger.handlers[:] = [JsonHandler(writer)]
    logger.setLevel(level)
    logger.propagate = False
    # No line names a place in the code, a thread or a process: none is looked for (logging's own "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # Libraries' warnings become lines too; their text goes through the same handler.
    for name in ("uvicorn", "uvicorn.error", "asyncio"):
        other = logging.getLogger(name)
        other.handlers[:] = [JsonHandler(writer)]
        other.setLevel(logging.WARNING)
        other.propagate = False
    return logger
