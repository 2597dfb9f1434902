"""A real sidecar in a process of its own, and what can be seen of it from outside."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.httpwire import Reply
from tests.fakes.ports import free_port
from tests.fakes.rawclient import RawClient, chat, request

ROOT = Path(__file__).resolve().parents[2]
#: Test credentials, made to be found again if they leak. The client's, the operator's, the provider's.
CLIENT_KEY = "sk-side-client-CANARYc11e47"
OPS_KEY = "sk-side-ops-CANARY0b5"
OTHER_KEY = "sk-side-other-CANARY07e4"
BEHALF_KEY = "sk-side-agent-CANARY41aa"
PROVIDER_KEY = "sk-proj-CANARYupstream9f27"
SECOND_KEY = "sk-proj-CANARYsecond7c1d"


def hash_key(key: str) -> str:
    """Return a client key as llm.yml holds it."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def config(upstream: str, **changes: Any) -> dict[str, Any]:
    """Return an llm.yml for tests: one provider ``openai`` at ``upstream`` (a base URL), keys by hash.

    ``changes`` are merged into it, level by level; None takes a key away.
    """
    base: dict[str, Any] = {
        "server": {"drain_delay": "0s", "shutdown_grace": "5s"},
        "auth": {
            "keys": [
                {
                    "id": "backend",
                    "hash": hash_key(CLIENT_KEY),
                    "team": "platform",
                    "user": "svc",
                    "roles": ["generate"],
                },
                {"id": "ops", "hash": hash_key(OPS_KEY), "team": "ops", "roles": ["view", "manage"]},
                {"id": "other", "hash": hash_key(OTHER_KEY), "team": "default", "user": "ann", "roles": ["generate"]},
            ]
        },
        "default_provider": "openai",
        "providers": {
            "openai": {"base_url": upstream, "api_key": PROVIDER_KEY, "model": "gpt-4o-mini", "max_retries": 0}
        },
    }
    return _merge(base, changes)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in changes.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = _merge(out[key], value)
        else:
            out[key] = value
    return out


class Metrics(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """Samples of one scrape."""

    @classmethod
    def parse(cls, text: str) -> Metrics:
        found = cls()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name, frozenset(sample.labels.items())] = sample.value
        return found

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of ``name`` that carry ``labels``."""
        wanted = set(labels.items())
        return sum(value for (found, has), value in self.items() if found == name and wanted <= has)

    def series(self) -> dict[str, int]:
        """Return how many series each metric has."""
        counts: dict[str, int] = {}
        for name, _ in self:
            counts[name] = counts.get(name, 0) + 1
        return counts


class Sidecar:
    """One running sidecar: ``Sidecar(config)`` starts it and returns once it serves.

    ``config`` is a dict or the text of an llm.yml. ``env`` is added to an otherwise bare environment.
    ``stdout``: a file descriptor instead of the log file.
    """

    def __init__(
        self, settings: dict[str, Any] | str, *, env: dict[str, str] | None = None, port: int | None = None,
        stdout: int | None = None, files: int | None = None, wait: bool = True,
    ) -> None:  # fmt: skip
        self._folder = tempfile.TemporaryDirectory(prefix="sidecar-")
        self.folder = Path(self._folder.name)
        self.file = self.folder / "llm.yml"
        self.write(settings)
        self._out = (self.folder / "out").open("wb")
        self._err = (self.folder / "err").open("wb")
        self._read = 0
        self._lines: list[dict[str, Any]] = []
        self._tail = b""
        self._expected: list[str] = []
        self.exit: int | None = None
        self.codes = {0}
        """Exit codes with which it may end."""
        self.port = port or free_port()
        command = [sys.executable, "-m", "proxy", "serve", "--config", str(self.file), "--port", str(self.port)]
        if files is not None:
            command = ["bash", "-c", f'ulimit -n {files}; exec "$@"', "bash", *command]
        bare = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=self._out if stdout is None else stdout, stderr=self._err,
            env={**bare, "PYTHONPATH": str(ROOT), **(env or {})},
        )  # fmt: skip
        self.pid = self.process.pid
        if wait:
            self._wait()
            self.started_in = time.monotonic() - self.began

    def _wait(self) -> None:
        limit = time.monotonic() + 20
        while True:
            if self.process.poll() is not None or time.monotonic() > limit:
                errors = self.stderr()
                self.kill()
                raise RuntimeError(f"the sidecar did not start ({self.process.returncode}): {errors}\n{self.stdout()}")
            with contextlib.suppress(OSError):
                if self.ask("GET", "/readyz").status == 200:
                    return
            time.sleep(0.01)

    def write(self, settings: dict[str, Any] | str) -> None:
        """Write llm.yml (a running sidecar may notice)."""
        text = settings if isinstance(settings, str) else yaml.safe_dump(settings, allow_unicode=True, sort_keys=False)
        temporary = self.file.with_suffix(".new")
        temporary.write_text(text, "utf-8")
        temporary.replace(self.file)

    # --- talking to it ----------------------------------------------------------------------------
    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """The ``base_url`` for an OpenAI client."""
        return f"{self.url}/v1"

    def raw(self, **options: Any) -> RawClient:
        return RawClient(self.port, **options)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Any = (),
        timeout: float = 30.0,
    ) -> Reply:
        """Send one request on a connection of its own and return the reply."""
        with self.raw(timeout=timeout) as client:
            client.reader.heads_only = method == "HEAD"
            return client.ask(request(path, body, method=method, key=key, headers=headers), timeout=timeout)

    def chat(
        self, model: str, *, key: str = CLIENT_KEY, headers: Any = (), timeout: float = 30.0, **body: Any
    ) -> Reply:
        """Send one chat completion."""
        return self.ask("POST", "/v1/chat/completions", chat(model, **body), key=key, headers=headers, timeout=timeout)

    def reload(self) -> Reply:
        return self.ask("POST", "/admin/reload", key=OPS_KEY)

    # --- looking at it ----------------------------------------------------------------------------
    def metrics(self) -> Metrics:
        reply = self.ask("GET", "/metrics", key=OPS_KEY)
        assert reply.status == 200, reply
        return Metrics.parse(reply.body.decode())

    def log(self, event: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """Return the log's lines so far, all of them or those with this event and these fields.

        AssertionError for a line that is no JSON object.
        """
        path = self.folder / "out"
        with path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        self._read += len(data)
        *whole, self._tail = (self._tail + data).split(b"\n")
        for line in whole:
            try:
                parsed = json.loads(line)
            except ValueError:
                raise AssertionError(f"a line on stdout is no JSON: {line[:300]!r}") from None
            assert isinstance(parsed, dict), line
            self._lines.append(parsed)
        return [
            line for line in self._lines
            if (event is None or line.get("event") == event) and all(line.get(name) == value for name, value in fields.items())
        ]  # fmt: skip

    def calls(self, **fields: Any) -> list[dict[str, Any]]:
        """Return the log lines of ended calls."""
        return self.log("llm_request_completed", **fields)

    def wait_calls(self, count: int, *, timeout: float = 5.0, **fields: Any) -> list[dict[str, Any]]:
        """Return the log lines of ended calls once there are ``count``, or what there is by then."""
        limit = time.monotonic() + timeout
        while len(found := self.calls(**fields)) < count and time.monotonic() < limit:
            time.sleep(0.01)
        return found

    def stdout(self) -> str:
        return (self.folder / "out").read_bytes().decode("utf-8", "replace")

    def stderr(self) -> str:
        return (self.folder / "err").read_bytes().decode("utf-8", "replace")

    @property
    def rss(self) -> int:
        """Resident memory in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def fds(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def connected(self, port: int) -> int:
        """Return how many of its sockets have an open connection to ``port`` on 127.0.0.1."""
        own = set()
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                own.add(os.readlink(link))
        peer = f"0100007F:{port:04X}"
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        return sum(row[2] == peer and row[3] == "01" and f"socket:[{row[9]}]" in own for row in rows)

    @property
    def cpu(self) -> float:
        """CPU seconds used so far, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    # --- ending it --------------------------------------------------------------------------------
    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 15.0) -> int:
        """Wait for the process's end; return its exit code."""
        return self.process.wait(timeout)

    def expect(self, *words: str) -> None:
        """Say that this sidecar may log errors or print lines that contain one of ``words``."""
        self._expected += words

    def stop(self) -> None:
        """End it with SIGTERM; assert that it left properly and complained of nothing."""
        if self.running:
            self.signal(signal.SIGTERM)
            try:
                self.exit = self.wait()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                self._close()
                raise AssertionError("the sidecar did not end within 15 s of SIGTERM") from None
            killed = False
        else:
            self.exit = self.process.returncode
            killed = self.exit == -signal.SIGKILL
        try:
            assert killed or self.exit in self.codes, (self.exit, self.stderr())
            self.check_output()
        finally:
            self._close()

    def check_output(self) -> None:
        """Assert that stdout holds JSON lines only, none of them an inner error, and stderr no traceback."""
        lines = self.log()
        errors = [
            line for line in lines
            if (line.get("level") in ("error", "critical") or line.get("event") in ("internal_error", "finisher_failed"))
            and not any(word in json.dumps(line) for word in self._expected)
        ]  # fmt: skip
        assert not errors, errors[:5]
        printed = self.stderr()
        assert "Traceback" not in printed and "Warning" not in printed, printed[-4000:]

    def kill(self) -> None:
        """End it with SIGKILL, checking nothing."""
        if self.running:
            self.process.kill()
            self.process.wait()
        self._close()

    def _close(self) -> None:
        self._out.close()
        self._err.close()

    def cleanup(self) -> None:
        """Delete its folder."""
        self._folder.cleanup()
