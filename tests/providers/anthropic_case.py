"""Short ways to put a case to the Anthropic translator."""

from __future__ import annotations

from typing import Any

import orjson

from proxy.chunk import Chunk
from proxy.providers.anthropic import Anthropic, AnthropicSettings
from proxy.providers.base import StreamDecoder, Target
from proxy.request import ChatRequest
from proxy.upstream.base import UpstreamRequest

MODEL = "claude-sonnet-4-5"
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def provider(**settings: Any) -> Anthropic:
    """Return a provider whose clock stands."""
    made = Anthropic("anthropic", AnthropicSettings(**settings))
    made.now = lambda: 1_700_000_000.0
    return made


def send(
    messages: list[dict[str, Any]] | None = None, *, model: str = MODEL, ours: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None, **fields: Any,
) -> UpstreamRequest:  # fmt: skip
    """Return the upstream request for a chat; the caller's body must come out of it untouched."""
    body = {"model": "alias", "messages": messages or [USER], **fields}
    before = orjson.dumps(body)
    request = ChatRequest(body).with_ours(ours or {})
    made = provider(**(settings or {}))
    sent = made.encode(request, Target("anthropic", model, made))
    again = made.encode(request, Target("anthropic", model, made))
    assert orjson.dumps(body) == before
    assert sent.body == again.body
    return sent


def body(messages: list[dict[str, Any]] | None = None, **options: Any) -> dict[str, Any]:
    """Return the JSON that would go upstream."""
    sent: dict[str, Any] = orjson.loads(send(messages, **options).body)
    return sent


def call(ident: str, name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    """Return an entry of ``tool_calls``."""
    return {"id": ident, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*entries: dict[str, Any], content: Any = None, **more: Any) -> dict[str, Any]:
    """Return an assistant message with tool calls."""
    return {"role": "assistant", "content": content, "tool_calls": list(entries), **more}


def result(ident: str, content: Any = "ok", **more: Any) -> dict[str, Any]:
    """Return a tool message."""
    return {"role": "tool", "tool_call_id": ident, "content": content, **more}


def text(value: str, **more: Any) -> dict[str, Any]:
    """Return a text block, or part."""
    return {"type": "text", "text": value, **more}


def reply(*content: dict[str, Any], stop: str | None = "end_turn", usage: Any = None, **more: Any) -> dict[str, Any]:
    """Return a Messages reply."""
    usage = {"input_tokens": 3, "output_tokens": 5} if usage is None else usage
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": list(content),
        "stop_reason": stop, "stop_sequence": None, "usage": usage, **more,
    }  # fmt: skip


def decode(answer: dict[str, Any] | bytes, **request: Any) -> dict[str, Any]:
    """Return the completion that the client sees."""
    raw = answer if isinstance(answer, bytes) else orjson.dumps(answer)
    return provider().decode(200, {}, raw, send(**request)).data


def decoder(**request: Any) -> StreamDecoder:
    """Return a stream decoder."""
    return provider().decoder(send(stream=True, **request))


def events(*deltas: dict[str, Any], stop: str | None = "end_turn", usage: Any = None) -> list[dict[str, Any]]:
    """Return a stream: start, ``deltas``, the turn's end."""
    return [
        {"type": "message_start", "message": reply(stop=None, usage={"input_tokens": 3, "output_tokens": 1})},
        *deltas,
        {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": usage or {"output_tokens": 5}},
        {"type": "message_stop"},
    ]


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events of one content block."""
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def texts(index: int, *parts: str) -> list[dict[str, Any]]:
    """Return the events of one text block."""
    return block(index, text(""), *({"type": "text_delta", "text": part} for part in parts))


def tool(index: int, name: str, *parts: str) -> list[dict[str, Any]]:
    """Return the events of one tool call."""
    start = {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}}
    return block(index, start, *({"type": "input_json_delta", "partial_json": part} for part in parts))


def play(stream: list[dict[str, Any]], **request: Any) -> list[dict[str, Any]]:
    """Return the chunks of a whole stream."""
    made = decoder(**request)
    chunks: list[Chunk] = []
    for event in stream:
        chunks += made.feed(event["type"], orjson.dumps(event))
    chunks += made.close()
    return [chunk.data for chunk in chunks]
