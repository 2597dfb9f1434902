"""The judge of `../shared/wires` on the running sidecar: recorded answers replayed to it, 13 properties a case."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.ports import free_port
from tests.fakes.sidecar import CLIENT_KEY, PROVIDER_KEY, Sidecar
from tests.providers.recordings import Recordings, shared
from tests.strangers.conftest import Start, python_script

PROVIDERS = ("anthropic", "gemini")
MODES = ("event", "whole", "bytes:3")
#: What contract.md 2 "Errors" asks for where the vendor's own status says that the sidecar's key is bad.
OUR_KEY = "the recording's 401/403 is about the API key, which is the sidecar's own: contract.md answers 502 upstream_auth_error"


class Replay:
    """The replay server with a sidecar before it, one provider of each kind."""

    def __init__(self, recordings: Recordings, start: Start) -> None:
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ},
            "WIRES_DIR": str(recordings.root), "SCHEMAS_DIR": str(shared("schemas")), "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        self.tools = shared("wires") / "tools"
        self.recordings = recordings
        self.port = free_port()
        start(
            [*python_script(self.tools / "replay_upstream.py"), "--port", str(self.port), "--seconds", "1800"],
            env=self.environment, until=self._serves, seconds=60.0,
        )  # fmt: skip

    def _serves(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/__replay/log?n=1", timeout=2) as reply:
            return bool(reply.status == 200)

    def judge(
        self, sidecar: Sidecar, provider: str, mode: str, out: Path, *, count: int = 10**6
    ) -> tuple[str, list[dict[str, Any]]]:
        """Return what the judge prints, and the exchanges that it finds fault with."""
        command = [
            *python_script(self.tools / "judge.py"), "--base", sidecar.base_url, "--key", CLIENT_KEY, "--provider", provider,
            "--replay", f"http://127.0.0.1:{self.port}", "--mode", mode, "--out", str(out), "-n", str(count), "--show", "5",
            "--seconds", "600",
        ]  # fmt: skip
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0 and "time limit" not in done.stdout, done.stdout + done.stderr[-2000:]
        return done.stdout, [json.loads(line) for line in out.read_text().splitlines() if line]


@pytest.fixture(scope="session")
def replay(recordings: Recordings, start: Start) -> Replay:
    """The replay server, running."""
    return Replay(recordings, start)


@pytest.fixture
def judged(replay: Replay, own_sidecar: Callable[..., Sidecar]) -> Sidecar:
    """A sidecar whose providers are the replay server."""
    common = {"base_url": f"http://127.0.0.1:{replay.port}", "api_key": PROVIDER_KEY, "max_retries": 0,
              "unsupported": "drop", "breaker": {"failures": 1_000_000}}  # fmt: skip
    return own_sidecar(
        {
            "server": {"drain_delay": "0s", "max_body": "64MiB"},
            "auth": _auth(),
            "default_provider": "anthropic",
            "providers": {
                "anthropic": {**common, "models": ["claude-*", "*anthropic*"]},
                "gemini": {**common, "models": ["*"]},
            },
        }
    )


def _auth() -> dict[str, Any]:
    from tests.fakes.sidecar import hash_key

    return {
        "keys": [
            {"id": "judge", "hash": hash_key(CLIENT_KEY), "team": "platform", "user": "judge", "roles": ["generate"]}
        ]
    }


def left_out(replay: Replay, fault: dict[str, Any]) -> str | None:
    """Return why the contract answers this exchange otherwise than the judge expects, None if it does not."""
    if [name for name, _ in fault["bad"]] != ["error_status"] or not fault["bad"][0][1].startswith("502 want 4"):
        return None
    exchange = json.loads((replay.recordings.root / f"{fault['id']}.json").read_text())
    said = json.dumps(exchange["response"].get("body", exchange["response"].get("text", ""))).lower()
    about_keys = "api-key" in said or "api key" in said or "authentication_error" in said or "permission" in said
    return OUR_KEY if about_keys else None


def agree(replay: Replay, sidecar: Sidecar, provider: str, mode: str, out: Path, count: int = 10**6) -> None:
    printed, faults = replay.judge(sidecar, provider, mode, out, count=count)
    print(printed)
    real = []
    for fault in faults:
        reason = left_out(replay, fault)
        if reason is None:
            real.append(fault)
        else:
            print(f"left out: {fault['id']}: {reason}")
    assert not real, f"{len(real)} exchanges of {provider} in {mode} mode: {real[:3]}"
    assert "'pass': " in printed


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_recorded_answer_is_right(
    replay: Replay, judged: Sidecar, tmp_path: Path, provider: str, mode: str
) -> None:
    """Text, tools, finish, usage, schemas, ids, [DONE], errors and what reached the vendor: 100 % of all recordings."""
    agree(replay, judged, provider, mode, tmp_path / "faults.jsonl")


def test_a_sample_of_the_recorded_answers(replay: Replay, judged: Sidecar, tmp_path: Path) -> None:
    """The same for a sample, three bytes at a time."""
    for provider in PROVIDERS:
        agree(replay, judged, provider, "bytes:3", tmp_path / f"{provider}.jsonl", count=30)
