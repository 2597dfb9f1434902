"""How OpenAI, Anthropic and Gemini spell an answer, a stream and an error: written from the vendors' references.

Sources: platform.openai.com/docs/api-reference/chat, docs.anthropic.com/en/docs/build-with-claude/streaming,
ai.google.dev/api/generate-content.
"""

from __future__ import annotations

import base64
import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tests.fakes.behaviour import Behaviour

#: Tokens of one numbered chunk in OpenAI's vocabularies: " ", "000", "017" (digits go in threes).
TOKENS_PER_CHUNK: Final = 3
_PAD: Final = " pad"


@dataclass(slots=True)
class Event:
    """One event of a stream: its bytes, the tokens in it, and which station of the stream it is."""

    data: bytes
    tokens: int = 0
    mark: str = ""
    text: str = ""


@dataclass(slots=True)
class Ask:
    """What a request asks for, whatever its dialect, and how it is to be answered."""

    behaviour: Behaviour
    id: str
    model: str
    stream: bool = False
    include_usage: bool = False
    n: int = 1
    prompt: str = ""
    tools: list[str] = field(default_factory=list)
    body: dict[str, Any] = field(default_factory=dict)
    usage: tuple[int, int] | None = None
    """Set by the dialect: what usage the answer claimed."""

    def pieces(self) -> list[tuple[str, int]]:
        """Return the answer's text in chunks, each with its tokens."""
        b = self.behaviour
        whole = self.prompt if b.echo else b.text
        if whole:
            step = max(1, -(-len(whole) // max(1, b.chunks)))
            return [(whole[i : i + step], max(1, len(whole[i : i + step]) // 4)) for i in range(0, len(whole), step)]
        pads = max(0, (b.size - 7) // len(_PAD))
        return [(f" {i:06d}" + _PAD * pads, TOKENS_PER_CHUNK + pads) for i in range(1, b.chunks + 1)]

    @property
    def prompt_tokens(self) -> int:
        return 7 + len(self.prompt.split())

    @property
    def completion_tokens(self) -> int:
        if self.behaviour.tools and self.tools:
            return 10 * self.behaviour.tools
        return self.n * sum(tokens for _, tokens in self.pieces())

    def claimed(self) -> tuple[Any, Any] | None:
        """Return the prompt and completion tokens that the answer will claim, None for no usage."""
        match self.behaviour.usage:
            case "absent":
                return None
            case "null":
                return None
            case "zero":
                return 0, 0
            case "negative":
                return -5, -7
            case "huge":
                return 10**12, 10**12
            case "words":
                return "many", "few"
            case word if word[:1].isdigit():
                prompt, _, completion = word.partition("+")
                return int(prompt), int(completion or 0)
        return self.prompt_tokens, self.completion_tokens


def dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def flatten(content: Any) -> str:
    """Return all text in an OpenAI, Anthropic or Gemini content value."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(flatten(part) for part in content)
    if isinstance(content, dict):
        return " ".join(flatten(content[key]) for key in ("content", "parts", "text") if key in content)
    return ""


def tool_arguments(ask: Ask, i: int) -> str:
    """Return the JSON arguments of the i-th tool call: an example of the tool's schema, or its number."""
    for tool in ask.body.get("tools") or ():
        function = tool.get("function") or {}
        if function.get("name") == ask.tools[i % len(ask.tools)]:
            properties = (function.get("parameters") or {}).get("properties") or {}
            return json.dumps({name: _example(schema) for name, schema in properties.items()} or {"i": i})
    return json.dumps({"i": i})


def _example(schema: Any) -> Any:
    kind = schema.get("type") if isinstance(schema, dict) else None
    return {"integer": 7, "number": 1.5, "boolean": True, "array": [], "object": {}}.get(str(kind), "Zürich 🏔")


# --- OpenAI ------------------------------------------------------------------------------------------


class OpenAI:
    """/chat/completions, and the base of /completions."""

    content_type = "text/event-stream; charset=utf-8"
    object = "chat.completion"

    def ask(self, behaviour: Behaviour, id: str, model: str, body: dict[str, Any]) -> Ask:
        tools = [str((tool.get("function") or tool).get("name")) for tool in body.get("tools") or ()]
        return Ask(
            behaviour, id, model, bool(body.get("stream")), bool((body.get("stream_options") or {}).get("include_usage")),
            body.get("n") or 1, flatten(body.get("messages") or body.get("prompt") or ""), tools, body,
        )  # fmt: skip

    def usage(self, ask: Ask) -> dict[str, Any] | None:
        claimed = ask.claimed()
        if claimed is None:
            return None
        prompt, completion = claimed
        if isinstance(prompt, int):
            ask.usage = (prompt, completion)
        total = prompt + completion if isinstance(prompt, int) else "lots"
        return {
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }  # fmt: skip

    def whole(self, ask: Ask) -> bytes:
        b = ask.behaviour
        text = "".join(text for text, _ in ask.pieces())
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        finish = b.finish
        if b.tools and ask.tools:
            message |= {"content": None, "tool_calls": [self._tool(ask, i) for i in range(b.tools)]}
            finish = "tool_calls"
        if b.refusal:
            message |= {"content": None, "refusal": text}
        body = {
            "id": f"chatcmpl-{ask.id}", "object": self.object, "created": int(time.time()), "model": ask.model,
            "choices": [self._choice(i, message, text, finish) for i in range(ask.n)],
            "service_tier": "default", "system_fingerprint": "fp_fake",
        }  # fmt: skip
        usage = self.usage(ask)
        if usage is not None:
            body["usage"] = usage
        elif b.usage == "null":
            body["usage"] = None
        return dumps(body)

    def _choice(self, i: int, message: dict[str, Any], text: str, finish: str) -> dict[str, Any]:
        return {"index": i, "message": message, "logprobs": None, "finish_reason": finish}

    def _tool(self, ask: Ask, i: int) -> dict[str, Any]:
        function = {"name": ask.tools[i % len(ask.tools)], "arguments": tool_arguments(ask, i)}
        return {"id": f"call_{ask.id}_{i}", "type": "function", "function": function}

    def _delta(self, i: int, delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
        return {"index": i, "delta": delta, "logprobs": None, "finish_reason": finish}

    def _frame(self, ask: Ask, choices: list[dict[str, Any]], usage: Any = ...) -> bytes:
        b = ask.behaviour
        fingerprint = f"fp_{time.monotonic_ns() // 1000}" if b.stamp else "fp_fake"
        body = {
            "id": f"chatcmpl-{ask.id}", "object": f"{self.object}.chunk".replace("text_completion.chunk", "text_completion"),
            "created": 1_760_000_000, "model": ask.model, "service_tier": "default", "system_fingerprint": fingerprint,
            "choices": choices,
        }  # fmt: skip
        if usage is not ...:
            body["usage"] = usage
        elif ask.include_usage:
            body["usage"] = None
        return b"data: " + dumps(body) + b"\n\n"

    def events(self, ask: Ask) -> Iterator[Event]:
        b = ask.behaviour
        every = self.usage(ask) if b.usage == "early" else ...
        yield Event(
            self._frame(
                ask, [self._delta(i, {"role": "assistant", "content": "", "refusal": None}, None) for i in range(ask.n)]
            ),
            0,
            "role",
        )
        finish = b.finish
        if b.tools and ask.tools:
            yield from self._tool_events(ask)
            finish = "tool_calls"
        else:
            name = "refusal" if b.refusal else "content"
            for text, tokens in ask.pieces():
                for i in range(ask.n):
                    yield Event(
                        self._frame(ask, [self._delta(i, {name: text}, None)], every),
                        tokens,
                        "chunk" if i == ask.n - 1 else "part",
                        text,
                    )
        final = self.usage(ask) if b.usage == "finish" else ...
        yield Event(self._frame(ask, [self._delta(i, {}, finish) for i in range(ask.n)], final), 0, "finish")
        if (ask.include_usage or b.usage == "always") and b.usage not in ("absent", "finish", "early"):
            yield Event(self._frame(ask, [], self.usage(ask)), 0, "usage")
        yield Event(b"data: [DONE]\n\n", 0, "done")

    def _tool_events(self, ask: Ask) -> Iterator[Event]:
        for i in range(ask.behaviour.tools):
            tool = self._tool(ask, i)
            arguments = tool["function"]["arguments"]
            head = {"index": i, **tool, "function": {"name": tool["function"]["name"], "arguments": ""}}
            yield Event(self._frame(ask, [self._delta(0, {"tool_calls": [head]}, None)]), 4, "part")
            for k in range(0, len(arguments), 5):
                piece = {"index": i, "function": {"arguments": arguments[k : k + 5]}}
                last = k + 5 >= len(arguments)
                yield Event(
                    self._frame(ask, [self._delta(0, {"tool_calls": [piece]}, None)]),
                    6 if last else 0,
                    "chunk" if last else "part",
                )

    def error(self, status: int, message: str, code: str, type: str) -> bytes:
        return dumps(
            {"error": {"message": message, "type": type or "server_error", "param": None, "code": code or None}}
        )

    def error_event(self, message: str, code: str) -> bytes:
        return (
            b"data: "
            + dumps({"error": {"message": message, "type": "server_error", "param": None, "code": code}})
            + b"\n\n"
        )

    def bad_shape(self) -> bytes:
        return b'data: {"id":7,"object":[],"choices":"none","usage":"much"}\n\n'

    def unknown(self) -> bytes:
        return b'event: surprise\ndata: {"object":"chat.completion.chunk","id":"x","model":"m","created":1,"choices":[],"new_field":{"a":1}}\n\n'

    def cut_event(self) -> bytes:
        return b'data: {"id":"chatcmpl-x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"tr\n\n'


class Completions(OpenAI):
    """/completions."""

    object = "text_completion"

    def _choice(self, i: int, message: dict[str, Any], text: str, finish: str) -> dict[str, Any]:
        return {"index": i, "text": text, "logprobs": None, "finish_reason": finish}

    def _delta(self, i: int, delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
        return {"index": i, "text": delta.get("content") or "", "logprobs": None, "finish_reason": finish}


def vector_of(item: Any, size: int) -> list[float]:
    """Return an embedding that is a function of the input alone."""
    seed = sum(dumps(item))
    return [((seed * (k + 3)) % 997) / 997 for k in range(size)]


def embeddings(ask: Ask) -> bytes:
    """Return the body of an /embeddings reply: vectors that are a function of the input alone."""
    given = ask.body.get("input")
    inputs = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    size = ask.body.get("dimensions") or 8
    data = []
    for i, item in enumerate(inputs):
        vector = vector_of(item, size)
        value: Any = vector
        if ask.body.get("encoding_format") == "base64":
            value = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
        data.append({"object": "embedding", "index": i, "embedding": value})
    tokens = max(1, len(flatten(given).split()))
    ask.usage = (tokens, 0)
    return dumps(
        {"object": "list", "data": data, "model": ask.model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    )


class Embeddings(OpenAI):
    """/embeddings: whole replies only."""

    whole = staticmethod(embeddings)  # type: ignore[assignment]


# --- Anthropic ---------------------------------------------------------------------------------------


class Anthropic:
    """/messages."""

    content_type = "text/event-stream; charset=utf-8"

    def ask(self, behaviour: Behaviour, id: str, model: str, body: dict[str, Any]) -> Ask:
        prompt = " ".join(filter(None, (flatten(body.get("system") or ""), flatten(body.get("messages") or ""))))
        return Ask(
            behaviour,
            id,
            model,
            bool(body.get("stream")),
            True,
            1,
            prompt,
            [tool["name"] for tool in body.get("tools") or ()],
            body,
        )

    def _usage(self, ask: Ask, output: Any = None) -> dict[str, Any]:
        claimed = ask.claimed() or (0, 0)
        if ask.claimed() is None:
            return {}
        if isinstance(claimed[0], int) and output is None:
            ask.usage = claimed
        return {
            "input_tokens": claimed[0], "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "output_tokens": claimed[1] if output is None else output,
        }  # fmt: skip

    def _blocks(self, ask: Ask) -> list[dict[str, Any]]:
        b = ask.behaviour
        if b.tools and ask.tools:
            return [
                {
                    "type": "tool_use",
                    "id": f"toolu_{ask.id}_{i}",
                    "name": ask.tools[i % len(ask.tools)],
                    "input": {"i": i},
                }
                for i in range(b.tools)
            ]
        return [{"type": "text", "text": "".join(text for text, _ in ask.pieces())}]

    def _stop(self, ask: Ask) -> str:
        if ask.behaviour.tools and ask.tools:
            return "tool_use"
        return {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}.get(
            ask.behaviour.finish, "end_turn"
        )

    def whole(self, ask: Ask) -> bytes:
        return dumps({
            "id": f"msg_{ask.id}", "type": "message", "role": "assistant", "model": ask.model, "content": self._blocks(ask),
            "stop_reason": self._stop(ask), "stop_sequence": None, "usage": self._usage(ask),
        })  # fmt: skip

    @staticmethod
    def _frame(kind: str, **rest: Any) -> bytes:
        return b"event: " + kind.encode() + b"\ndata: " + dumps({"type": kind, **rest}) + b"\n\n"

    def events(self, ask: Ask) -> Iterator[Event]:
        b = ask.behaviour
        message = {
            "id": f"msg_{ask.id}", "type": "message", "role": "assistant", "model": ask.model, "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": self._usage(ask, 1),
        }  # fmt: skip
        yield Event(self._frame("message_start", message=message), 0, "role")
        if b.tools and ask.tools:
            for i in range(b.tools):
                block = {
                    "type": "tool_use",
                    "id": f"toolu_{ask.id}_{i}",
                    "name": ask.tools[i % len(ask.tools)],
                    "input": {},
                }
                yield Event(self._frame("content_block_start", index=i, content_block=block), 4, "part")
                for piece in ('{"i":', f" {i}}}"):
                    delta = {"type": "input_json_delta", "partial_json": piece}
                    yield Event(self._frame("content_block_delta", index=i, delta=delta), 3, "part")
                yield Event(self._frame("content_block_stop", index=i), 0, "chunk")
        else:
            yield Event(
                self._frame("content_block_start", index=0, content_block={"type": "text", "text": ""}), 0, "part"
            )
            yield Event(self._frame("ping"), 0, "part")
            for text, tokens in ask.pieces():
                yield Event(
                    self._frame("content_block_delta", index=0, delta={"type": "text_delta", "text": text}),
                    tokens,
                    "chunk",
                    text,
                )
            yield Event(self._frame("content_block_stop", index=0), 0, "part")
        stop = {"stop_reason": self._stop(ask), "stop_sequence": None}
        yield Event(self._frame("message_delta", delta=stop, usage=self._usage(ask)), 0, "finish")
        yield Event(self._frame("message_stop"), 0, "done")

    def error(self, status: int, message: str, code: str, type: str) -> bytes:
        kind = (
            type
            or code
            or {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}.get(status, "api_error")
        )
        return dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"})

    def error_event(self, message: str, code: str) -> bytes:
        return self._frame("error", error={"type": code or "overloaded_error", "message": message})

    def bad_shape(self) -> bytes:
        return b'event: content_block_delta\ndata: {"type":"content_block_delta","index":"zero","delta":"none"}\n\n'

    def unknown(self) -> bytes:
        return b'event: surprise\ndata: {"type":"surprise","a":1}\n\n'

    def cut_event(self) -> bytes:
        return b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"te\n\n'


# --- Gemini ------------------------------------------------------------------------------------------


class Gemini:
    """models/{model}:generateContent and :streamGenerateContent?alt=sse (CRLF)."""

    content_type = "text/event-stream"

    def __init__(self, stream: bool) -> None:
        self.stream = stream

    def ask(self, behaviour: Behaviour, id: str, model: str, body: dict[str, Any]) -> Ask:
        system = body.get("systemInstruction") or body.get("system_instruction") or {}
        prompt = " ".join(filter(None, (flatten(system), flatten(body.get("contents") or ""))))
        tools = [
            str(function.get("name"))
            for tool in body.get("tools") or ()
            for function in tool.get("functionDeclarations") or tool.get("function_declarations") or ()
        ]
        return Ask(behaviour, id, model, self.stream, True, 1, prompt, tools, body)

    def _body(self, ask: Ask, parts: list[dict[str, Any]], finish: str | None, usage: bool) -> bytes:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        body: dict[str, Any] = {"candidates": [candidate], "modelVersion": ask.model, "responseId": ask.id}
        claimed = ask.claimed()
        if usage and claimed is not None:
            prompt, completion = claimed
            if isinstance(prompt, int):
                ask.usage = (prompt, completion)
            body["usageMetadata"] = {
                "promptTokenCount": prompt, "candidatesTokenCount": completion,
                "totalTokenCount": prompt + completion,
            }  # fmt: skip
        return dumps(body)

    def _finish(self, ask: Ask) -> str:
        return {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}.get(ask.behaviour.finish, "STOP")

    def _tools(self, ask: Ask) -> list[dict[str, Any]]:
        if not (ask.behaviour.tools and ask.tools):
            return []
        return [
            {"functionCall": {"name": ask.tools[i % len(ask.tools)], "args": {"i": i}}}
            for i in range(ask.behaviour.tools)
        ]

    def whole(self, ask: Ask) -> bytes:
        parts = self._tools(ask) or [{"text": "".join(text for text, _ in ask.pieces())}]
        return self._body(ask, parts, self._finish(ask), True)

    def events(self, ask: Ask) -> Iterator[Event]:
        tools = self._tools(ask)
        if tools:
            yield Event(self._frame(self._body(ask, tools, None, False)), ask.completion_tokens, "chunk")
        else:
            for text, tokens in ask.pieces():
                yield Event(self._frame(self._body(ask, [{"text": text}], None, False)), tokens, "chunk", text)
        yield Event(self._frame(self._body(ask, [{"text": ""}], self._finish(ask), True)), 0, "finish")

    @staticmethod
    def _frame(body: bytes) -> bytes:
        return b"data: " + body + b"\r\n\r\n"

    def error(self, status: int, message: str, code: str, type: str) -> bytes:
        word = code or {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}.get(status, "INTERNAL")
        return dumps({"error": {"code": status, "message": message, "status": word}})

    def error_event(self, message: str, code: str) -> bytes:
        return self._frame(dumps({"error": {"code": 503, "message": message, "status": code or "UNAVAILABLE"}}))

    def bad_shape(self) -> bytes:
        return self._frame(b'{"candidates":{"0":"none"},"usageMetadata":[]}')

    def unknown(self) -> bytes:
        return self._frame(b'{"newField":{"a":1}}')

    def cut_event(self) -> bytes:
        return b'data: {"candidates":[{"content":{"parts":[{"text":"tr\r\n\r\n'


class GeminiEmbeddings(Gemini):
    """models/{model}:batchEmbedContents: whole replies only, the vectors those of /embeddings for the same texts."""

    def whole(self, ask: Ask) -> bytes:
        requests = ask.body["requests"]
        texts = [flatten(request["content"]) for request in requests]
        rows = [
            vector_of(text, request.get("outputDimensionality") or 8)
            for text, request in zip(texts, requests, strict=True)
        ]
        tokens = max(1, len(" ".join(texts).split()))
        ask.usage = (tokens, 0)
        return dumps({"embeddings": [{"values": row} for row in rows], "usageMetadata": {"promptTokenCount": tokens}})


Dialect = OpenAI | Anthropic | Gemini
