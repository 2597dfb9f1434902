"""Processes of the benchmark: pinned to a core, measured with all their children, ended for certain."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.bench import build

_CORES: Final = sorted(os.sched_getaffinity(0))
#: The contestant runs on the first core; callers, providers, Redis and this program share the second.
PROXY_CORE: Final = _CORES[0]
OTHER_CORE: Final = _CORES[1] if len(_CORES) > 1 else _CORES[0]
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class DidNotStart(RuntimeError):
    """A contestant ended, or did not answer in time; the message says what it printed last."""


def pinned(command: Sequence[str], core: int) -> list[str]:
    """Return ``command`` as it runs on ``core`` only, and ends when its parent ends."""
    return [str(build.wire()), "run", str(core), *command]


class Process:
    """A running program in a session of its own; ``stop`` ends the whole session."""

    def __init__(
        self, command: Sequence[str], log: Path, *, core: int, env: Mapping[str, str] | None = None,
        folder: Path | None = None, stdout: Path | None = None,
    ) -> None:  # fmt: skip
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self.began = time.monotonic()
        with log.open("wb") as err, (stdout or log).open("ab") as out:
            self._process = subprocess.Popen(
                pinned(command, core), stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder or log.parent,
                env={**os.environ, **(env or {})}, start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End it and all that it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def said(self) -> str:
        """Return the last line it printed."""
        lines = self.log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else "nothing was printed"

    def wait_for(self, port: int, path: str, *, timeout: float = 30.0) -> float:
        """Return the seconds from its start until ``path`` was answered with less than 500.

        Raises:
            DidNotStart
        """
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if get(port, path)[0] < 500:
                    return time.monotonic() - self.began
            if not self.running or time.monotonic() - self.began > timeout:
                raise DidNotStart(self.said())
            time.sleep(0.002)

    def members(self) -> list[int]:
        """Return the processes of its session and everything they started."""
        parents: dict[int, int] = {}
        found = set()
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                    parents[int(name)] = int(fields[1])
                    if int(fields[3]) == self.pid:
                        found.add(int(name))
        grown = True
        while grown:
            more = {pid for pid, parent in parents.items() if parent in found} - found
            found |= more
            grown = bool(more)
        return sorted(found)

    def cpu(self) -> int:
        """Return the nanoseconds that all its threads have run so far."""
        total = 0
        for pid in self.members():
            with contextlib.suppress(OSError):
                for task in os.listdir(f"/proc/{pid}/task"):
                    with contextlib.suppress(OSError):
                        total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        return total

    def rss(self) -> int:
        """Return the bytes of memory that its processes hold, shared ones counted once for each."""
        total = 0
        for pid in self.members():
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
        return total


def get(port: int, path: str, *, key: str | None = None, timeout: float = 5.0) -> tuple[int, bytes]:
    """Return status and body of a GET on 127.0.0.1.

    Raises:
        OSError, http.client.HTTPException: nobody answered.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {key}"} if key else {})
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()
