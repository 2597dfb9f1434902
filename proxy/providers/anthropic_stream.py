"""Anthropic's event stream as OpenAI chunks.

Source: platform.claude.com/docs/en/build-with-claude/streaming.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from proxy.chunk import Chunk
from proxy.providers.anthropic_reply import error_of, exact, finish, garbage, named, refusal, usage
from proxy.providers.anthropic_request import Memo
from proxy.providers.base import StreamDecoder
from proxy.providers.common import around, dumps, new_id, plain

_TEXT: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":"'
)


class _Block:
    """A content block while it streams."""

    __slots__ = ("block", "call", "json", "seen", "signature", "text")

    def __init__(self, block: dict[str, Any]) -> None:
        self.block = block
        self.call = -1
        """The tool call's index."""
        self.json = False
        """Its arguments are the answer."""
        self.seen = False
        """Some of the arguments came."""
        self.text: list[str] = []
        self.signature: list[str] = []


class AnthropicDecoder(StreamDecoder):
    """The vendor's event stream. Chunks share one envelope; each has its own ``choices``."""

    __slots__ = ("_answered", "_around", "_blocks", "_calls", "_created", "_envelope", "_memo", "_refusal", "_said", "_stop",
                 "_text", "_usage", "_vendor", "done")  # fmt: skip

    def __init__(self, memo: Memo, created: int, vendor: str) -> None:
        self.done = False
        self._memo = memo
        self._created = created
        self._vendor = vendor
        self._envelope: dict[str, Any] | None = None
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._answered = False
        self._stop: Any = None
        self._refusal: str | None = None
        self._said: list[str] = []
        self._usage: dict[str, Any] = {}
        self._text = b""
        """How the vendor begins an event that adds to the text block that is open; empty where none is."""
        self._around: dict[bool, tuple[bytes, bytes]] = {}
        """Whether the client wants usage -> what such an event's text stands between for it."""

    def lone(self, data: bytes, usage: bool) -> tuple[str, bytes] | None:
        before, envelope = self._text, self._envelope
        if not before or envelope is None or self.done:
            return None
        if not data.startswith(before) or not data.endswith(b"\n\n"):
            return None
        said: list[str] = []
        raws: list[bytes] = []
        for event in data[:-2].split(b"\n\n"):
            raw, _, rest = event[len(before) :].partition(b'"')
            # The vendor pads its events with spaces, so that their sizes tell nothing.
            if not event.startswith(before) or rest.replace(b" ", b"") != b"}}" or (text := plain(raw)) is None:
                return None
            said.append(text)
            raws.append(raw)
        frame = self._around.get(usage)
        if frame is None:
            start, end = around(envelope, 0, usage=usage)
            frame = self._around[usage] = start + b'"', b'"' + end
        start, end = frame
        self._said += said
        return "".join(said), b"%b%b%b" % (start, (end + start).join(raws), end)

    def around(self, usage: bool) -> tuple[bytes, bytes]:
        before, behind = self._around[usage]
        return before[:-1], behind[1:]

    def feed(self, event: str, data: bytes) -> Sequence[Chunk]:
        if self.done or event == "ping":
            return ()
        try:
            piece = orjson.loads(data)
            kind = piece["type"]
            if kind == "content_block_start":
                piece = exact(piece, data)
        except (ValueError, TypeError, KeyError, RecursionError):
            return self._odd(data)
        try:
            if kind == "content_block_delta":
                return self._delta(self._blocks[piece["index"]], piece["delta"])
            if kind == "content_block_start":
                return self._open(piece["index"], piece["content_block"])
            if kind == "content_block_stop":
                return self._close(self._blocks.pop(piece["index"]))
            if kind == "message_start":
                return self._begin(piece["message"])
            if kind == "message_delta":
                return self._turn(piece)
            if kind == "message_stop":
                return self._end()
        except (KeyError, TypeError, AttributeError):
            raise garbage(self._vendor, f"sent a {kind} event that makes no sense here.") from None
        if kind == "error":
            raise error_of(None, piece.get("error"), self._vendor)
        return ()  # ping, and whatever the vendor may add

    def _odd(self, data: bytes) -> Sequence[Chunk]:
        if data.strip() == b"[DONE]":
            return ()
        try:
            piece = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise garbage(self._vendor, "sent an event that is not JSON.") from None
        if isinstance(piece, dict) and piece.get("error"):
            raise error_of(None, piece["error"], self._vendor)
        raise garbage(self._vendor, "sent an event without a type.")

    def _id(self) -> str:
        return str(self._envelope["id"]) if self._envelope else ""

    def _chunk(self, delta: dict[str, Any]) -> Chunk:
        envelope = self._envelope
        if envelope is None:
            raise KeyError("message_start")
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return Chunk({**envelope, "choices": [choice]})

    def _begin(self, message: dict[str, Any]) -> Sequence[Chunk]:
        if self._envelope is not None:
            return ()
        self._envelope = {
            "id": named(message.get("id"), "msg_0"),
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": named(message.get("model"), self._memo.model),
        }
        self._count(message.get("usage"))
        return (self._chunk({"role": "assistant", "content": ""}),)

    def _open(self, index: int, start: dict[str, Any]) -> Sequence[Chunk]:
        kind = start["type"]
        block = self._blocks[index] = _Block(start)
        if kind == "text":
            self._text = _TEXT % index if type(index) is int else b""
            return self._delta(block, {"type": "text_delta", "text": start.get("text") or ""})
        if kind == "thinking":
            return self._delta(block, {"type": "thinking_delta", "thinking": start.get("thinking") or ""})
        if kind != "tool_use":
            return ()
        name = str(start.get("name"))
        if name == self._memo.json_tool:
            block.json = self._answered = True
            return ()
        block.call = self._calls
        self._calls += 1
        function = {"name": self._memo.names.get(name, name), "arguments": ""}
        id = named(start.get("id"), new_id("toolu_", self._id(), block.call))
        call = {"index": block.call, "id": id, "type": "function", "function": function}
        return (self._chunk({"tool_calls": [call]}),)

    def _delta(self, block: _Block, delta: dict[str, Any]) -> Sequence[Chunk]:
        kind = delta["type"]
        if kind == "text_delta":
            text = delta["text"]
            if type(text) is not str:
                raise TypeError("text")
            if not text:
                return ()
            self._said.append(text)
            return (self._chunk({"content": text}),)
        if kind == "input_json_delta":
            text = delta["partial_json"]
            if type(text) is not str:
                raise TypeError("partial_json")
            if not text or (block.call < 0 and not block.json):
                return ()  # nothing, or the input of a tool that the vendor runs itself
            block.seen = True
            return (self._arguments(block, text),)
        if kind == "thinking_delta":
            text = delta["thinking"]
            if type(text) is not str:
                raise TypeError("thinking")
            block.text.append(text)
            return (self._chunk({"reasoning_content": text}),) if text else ()
        if kind == "signature_delta":
            block.signature.append(delta["signature"])
        return ()

    def _arguments(self, block: _Block, text: str) -> Chunk:
        if block.json:
            return self._chunk({"content": text})
        return self._chunk({"tool_calls": [{"index": block.call, "function": {"arguments": text}}]})

    def _close(self, block: _Block) -> Sequence[Chunk]:
        self._text = b""
        kind = block.block["type"]
        if kind == "tool_use" and not block.seen:
            return (self._arguments(block, dumps(block.block.get("input") or {}).decode()),)
        if kind == "thinking":
            signature = (block.block.get("signature") or "") + "".join(block.signature)
            thought = {**block.block, "thinking": "".join(block.text)}
            if signature:
                thought["signature"] = signature
        elif kind == "redacted_thinking":
            thought = dict(block.block)
        else:
            return ()
        if self._calls:
            thought["x_llm_after_calls"] = self._calls
        return (self._chunk({"thinking_blocks": [thought]}),)

    def _turn(self, piece: dict[str, Any]) -> Sequence[Chunk]:
        delta = piece.get("delta") or {}
        self._stop = delta.get("stop_reason") or self._stop
        self._refusal = refusal(delta) or self._refusal
        self._count(piece.get("usage"))
        return ()

    def _count(self, claimed: Any) -> None:
        """Take the counters, which are cumulative: the last word on each holds."""
        if isinstance(claimed, dict):
            self._usage.update((name, value) for name, value in claimed.items() if value is not None)

    def _end(self) -> Sequence[Chunk]:
        chunks = []
        if self._stop == "refusal" and (refused := self._refusal or "".join(self._said)):
            chunks.append(self._chunk({"refusal": refused}))
        last = self._chunk({})
        finish(last.data["choices"][0], self._stop, self._answered, calls=self._calls > 0)
        chunks.append(last)
        if (counts := usage(self._usage)) and self._envelope:
            chunks.append(Chunk({**self._envelope, "choices": [], "usage": counts}))
        self.done = True
        return chunks
