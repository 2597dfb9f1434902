"""Placeholders that can be taken back: numbered by first appearance, undone in the reply."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from policies.redact.engine import Engine
from policies.redact.json_lane import escape
from policies.redact.lanes import CODEC
from policies.redact.search import Finding, Trail

_NUMBERED: Final = re.compile(r"\[[^\[\]]+_\d+\]")


class Placeholders:
    """The placeholders of one call, in memory only: ``[EMAIL_1]`` stands for the first address seen.

    They are a function of the request's text alone, so that a cache's keys and a provider's prompt cache
    survive; numbers that the text itself uses are skipped.
    """

    __slots__ = ("_given", "_next", "_used", "known", "originals")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._used: set[str] = set()
        self._given: dict[tuple[str, str], str] = {}
        self._next: dict[str, int] = {}
        self.originals: dict[str, str] = {}
        self.known = Originals(self.originals)
        for text in texts:
            self.skip(text)

    def skip(self, text: str) -> None:
        """Take note of the placeholders that ``text`` holds itself."""
        if "[" in text:
            self._used.update(match[0] for match in _NUMBERED.finditer(text))

    def give(self, word: str, original: str) -> str:
        """Return the placeholder for ``original``, the same for the same text.

        What ``original`` holds of placeholders that were given before stands for theirs.
        """
        if "[" in original:
            original = _NUMBERED.sub(self._meant, original)
        key = (word, original)
        if (known := self._given.get(key)) is not None:
            return known
        number = self._next.get(word, 1)
        while (placeholder := f"[{word}_{number}]") in self._used:
            number += 1
        self._next[word] = number + 1
        self._given[key] = placeholder
        self.originals[placeholder] = original
        self.known.add(placeholder)
        return placeholder

    def _meant(self, match: re.Match[str]) -> str:
        return self.originals.get(match[0], match[0])


class Originals:
    """What the placeholders of one call stand for. ``heads``: what they begin with, up to their number."""

    __slots__ = ("by_placeholder", "heads", "longest")

    def __init__(self, by_placeholder: Mapping[str, str]) -> None:
        self.by_placeholder = by_placeholder
        self.heads: set[str] = set()
        self.longest = 0
        for placeholder in by_placeholder:
            self.add(placeholder)

    def add(self, placeholder: str) -> None:
        """Take note of what a new placeholder begins with."""
        self.heads.add(placeholder[: placeholder.rindex("_") + 1])
        self.longest = max(self.longest, len(placeholder))

    def begun(self, text: str) -> int:
        """Return where a placeholder begins that ``text`` ends in the midst of, -1 if there is none."""
        at = text.rfind("[", -self.longest) if self.longest else -1
        if at < 0 or len(text) - at >= self.longest or text.find("]", at) >= 0:
            return -1
        tail = text[at:]
        for head in self.heads:
            if head.startswith(tail) or (tail.startswith(head) and tail[len(head) :].isdecimal()):
                return at
        return -1


class Sight:
    """An engine to which this call's placeholders are variables: ``[KEY_1]`` is seen as ``$KEY_1}``, of equal length.

    They stand for what the caller has sent, and are no more a secret than ``$KEY`` is: ``https://ann:[PASSWORD_1]@host`` is
    none, however the upstream came to write it. What stands beside one is looked at as ever.
    """

    __slots__ = ("_engine", "_known", "front")

    def __init__(self, engine: Engine, known: Originals) -> None:
        self._engine = engine
        self._known = known
        self.front = engine.front

    def decide(self, text: bytes, start: int, final: bool, trail: Trail | None = None) -> tuple[int, Sequence[Finding]]:
        """Do what :meth:`Engine.decide` does; nothing that is found, and no decision, ends in the midst of a placeholder."""
        if _OPENS not in text:
            return self._engine.decide(text, start, final, trail)
        known = self._known
        if not final:
            end = text[-4 * known.longest :].decode("utf-8", "surrogateescape")
            if (at := known.begun(end)) >= 0:
                text = text[: len(text) - len(end[at:].encode("utf-8", "surrogateescape"))]
        spans = [m.span() for m in _NUMBERED_BYTES.finditer(text) if m[0].decode(*CODEC) in known.by_placeholder]
        if not spans:
            return self._engine.decide(text, start, final, trail)
        seen = bytearray(text)
        for low, high in spans:
            seen[low], seen[high - 1] = b"$}"
        decided, findings = self._engine.decide(bytes(seen), start, final, trail)
        whole: list[Finding] = []
        at = start
        for low, high, detector in findings:
            if (held := _around(spans, low)) is not None:
                low = held[0]
            if (held := _around(spans, high)) is not None:
                high = held[1]
            if high > at:
                whole.append(Finding(max(low, at), high, detector))
                at = high
        if at <= decided and (held := _around(spans, decided)) is not None:
            decided = max(start, held[0])
        return max(decided, at), whole


def _around(spans: list[tuple[int, int]], at: int) -> tuple[int, int] | None:
    """Return the span that ``at`` is in the midst of."""
    n = bisect_left(spans, (at, 0))
    return spans[n - 1] if n and at < spans[n - 1][1] else None


_OPENS: Final = ord("[")
_NUMBERED_BYTES: Final = re.compile(rb"\[[^\[\]]+_\d+\]")


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
        if "[" not in text:
            return text
        if not final and (at := self._originals.begun(text)) >= 0:
            self._tail = text[at:]
            text = text[:at]
        return _NUMBERED.sub(self._original, text)

    def _original(self, match: re.Match[str]) -> str:
        original = self._originals.by_placeholder.get(match[0])
        if original is None:
            return match[0]
        return escape(original) if self._quoted else original
