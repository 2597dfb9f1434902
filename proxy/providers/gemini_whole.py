"""A whole generateContent reply as one chunk."""

from __future__ import annotations

from typing import Any

from proxy.chunk import Chunk
from proxy.providers.failure import outline
from proxy.providers.gemini_reply import MISREAD, Choice, Reading, block_fields, blocked, logprobs, usage


def whole_reply(reading: Reading, body: bytes) -> Chunk:
    """Return a generateContent reply as one chunk.

    Raises:
        UpstreamError: it is no answer.
    """
    piece = reading.parse(body)
    try:
        return Chunk(_completion(reading, piece, body), whole=True)
    except MISREAD:
        raise reading.invalid(f"a reply of unknown shape: {outline(body)}") from None


def _completion(reading: Reading, piece: dict[str, Any], body: bytes) -> dict[str, Any]:
    id = reading.id_of(piece, body)
    choices = []
    for position, candidate in enumerate(piece.get("candidates") or ()):
        choice = Choice(candidate.get("index", position))
        content = candidate.get("content") or {}
        delta = choice.read(content.get("parts") or (), reading.sent, id)
        fields = reading.close(choice, candidate.get("finishReason") or "STOP", candidate)
        choices.append(_whole_choice(choice, delta, fields, logprobs(candidate.get("logprobsResult"))))
    if not choices:
        feedback = blocked(piece)
        if feedback is None:
            raise reading.invalid(f"neither candidates nor a reason: {outline(body)}")
        choices.append(_whole_choice(Choice(0), {}, block_fields(feedback), None))
    if len(choices) > 1:
        choices.sort(key=_index)
    data = {
        "id": id,
        "object": "chat.completion",
        "created": reading.created,
        "model": reading.model_of(piece),
        "choices": choices,
    }
    if (counted := usage(piece.get("usageMetadata"))) is not None:
        data["usage"] = counted
    return data


def _index(choice: dict[str, Any]) -> int:
    index: int = choice["index"]
    return index


def _whole_choice(
    choice: Choice, delta: dict[str, Any], fields: dict[str, Any], probabilities: dict[str, Any] | None
) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": delta.pop("content", None if choice.calls or choice.said else ""),
        "refusal": fields.pop("refusal", None),
    }
    if delta:
        message.update(delta)
        for call in delta.get("tool_calls", ()):
            del call["index"]
    return {"index": choice.index, "message": message, "logprobs": probabilities, **fields}
