"""How far a text that is still growing is decided: up to the first place that a match may still begin at and go on from.

One automaton of all beginnings of matches is asked at each place where a match can begin whether everything from there
on is such a beginning: what lies before the first such place is decided for good, so that a stream and the whole text
give the same findings however the stream was cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from re2 import _re2

from policies.redact.alphabet import characters
from policies.redact.detector import CAP, Detector, compile_union

_ANYWHERE: Final = _re2.RE2.Anchor.UNANCHORED
_BOTH: Final = _re2.RE2.Anchor.ANCHOR_BOTH
#: Up to here a piece of a stream is taken word by word, and how many words are remembered.
SHORT: Final = 64
_WORDS: Final = 20_000
#: The built-in detectors have two classes: nearly all, and those of keys that go on for pages.
_NEAR: Final = 2_048
#: Beyond ASCII a word is a row of what mail addresses take for letters (U+C0–24F, 370–1FFF, 3040–D7FF, F900–FDFF); any
#: other character stands alone, so that a word begins behind it.
_WIDE: Final = (
    rb"(?:\xc3[\x80-\xbf]|[\xc4-\xc8\xce-\xdf][\x80-\xbf]|\xc9[\x80-\x8f]|\xcd[\xb0-\xbf]|[\xe0\xe1\xe4-\xec][\x80-\xbf]{2}"
    rb"|\xe3[\x81-\xbf][\x80-\xbf]|\xed[\x80-\x9f][\x80-\xbf]|\xef[\xa4-\xb7][\x80-\xbf])+"
    rb"|[\xc0-\xff][\x80-\xbf]*|[\x80-\xbf]+"
)
#: The two characters beyond ASCII that are letters of ASCII where case does not matter: the long s and the kelvin sign.
_FOLDED: Final = ("\u017f".encode(), "\u212a".encode())


class Front:
    """The beginnings of a set of detectors' matches, compiled together. What it remembers of words only saves time."""

    __slots__ = (
        "_aligned", "_alive", "_dead", "_far", "_heads", "_open", "_openings", "_over", "_places", "_plain", "_wide",
        "dead", "heads", "quiet",
    )  # fmt: skip

    def __init__(self, detectors: Sequence[Detector]) -> None:
        reaches: dict[tuple[int, int], list[str]] = {}
        for detector in detectors:
            reaches.setdefault((_class(detector), detector.longest), []).append(detector.node.begun())
        self._open = [(*reach, compile_union(begun)) for reach, begun in sorted(reaches.items(), reverse=True)]
        # The widest reach first: a place too far for it is too far for all.
        far = [detector for detector in detectors if _class(detector) > _NEAR]
        openings = [detector.node.opening() for detector in far]
        self._far = max((_class(detector) for detector in far), default=0)
        self._openings = compile_union(openings) if openings and all(openings) else None
        #: How many bytes those reach whose matches begin beyond ASCII.
        self._wide = max((detector.reach for detector in detectors if _beyond(detector)), default=0)
        self._aligned = not any(detector.first for detector in detectors)
        self._places = _places(detectors)
        self.quiet = all(detector.node.loud() for detector in detectors)
        self._plain = self.quiet and self._aligned
        self._dead: set[bytes] = set()
        #: Words that no match begins with when a blank follows, and words that one may begin with; each with its blank.
        self.dead: set[str] = set()
        self.heads: set[str] = set()
        self._heads: set[bytes] = set()
        #: Words that are not dead (`token`, `key`), and those with what came behind them and left nothing of them open.
        self._alive: set[str] = set()
        self._over: set[str] = set()

    def decided(self, text: bytes, start: int, size: int) -> int:
        """Return up to where ``text``, of ``size`` bytes, is decided, from ``start`` on."""
        if self._aligned and start and size - start < SHORT:
            decided = self._first_by_words(text, start, size)
        else:
            decided = self._first(text, start, size)
        if start < decided < size and text[decided - 1] == 32:
            decided -= 1  # a blank goes with the word behind it, so that pieces of a stream stay what they were
        return decided

    def _first_by_words(self, text: bytes, start: int, size: int) -> int:
        """Do what :meth:`_first` does for the few words of a stream's piece, by what is known of words seen before.

        Beginnings of matches are closed under cutting their end off: what is no beginning up to the next blank
        is none later. Only words of letters are remembered.
        """
        at = start + 1 if text[start : start + 1] == b" " else start
        dead = self._dead
        while (blank := text.find(b" ", at)) >= 0:
            word = text[at - 1 : blank + 1]
            if word not in dead:
                if not word[1:-1].isalpha() or self._first(text, at, blank + 1) <= blank:
                    return self._first(text, at, size)
                if len(dead) > _WORDS:
                    dead.clear()
                dead.add(word)
            at = blank + 1
        head = text[at - 1 : size]
        if head in self._heads:
            return at
        found = self._first(text, at, size)
        if found == at < size and head[1:].isalpha():
            if len(self._heads) > _WORDS:
                self._heads.clear()
            self._heads.add(head)
        return found

    def is_over(self, word: str, following: str) -> bool:
        """Tell whether a blank and this word are decided now that another such pair follows; remember it."""
        if word not in self._alive:
            raw = word.encode() + b" "
            if self._plain and self._first(raw, 1, len(raw)) == len(raw):
                return _remember(self.dead, word)
            _remember(self._alive, word)
        pair = word + following
        if pair in self._over:
            return True
        raw = pair.encode()
        return self._plain and self._first(raw, 1, len(raw)) == len(word) + 1 and _remember(self._over, pair)

    def is_head(self, word: str) -> bool:
        """Tell whether all of a blank and this word must wait; remember it if so."""
        raw = word.encode()
        return self._plain and self._first(raw, 1, len(raw)) == 1 and _remember(self.heads, word)

    def _first(self, text: bytes, start: int, size: int) -> int:
        """Return the first place from which on all of ``text`` may be the beginning of a match."""
        near = start
        if size - start > _NEAR:
            near = size - _NEAR
            if self._far > _NEAR and (found := self._search_far(text, max(start, size - self._far), near, size)) >= 0:
                return found
        for place in self._places(text, near, size):
            at = place.start()
            left = size - at
            if left > self._wide and text[at] > 127 and not text.startswith(_FOLDED, at):
                # Scripts without blanks make words as long as sentences: only their end may begin a name.
                at = size - self._wide
                while at < size and text[at] & 0xC0 == 0x80:  # the last character may be wider than all matches
                    at += 1
                if place.end() <= at:
                    continue
                left = size - at
            for reach, longest, begun in self._open:
                if left > reach:
                    break
                if begun(_BOTH, text, at, size)[0][0] >= 0 and not (longest and _longer(text, at, size, longest)):
                    return at
        return size

    def _search_far(self, text: bytes, start: int, until: int, size: int) -> int:
        """Return the first open place before ``until`` of the few detectors that reach that far, -1 without one."""
        far = [one for one in self._open if one[0] > _NEAR]
        at = start
        while at < until:
            if self._openings is not None:
                at = self._openings(_ANYWHERE, text, at, size)[0][0]
            else:
                place = next(self._places(text, at, size), None)
                at = place.start() if place else -1
            if at < 0 or at >= until:
                return -1
            for reach, longest, begun in far:
                if size - at > reach:
                    break
                if begun(_BOTH, text, at, size)[0][0] >= 0 and not (longest and _longer(text, at, size, longest)):
                    return at
            at += 1
        return -1


def _longer(text: bytes, at: int, size: int, longest: int) -> bool:
    """Tell whether ``text`` from ``at`` to ``size`` has more than ``longest`` characters."""
    return size - at > longest and len(text[at:size].decode(errors="replace")) > longest


def _beyond(detector: Detector) -> bool:
    """Tell whether a match may begin with a character beyond ASCII, the two of :data:`_FOLDED` aside."""
    return any(128 in characters(head.raw) for head in detector.node.heads())


def _class(detector: Detector) -> int:
    """Return up to how many bytes a detector's open matches are asked for: few classes, few questions."""
    if detector.group in ("own", "packs"):
        return detector.reach  # what was configured is what a stream waits
    return _NEAR if detector.reach <= _NEAR else CAP


def _remember(words: set[str], word: str) -> bool:
    if len(words) > _WORDS:
        words.clear()
    words.add(word)
    return True


def _places(detectors: Sequence[Detector]) -> Callable[[bytes, int, int], Iterator[re.Match[bytes]]]:
    """Return what finds the places in a text where a match can begin: words, signs, and what detectors name."""
    first = frozenset[int]().union(*(detector.first for detector in detectors))
    if not first:
        return re.compile(rb"[A-Za-z0-9_]+|" + _WIDE + rb"|[^\sA-Za-z0-9_]").finditer
    named = b"".join(b"\\x%02x" % byte for byte in first if byte < 128)
    named += b"\xc0-\xff" if 128 in first else b""
    return re.compile(
        rb"[" + named + rb"]|(?<![A-Za-z0-9_])[A-Za-z0-9_]|" + _WIDE + rb"|[^\sA-Za-z0-9_\x80-\xff]"
    ).finditer
