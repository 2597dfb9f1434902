"""Which strings of a request are text, and which are structure that the upstream needs as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from proxy.chunk import OPAQUE, Slot, opaque
from proxy.fields import CHAT, COMPLETIONS

if TYPE_CHECKING:
    from proxy.request import ApiRequest

#: Keys whose strings are structure, not text: the upstream needs them as they are.
_STRUCTURAL: Final = frozenset(
    ("role", "type", "id", "tool_call_id", "call_id", "format", "detail", "encoding_format", "ttl", "mime_type")
)
#: At the top of a body only these are structure; whatever else a client puts there is text.
_TOP: Final = frozenset(
    ("encoding_format", "model", "service_tier", "reasoning_effort", "verbosity", "modalities", "template", "tool_choice",
     "function_call", "truncation", "voice")
)  # fmt: skip
#: Top-level fields with a structure of their own; below any other, every string is text.
_SHAPED: Final = frozenset(
    ("messages", "tools", "functions", "response_format", "prediction", "audio", "web_search_options", "stream_options",
     "input", "prompt", "thinking", "safety_settings", "cache_control")
)  # fmt: skip
_FREE: Final[frozenset[str]] = frozenset()
#: Structure that is one of a few words. A value that is no word is text: whatever it is, it is none that an API takes.
_WORDS: Final = frozenset(
    ("role", "type", "format", "detail", "encoding_format", "ttl", "mime_type", "service_tier", "reasoning_effort", "verbosity",
     "modalities", "tool_choice", "function_call", "truncation", "voice", "contentEncoding")
)  # fmt: skip
_LONGEST_WORD: Final = 19
#: What is opaque in a request, as base 64, and what is if it is a data URL.
_OPAQUE: Final = OPAQUE | {"file_data"}
_URLS: Final = frozenset(("url", "image_url", "video_url", "audio_url", "uri"))
#: Names at the top of a body that are the API's own.
_KNOWN: Final = frozenset(
    (*_TOP, *_SHAPED, *CHAT, *COMPLETIONS, "stream", "dimensions", "top_k", "safety_identifier", "prompt_cache_key")
)
_NAMED: Final = _STRUCTURAL | {"name"}
_SCHEMA: Final = frozenset(("type", "format", "required", "$ref", "$schema", "$id", "contentEncoding"))
#: What is structure below a key; elsewhere what held above it goes on. Free text may hold any key.
_BELOW: Final[dict[str, frozenset[str]]] = {
    "metadata": _FREE,
    "variables": _FREE,
    "tools": _NAMED,
    "functions": _NAMED,
    "function": _NAMED,
    "function_call": _NAMED,
    "custom": _NAMED,
    "tool_choice": _NAMED,
    "json_schema": _NAMED,
    "parameters": _SCHEMA,
    "schema": _SCHEMA,
    "file": _STRUCTURAL | {"file_id"},
    # Values in a schema: they may hold any key.
    "default": _FREE,
    "const": _FREE,
    "enum": _FREE,
    "examples": _FREE,
}
#: Names at the top of a chat's body whose values are numbers, truths, structure, or the messages themselves.
_WORDLESS: Final = frozenset(
    ("messages", "model", "n", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "presence_penalty",
     "frequency_penalty", "logprobs", "top_logprobs", "stream", "store", "parallel_tool_calls", "service_tier",
     "reasoning_effort", "verbosity")
)  # fmt: skip
#: Those among them that are words.
_WORDED: Final = frozenset(("service_tier", "reasoning_effort", "verbosity"))
#: The number of a token, or of a row: no text.
_NUMBER: Final = re.compile(r"[0-9]{1,8}").fullmatch


def _worded(body: dict[str, Any]) -> bool:
    return all(value is None or _is_word(value) for value in map(body.get, _WORDED))


def slots(request: ApiRequest) -> Iterator[Slot]:
    """Yield every string of the request's body that is not structural, as writable slots, in the body's order.

    Where nothing is structure the members' names are the caller's words, too: they follow what stands below them. A
    slot may be written to as it comes.
    """
    body = request.body
    if request.simple and _WORDLESS.issuperset(body) and (_WORDED.isdisjoint(body) or _worded(body)):
        # most of all requests
        return _contents(request, body["messages"])
    return _leaves(request, body, (), _TOP)


def _contents(owner: ApiRequest, messages: list[dict[str, Any]]) -> Iterator[Slot]:
    for i, message in enumerate(messages):
        if len(message) == 2 and type(message.get("content")) is str:
            yield Slot(owner, message, "content", "content", ("messages", i, "content"))
        else:  # a policy put it there, and did not say so
            yield from _leaves(owner, message, ("messages", i), _STRUCTURAL)


class Member(Slot):
    """The value of a member of an object that the caller has filled freely: its name says what it is."""

    __slots__ = ("name",)

    def __init__(self, owner: Any, holder: Any, field: str, path: tuple[Any, ...]) -> None:
        super().__init__(owner, holder, field, field, path)
        self.name = field


class Name(Slot):
    """The name of a member of an object, as a slot. A member that gets another name goes behind the others."""

    __slots__ = ("_numbers",)

    def __init__(self, owner: Any, holder: Any, field: str, path: tuple[Any, ...], numbers: dict[str, int]) -> None:
        super().__init__(owner, holder, field, "name", (*path, field))
        #: How often each name was given: names that are masked alike are told apart by a number.
        self._numbers = numbers

    @property
    def text(self) -> str:
        name: str = self._field
        return name

    @text.setter
    def text(self, value: str) -> None:
        held, old = self._holder, self._field
        number = self._numbers.get(value, 1)
        name = value if number == 1 else f"{value} {number}"
        while name in held:
            number += 1
            name = f"{value} {number}"
        self._numbers[value] = number
        held[name] = held.pop(old)
        self._field = name
        self._owner.touch()


def _is_word(value: str) -> bool:
    return len(value) <= _LONGEST_WORD and value.replace("-", "_").isidentifier()


def _in_structure(
    owner: ApiRequest, row: list[Any], key: Any, path: tuple[Any, ...], skip: frozenset[str]
) -> Iterator[Slot]:
    """Yield what a list holds where words or names are expected, and is neither."""
    for i, item in enumerate(row):
        if type(item) is str:
            if key in _WORDS and not _is_word(item):
                yield Slot(owner, row, i, key, (*path, i))
        elif type(item) is dict or type(item) is list:
            yield from _leaves(owner, item, (*path, i), skip)


def _leaves(owner: ApiRequest, node: Any, path: tuple[Any, ...], skip: frozenset[str]) -> Iterator[Slot]:
    names: list[str] = []
    for key, value in node.items() if type(node) is dict else enumerate(node):
        kind = type(value)
        if kind is str:
            if key in skip and (key not in _WORDS or _is_word(value)):
                continue
            if (
                (key in _OPAQUE or (key in _URLS and value[:5] == "data:"))
                and path
                and skip is not _FREE
                and opaque(value)
            ):
                continue
            if type(key) is not str:
                yield Slot(owner, node, key, "content", (*path, key))
            elif skip is _FREE or (not path and key not in _KNOWN):
                yield Member(owner, node, key, (*path, key))
            else:
                yield Slot(owner, node, key, key, (*path, key))
        elif kind is dict or kind is list:
            if key in skip and kind is list:
                yield from _in_structure(owner, value, key, (*path, key), skip)
                continue
            below = skip
            if skip is not _FREE and isinstance(key, str):
                below = _BELOW.get(key, skip if path else _STRUCTURAL if key in _SHAPED else _FREE)
            yield from _leaves(owner, value, (*path, key), below)
        if type(key) is str and (skip is _FREE or (not path and key not in _KNOWN)) and not _NUMBER(key):
            names.append(key)
    if not names:
        return
    asked = set(names)
    numbers: dict[str, int] = {}
    moved = False
    for key in list(node):
        if key in asked:
            slot = Name(owner, node, key, path, numbers)
            yield slot
            if slot.text != key:
                moved = True
                continue
        if moved:  # all that stands behind a member that moved does so, too: the order stays
            node[key] = node.pop(key)
