"""Partners that nobody here wrote: each started where it is installed, each test skipped by name where it is not."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start programs that end with the session: ``start(command, env=…, until=callable that is true once it serves)``."""
    running: list[subprocess.Popen[str]] = []
    folder = tmp_path_factory.mktemp("programs")

    def begin(
        command: list[str], *, until: Callable[[], bool], seconds: float = 20.0, **options: object
    ) -> subprocess.Popen[str]:
        log = folder / f"{len(running)}.log"
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, text=True, **options)  # type: ignore[call-overload]
        running.append(process)
        limit = time.monotonic() + seconds
        while time.monotonic() < limit and process.poll() is None:
            with contextlib.suppress(OSError):
                if until():
                    return process
            time.sleep(0.05)
        raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-2000:]}")

    yield begin
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def python_script(path: Path) -> list[str]:
    """Return the command that runs a script with this Python."""
    return [sys.executable, str(path)]
