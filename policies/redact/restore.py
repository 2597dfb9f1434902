"""Placeholders that can be taken back: numbered by first appearance, undone in the reply."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from policies.redact.json_lane import escape

_NUMBERED: Final = re.compile(r"\[[^\[\]]+_\d+\]")


class Placeholders:
    """The placeholders of one call, in memory only: ``[EMAIL_1]`` stands for the first address seen.

    They are a function of the request's text alone, so that a cache's keys and a provider's prompt cache
    survive; numbers that the text itself uses are skipped.
    """

    __slots__ = ("_given", "_next", "_used", "originals")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._used: set[str] = set()
        self._given: dict[tuple[str, str], str] = {}
        self._next: dict[str, int] = {}
        self.originals: dict[str, str] = {}
        for text in texts:
            self.skip(text)

    def skip(self, text: str) -> None:
        """Take note of the placeholders that ``text`` holds itself."""
        if "[" in text:
            self._used.update(match[0] for match in _NUMBERED.finditer(text))

    def give(self, word: str, original: str) -> str:
        """Return the placeholder for ``original``, the same for the same text."""
        key = (word, original)
        if (known := self._given.get(key)) is not None:
            return known
        number = self._next.get(word, 1)
        while (placeholder := f"[{word}_{number}]") in self._used:
            number += 1
        self._next[word] = number + 1
        self._given[key] = placeholder
        self.originals[placeholder] = original
        return placeholder


class Originals:
    """What the placeholders of one call stand for. ``heads``: what they begin with, up to their number."""

    __slots__ = ("by_placeholder", "heads", "longest")

    def __init__(self, by_placeholder: Mapping[str, str]) -> None:
        self.by_placeholder = by_placeholder
        self.heads = {placeholder[: placeholder.rindex("_") + 1] for placeholder in by_placeholder}
        self.longest = max(map(len, by_placeholder), default=0)


class Restorer:
    """Puts the originals back into one text of the reply, given piece by piece.

    ``quoted``: the text is JSON, and originals are escaped. Placeholders that are not this call's stay.
    """

    __slots__ = ("_originals", "_quoted", "_tail")

    def __init__(self, originals: Originals, *, quoted: bool) -> None:
        self._originals = originals
        self._quoted = quoted
        self._tail = ""

    def feed(self, text: str, final: bool = False) -> str:
        """Take the next piece, return what can go on."""
        text = self._tail + text
        self._tail = ""
        at = text.rfind("[")
        if at < 0:
            return text
        if not final and len(text) - at < self._originals.longest and text.find("]", at) < 0:
            tail = text[at:]
            if any(
                head.startswith(tail) or (tail.startswith(head) and tail[len(head) :].isdecimal())
                for head in self._originals.heads
            ):
                self._tail = tail
                text = text[:at]
        return _NUMBERED.sub(self._original, text)

    def _original(self, match: re.Match[str]) -> str:
        original = self._originals.by_placeholder.get(match[0])
        if original is None:
            return match[0]
        return escape(original) if self._quoted else original
