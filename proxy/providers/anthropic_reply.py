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


def exact(value: Any, data: bytes) -> Any:
    """Return ``value``, which ``data`` was parsed to, with all digits of integers above 64 bits."""
    return json_loads(data) if _BIG_INTEGER.search(data) else value


def usage(claimed: Any) -> dict[str, Any] | None:
    """Return OpenAI's usage; the vendor counts cached input beside ``input_tokens``, OpenAI inside."""
    if type(claimed) is not dict:
        return None
    get = claimed.get
    prompt, completion = get("input_tokens"), get("output_tokens")
    if prompt is None or completion is None:
        return None  # half a claim is none: all of it is estimated
    read, written = count(get("cache_read_input_tokens")), count(get("cache_creation_input_tokens"))
    details = get("output_tokens_details")
    return usage_of(
        count(prompt) + read + written,
        count(completion),
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
        data = orjson.loads(body)
    except ValueError:
        data = None
    content = data.get("content") if type(data) is dict else None
    if type(content) is not list:
        if type(data) is dict and data.get("error"):
            raise error_of(None, data["error"], vendor)
        raise garbage(vendor, f"answered with something that is no message: {outline(body)}")
    try:
        return _completion(exact(data, body) if _calls_in(content) else data, memo, created)
    except (TypeError, AttributeError, ValueError, RecursionError):
        raise garbage(vendor, f"answered with a message that makes no sense: {outline(body)}") from None


def _calls_in(content: list[Any]) -> bool:
    for block in content:  # noqa: SIM110 - a generator costs more than the walk
        if type(block) is dict and block.get("type") == "tool_use":
            return True
    return False


def named(value: Any, default: str) -> str:
    """Return a name that the vendor gave, else ``default``."""
    return value if type(value) is str and value else default


def _completion(data: dict[str, Any], memo: Memo, created: int) -> Chunk:
    text: list[str] = []
    reasoning: list[str] = []
    thoughts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    answered = False
    for block in data["content"]:
        kind = block.get("type") if type(block) is dict else None
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
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None}
    finish(choice, native, answered, calls=bool(calls))
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


def finish(choice: dict[str, Any], native: Any, answered: bool, *, calls: bool) -> None:
    """Set ``finish_reason``, with the vendor's own word beside it; unknown words count as ``stop``.

    ``answered``: a tool call stood for the answer itself, so calling it was stopping, unless other ``calls`` came.
    """
    default = "tool_calls" if calls else "stop"
    reason = FINISH.get(native, default) if isinstance(native, str) else default
    if answered and not calls and reason == "tool_calls":
        reason = "stop"
    choice["finish_reason"] = reason
    if isinstance(native, str) and native != reason:
        choice["x_llm_native_finish_reason"] = native


def refusal(holder: dict[str, Any]) -> str | None:
    """Return the vendor's explanation of a refusal, if it gave one."""
    details = holder.get("stop_details")
    text = details.get("explanation") if isinstance(details, dict) else None
    return text if isinstance(text, str) else None
