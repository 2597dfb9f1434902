"""What stands around a text of the reply: the chunk that carries it, and what says the same once more."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from proxy.chunk import PIECES, Chunk

#: Fields of a reply, a choice or a message that say the text once more, token by token.
_SPELLING: Final = frozenset(("logprobs", "token_ids", "tokens", "completion_probabilities"))
#: What of a chunk belongs to it alone, and not to the one in which held back text follows.
NOT_AGAIN: Final = _SPELLING | {"usage", "choices"}
Key = tuple[Any, ...]


def carrying(chunk: Chunk, text: str) -> Chunk:
    """Return the chunk of a single choice with ``text`` in it: without the tokens, which would spell another."""
    choice = chunk.data["choices"][0]
    choice["delta"]["content"] = text
    chunk.raw = None
    _spelled(chunk, choice)
    return chunk


def shape_of(chunk: Chunk, key: Key) -> Callable[[str], dict[str, Any]]:
    """Return what makes a choice's body with only this text in it, in the form that the stream uses."""
    index, field, n = key
    choice = next(c for c in chunk.choices if c.get("index", 0) == index)
    delta = choice.get("delta") or choice.get("message")
    if delta is None:
        return lambda text: {"text": text, "logprobs": None}
    if field == "arguments" or field == "input":
        if n == -1:
            return lambda text: {"delta": {"function_call": {"arguments": text}}}
        holder, name = ("custom", "input") if field == "input" else ("function", "arguments")
        return lambda text: {"delta": {"tool_calls": [{"index": n, holder: {name: text}}]}}
    if field == "transcript":
        return lambda text: {"delta": {"audio": {"transcript": text}}}
    if isinstance(delta.get(field), list):
        piece = dict(delta[field][n])
        name = next(name for name in PIECES if isinstance(piece.get(name), str))
        return lambda text: {"delta": {field: [{**piece, name: text}]}}
    return lambda text: {"delta": {field: text}}


def without_tokens(chunk: Chunk, keep: Collection[Any] = ()) -> None:
    """Take the tokens out where the text was changed: they would spell it. Choices to ``keep`` stay."""
    for choice in chunk.choices:
        if choice.get("index", 0) not in keep:
            _spelled(chunk, choice)
            part = choice.get("delta") or choice.get("message")
            if isinstance(part, dict):
                _spelled(chunk, part)
    if not keep:
        _spelled(chunk, chunk.data)


def _spelled(chunk: Chunk, holder: dict[str, Any]) -> None:
    for name in _SPELLING.intersection(holder):
        spelled = holder[name]
        if any(spelled.values()) if isinstance(spelled, dict) else spelled:  # an empty one spells nothing
            holder[name] = None
            chunk.touch()


def silence(chunk: Chunk, index: Any) -> None:
    """Take out the sound of a choice whose transcript was masked: it says the same."""
    for choice in chunk.choices:
        part = choice.get("delta") or choice.get("message")
        audio = part.get("audio") if isinstance(part, dict) else None
        if choice.get("index", 0) == index and isinstance(audio, dict) and audio.get("data"):
            audio["data"] = ""
            chunk.touch()
