"""A conversation that began at another vendor, as OpenAI's API takes it: without the fields that carry others' state.

OpenAI refuses unknown fields of a message, and tool call ids above 40 characters; Gemini's signatures make
ids of thousands (:mod:`proxy.providers.gemini_signature`).
"""

from __future__ import annotations

from typing import Any, Final

from proxy.providers.gemini_signature import plain_id

#: Others' state in a message. Compatible servers take `reasoning_content` and `cache_control`; OpenAI and Azure do not.
FOREIGN: Final = frozenset(("thinking_blocks", "extra_content"))
NOT_OPENAIS: Final = FOREIGN | {"reasoning_content", "reasoning", "cache_control", "images"}
_TRACES: Final = (b"__thought", b"thinking_blocks", b"extra_content")
_MORE_TRACES: Final = (*_TRACES, b"cache_control", b'"reasoning', b'"images"')


def foreign(raw: bytes, *, own: bool) -> bool:
    """Tell whether an encoded request may hold something to take out; ``own``: it goes to OpenAI or Azure."""
    for trace in _MORE_TRACES if own else _TRACES:  # noqa: SIM110 - a generator costs as much as the search
        if trace in raw:
            return True
    return False


def plain(body: dict[str, Any], fields: frozenset[str]) -> dict[str, Any]:
    """Return ``body``, which is left as it is, without ``fields`` in its messages and with plain tool call ids."""
    cleaned = dict(body)
    messages = body.get("messages")
    if messages is not None:
        cleaned["messages"] = [_message(message, fields) for message in messages]
    tools = body.get("tools")
    if tools is not None:
        cleaned["tools"] = [_without(tool, fields) for tool in tools]
    return cleaned


def _without(holder: dict[str, Any], fields: frozenset[str]) -> dict[str, Any]:
    return holder if fields.isdisjoint(holder) else {k: v for k, v in holder.items() if k not in fields}


def _message(message: dict[str, Any], fields: frozenset[str]) -> dict[str, Any]:
    cleaned = dict(_without(message, fields))
    content = cleaned.get("content")
    if type(content) is list:
        cleaned["content"] = [_without(part, fields) for part in content]
    calls = cleaned.get("tool_calls")
    if calls:
        cleaned["tool_calls"] = [{**_without(call, fields), "id": plain_id(call["id"])} for call in calls]
    id = cleaned.get("tool_call_id")
    if id:
        cleaned["tool_call_id"] = plain_id(id)
    return cleaned
