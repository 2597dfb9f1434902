"""What compatible servers get wrong in a reply, brought into OpenAI's types: missing ids, other finish words, odd parts."""

from __future__ import annotations

from typing import Any, Final

import orjson

from proxy.chunk import Chunk
from proxy.providers.common import new_id
from proxy.providers.openai_calls import mend_calls

FINISH: Final = frozenset(("stop", "length", "tool_calls", "content_filter", "function_call"))
#: Finish words of compatible servers, in OpenAI's closed set.
_FINISH_WORDS: Final = {
    "eos": "stop", "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_length": "length",
    "tool_use": "tool_calls", "tool_call": "tool_calls", "safety": "content_filter", "refusal": "content_filter",
    "insufficient_system_resource": "length",
}  # fmt: skip
TIERS: Final = ("auto", "default", "flex", "scale", "priority", "fast", None)
#: What a message may hold where nothing needs a closer look.
_SOUND: Final = frozenset(("role", "content", "refusal", "annotations"))


def mend_envelope(chunk: Chunk) -> None:
    """Take out what OpenAI's clients would refuse: service tiers of other vendors, usage details that are null."""
    data = chunk.data
    if "service_tier" in data and data["service_tier"] not in TIERS:
        del data["service_tier"]
        chunk.touch()
    if data.get("usage") is not None:
        _mend_usage(chunk, data["usage"])


def _mend_usage(chunk: Chunk, usage: Any) -> None:
    """Bring usage into OpenAI's types; where a count is missing all of it goes, and is estimated."""
    if type(usage) is dict:
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(prompt) is not int or type(completion) is not int or type(usage.get("total_tokens")) is not int:
            prompt, completion = _tokens(prompt), _tokens(completion)
            if prompt is None or completion is None:
                usage = None
            else:
                usage["prompt_tokens"], usage["completion_tokens"] = prompt, completion
                usage["total_tokens"] = _tokens(usage.get("total_tokens")) or prompt + completion
            chunk.touch()
    if type(usage) is not dict:
        del chunk.data["usage"]
        chunk.touch()
        return
    if len(usage) == 3:  # the three counts and nothing else
        return
    details = usage.get("prompt_tokens_details", usage)
    if details is not usage and (type(details) is not dict or None in details.values()):
        _mend_details(chunk, usage, "prompt_tokens_details")
    details = usage.get("completion_tokens_details", usage)
    if details is not usage and (type(details) is not dict or None in details.values()):
        _mend_details(chunk, usage, "completion_tokens_details")


def _tokens(value: Any) -> int | None:
    return int(value) if type(value) is int or (type(value) is float and value.is_integer()) else None


def _mend_details(chunk: Chunk, usage: dict[str, Any], name: str) -> None:
    details = usage.pop(name)
    if type(details) is dict:
        usage[name] = {part: tokens for part, tokens in details.items() if tokens is not None}
    chunk.touch()


def mend_part(chunk: Chunk, part: dict[str, Any]) -> None:
    """Bring a message or a delta into OpenAI's types: a null legacy call, content and annotations of other dialects."""
    legacy = part.get("function_call", part)
    if legacy is not part and (type(legacy) is not dict or not legacy):
        del part["function_call"]
        chunk.touch()
    if type(part.get("refusal", "")) is not str and part["refusal"] is not None:
        del part["refusal"]
        chunk.touch()
    content = part.get("content")
    if type(content) is dict:
        content = part["content"] = [content]
    if type(content) is list:
        texts: list[str] = []
        thoughts: list[str] = []
        for piece in content:
            if type(piece) is dict and piece.get("type") == "thinking":
                inner = piece.get("thinking")
                thoughts += (
                    [t.get("text") or "" for t in inner if type(t) is dict] if type(inner) is list else [str(inner)]
                )
            elif type(piece) is dict and type(piece.get("text")) is str:
                texts.append(piece["text"])
        part["content"] = "".join(texts) if texts or not thoughts else None
        if thoughts:
            part["reasoning_content"] = "".join(thoughts)
        chunk.touch()
    elif content is not None and type(content) is not str:
        part["content"] = orjson.dumps(content).decode()
        chunk.touch()
    notes = part.get("annotations")
    if type(notes) is list and not all(type(n) is dict and n.get("type") == "url_citation" for n in notes):
        part["annotations"] = [n for n in notes if type(n) is dict and n.get("type") == "url_citation"]
        chunk.touch()


def _sound(data: dict[str, Any]) -> bool:
    """Tell whether a chat completion is as OpenAI itself writes them, so that nothing is to be mended."""
    choices = data["choices"]
    choice = choices[0]
    message = choice.get("message")
    if (
        len(choices) != 1
        or data.get("object") != "chat.completion"
        or type(message) is not dict
        or message.get("role") != "assistant"
        or type(message.get("content")) is not str
        or not _SOUND.issuperset(message)
        or message.get("refusal") is not None
        or message.get("annotations")
        or choice.get("finish_reason") not in FINISH
        or type(choice.get("index")) is not int
        or choice.get("logprobs") is not None
        or data.get("service_tier") not in TIERS
        or not headed(data)
    ):
        return False
    fingerprint = data.get("system_fingerprint")
    return fingerprint is None or type(fingerprint) is str


def mend_whole(chunk: Chunk, endpoint: str, model: str, now: int) -> None:
    data = chunk.data
    if endpoint == "chat" and _sound(data):
        if data.get("usage") is not None:
            _mend_usage(chunk, data["usage"])
        return
    mend_envelope(chunk)
    wanted = "chat.completion" if endpoint == "chat" else "text_completion"
    if data.get("object") != wanted:
        data["object"] = wanted
        chunk.touch()
    if not headed(data):
        mend_head(data, chunk.raw or b"", model, now)
        chunk.touch()
    if type(data.get("system_fingerprint", "")) is not str and data["system_fingerprint"] is not None:
        data["system_fingerprint"] = str(data["system_fingerprint"])
        chunk.touch()
    for index, choice in enumerate(data["choices"]):
        if type(choice.get("index")) is not int:
            choice["index"] = index
            chunk.touch()
        if choice.get("finish_reason") not in FINISH:
            mend_finish(chunk, choice)
        if endpoint == "chat" and choice.get("logprobs") is not None:
            mend_logprobs(chunk, choice)
        message = choice.get("message")
        if endpoint == "chat" and type(message) is not dict:
            message = choice["message"] = {"role": "assistant", "content": None}  # Azure, where it filtered all
            chunk.touch()
        if type(message) is dict:
            mend_part(chunk, message)
            if message.get("role") != "assistant":
                message["role"] = "assistant"
                chunk.touch()
            if "content" not in message:
                message["content"] = None
                chunk.touch()
            if message.get("tool_calls") is not None:
                mend_calls(chunk, message, data["id"], index)


def mend_finish(chunk: Chunk, choice: dict[str, Any]) -> None:
    word = choice.get("finish_reason")
    if word is None:
        if chunk.whole:
            message = choice.get("message")
            choice["finish_reason"] = "tool_calls" if type(message) is dict and message.get("tool_calls") else "stop"
            chunk.touch()
        elif "finish_reason" not in choice:
            choice["finish_reason"] = None
            chunk.touch()
    elif word not in FINISH:
        choice["x_llm_native_finish_reason"] = str(word)
        choice["finish_reason"] = _FINISH_WORDS.get(str(word).lower(), "stop")
        chunk.touch()


def headed(data: dict[str, Any]) -> bool:
    id, model, created = data.get("id"), data.get("model"), data.get("created")
    return type(id) is str and type(model) is str and type(created) is int and bool(id and model and created)


def mend_head(data: dict[str, Any], raw: bytes, model: str, now: int) -> None:
    """Give a reply's id, model and time where the server gave none, or of another type."""
    id, name, created = data.get("id"), data.get("model"), data.get("created")
    data["id"] = str(id) if id else new_id("chatcmpl-", now, raw)
    data["model"] = str(name) if name else model
    try:
        data["created"] = int(float(created or now))
    except (TypeError, ValueError, OverflowError):
        data["created"] = now


def mend_logprobs(chunk: Chunk, choice: dict[str, Any]) -> None:
    """Take out probabilities that are not in the chat's form (Together's arrays of tokens)."""
    given = choice["logprobs"]
    if type(given) is not dict or not ("content" in given or "refusal" in given):
        choice["logprobs"] = None
        chunk.touch()
    elif "content" not in given or "refusal" not in given:
        given.setdefault("content", None)
        given.setdefault("refusal", None)
        chunk.touch()
