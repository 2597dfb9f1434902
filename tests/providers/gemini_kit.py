"""What Gemini's tests share: a provider with a clock that stands, and the shortest way through it."""

from __future__ import annotations

from typing import Any

import orjson

from proxy.chunk import Chunk
from proxy.providers.base import Target
from proxy.providers.gemini import Gemini, GeminiSettings
from proxy.request import ChatRequest
from proxy.upstream.base import UpstreamRequest
from tests.providers.recordings import decode_stream

NOW = 1_700_000_000
MODEL = "gemini-2.5-flash"
HI = {"role": "user", "content": "hi"}


def gemini(**settings: Any) -> Gemini:
    """Return a provider as llm.yml would configure it."""
    provider = Gemini("gemini", GeminiSettings(**settings))
    provider.now = lambda: float(NOW)
    return provider


def encode(
    messages: list[dict[str, Any]] | None = None, *, settings: dict[str, Any] | None = None, **fields: Any
) -> UpstreamRequest:
    """Return the upstream request of a chat."""
    body = {"model": MODEL, "messages": messages if messages is not None else [HI], **fields}
    before = orjson.dumps(body)
    provider = gemini(**(settings or {}))
    sent = provider.encode(ChatRequest(body), Target("gemini", body["model"], provider))
    assert orjson.dumps(body) == before, "the caller's request must stay as it is"
    return sent


def wire(
    messages: list[dict[str, Any]] | None = None, *, settings: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    """Return the JSON that goes upstream."""
    body: dict[str, Any] = orjson.loads(encode(messages, settings=settings, **fields).body)
    return body


def function(name: str, parameters: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return a tool."""
    inner = {"name": name, **({"parameters": parameters} if parameters is not None else {}), **more}
    return {"type": "function", "function": inner}


def call(id: str, name: str, arguments: str = "{}") -> dict[str, Any]:
    """Return a tool call as it stands in the history."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*entries: dict[str, Any], content: Any = None) -> dict[str, Any]:
    """Return an assistant message that calls tools."""
    return {"role": "assistant", "content": content, "tool_calls": list(entries)}


def result(id: str, content: Any = "ok") -> dict[str, Any]:
    """Return a tool message."""
    return {"role": "tool", "tool_call_id": id, "content": content}


def candidate(*parts: dict[str, Any], finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    """Return a candidate; without parts it has no content."""
    made: dict[str, Any] = {"index": 0, **more}
    if parts:
        made["content"] = {"role": "model", "parts": list(parts)}
    if finish:
        made["finishReason"] = finish
    return made


USAGE = {"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 8}


def answer(*candidates: dict[str, Any], usage: Any = USAGE, **more: Any) -> dict[str, Any]:
    """Return a GenerateContentResponse."""
    body: dict[str, Any] = {"modelVersion": "gemini-2.5-flash-001", "responseId": "r1", **more}
    if candidates:
        body["candidates"] = list(candidates)
    if usage is not None:
        body["usageMetadata"] = usage
    return body


def decode(body: Any, sent: UpstreamRequest | None = None) -> dict[str, Any]:
    """Return the whole completion that a reply becomes."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return gemini().decode(200, {}, data, sent or encode()).data


def stream(*pieces: dict[str, Any], sent: UpstreamRequest | None = None, end: bytes = b"") -> list[dict[str, Any]]:
    """Return the chunks that a stream of these events becomes."""
    data = b"".join(b"data: " + orjson.dumps(piece) + b"\r\n\r\n" for piece in pieces) + end
    decoder = gemini().decoder(sent or encode(stream=True))
    made: list[Chunk] = decode_stream(decoder, [data])
    return [chunk.data for chunk in made]


def deltas(chunks: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    """Return the deltas of one choice."""
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
