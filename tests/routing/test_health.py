"""A provider's health from what really happened, and from asking it: `/health`, `/health?probe=1`, `check --probe`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.dialects import dumps
from tests.fakes.ports import free_port
from tests.fakes.scripted import VENDORS, Answer, Scripted, Seen, llm_yml, providers, refuse, say
from tests.routing.conftest import Serve

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-upstream-CANARY4417"
#: What each vendor's list of models looks like.
LISTS: dict[str, Any] = {
    "openai": {"object": "list", "data": [{"id": "gpt-4o"}, {"id": "gpt-4o-mini"}]},
    "azure_openai": {"data": [{"id": "gpt-4o-2024-08-06", "status": "succeeded"}], "object": "list"},
    "anthropic": {"data": [{"type": "model", "id": "claude-sonnet-4-5-20250929"}], "has_more": False},
    "gemini": {"models": [{"name": "models/gemini-2.5-flash"}, {"name": "models/gemini-2.5-pro"}]},
}


def vendor_of(seen: Seen) -> str:
    if "x-api-key" in seen.headers:
        return "anthropic"
    if "x-goog-api-key" in seen.headers:
        return "gemini"
    return "azure_openai" if "api-key" in seen.headers else "openai"


def listing(seen: Seen) -> Answer:
    """Answer as the vendor does: its models to a good key, its refusal to a bad one."""
    vendor = vendor_of(seen)
    if seen.key == KEY:
        return Answer(dumps(LISTS[vendor])) if seen.method == "GET" else say(seen)
    if vendor == "gemini":
        details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
        error = {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT", "details": details}
        return Answer(dumps({"error": error}), 400)
    if vendor == "anthropic":
        return Answer(
            dumps({"type": "error", "error": {"type": "authentication_error", "message": f"invalid {seen.key}"}}), 401
        )
    return Answer(
        dumps({"error": {"message": f"Incorrect API key provided: {seen.key}", "code": "invalid_api_key"}}), 401
    )


async def status(sidecar: Any, probe: bool = False) -> dict[str, Any]:
    reply = await sidecar.client.get("/health" + ("?probe=1" if probe else ""))
    assert reply.status_code == 200
    found: dict[str, Any] = reply.json()
    return found


async def test_health_follows_what_happens(serve: Serve) -> None:
    """Unknown before the first call, then healthy, degraded, unhealthy, by the last calls alone; refusals of the caller's do not count."""
    answers = [200]
    sidecar, provider = await serve(
        lambda seen: say(seen) if answers[0] == 200 else refuse(seen, answers[0], "no"), "openai"
    )
    assert (await status(sidecar))["provider_status"]["openai"]["status"] == "unknown"
    assert provider.calls == [], "health asks nobody by itself"
    for code, wanted in ((200, "healthy"), (400, "healthy"), (429, "healthy"), (500, "degraded")):
        answers[0] = code
        await sidecar.chat("hi", model="m")
        assert (await status(sidecar))["provider_status"]["openai"]["status"] == wanted, code
    found = (await status(sidecar))["provider_status"]["openai"]
    assert (found["calls_5m"], found["failures_5m"], found["last_error"]) == (2, 1, "upstream_error")


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_key_that_is_refused_is_no_health(serve: Serve, vendor: str) -> None:
    """A provider that refuses our key serves nobody: unhealthy, though its breaker stays closed."""
    sidecar, _ = await serve(listing, vendor, api_key="sk-wrong-000000")
    assert (await sidecar.chat("hi", model=f"{vendor}/m")).json()["error"]["code"] == "upstream_auth_error"
    found = await status(sidecar)
    assert found["status"] == found["provider_status"][vendor]["status"] == "unhealthy"
    assert found["provider_status"][vendor]["circuit"] == "closed"


async def test_probes_ask_all_vendors_at_once(serve: Serve) -> None:
    """`?probe=1` says how many models each key may see and which configured ones are not among them."""
    models = {
        "models": {"big": ["anthropic/claude-sonnet-4-5", "gemini/gemini-9-ultra"], "own": "azure_openai/my-deployment"}
    }
    sidecar, provider = await serve(listing, *VENDORS, config=models)
    found = (await status(sidecar, probe=True))["provider_status"]
    assert {name: found[name]["probe"] for name in VENDORS} == {
        "openai": {"status": "ok", "models": 2, "missing": []},
        "azure_openai": {"status": "ok", "models": 1, "missing": []},
        "anthropic": {"status": "ok", "models": 1, "missing": []},
        "gemini": {"status": "ok", "models": 2, "missing": ["gemini-9-ultra"]},
    }
    assert {call.method for call in provider.calls} == {"GET"} and not any(KEY in call.path for call in provider.calls)


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_bad_key_is_named_by_its_place_never_by_itself(serve: Serve, vendor: str) -> None:
    """Of several keys each is asked; the bad one fails, and is not repeated."""
    sidecar, _ = await serve(listing, vendor, api_key=[KEY, "sk-wrong-000000"])
    probe = (await status(sidecar, probe=True))["provider_status"][vendor]["probe"]
    assert probe["status"] == "failed" and [row["status"] for row in probe["keys"]] == ["ok", "failed"]
    assert probe["keys"][1]["code"] == "upstream_auth_error" and "sk-wrong" not in str(probe)


async def test_what_is_no_provider(serve: Serve) -> None:
    """Something else at the address, or nothing, fails with what to do."""
    dead = {"gemini": providers(f"http://127.0.0.1:{free_port()}", "gemini")["gemini"]}
    sidecar, _ = await serve(
        lambda seen: Answer(b"<html>hello</html>", content_type="text/html"), "openai", "anthropic", more=dead
    )
    found = (await status(sidecar, probe=True))["provider_status"]
    codes = {name: found[name]["probe"]["code"] for name in found}
    assert codes == {
        "openai": "upstream_invalid_response",
        "anthropic": "upstream_invalid_response",
        "gemini": "upstream_unreachable",
    }


@pytest.mark.parametrize("key", ["good", "bad"])
async def test_check_probe(tmp_path: Path, key: str) -> None:
    """`check --probe` prints each vendor's answer and exits 1 if a key does not work."""
    async with Scripted(listing) as provider:
        entries = providers(provider.url, api_key=KEY if key == "good" else "sk-wrong-000000")
        (tmp_path / "llm.yml").write_text(llm_yml(entries, models={"m": "openai/gpt-5-nano"}))
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-m", "proxy", "check", "--probe", "--config", "llm.yml"], cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    lines = [line.split() for line in done.stdout.splitlines()]
    said = {line[0]: " ".join(line[1:]) for line in lines if line and line[0] in VENDORS}
    assert said.keys() == set(VENDORS), done.stdout + done.stderr
    if key == "good":
        assert done.returncode == 0
        assert said["openai"] == "default, the key works (2 models), not in its list: gpt-5-nano"
        assert said["gemini"] == "the key works (2 models)"
    else:
        assert done.returncode == 1
        assert all("upstream_auth_error" in text for text in said.values()), said
        assert "sk-wrong" not in done.stdout + done.stderr
