"""What all tests share: one fake upstream a worker, sidecars by configuration, a Redis, the shared folder."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.ledger import Ledger
from tests.fakes.process import Upstream
from tests.fakes.redis import RedisServer
from tests.fakes.sidecar import BEHALF_KEY, PROVIDER_KEY, SECOND_KEY, Sidecar, config, hash_key
from tests.providers.recordings import Recordings

ROOT = Path(__file__).resolve().parents[1]
#: More than this many idle sidecars are not kept alive for later tests.
MOST_SIDECARS = 12


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with recordings, schemas and corpora that lies beside the repository."""
    folder = Path(os.environ.get("SHARED_DIR") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"needs {folder} (recordings and corpora), which is not here")
    return folder


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    """The recorded exchanges with vendors, unpacked once; skips where they are absent."""
    return Recordings.unpack(tmp_path_factory)


@pytest.fixture(scope="session")
def schemas(shared: Path) -> Path:
    """The folder of OpenAI's JSON Schemas; skips where it is absent."""
    return shared / "schemas"


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """A fake upstream in a process of its own, for all tests of this worker; calls are told apart by their tag."""
    running = Upstream()
    yield running
    state = running.state()
    running.stop()
    assert state["running"] == 0, "calls still run at the upstream"


class Sidecars:
    """Running sidecars by configuration: asked for twice, started once."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self._kept: dict[str, Sidecar] = {}
        self._pinned: set[str] = set()

    def __call__(
        self,
        settings: dict[str, Any] | None = None,
        *,
        env: dict[str, str] | None = None,
        pin: bool = False,
        **changes: Any,
    ) -> Sidecar:
        """Return a running sidecar with the test configuration and ``changes``, or with exactly ``settings``.

        ``pin``: a fixture holds on to it, so it is not ended to make room for another.
        """
        wanted = settings if settings is not None else config(self.upstream.base(), **changes)
        key = json.dumps([wanted, env], sort_keys=True, default=str)
        found = self._kept.pop(key, None)
        if found is None or not found.running:
            if found is not None:
                self._end(found)
            while len(loose := [one for one in self._kept if one not in self._pinned]) >= MOST_SIDECARS:
                self._end(self._kept.pop(loose[0]))
            found = Sidecar(wanted, env=env)
        self._kept[key] = found
        if pin:
            self._pinned.add(key)
        return found

    @staticmethod
    def _end(running: Sidecar) -> None:
        try:
            running.stop()
        finally:
            running.cleanup()

    def end(self) -> None:
        with contextlib.ExitStack() as stack:
            for running in self._kept.values():
                stack.callback(self._end, running)
        self._kept.clear()


@pytest.fixture(scope="session")
def sidecars(upstream: Upstream) -> Iterator[Sidecars]:
    """Shared sidecars; each must end well when its turn is over."""
    pool = Sidecars(upstream)
    yield pool
    pool.end()


#: A breaker that stays shut: for tests whose upstream fails all the time.
NEVER_OPEN: dict[str, Any] = {"failures": 1_000_000}
#: The limits of the `hasty` sidecar, in seconds.
LIMIT = 0.4


def wires(upstream: Upstream, **common: Any) -> dict[str, Any]:
    """Return one provider of each wire, all at the fake upstream, without retries, their breakers shut."""
    shared: dict[str, Any] = {"api_key": PROVIDER_KEY, "max_retries": 0, "breaker": NEVER_OPEN, **common}
    return {
        "openai": {**shared, "base_url": upstream.base()},
        "anthropic": {**shared, "base_url": upstream.url, "max_tokens": 1000},
        "gemini": {**shared, "base_url": upstream.url},
        "azure_openai": {**shared, "base_url": upstream.url},
    }


@pytest.fixture(scope="session")
def steady(sidecars: Sidecars, upstream: Upstream) -> Sidecar:
    """Four wires, long timeouts: for upstreams that break and clients that leave. One key speaks for others."""
    settings = config(upstream.base(), providers=wires(upstream))
    settings["auth"]["keys"].append(
        {
            "id": "agent",
            "hash": hash_key(BEHALF_KEY),
            "team": "platform",
            "user": "agent",
            "roles": ["generate"],
            "on_behalf": True,
        }
    )
    return sidecars(settings, pin=True)


#: Providers of the `hasty` sidecar that are none.
ODD = ("refuse", "reset", "full", "silent", "garbage")


@pytest.fixture(scope="session")
def hasty(sidecars: Sidecars, upstream: Upstream) -> Sidecar:
    """Four wires with timeouts of ``LIMIT``, odd ports, a wrong TLS port, and all that it says at DEBUG."""
    limits = {"connect": LIMIT, "first_byte": LIMIT, "idle": LIMIT, "total": 20}
    providers = wires(upstream, timeout=limits)
    common = {**providers["openai"], "kind": "openai"}
    for kind in ODD:
        providers[kind] = {**common, "base_url": f"http://127.0.0.1:{upstream.listen(kind)}/v1"}
    providers["tls"] = {**common, "base_url": f"https://localhost:{upstream.port}/v1"}
    providers["keys"] = {**common, "api_key": [PROVIDER_KEY, SECOND_KEY]}
    providers["brief"] = {**common, "timeout": {**limits, "total": 0.6}}
    return sidecars(config(upstream.base(), providers=providers, telemetry={"log_level": "DEBUG"}), pin=True)


@pytest.fixture(scope="session")
def tight(sidecars: Sidecars, upstream: Upstream) -> Sidecar:
    """Bodies of 256 KiB, 0.6 s to send them, one model (``gpt-4o``) but for provider ``free``."""
    providers = wires(upstream)
    settings = config(upstream.base(), server={"max_body": "256KiB", "receive_timeout": "600ms"})
    settings["providers"] = {
        "openai": {**providers["openai"], "models": ["gpt-4o"]},
        "free": {**providers["openai"], "kind": "openai"},
    }
    return sidecars(settings, pin=True)


@pytest.fixture(scope="session")
def capped(sidecars: Sidecars, upstream: Upstream) -> Sidecar:
    """At most ten calls at once."""
    return sidecars(server={"max_in_flight": 10}, providers={"openai": {"breaker": NEVER_OPEN}}, pin=True)


@pytest.fixture(scope="session")
def eager(sidecars: Sidecars, upstream: Upstream) -> Sidecar:
    """Providers ``r1`` to ``r5`` that retry up to three times, each with a retry budget of its own."""
    common = {**wires(upstream)["openai"], "kind": "openai", "max_retries": 3}
    return sidecars(config(upstream.base(), providers={f"r{i}": dict(common) for i in range(1, 6)}), pin=True)


@pytest.fixture(scope="session")
def sidecar(sidecars: Sidecars) -> Sidecar:
    """The shared sidecar with the plain test configuration."""
    return sidecars(pin=True)


@pytest.fixture
def own_sidecar(upstream: Upstream) -> Iterator[Callable[..., Sidecar]]:
    """Start sidecars for this test alone: ``own_sidecar(changes…)``."""
    started: list[Sidecar] = []

    def start(
        settings: dict[str, Any] | str | None = None, *, env: dict[str, str] | None = None, stdout: int | None = None,
        files: int | None = None, port: int | None = None, base: str | None = None, **changes: Any,
    ) -> Sidecar:  # fmt: skip
        wanted = settings if settings is not None else config(base or upstream.base(), **changes)
        running = Sidecar(wanted, env=env, stdout=stdout, files=files, port=port)
        started.append(running)
        return running

    yield start
    with contextlib.ExitStack() as stack:
        for running in started:
            stack.callback(running.cleanup)
            stack.callback(running.stop)


@pytest.fixture
def tag() -> str:
    """A word that no other test's calls carry."""
    return f"tag=t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def ledger(sidecar: Sidecar, upstream: Upstream, tag: str) -> Ledger:
    """The accounts of this test's calls through the shared sidecar."""
    return Ledger(sidecar, upstream, tag)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A private Redis for this worker; flush it first, leave it running."""
    server = RedisServer()
    yield server
    server.stop()
