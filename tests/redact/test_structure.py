"""What passes as structure is structure: a word, an identifier, bytes that nobody reads. Anything else in its place is text."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest

from proxy.chunk import Chunk
from tests.redact.helpers import call, policy

CANARY = "canary.bird@example.com"
USER: dict[str, Any] = {"role": "user", "content": "hi"}
TEXT_URL = f"data:text/plain,{CANARY}"


def part(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [fields]}]}


def schema(**fields: Any) -> dict[str, Any]:
    function = {"name": "f", "parameters": {"type": "object", "properties": {"type": fields}}}
    return {"messages": [USER], "tools": [{"type": "function", "function": function}]}


def top(**fields: Any) -> dict[str, Any]:
    return {"messages": [USER], **fields}


async def sent(body: dict[str, Any]) -> str:
    asked = call({"model": "m", **json.loads(json.dumps(body))})
    await policy().on_request(asked)
    return json.dumps(asked.request.body)


@pytest.mark.parametrize(
    "body",
    [
        top(service_tier=CANARY),
        top(reasoning_effort=CANARY),
        top(verbosity=CANARY),
        top(modalities=["text", CANARY]),
        top(truncation=CANARY),
        top(prediction={"type": CANARY, "content": "x"}),
        top(response_format={"type": CANARY}),
        top(tool_choice={"type": CANARY}),
        top(function_call=CANARY),
        {"messages": [{**USER, "type": CANARY}]},
        {"messages": [{**USER, "format": [CANARY]}]},
        part(type=CANARY, text="x"),
        part(type="text", text="x", cache_control={"type": "ephemeral", "ttl": CANARY}),
        part(type="image_url", image_url={"url": "https://x.io/a.png", "detail": CANARY}),
        part(type="input_audio", input_audio={"data": "AAAA", "format": CANARY}),
        schema(type=CANARY),
        schema(type=["string", CANARY]),
        schema(format=CANARY),
    ],
)
async def test_where_an_api_takes_a_word_anything_else_is_text(body: dict[str, Any]) -> None:
    """Types, formats, tiers and efforts pass as words; what is none is looked at like any text."""
    out = await sent(body)
    assert "canary" not in out and "[EMAIL]" in out


@pytest.mark.parametrize(
    "body",
    [
        schema(default={"format": CANARY, "required": [CANARY]}),
        schema(const={"type": CANARY}),
        schema(examples=[{"type": CANARY, CANARY: 1}]),
        schema(enum=[{"id": CANARY}]),
        schema(required=[{"description": CANARY}]),
        schema(type=[{"description": CANARY}]),
    ],
)
async def test_values_in_a_schema_are_text_whatever_their_keys(body: dict[str, Any]) -> None:
    """A default, a constant and an example may hold any key; so may objects where a schema has names only."""
    out = await sent(body)
    assert "canary" not in out and "[EMAIL]" in out


@pytest.mark.parametrize(
    "body",
    [
        part(type="image_url", image_url={"url": TEXT_URL}),
        part(type="image_url", image_url={"url": f"data:image/png;name={CANARY};base64,AAAA"}),
        part(type="image_url", image_url={"url": f"data:image/png;base64,{CANARY}"}),
        part(type="input_image", image_url=TEXT_URL),
        part(type="video_url", video_url={"url": TEXT_URL}),
        part(type="file", file={"file_data": TEXT_URL, "filename": "a.txt"}),
        part(type="input_audio", input_audio={"data": CANARY, "format": "wav"}),
        {"messages": [{"role": "assistant", "thinking_blocks": [{"type": "thinking", "signature": CANARY}]}, USER]},
    ],
)
async def test_what_is_not_base_64_is_text(body: dict[str, Any]) -> None:
    """A data URL of plain text, and words where a file's bytes or a signature belong, are read like any text."""
    out = await sent(body)
    assert "canary" not in out and "[EMAIL]" in out


def _opaque(random_bytes: str) -> list[dict[str, Any]]:
    url = f"data:video/mp4;base64,{random_bytes}"
    google = {"google": {"thought_signature": random_bytes}}
    function = {"name": "f", "arguments": "{}"}
    said = {
        "role": "assistant",
        "content": "x",
        "extra_content": google,
        "tool_calls": [{"id": "c1", "type": "function", "function": function, "extra_content": google}],
        "thinking_blocks": [{"type": "thinking", "thinking": "x", "signature": random_bytes}],
        "reasoning_details": [{"type": "reasoning.encrypted", "data": random_bytes}],
        "x_items": [{"encrypted_content": random_bytes}],
    }
    parts = [
        {"type": "video_url", "video_url": {"url": url}},
        {"type": "input_image", "image_url": url},
        {"type": "file", "file": {"file_data": random_bytes}},
    ]
    return [said, {"role": "user", "content": parts}]


async def test_signatures_and_files_go_back_as_they_came() -> None:
    """Signed thoughts and files are random bytes: one mask in a hundred of them, and the vendor refuses the next turn."""
    rng = random.Random(6)
    for size in (64, 64, 300, 1_000, 3_000, 3_000, 20_000):
        messages = _opaque(base64.b64encode(rng.randbytes(size)).decode())
        asked = call({"model": "m", "messages": json.loads(json.dumps(messages))})
        await policy().on_request(asked)
        assert asked.request.body["messages"] == messages
        said = {key: value for key, value in messages[0].items() if key != "tool_calls"}
        chunk = Chunk({"choices": [{"index": 0, "message": json.loads(json.dumps(said))}]}, b"raw", whole=True)
        (out,) = policy().on_reply(call({"model": "m", "messages": [USER]})).feed(chunk)
        assert out.data["choices"][0]["message"] == said


@pytest.mark.parametrize("key", ["data", "signature", "thought_signature", "encrypted_content", "b64_json"])
def test_what_is_not_base_64_in_a_reply_is_text(key: str) -> None:
    """Words in a reply where bytes belong are masked; a vendor's field is known by its name only."""
    message = {"role": "assistant", "content": "x", "x_vendor": [{key: f"ask {CANARY}"}], "y": TEXT_URL}
    chunk = Chunk({"choices": [{"index": 0, "message": message}]}, b"raw", whole=True)
    (out,) = policy().on_reply(call({"model": "m", "messages": [USER]})).feed(chunk)
    assert b"canary" not in out.encode() and out.encode().count(b"[EMAIL]") == 2
