"""Gemini's answers in OpenAI's shape: a whole reply and a stream's events go through the same reading.

Source: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from json import loads as json_loads
from typing import Any, Final

import orjson

from proxy.errors import UpstreamError
from proxy.providers.common import _BIG_INTEGER, count, dumps, new_id, usage_of
from proxy.providers.failure import outline
from proxy.providers.gemini_signature import extra, with_signature

_FINISH: Final = {
    "STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length",
    "SAFETY": "content_filter", "RECITATION": "content_filter", "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter", "PROHIBITED_CONTENT": "content_filter", "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter", "JAILBREAK": "content_filter",
}  # fmt: skip
#: The model's answer was no answer: with nothing in it, another attempt is better than an empty success.
BROKEN: Final = frozenset(
    ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE", "TOO_MANY_TOOL_CALLS",
     "MISSING_THOUGHT_SIGNATURE")
)  # fmt: skip
#: Every word the reference has for the end of a candidate or for a prompt's block.
FINISH_WORDS: Final = frozenset(_FINISH) | BROKEN | {
    "OTHER", "FINISH_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION", "IMAGE_OTHER", "NO_IMAGE",
}  # fmt: skip
#: What reading JSON of another shape than expected raises.
MISREAD: Final = (AttributeError, IndexError, KeyError, TypeError, ValueError)


class Sent:
    """What decoding has to know of the request: kept in ``UpstreamRequest.memo``."""

    __slots__ = ("inputs", "model", "restore", "single", "vectors")

    def __init__(
        self, model: str, *, restore: dict[str, str] | None = None, single: bool = False, inputs: int = 0,
        vectors: str = "",
    ) -> None:  # fmt: skip
        self.model = model
        """The model as asked for upstream."""
        self.restore = restore or {}
        """Sent tool names to the caller's, of those that differ."""
        self.single = single
        self.inputs = inputs
        """Embeddings: the prompt's tokens as estimated, for models that report none."""
        self.vectors = vectors
        """Embeddings: ``float`` or ``base64``; empty for a chat."""


Refusal = Callable[[Any], UpstreamError]
"""Turns an error object inside a 200 into the contract's error."""


def finish_reason(word: str, *, calls: bool) -> str:
    """Return OpenAI's finish reason for Gemini's ``word``; unknown words count as ``stop``."""
    word = word.upper()
    reason = _FINISH.get(word)
    if reason is None:
        if word.startswith("IMAGE_"):
            return "content_filter"
        reason = "stop"
    return "tool_calls" if calls and reason == "stop" else reason


def usage(metadata: Any) -> dict[str, Any] | None:
    """Return OpenAI's usage; None where no count is given at all, so that it gets estimated.

    Thoughts are part of the completion, cached tokens are part of the prompt already; counts of zero are
    absent from the vendor's JSON.
    """
    if type(metadata) is not dict:
        return None
    get = metadata.get
    prompt = get("promptTokenCount")
    if prompt is None and get("totalTokenCount") is None and get("candidatesTokenCount") is None:
        return None
    thoughts = get("thoughtsTokenCount")
    cached = get("cachedContentTokenCount")
    answer, tools = count(get("candidatesTokenCount")) + count(thoughts), count(get("toolUsePromptTokenCount"))
    if prompt is None:
        prompt = max(0, count(get("totalTokenCount")) - answer - tools)
    return usage_of(
        count(prompt) + tools,
        answer,
        cached=None if cached is None else count(cached),
        reasoning=None if thoughts is None else count(thoughts),
    )


def logprobs(result: Any) -> dict[str, Any] | None:
    """Return OpenAI's ``logprobs`` of a candidate's ``logprobsResult``."""
    if type(result) is not dict:
        return None
    tops = result.get("topCandidates") or ()
    content = []
    for n, chosen in enumerate(result.get("chosenCandidates") or ()):
        entry = _token(chosen)
        top = tops[n].get("candidates") or () if n < len(tops) else ()
        entry["top_logprobs"] = [_token(one) for one in top]
        content.append(entry)
    return {"content": content, "refusal": None}


def _token(candidate: dict[str, Any]) -> dict[str, Any]:
    token = candidate.get("token") or ""
    return {
        "token": token,
        "logprob": float(candidate.get("logProbability") or 0.0),
        "bytes": list(token.encode("utf-8", "surrogatepass")),
    }


class Choice:
    """One candidate as far as it was read."""

    __slots__ = ("begun", "calls", "finished", "ids", "index", "said")

    def __init__(self, index: int) -> None:
        self.index = index
        self.begun = False
        self.calls = 0
        self.said = False
        """Text, an image or a call came: the answer has content."""
        self.finished = False
        self.ids: set[str] = set()

    def read(self, parts: Sequence[dict[str, Any]], sent: Sent, reply: str) -> dict[str, Any]:
        """Return what ``parts`` add, as a delta: content, reasoning, tool calls, images, text's signature."""
        delta: dict[str, Any] = {}
        for part in parts:
            text = part.get("text")
            if text is not None and type(text) is not str:
                raise TypeError
            if part.get("thought"):
                if text:
                    delta["reasoning_content"] = delta.get("reasoning_content", "") + text
                continue
            if text:
                delta["content"] = delta.get("content", "") + text
                self.said = True
            elif (function := part.get("functionCall")) is not None:
                if not (sent.single and self.calls):
                    call = self._call(function, part.get("thoughtSignature"), sent, reply)
                    delta.setdefault("tool_calls", []).append(call)
                continue
            elif (image := part.get("inlineData")) is not None:
                url = f"data:{image.get('mimeType') or 'application/octet-stream'};base64,{image.get('data') or ''}"
                delta.setdefault("images", []).append({"type": "image_url", "image_url": {"url": url}})
                self.said = True
            signature = part.get("thoughtSignature")
            if type(signature) is str and "toolCall" not in part and "toolResponse" not in part:
                delta["extra_content"] = extra(signature)
        return delta

    def _call(self, function: dict[str, Any], signature: Any, sent: Sent, reply: str) -> dict[str, Any]:
        index = self.calls
        self.calls += 1
        name = function["name"]
        arguments = function.get("args") or {}
        if type(name) is not str or type(arguments) is not dict:
            raise TypeError
        id = function.get("id")
        if type(id) is not str or not id or id in self.ids:
            id = new_id("call_", reply, self.index, index)
        self.ids.add(id)
        call: dict[str, Any] = {"index": index, "id": id, "type": "function"}
        if type(signature) is str and signature:
            call["id"] = with_signature(id, signature)
            call["extra_content"] = extra(signature)
        call["function"] = {"name": sent.restore.get(name, name), "arguments": dumps(arguments).decode()}
        return call


def _may_call(piece: Any) -> bool:
    try:
        for candidate in piece["candidates"]:
            for part in candidate["content"]["parts"]:
                if "functionCall" in part:
                    return True
    except MISREAD:
        return True  # it is of a rarer form
    return False


class Reading:
    """What a whole reply and a stream share: whose answer it is, and how a bad one is reported."""

    __slots__ = ("created", "name", "refusal", "sent")

    def __init__(self, name: str, sent: Sent, created: int, refusal: Refusal) -> None:
        self.name = name
        self.sent = sent
        self.created = created
        self.refusal = refusal

    def parse(self, data: bytes) -> dict[str, Any]:
        """Return the object in ``data``, integers of any size intact; raise what it says if it is an error."""
        try:
            piece = orjson.loads(data)
            if _may_call(piece) and _BIG_INTEGER.search(data.decode()):
                piece = json_loads(data)
        except (ValueError, RecursionError):
            raise self.invalid(f"something that is not JSON: {outline(data)}") from None
        if type(piece) is dict:
            if "error" in piece and "candidates" not in piece:
                raise self.refusal(piece["error"])
            return piece
        if type(piece) is list and piece and type(piece[0]) is dict and "error" in piece[0]:
            raise self.refusal(piece[0]["error"])
        raise self.invalid("JSON that is not an object")

    def invalid(self, what: str) -> UpstreamError:
        """Return the error for an answer that cannot be understood."""
        return UpstreamError(
            "upstream_invalid_response", f"{self.name} answered with {what}.", retryable=True, counts=True
        )

    def broken(self, word: str) -> UpstreamError:
        """Return the error for an answer without content that the model itself got wrong."""
        return UpstreamError(
            "upstream_invalid_response",
            f"{self.name}'s model formed no valid answer ({word}); send the request again.",
            retryable=True,
            native_code=word,
        )

    def id_of(self, piece: dict[str, Any], data: bytes) -> str:
        """Return the reply's id: the vendor's, else one made of the reply itself."""
        id = piece.get("responseId")
        return id if type(id) is str and id else new_id("chatcmpl-", self.created, data)

    def model_of(self, piece: dict[str, Any]) -> str:
        """Return the model that answered, as the vendor names it."""
        model = piece.get("modelVersion")
        return model if type(model) is str and model else self.sent.model

    def close(self, choice: Choice, word: Any, candidate: dict[str, Any]) -> dict[str, Any]:
        """Return the fields that end ``choice``; raise where there is nothing but a failure in it."""
        word = word if type(word) is str else str(word)
        if word in BROKEN and not choice.said and not choice.calls:
            raise self.broken(word)
        choice.finished = True
        reason = finish_reason(word, calls=choice.calls > 0)
        fields: dict[str, Any] = {"finish_reason": reason}
        if word.lower() != reason:
            fields["x_llm_native_finish_reason"] = word
        if reason == "content_filter" and not choice.said:
            message = candidate.get("finishMessage")
            if type(message) is str:
                fields["refusal"] = message
        return fields


def blocked(piece: dict[str, Any]) -> dict[str, Any] | None:
    """Return the ``promptFeedback`` that stands in place of candidates, None where the prompt was not blocked."""
    feedback = piece.get("promptFeedback")
    return feedback if type(feedback) is dict and feedback.get("blockReason") else None


def block_fields(feedback: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that end the choice of a prompt that was blocked."""
    fields = {"finish_reason": "content_filter", "x_llm_native_finish_reason": str(feedback["blockReason"])}
    if type(feedback.get("blockReasonMessage")) is str:
        fields["refusal"] = feedback["blockReasonMessage"]
    return fields
