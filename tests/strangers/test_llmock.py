"""llmock, a public mock server, before the sidecar's three wires: it answers, breaks as scripted, and judges its client."""

from __future__ import annotations

import importlib.util
import json
import sys
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.core.inline import Inline, inline
from tests.fakes.clients import BARE
from tests.fakes.httpwire import stream
from tests.fakes.ports import free_port
from tests.fakes.scripted import llm_yml
from tests.strangers.conftest import Start

VENDORS = ("openai", "anthropic", "gemini")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llmock") is None, reason="llmock (PyPI) is not installed")


@pytest.fixture(scope="module")
def mock(start: Start) -> str:
    """llmock's address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def serves() -> bool:
        with urllib.request.urlopen(f"{url}/_llmock/scenario", timeout=2) as reply:
            return bool(reply.status == 200)

    command = [sys.executable, "-m", "llmock.cli", "serve", "--host", "127.0.0.1", "--port", str(port)]
    start([*command, "--response-style", "hello", "--log-level", "warning"], until=serves, seconds=40.0)
    return url


@pytest.fixture
async def mocked(mock: str) -> AsyncIterator[tuple[Inline, httpx2.AsyncClient]]:
    """A sidecar with llmock behind every provider, and a client for llmock's own routes, fresh for each test."""
    common: dict[str, Any] = {"api_key": "sk-mock-000000", "max_retries": 2}
    entries = {
        "openai": {**common, "base_url": f"{mock}/v1"},
        "anthropic": {**common, "base_url": f"{mock}/anthropic", "max_tokens": 200},
        "gemini": {**common, "base_url": f"{mock}/gemini"},
    }
    async with (
        httpx2.AsyncClient(base_url=f"{mock}/_llmock", verify=BARE) as control,
        inline(llm_yml(entries)) as sidecar,
    ):
        await control.post("/reset")
        yield sidecar, control


MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash"}


def named(vendor: str) -> str:
    return f"{vendor}/{MODELS[vendor]}"


async def script(control: httpx2.AsyncClient, *behaviours: dict[str, Any]) -> None:
    reply = await control.post("/scenario", json={"behaviors": list(behaviours)})
    assert reply.status_code == 201, reply.text


async def verdict(control: httpx2.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await control.get("/verdict")).json()
    return found


@pytest.mark.parametrize("vendor", VENDORS)
async def test_text_and_tools(mocked: tuple[Inline, httpx2.AsyncClient], vendor: str) -> None:
    """Text and tool calls, whole and streamed, through each wire; the mock finds nothing wrong with its client."""
    sidecar, control = mocked
    await script(control, {"type": "reply", "text": "Grüße aus Köln.", "times": 2})
    whole = await sidecar.chat("hi", model=named(vendor))
    assert whole.status_code == 200, whole.text
    assert whole.json()["choices"][0]["message"]["content"] == "Grüße aus Köln."
    assert whole.json()["usage"]["total_tokens"] > 0
    seen = stream((await sidecar.chat("hi", model=named(vendor), stream=True)).content)
    assert (seen.text, seen.done, seen.errors, seen.finish) == ("Grüße aus Köln.", 1, [], "stop")
    call = {"name": "get_weather", "arguments": {"city": "Paris"}}
    await script(control, {"type": "reply", "tool_calls": [call], "times": 2})
    whole = await sidecar.chat("weather?", model=named(vendor), tools=TOOLS)
    choice = whole.json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    asked = choice["message"]["tool_calls"][0]
    assert (asked["function"]["name"], json.loads(asked["function"]["arguments"])) == ("get_weather", {"city": "Paris"})
    seen = stream((await sidecar.chat("weather?", model=named(vendor), tools=TOOLS, stream=True)).content)
    deltas = [d for c in seen.chunks for ch in c["choices"] for d in ch["delta"].get("tool_calls") or ()]
    assert json.loads("".join(d["function"].get("arguments") or "" for d in deltas)) == {"city": "Paris"}
    assert seen.finish == "tool_calls"
    history = [
        {"role": "user", "content": "weather?"},
        choice["message"],
        {"role": "tool", "tool_call_id": asked["id"], "content": "21 C"},
    ]
    last = await sidecar.chat(model=named(vendor), messages=history, tools=TOOLS)
    assert last.status_code == 200 and last.json()["choices"][0]["message"]["content"]
    found = await verdict(control)
    assert found["findings"] == [], found


@pytest.mark.parametrize("vendor", VENDORS)
async def test_scripted_faults(mocked: tuple[Inline, httpx2.AsyncClient], vendor: str) -> None:
    """Refusals are retried as late as asked, with growing pauses, and mistakes are not: the mock's own verdict."""
    sidecar, control = mocked
    await script(control, {"type": "fail", "status": 429, "retry_after": 0.3})
    assert (await sidecar.chat("a", model=named(vendor))).status_code == 200
    await script(control, {"type": "fail", "status": 503}, {"type": "fail", "status": 500})
    assert (await sidecar.chat("b", model=named(vendor), stream=True)).status_code == 200
    await script(control, {"type": "fail", "status": 400, "message": "wrong"})
    assert (await sidecar.chat("c", model=named(vendor))).status_code == 400
    found = await verdict(control)
    assert found["findings"] == [], found
    assert [line["retries"] for line in await sidecar.lines()] == [1, 2, 0]


@pytest.mark.parametrize("vendor", VENDORS)
async def test_streams_that_break_before_they_begin(mocked: tuple[Inline, httpx2.AsyncClient], vendor: str) -> None:
    """A stream cut off, or ended, before its first word is tried again and nobody sees it."""
    sidecar, control = mocked
    await script(control, {"type": "stream_fault", "kind": "disconnect", "after_chunks": 0})
    seen = stream((await sidecar.chat("d", model=named(vendor), stream=True)).content)
    assert (seen.done, seen.errors) == (1, [])
    await script(control, {"type": "stream_fault", "kind": "truncate", "after_chunks": 0})
    seen = stream((await sidecar.chat("e", model=named(vendor), stream=True)).content)
    assert (seen.done, seen.errors) == (1, [])
    found = await verdict(control)
    assert found["findings"] == [], found
    assert [line["retries"] for line in await sidecar.lines()] == [1, 1]


@pytest.mark.parametrize("kind", ["truncate", "disconnect", "malformed"])
@pytest.mark.parametrize("vendor", VENDORS)
async def test_faults_in_mid_stream(mocked: tuple[Inline, httpx2.AsyncClient], vendor: str, kind: str) -> None:
    """What breaks after the first words is an error frame, never a success and never tried again."""
    sidecar, control = mocked
    await script(
        control,
        {"type": "reply", "text": "one two three four five six seven eight nine ten eleven twelve"},
        {"type": "stream_fault", "kind": kind, "after_chunks": 6},
    )
    reply = await sidecar.chat("hi", model=named(vendor), stream=True)
    seen = stream(reply.content)
    assert seen.text.startswith("one") and (seen.done, len(seen.errors), seen.after_end) == (0, 1, 0), reply.text
    (line,) = await sidecar.lines()
    assert (line["outcome"], line["retries"]) == ("upstream_error", 0) and line["completion_tokens"] > 0


async def test_the_mocks_models(mocked: tuple[Inline, httpx2.AsyncClient]) -> None:
    """`?probe=1` reads each vendor's list of models."""
    sidecar, _ = mocked
    found = (await sidecar.client.get("/health?probe=1")).json()["provider_status"]
    assert {name: found[name]["probe"]["status"] for name in VENDORS} == dict.fromkeys(VENDORS, "ok")
    assert all(found[name]["probe"]["models"] > 0 for name in VENDORS)
