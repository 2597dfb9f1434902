"""Counts what a sidecar asks of its Redis, script by script."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from typing import Final

from proxy.store.link import Script

_COMMAND: Final = re.compile(rb'^\+[0-9.]+ \[\d+ ([^\]]+)\] "([A-Za-z]+)"(?: "([^"]*)")?', re.MULTILINE)
_SCRIPTS: Final = ("admit", "settle", "beat")


class Monitor:
    """``with Monitor(port) as seen:`` then ``seen.counts``: commands by name, scripts by theirs."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self._data: list[bytes] = []
        self._over = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Monitor:
        self._socket.sendall(b"MONITOR\r\n")
        assert self._socket.recv(5) == b"+OK\r\n"
        self._socket.settimeout(0.2)
        self._thread.start()
        return self

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(1 << 20)
            except TimeoutError:
                if self._over:
                    return
                continue
            if not data:
                return
            self._data.append(data)

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join(30)
        self._socket.close()
        names = {Script(name).sha.encode(): name for name in _SCRIPTS}
        for where, command, argument in _COMMAND.findall(b"".join(self._data)):
            if where != b"lua":  # what a script does inside is no round trip
                word = command.decode().upper()
                self.counts[names.get(argument, word) if word == "EVALSHA" else word] += 1
