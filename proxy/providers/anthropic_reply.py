"""A Messages reply, whole or streamed, as an OpenAI chat completion: what both forms share, and the whole one.

Source: platform.claude.com/docs/en/api/messages, …/api/errors.
"""

from __future__ import annotations

import re
from json import loads as json_loads
from typing import Any, Final

import orjson

from proxy.chunk import Chunk
from proxy.errors import UpstreamError
from proxy.providers.anthropic_request import Memo
from proxy.providers.common import count, dumps, new_id, usage_of
from proxy.providers.failure import failure, outline
from proxy.upstream.base import Headers

FINISH: Final = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls",
    "refusal": "content_filter", "pause_turn": "length", "model_context_window_exceeded": "length",
}  # fmt: skip
#: The status of an error event, which has none (platform.claude.com/docs/en/api/errors).
STATUS: Final = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "api_error": 500,
    "timeout_error": 504, "overloaded_error": 529,
}  # fmt: skip
_BIG_INTEGER: Final = re.compile(rb"\d{18}")


def loads(data: bytes) -> Any:
    """Return parsed JSON; where tools are called, integers of any size keep all their digits."""
    value = orjson.loads(data)
    if b'"tool_use"' in data and _BIG_INTEGER.search(data):
        return json_loads(data)
    return value


def usage(claimed: Any) -> dict[str, Any] | None:
    """Return OpenAI's usage; the vendor counts cached input beside ``input_tokens``, OpenAI inside."""
    if not isinstance(claimed, dict) or claimed.get("input_tokens") is None or claimed.get("output_tokens") is None:
        return None  # half a claim is none: all of it is estimated
    read, written = count(claimed.get("cache_read_input_tokens")), count(claimed.get("cache_creation_input_tokens"))
    details = claimed.get("output_tokens_details")
    return usage_of(
        count(claimed.get("input_tokens")) + read + written,
        count(claimed.get("output_tokens")),
        cached=read,
        cache_write=written,
        reasoning=count(details.get("thinking_tokens")) if isinstance(details, dict) else None,
    )


def error_of(status: int | None, error: Any, vendor: str, headers: Headers | None = None) -> UpstreamError:
    """Return the contract's error for the vendor's error object; ``status`` None means it came in a 200."""
    kind = error.get("type") if isinstance(error, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    if status is None:
        status = STATUS.get(str(kind), 500)
    return failure(
        status,
        message if isinstance(message, str) else str(error),
        headers=headers,
        native_code=kind if isinstance(kind, str) else None,
        vendor=vendor,
    )


def garbage(vendor: str, what: str) -> UpstreamError:
    """Return the error for an answer that cannot be understood."""
    return UpstreamError("upstream_invalid_response", f"{vendor} {what}", counts=True, retryable=True)


def whole(body: bytes, memo: Memo, created: int, vendor: str) -> Chunk:
    """Return a 200 reply's body as a whole chunk.

    Raises:
        UpstreamError: the body is an error, or no message.
    """
    try:
        data = loads(body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or not isinstance(data.get("content"), list):
        if isinstance(data, dict) and data.get("error"):
            raise error_of(None, data["error"], vendor)
        raise garbage(vendor, f"answered with something that is no message: {outline(body)}")
    try:
        return _completion(data, memo, created)
    except (TypeError, AttributeError, ValueError):
        raise garbage(vendor, f"answered with a message that makes no sense: {outline(body)}") from None


def named(value: Any, default: str) -> str:
    """Return a name that the vendor gave, else ``default``."""
    return value if isinstance(value, str) and value else default


def _completion(data: dict[str, Any], memo: Memo, created: int) -> Chunk:
    text: list[str] = []
    reasoning: list[str] = []
    thoughts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    answered = False
    for block in data["content"]:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            text.append(block.get("text") or "")
        elif kind == "tool_use":
            name, arguments = str(block.get("name")), dumps(block.get("input") or {}).decode()
            if name == memo.json_tool:
                answered = True
                text.append(arguments)
            else:
                function = {"name": memo.names.get(name, name), "arguments": arguments}
                id = named(block.get("id"), new_id("toolu_", data.get("id"), len(calls)))
                calls.append({"id": id, "type": "function", "function": function})
        elif kind == "thinking" or kind == "redacted_thinking":
            reasoning.append(block.get("thinking") or "")
            thoughts.append({**block, "x_llm_after_calls": len(calls)} if calls else block)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(text) if text or not calls else None,
        "refusal": None,
    }
    if calls:
        message["tool_calls"] = calls
    if thoughts:
        message["thinking_blocks"] = thoughts
        if spoken := "".join(reasoning):
            message["reasoning_content"] = spoken
    native = data.get("stop_reason")
    choice = {"index": 0, "message": message, "logprobs": None, **finish(native, answered, calls=bool(calls))}
    if native == "refusal":
        message["refusal"] = refusal(data) or message["content"] or None
    completion = {
        "id": named(data.get("id"), "msg_0"),
        "object": "chat.completion",
        "created": created,
        "model": named(data.get("model"), memo.model),
        "choices": [choice],
    }
    if counts := usage(data.get("usage")):
        completion["usage"] = counts
    return Chunk(completion, whole=True)


def finish(native: Any, answered: bool, *, calls: bool) -> dict[str, Any]:
    """Return ``finish_reason``, with the vendor's own word beside it; unknown words count as ``stop``.

    ``answered``: a tool call stood for the answer itself, so calling it was stopping, unless other ``calls`` came.
    """
    default = "tool_calls" if calls else "stop"
    reason = FINISH.get(native, default) if isinstance(native, str) else default
    if answered and not calls and reason == "tool_calls":
        reason = "stop"
    if isinstance(native, str) and native != reason:
        return {"finish_reason": reason, "x_llm_native_finish_reason": native}
    return {"finish_reason": reason}


def refusal(holder: dict[str, Any]) -> str | None:
    """Return the vendor's explanation of a refusal, if it gave one."""
    details = holder.get("stop_details")
    text = details.get("explanation") if isinstance(details, dict) else None
    return text if isinstance(text, str) else None
