"""Pieces of a reply, in OpenAI's shape, and the places in them that hold text.

A whole reply is a stream of one chunk, so every filter sees every reply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

_NO_CHOICES: Final[list[Any]] = []


class Slot:
    """One writable string of a request or a reply.

    ``kind`` is ``content``, ``refusal``, ``reasoning``, ``arguments`` (JSON text), ``input`` (a custom
    tool's text), ``other`` (a reply's field that comes complete: a citation's title, what a vendor adds), or for
    requests any other name that describes the field. ``key`` tells the slots of one chunk apart and joins the
    same logical text across a stream's chunks: ``(choice, kind, tool call index or part index)``; that of ``other`` does
    neither, for such a text belongs to no other.
    Assigning ``text`` writes through to the owner and marks it changed.
    """

    __slots__ = ("_field", "_holder", "_owner", "key", "kind")
    #: What the caller calls this text, where the name is the caller's own and not the API's: ``password`` in ``metadata``.
    name: str = ""

    def __init__(self, owner: Any, holder: Any, field: Any, kind: str, key: tuple[Any, ...]) -> None:
        self._owner = owner
        self._holder = holder
        self._field = field
        self.kind = kind
        self.key = key

    @property
    def text(self) -> str:
        text: str = self._holder[self._field]
        return text

    @text.setter
    def text(self, value: str) -> None:
        self._holder[self._field] = value
        self._owner.touch()

    def drop(self, field: str) -> None:
        """Take out what stands beside the text."""
        if self._holder.pop(field, None) is not None:
            self._owner.touch()


class Chunk:
    """A whole completion (``whole``) or one event of a stream.

    ``data`` is the parsed JSON object; ``raw`` the exact bytes it came from, None once it was changed
    or when it never had any. Change ``data`` only together with :meth:`touch`.
    """

    __slots__ = ("data", "raw", "whole")

    def __init__(self, data: dict[str, Any], raw: bytes | None = None, *, whole: bool = False) -> None:
        self.data = data
        self.raw = raw
        self.whole = whole

    def touch(self) -> None:
        """Say that ``data`` no longer equals ``raw``."""
        self.raw = None

    def encode(self) -> bytes:
        """Return the JSON bytes: the upstream's own where nothing changed them."""
        raw = self.raw
        return raw if raw is not None else orjson.dumps(self.data)

    @property
    def choices(self) -> list[dict[str, Any]]:
        choices = self.data.get("choices")
        return choices if isinstance(choices, list) else _NO_CHOICES

    def texts(self) -> Iterator[Slot]:
        """Yield the writable text slots, delta or message alike; and whatever else is a string."""
        data = self.data
        for choice in self.choices:
            index = choice.get("index", 0)
            part = choice.get("delta") or choice.get("message")
            if not CHOICE.issuperset(choice):
                yield from _others(self, choice, CHOICE if part is not None else _TEXT_CHOICE, index)
            if part is None:
                if isinstance(choice.get("text"), str):  # /v1/completions
                    yield Slot(self, choice, "text", "content", (index, "content", 0))
                continue
            if not isinstance(part, dict):
                continue
            for field, kind in _FIELDS:
                value = part.get(field)
                if value is None:
                    continue
                if isinstance(value, str):
                    yield Slot(self, part, field, kind, (index, field, 0))
                elif isinstance(value, list):
                    for n, piece in enumerate(value):
                        if isinstance(piece, dict):
                            for name in PIECES:
                                if isinstance(piece.get(name), str):
                                    yield Slot(self, piece, name, kind, (index, field, n))
            for n, tool in enumerate(part.get("tool_calls") or ()):
                function = tool.get("function") or tool.get("custom")
                if isinstance(function, dict):
                    field = "arguments" if "arguments" in function else "input"
                    if isinstance(function.get(field), str):  # a custom tool's input is text, not JSON
                        yield Slot(self, function, field, field, (index, field, tool.get("index", n)))
                    if len(function) > 2:
                        yield from _others(self, function, _FUNCTION, index)
                if not _CALL.issuperset(tool):
                    yield from _others(self, tool, _CALL, index)
            audio = part.get("audio")
            if isinstance(audio, dict) and isinstance(audio.get("transcript"), str):
                yield Slot(self, audio, "transcript", "content", (index, "transcript", 0))
            legacy = part.get("function_call")
            if isinstance(legacy, dict) and isinstance(legacy.get("arguments"), str):
                yield Slot(self, legacy, "arguments", "arguments", (index, "arguments", -1))
            if not _PART.issuperset(part):
                yield from _others(self, part, _PART, index)
        if not ENVELOPE.issuperset(data):
            yield from _others(self, data, ENVELOPE, -1)

    @property
    def startup(self) -> bool:
        """Tell whether this is a stream's preamble: nothing in it that the caller asked for yet."""
        for choice in self.choices:
            if choice.get("finish_reason"):
                return False
            delta = choice.get("delta")
            if delta is None:
                return not choice.get("text")
            for field, value in delta.items():
                if field != "role" and value:
                    return False
        return not (self.data.get("usage") or self.data.get("error"))


def check(chunk: object) -> None:
    """Raise TypeError unless ``chunk`` is one that can be read and sent: a policy's own may be anything.

    Its bytes are made here if there are none, so that nobody has to make them again.
    """
    if not isinstance(chunk, Chunk) or type(chunk.data) is not dict:
        raise TypeError(f"{type(chunk).__name__} is no Chunk of a JSON object")
    if chunk.raw is None:
        chunk.raw = orjson.dumps(chunk.data)
    elif type(chunk.raw) is not bytes:
        raise TypeError("`raw` must be bytes or None")
    for choice in chunk.choices:
        if type(choice) is not dict or not {type(choice.get("delta")), type(choice.get("message"))} <= _PARTS:
            raise TypeError("`choices` must be a list of objects whose delta or message is an object")


_PARTS: Final = {dict, type(None)}
# `thinking_blocks` and `reasoning_details` repeat what stands beside them; all are slots, so that none can leak.
_FIELDS: Final = (
    ("content", "content"),
    ("refusal", "refusal"),
    ("reasoning_content", "reasoning"),
    ("reasoning", "reasoning"),
    ("reasoning_details", "reasoning"),
    ("thinking_blocks", "reasoning"),
)
#: Where the text of a part of these is.
PIECES: Final = ("text", "refusal", "thinking", "summary")
#: What holds no text, and what is looked into by name: of a reply, a choice, a message, a tool call and its function.
ENVELOPE: Final = frozenset(
    ("id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier", "obfuscation", "provider")
)  # fmt: skip
CHOICE: Final = frozenset(
    ("index", "delta", "message", "finish_reason", "logprobs", "native_finish_reason", "x_llm_native_finish_reason",
     "stop_reason", "matched_stop", "content_filter_results", "token_ids")
)  # fmt: skip
_TEXT_CHOICE: Final = CHOICE | {"text"}
_PART: Final = frozenset((*(field for field, _ in _FIELDS), "role", "tool_calls", "audio", "function_call"))
_CALL: Final = frozenset(("index", "id", "type", "function", "custom"))
_FUNCTION: Final = frozenset(("name", "arguments", "input"))
#: Strings below any other field: identifiers, and bytes that only their maker can read. Objects in their place are
#: looked through; an embedding, numbers or base 64 of them, is not.
_STRUCTURE: Final = frozenset(
    ("id", "type", "role", "index", "format", "signature", "thought_signature", "encrypted_content", "data", "b64_json",
     "mime_type", "object", "embedding")
)  # fmt: skip
#: Those of them that only their maker can read: pictures, files, signatures, encrypted thoughts. As base 64; anything else
#: is text.
OPAQUE: Final = frozenset(("signature", "thought_signature", "encrypted_content", "data", "b64_json", "embedding"))
_BASE64: Final = re.compile(r"(?:data:[A-Za-z0-9.+/;=-]{0,128};base64,)?[A-Za-z0-9+/=_\r\n-]*").fullmatch
_ENDS: Final = 512


def opaque(value: str) -> bool:
    """Tell whether ``value`` is base 64, or a data URL of it; of a long one the ends tell."""
    if len(value) <= 2 * _ENDS:
        return _BASE64(value) is not None
    return _BASE64(value[:_ENDS]) is not None and _BASE64(value[-_ENDS:]) is not None


def _others(owner: Chunk, holder: dict[str, Any], known: frozenset[str], index: int) -> Iterator[Slot]:
    """Yield the strings below the fields of ``holder`` that are not ``known``, however deep."""
    n = 0
    rows: list[tuple[Any, frozenset[str]]] = [(holder, known)]
    while rows:
        row, skip = rows.pop()
        for key, value in row.items() if type(row) is dict else enumerate(row):
            kind = type(value)
            if kind is str:
                if not value or (key in skip and key not in OPAQUE):
                    continue
                if (key in skip or value[:5] == "data:") and opaque(value):
                    continue
                yield Slot(owner, row, key, "other", (index, "other", n))
                n += 1
            elif (kind is dict or kind is list) and (key not in skip or (skip is _STRUCTURE and key != "embedding")):
                rows.append((value, _STRUCTURE))
