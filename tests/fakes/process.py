"""The fake upstream as a test sees it: a process to start, ask and stop."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.fakes.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


class Upstream:
    """A running fake upstream.

    ``url`` is scheme, host and port; ``calls(tag)`` the records whose model's name or path contains ``tag``,
    in order; ``listen(kind)`` opens an odd port and returns its number.
    """

    def __init__(self, *args: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.upstream", "--port", str(free_port()), *args],
            cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the fake upstream did not start")
        ports = json.loads(line)
        self.port: int = ports["port"]
        self.control_port: int = ports["control"]
        self.url = f"{'https' if '--tls-cert' in args else 'http'}://127.0.0.1:{self.port}"
        self.pid = self._process.pid

    def base(self, spec: str = "", version: str = "/v1") -> str:
        """Return a provider's base URL; ``spec`` holds for every call through it."""
        return f"{self.url}{f'/~{spec}' if spec else ''}{version}"

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.control_port, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            reply = connection.getresponse()
            data = reply.read()
            assert reply.status == 200, data
            return json.loads(data)
        finally:
            connection.close()

    def calls(self, tag: str = "", *, since: int = 0, bodies: int = 65536) -> list[dict[str, Any]]:
        """Return the records of calls, each a dict of :class:`tests.fakes.records.Record`'s fields."""
        found = self._ask("GET", f"/__calls?tag={quote(tag, safe='')}&since={since}&bodies={bodies}")["calls"]
        for call in found:
            assert not call["problem"], call["problem"]
        return list(found)

    def wait_calls(
        self, tag: str, count: int, *, timeout: float = 5.0, ended: bool = True, since: int = 0
    ) -> list[dict[str, Any]]:
        """Return the records once there are ``count`` of them (ended, unless told otherwise)."""
        limit = time.monotonic() + timeout
        while True:
            found = self.calls(tag, since=since, bodies=65536 if count < 100 else 0)
            if len([c for c in found if c["ended"] or not ended]) >= count or time.monotonic() > limit:
                return found
            time.sleep(0.02)

    @property
    def last(self) -> int:
        """Return the number of the newest call."""
        return int(self._ask("GET", "/__calls?since=999999999")["last"])

    def state(self) -> dict[str, Any]:
        """Return counts of calls and sockets, and what the odd ports saw."""
        return dict(self._ask("GET", "/__state"))

    def forget(self) -> None:
        self._ask("DELETE", "/__calls")

    def control(self, **order: Any) -> dict[str, Any]:
        return dict(self._ask("POST", "/__control", order))

    def register(self, model: str, spec: str) -> str:
        """Give ``model`` a behaviour; return its name."""
        self.control(model=model, spec=spec)
        return model

    def listen(self, kind: str) -> int:
        return int(self.control(listen=kind)["port"])

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
