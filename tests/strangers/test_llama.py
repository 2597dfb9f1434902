"""A real model behind a server that nobody here wrote: llama.cpp speaks OpenAI's wire and Anthropic's."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.core.inline import Inline, inline
from tests.fakes.clients import async_openai_client
from tests.fakes.httpwire import stream
from tests.fakes.scripted import llm_yml

ROOT = Path(__file__).resolve().parents[2]
FETCHED = (ROOT / ".demo" / "gemma.gguf").exists()
WIRES = ("openai", "anthropic")
QUESTION = "What is the capital of France?"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]

pytestmark = [
    pytest.mark.alone,
    pytest.mark.slow,  # a few seconds where nobody else computes, a minute where somebody does
    pytest.mark.skipif(
        not (FETCHED or os.environ.get("LLM_SIDECAR_DEMO") == "1"),
        reason="the demo model is not fetched; `make run` fetches it into .demo, or LLM_SIDECAR_DEMO=1 lets this test do so",
    ),
]


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    """The model server's address."""
    spec = importlib.util.spec_from_file_location("demo_run", ROOT / "deploy" / "demo" / "run.py")
    assert spec is not None and spec.loader is not None
    demo: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    found = demo.start_model()
    if found is None:
        pytest.skip("the demo model's server did not start (.demo/server.log)")
    process, address = found
    yield address
    process.terminate()
    process.wait(10)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


@pytest.fixture
async def sidecar(llama: str) -> AsyncIterator[Inline]:
    """A sidecar that knows the model by both wires."""
    common = {"api_key": "none-needed", "timeout": 60}
    entries = {
        "openai": {**common, "base_url": f"{llama}/v1"},
        "anthropic": {**common, "base_url": llama, "max_tokens": 64, "unsupported": "drop"},
    }
    async with inline(llm_yml(entries)) as running:
        running.client.timeout = 60
        yield running


def url(sidecar: Inline) -> str:
    return str(sidecar.client.base_url).rstrip("/")


@pytest.mark.parametrize("wire", WIRES)
async def test_an_answer(sidecar: Inline, wire: str) -> None:
    """The model answers in words, whole and streamed, and its own counts are booked."""
    options = {"model": f"{wire}/gemma3-270m", "max_tokens": 12, "temperature": 0}
    whole = await sidecar.chat(QUESTION, **options)
    assert whole.status_code == 200, whole.text
    assert "Paris" in whole.json()["choices"][0]["message"]["content"]
    reply = await sidecar.chat(QUESTION, stream=True, stream_options={"include_usage": True}, **options)
    seen = stream(reply.content)
    assert "Paris" in seen.text and (seen.done, seen.errors) == (1, [])
    assert len(seen.chunks) > 4 and len({chunk["id"] for chunk in seen.chunks}) == 1
    lines = await sidecar.lines()
    for line, usage in zip(lines, (whole.json()["usage"], seen.usage[-1]), strict=True):
        assert (line["prompt_tokens"], line["completion_tokens"]) == (
            usage["prompt_tokens"],
            usage["completion_tokens"],
        )
        assert line["completion_tokens"] > 0 and not line["estimated"]


@pytest.mark.parametrize("wire", WIRES)
async def test_a_tool_call(sidecar: Inline, wire: str) -> None:
    """A tool call comes back by name with JSON arguments, streamed in fragments."""
    reply = await sidecar.chat(
        "What is the weather in Paris?",
        model=f"{wire}/gemma3-270m",
        max_tokens=40,
        temperature=0,
        tools=TOOLS,
        stream=True,
    )
    seen = stream(reply.content)
    deltas = [d for c in seen.chunks for ch in c["choices"] for d in ch["delta"].get("tool_calls") or ()]
    assert deltas and deltas[0]["function"]["name"] == "get_weather" and deltas[0]["id"], reply.text[-2000:]
    first = "".join(d["function"].get("arguments") or "" for d in deltas if d["index"] == 0)
    assert "Paris" in first and (seen.done, seen.errors) == (1, [])


async def test_a_schema(sidecar: Inline) -> None:
    """Structured output holds by the server's grammar: JSON of the schema, whatever the model would have said."""
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    }
    format = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": schema}}
    reply = await sidecar.chat(
        QUESTION, model="openai/gemma3-270m", max_tokens=40, temperature=0, response_format=format
    )
    assert set(json.loads(reply.json()["choices"][0]["message"]["content"])) == {"city"}


async def test_the_official_client(sidecar: Inline) -> None:
    """openai-python through the sidecar, Anthropic's wire behind it, gives the words that Anthropic's own client gets."""
    import anthropic

    async with async_openai_client(url(sidecar) + "/v1", timeout=600) as client:
        through = await client.chat.completions.create(
            model="anthropic/gemma3-270m",
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=12,
            temperature=0,
        )
    base = str(sidecar.side.runtime.providers["anthropic"].provider.base_url())
    async with anthropic.AsyncAnthropic(base_url=base, api_key="any", max_retries=0) as own:
        direct = await own.messages.create(
            model="gemma3-270m",
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=12,
            extra_body={"temperature": 0},
        )
    text = "".join(block.text for block in direct.content if block.type == "text")
    assert through.choices[0].message.content == text
    assert through.usage is not None and through.usage.completion_tokens == direct.usage.output_tokens


async def test_a_prompt_too_long(sidecar: Inline) -> None:
    """A prompt above the server's window is the caller's 400, in OpenAI's words."""
    reply = await sidecar.chat("word " * 6000, model="openai/gemma3-270m", max_tokens=4)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "context_length_exceeded"), reply.text
