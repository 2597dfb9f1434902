"""aimock, a public mock server, as all four vendors: the same fixtures behind each wire give the same answers."""

from __future__ import annotations

import http.client
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.core.inline import Inline, inline
from tests.fakes.httpwire import stream
from tests.fakes.ports import free_port
from tests.fakes.scripted import VENDORS, llm_yml, providers
from tests.strangers.conftest import Start

ROOT = Path(__file__).resolve().parents[2]
PLACES = (ROOT / ".bench" / "programs", ROOT / ".bench" / "clients" / "node")  # `make programs` and `make clients`
PROGRAMS = [place / "node_modules" / ".bin" / "llmock" for place in PLACES]
PROGRAM = Path(os.environ.get("AIMOCK") or next(filter(Path.exists, PROGRAMS), PROGRAMS[0]))
TEXT = "Zażółć gęślą jaźń — 日本語 🙂 one two three four five six seven eight nine ten."
FIXTURES = {
    "fixtures": [
        {"match": {"userMessage": "weather", "hasToolResult": True}, "response": {"content": "It is 21 C."}},
        {
            "match": {"userMessage": "weather"},
            "response": {
                "toolCalls": [
                    {"id": "call_a", "name": "get_weather", "arguments": {"city": "Paris"}},
                    {"id": "call_b", "name": "get_weather", "arguments": {"city": "Rome"}},
                ]
            },
        },
        {"match": {"userMessage": "too fast"}, "response": {"error": {"message": "slow down", "type": "rate_limit_error"}, "status": 429}},
        {"match": {"endpoint": "chat"}, "response": {"content": TEXT}},
    ]
}  # fmt: skip
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]

pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and PROGRAM.exists()),
    reason="aimock is not installed (`make programs` does it with npm; or set AIMOCK to the program)",
)


@pytest.fixture(scope="module")
def mock(start: Start, tmp_path_factory: pytest.TempPathFactory) -> str:
    """aimock's address."""
    fixtures = tmp_path_factory.mktemp("aimock") / "fixtures.json"
    fixtures.write_text(json.dumps(FIXTURES))
    port = free_port()

    def serves() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/v1/models")
            return connection.getresponse().status > 0
        finally:
            connection.close()

    start(
        [
            "node",
            str(PROGRAM.resolve()),
            "-p",
            str(port),
            "-h",
            "127.0.0.1",
            "-f",
            str(fixtures),
            "--log-level",
            "silent",
        ],
        until=serves,
    )
    return f"http://127.0.0.1:{port}"


@pytest.fixture
async def mocked(mock: str) -> AsyncIterator[Inline]:
    """A sidecar with aimock behind every vendor."""
    async with inline(llm_yml(providers(mock))) as sidecar:
        yield sidecar


def calls(message: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in message["tool_calls"]]


@pytest.mark.parametrize("vendor", VENDORS)
async def test_text(mocked: Inline, vendor: str) -> None:
    """The same text, whole and streamed, from every vendor."""
    whole = await mocked.chat("hi", model=f"{vendor}/m")
    assert whole.status_code == 200, whole.text
    assert whole.json()["choices"][0]["message"]["content"] == TEXT
    seen = stream((await mocked.chat("hi", model=f"{vendor}/m", stream=True)).content)
    assert (seen.text, seen.done, seen.errors, seen.finish) == (TEXT, 1, [], "stop")


@pytest.mark.parametrize("vendor", VENDORS)
async def test_parallel_tools(mocked: Inline, vendor: str) -> None:
    """Two calls at once, whole and streamed, their results sent back, and the answer to them."""
    wanted = [("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"})]
    whole = (await mocked.chat("weather?", model=f"{vendor}/m", tools=TOOLS)).json()["choices"][0]
    assert (whole["finish_reason"], calls(whole["message"])) == ("tool_calls", wanted)
    seen = stream((await mocked.chat("weather?", model=f"{vendor}/m", tools=TOOLS, stream=True)).content)
    assert seen.finish == "tool_calls"
    gathered: dict[int, list[str]] = {}
    for chunk in seen.chunks:
        for call in chunk["choices"][0]["delta"].get("tool_calls") or ():
            held = gathered.setdefault(call["index"], ["", ""])
            held[0] += call["function"].get("name") or ""
            held[1] += call["function"].get("arguments") or ""
    assert [(name, json.loads(text)) for _, (name, text) in sorted(gathered.items())] == wanted
    ids = [call["id"] for call in whole["message"]["tool_calls"]]
    assert len(set(ids)) == 2
    history = [{"role": "user", "content": "weather?"}, whole["message"]]
    history += [{"role": "tool", "tool_call_id": id, "content": "21 C"} for id in ids]
    last = await mocked.chat(model=f"{vendor}/m", messages=history, tools=TOOLS)
    assert last.status_code == 200 and last.json()["choices"][0]["message"]["content"] == "It is 21 C.", last.text


@pytest.mark.parametrize("as_stream", [False, True])
@pytest.mark.parametrize("vendor", VENDORS)
async def test_refusals(mocked: Inline, vendor: str, as_stream: bool) -> None:
    """A rate limit is a 429 with OpenAI's error, from every vendor."""
    reply = await mocked.chat("too fast", model=f"{vendor}/m", stream=as_stream)
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "upstream_rate_limited")
    assert "slow down" in reply.json()["error"]["message"]
