"""Ports for tests: below those that the kernel deals out, and no port twice.

A port that the kernel chose may be anybody's once it is closed: what dials it again, or for the first time, then
reaches another test's server. One in a few hundred such dials did.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

_FIRST = 10_240
_WORKERS = 8
_EACH = (32_768 - _FIRST) // _WORKERS  # Linux deals out 32768 to 60999


def _own() -> Iterator[int]:
    """Yield this process's share of the ports, over and over; each worker of the suite has another share."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    first = os.getpid()  # two suites on one machine seldom begin at the same place
    while True:
        for i in range(_EACH):
            yield _FIRST + worker * _EACH + (first + i) % _EACH


_PORTS = _own()


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens, and nothing will but for who is told of it."""
    for port in _PORTS:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: what has ended is no hindrance
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("the ports never end")
