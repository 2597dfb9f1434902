"""The two ends of the wire, as Python sees them: the fake provider and the callers."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tests.bench.procs import OTHER_CORE, DidNotStart, Process, get, pinned


class Provider:
    """The fake provider, on 127.0.0.1 at ``port``."""

    def __init__(self, program: Path, logs: Path) -> None:
        printed = logs / "upstream.out"
        logs.mkdir(parents=True, exist_ok=True)
        printed.unlink(missing_ok=True)
        self.process = Process([str(program), "upstream"], logs / "upstream.err", core=OTHER_CORE, stdout=printed)
        while not (text := printed.read_text()).endswith("\n"):
            if not self.process.running or time.monotonic() - self.process.began > 5:
                raise DidNotStart(f"the fake provider: {self.process.said()}")
            time.sleep(0.002)
        self.port = int(text)

    def set(self, *, pace: int, chunks: int = 100) -> None:
        """Let later streams be ``chunks`` long with ``pace`` microseconds between two, 0 for none."""
        get(self.port, f"/control?pace={pace}&chunks={chunks}")

    def stats(self) -> dict[str, int]:
        """Return what it has done: requests, streams, chunks, ended, aborted, connections, live."""
        found: dict[str, int] = json.loads(get(self.port, "/stats")[1])
        return found


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of the callers saw. Times in microseconds; ``first_…`` is the time to the first event."""

    requests: int
    ok: int
    non2xx: int
    short: int
    broken: int
    timeouts: int
    reconnects: int
    events: int
    bytes: int
    seconds: float
    p50_us: int
    p99_us: int
    max_us: int
    first_p50_us: int
    first_p99_us: int
    first_status: int
    sample: str

    @property
    def failures(self) -> int:
        return self.non2xx + self.short + self.broken + self.timeouts

    def complaint(self) -> str:
        """Return what went wrong in a few words, "" if nothing did."""
        parts = [
            f"{getattr(self, name)} {name}" for name in ("non2xx", "short", "broken", "timeouts") if getattr(self, name)
        ]
        if self.first_status:
            parts.append(f"the first: {self.first_status} {self.sample}")
        return ", ".join(parts)


def load(
    program: Path, port: int, request: Path, *, connections: int, seconds: float, requests: int = 0, events: int = 0
) -> Load:
    """Run the callers against ``port`` and return what they saw.

    ``requests`` ends the run after so many; a stream with fewer than ``events`` events counts as short.

    Raises:
        RuntimeError: nobody listens, or the run did not end.
    """
    serial = time.time_ns() // 1000
    command = [program, port, request, connections, seconds, requests, events, serial]
    ran = subprocess.run(
        pinned([str(command[0]), "load", *map(str, command[1:])], OTHER_CORE),
        capture_output=True, text=True, timeout=seconds + 70, check=False,
    )  # fmt: skip
    if ran.returncode:
        raise RuntimeError(ran.stderr.strip() or f"the load generator ended with {ran.returncode}")
    found: dict[str, Any] = json.loads(ran.stdout)
    return Load(**{field.name: found[field.name] for field in fields(Load)})
