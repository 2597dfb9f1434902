"""The two forms of a reply, each made from the other: a whole completion and a stream of chunks."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any, Final

from proxy.chunk import Chunk

_WORDS: Final = re.compile(r"\S+\s*|\s+")
_ENVELOPE: Final = ("id", "created", "model", "system_fingerprint", "service_tier")
#: What of a completion, a choice and a message has a place of its own in a stream; all else goes along as it is.
_OF_REPLY: Final = frozenset((*_ENVELOPE, "object", "choices", "usage"))
_OF_CHOICE: Final = frozenset(("index", "message", "delta", "text", "finish_reason", "logprobs"))
_OF_MESSAGE: Final = frozenset(
    ("role", "content", "refusal", "tool_calls", "function_call", "reasoning_content", "reasoning")
)


def unfold(whole: Chunk, *, words: bool = False) -> Iterator[Chunk]:
    """Yield the stream that says what ``whole`` says: role, reasoning, text and calls, finish, usage.

    ``words``: one content chunk a word, else one for all.
    """
    data = whole.data
    chat = data.get("object") != "text_completion"
    envelope: dict[str, Any] = {name: data[name] for name in _ENVELOPE if name in data}
    envelope["object"] = "chat.completion.chunk" if chat else "text_completion"
    more = {name: value for name, value in data.items() if name not in _OF_REPLY}

    def piece(
        index: int, part: Any, finish: str | None = None, extra: dict[str, Any] | None = None, *, logprobs: Any = None
    ) -> Chunk:
        body = {"delta": part} if chat else {"text": part}
        choice = {"index": index, **body, "logprobs": logprobs, "finish_reason": finish, **(extra or {})}
        return Chunk({**envelope, **(more if finish else {}), "choices": [choice]})

    for choice in data.get("choices") or ():
        index = choice.get("index", 0)
        extra = {k: v for k, v in choice.items() if k not in _OF_CHOICE}
        if not chat:
            text = choice.get("text") or ""
            for n, part in enumerate(_WORDS.findall(text) if words else [text]):
                yield piece(index, part, logprobs=choice.get("logprobs") if n == 0 else None)
            yield piece(index, "", choice.get("finish_reason") or "stop", extra)
            continue
        message = choice.get("message") or {}
        # They go with the first piece of the text, else with the refusal, else with the end.
        probabilities = choice.get("logprobs")
        yield piece(index, {"role": "assistant", "content": "" if message.get("content") is not None else None})
        for name in ("reasoning_content", "reasoning"):
            if message.get(name):
                yield piece(index, {name: message[name]})
        for name, value in message.items():
            if value and name not in _OF_MESSAGE:
                yield piece(index, {name: value})
        text = message.get("content")
        if message.get("refusal"):
            yield piece(index, {"refusal": message["refusal"]}, logprobs=None if text else probabilities)
            probabilities = probabilities if text else None
        if isinstance(text, list):  # parts, as some compatible servers answer
            text = "".join(part.get("text") or "" for part in text if isinstance(part, dict))
        if text and isinstance(text, str):
            parts = _WORDS.findall(text) if words else [text]
            for part in parts:
                yield piece(index, {"content": part}, logprobs=probabilities)
                probabilities = None
        for n, call in enumerate(message.get("tool_calls") or ()):
            yield piece(index, {"tool_calls": [{"index": n, **call}]})
        if message.get("function_call"):
            yield piece(index, {"function_call": message["function_call"]})
        yield piece(index, {}, choice.get("finish_reason") or "stop", extra, logprobs=probabilities)
    if data.get("usage"):
        yield Chunk({**envelope, "choices": [], "usage": data["usage"]})


def _joined(held: dict[str, Any], piece: dict[str, Any]) -> dict[str, Any]:
    """Return an object (a spoken answer, a vendor's extras) with what a later piece of it adds."""
    joined = dict(held)
    for name, value in piece.items():
        had = joined.get(name)
        if name == "transcript" and isinstance(had, str) and isinstance(value, str):
            joined[name] = had + value
        elif name == "data" and isinstance(had, str) and isinstance(value, str):
            joined[name] = base64.b64encode(base64.b64decode(had) + base64.b64decode(value)).decode()
        elif isinstance(had, dict) and isinstance(value, dict):
            joined[name] = _joined(had, value)
        elif value is not None or name not in joined:
            joined[name] = value
    return joined


class Fold:
    """Gather a stream's chunks into the whole completion that says the same."""

    def __init__(self) -> None:
        self._data: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._text: dict[tuple[int, Any], list[str]] = {}
        self._calls: dict[tuple[int, int], dict[str, Any]] = {}

    def feed(self, chunk: Chunk) -> None:
        """Take one chunk of the stream."""
        data = chunk.data
        if not self._data:
            self._data = {name: data[name] for name in _ENVELOPE if name in data}
            self._data["object"] = "text_completion" if data.get("object") == "text_completion" else "chat.completion"
        if data.get("usage"):
            self._data["usage"] = data["usage"]
        if len(data) > 5:
            for name, value in data.items():
                if name not in _OF_REPLY and value is not None:
                    self._data[name] = value
        for piece in chunk.choices:
            index = piece.get("index", 0)
            choice = self._choices.get(index)
            if choice is None:
                choice = self._choices[index] = {"index": index, "logprobs": None, "finish_reason": None}
            for name, value in piece.items():
                if name in ("index", "delta", "text"):
                    continue
                if name == "logprobs" and value and isinstance(choice.get("logprobs"), dict):
                    for kind, rows in value.items():
                        if isinstance(rows, list):
                            choice["logprobs"].setdefault(kind, [])
                            choice["logprobs"][kind] = [*(choice["logprobs"][kind] or ()), *rows]
                elif value is not None:
                    choice[name] = value
            if "text" in piece:
                self._text.setdefault((index, "text"), []).append(piece["text"] or "")
            delta = piece.get("delta")
            if delta:
                self._delta(index, choice, delta)

    def _delta(self, index: int, choice: dict[str, Any], delta: dict[str, Any]) -> None:
        message = choice.setdefault("message", {"role": "assistant"})
        for name, value in delta.items():
            if name == "tool_calls":
                for n, call in enumerate(value or ()):
                    self._call(index, call, call.get("index", n))
            elif name == "function_call" and isinstance(value, dict):
                held = message.setdefault("function_call", {"name": "", "arguments": ""})
                held["name"] += value.get("name") or ""
                held["arguments"] += value.get("arguments") or ""
            elif name == "role" or value is None:
                continue
            elif isinstance(value, str):
                self._text.setdefault((index, name), []).append(value)
            elif isinstance(value, list):
                message[name] = [*message.get(name, ()), *value]
            elif isinstance(value, dict):
                message[name] = _joined(message.get(name) or {}, value)
            else:
                message[name] = value

    def _call(self, index: int, call: dict[str, Any], position: int) -> None:
        held = self._calls.setdefault((index, position), {"id": "", "type": "function"})
        for name, value in call.items():
            if name in ("function", "custom") and isinstance(value, dict):
                inner = held.setdefault(name, {})
                for field, text in value.items():
                    had = inner.get(field)
                    if isinstance(had, str) and isinstance(text, str):
                        # Some servers say the name again with every piece.
                        inner[field] = had if field == "name" and had == text else had + text
                    elif text is not None or field not in inner:
                        inner[field] = text
            elif name != "index" and value is not None:
                held[name] = value

    def whole(self) -> Chunk:
        """Return the completion."""
        for (index, name), parts in self._text.items():
            choice = self._choices[index]
            holder = choice if name == "text" else choice.setdefault("message", {"role": "assistant"})
            holder[name] = "".join(parts)
        for index, position in sorted(self._calls):
            message = self._choices[index].setdefault("message", {"role": "assistant"})
            message.setdefault("tool_calls", []).append(self._calls[index, position])
        for choice in self._choices.values():
            message = choice.get("message")
            if message is not None:
                if message.get("tool_calls") and not message.get("content"):
                    message["content"] = None
                message.setdefault("content", None)
                message.setdefault("refusal", None)
        data = {**self._data, "choices": [self._choices[i] for i in sorted(self._choices)]}
        return Chunk(data, whole=True)
