"""The rules for an answer's text, on whole answers and on streams: only what may still change is held back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from policies.base import Chunk
from policies.template.config import Post


class Cut:
    """One text on its way: ``feed`` gives what is settled, ``end`` the rest. The same for every chunking.

    At most the ellipsis' length and the white space at the end are held back.
    """

    __slots__ = ("_cut", "_held", "_out", "_post", "_spaces", "_started")

    def __init__(self, post: Post) -> None:
        self._post = post
        self._out = 0
        self._held = ""
        self._spaces = ""
        self._started = not post.strip
        self._cut = False

    def feed(self, text: str) -> str:
        """Return what the client may have after ``text``."""
        post = self._post
        if self._cut:
            return ""
        if not self._started:
            text = text.lstrip()
            if not text:
                return ""
            self._started = True
        if post.strip:
            text = self._spaces + text
            kept = text.rstrip()
            self._spaces = text[len(kept) :]
            text = kept
        most = post.max_chars
        if most is None:
            return text
        text = self._held + text
        sure = max(0, most - len(post.ellipsis) - self._out)
        if self._out + len(text) > most:
            self._cut = True
            self._held = self._spaces = ""
            return text[:sure] + post.ellipsis
        settled, self._held = text[:sure], text[sure:]
        self._out += len(settled)
        return settled

    def end(self) -> str:
        """Return what was held back and stays."""
        rest, self._held, self._spaces = self._held, "", ""
        return rest


class PostFilter:
    """Apply a template's rules to the content of each choice."""

    __slots__ = ("_envelope", "_post", "_texts")

    def __init__(self, post: Post) -> None:
        self._post = post
        self._texts: dict[int, Cut] = {}
        self._envelope: dict[str, Any] = {}

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        fed = False
        for slot in chunk.texts():
            index, field, _ = slot.key
            if field != "content" or not slot.text:
                continue
            text = self._texts.get(index)
            if text is None:
                text = self._texts[index] = Cut(self._post)
            new = text.feed(slot.text)
            if chunk.whole:
                new += text.end()
            if new != slot.text:
                slot.text = new
            fed = fed or not new
        if chunk.whole:
            return (chunk,)
        out = []
        for choice in chunk.choices:
            if choice.get("finish_reason") and (rest := self._rest(choice.get("index", 0))):
                delta = choice.get("delta")
                if isinstance(delta, dict) and isinstance(delta.get("content"), str):
                    delta["content"] += rest
                    chunk.touch()
                else:
                    self._envelope = _envelope(chunk)
                    out.append(self._piece(choice.get("index", 0), rest))
        if not self._envelope and chunk.choices:
            self._envelope = _envelope(chunk)
        if not (fed and _empty(chunk)):
            out.append(chunk)
        return out

    def flush(self) -> Iterable[Chunk]:
        return [self._piece(index, rest) for index in list(self._texts) if (rest := self._rest(index))]

    def _rest(self, index: int) -> str:
        text = self._texts.get(index)
        return text.end() if text is not None else ""

    def _piece(self, index: int, text: str) -> Chunk:
        choice = {"index": index, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
        return Chunk({**self._envelope, "choices": [choice]})


def _envelope(chunk: Chunk) -> dict[str, Any]:
    return {name: value for name, value in chunk.data.items() if name not in ("choices", "usage")}


def _empty(chunk: Chunk) -> bool:
    """Tell whether nothing but held-back text was in the chunk."""
    if chunk.data.get("usage"):
        return False
    for choice in chunk.choices:
        delta = choice.get("delta") or {}
        if choice.get("finish_reason") or any(value for value in delta.values()):
            return False
    return True
