"""One text on its way through the engine, piece by piece: what is decided comes out, masked.

A lane sees one logical text (the content of one choice, the arguments of one tool call) from its first
piece to its last. However the text is cut, what comes out is the same in the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from policies.redact.detector import Detector
from policies.redact.escapes import MARGIN
from policies.redact.front import Front
from policies.redact.search import Finding, Trail

#: Says what to put for a finding: ``(detector, original)``; None leaves it as it is.
Replace = Callable[[Detector, str], "str | None"]
CODEC: Final = ("utf-8", "surrogatepass")
#: Decided text beyond this is forgotten, but for the context that checks may look at.
KEEP: Final = 512
#: So many words may go out before the buffer is brought up to date.
_PAST: Final = 64


class Looks(Protocol):
    """What finds: an engine, or one seen through something."""

    front: Front

    def decide(self, text: bytes, start: int, final: bool, trail: Trail | None = None) -> tuple[int, Sequence[Finding]]:
        """Return how far ``text`` is decided, and what is found up to there (:meth:`policies.redact.engine.Engine.decide`)."""


class Lane(Protocol):
    """A text that grows."""

    def feed(self, text: str, final: bool = False) -> str:
        """Take the next piece, return what is decided; ``final``: nothing follows."""


#: A blank and a word that is nothing by itself.
_WORD: Final = re.compile(" [A-Za-z]{1,10}").fullmatch


class PlainLane:
    """A lane for ordinary text. ``whole``: what waits is just the last piece, and all of it."""

    __slots__ = (
        "_buffer",
        "_dead",
        "_decide",
        "_front",
        "_heads",
        "_held",
        "_past",
        "_replace",
        "_start",
        "_trail",
        "whole",
    )

    def __init__(self, engine: Looks, replace: Replace, trail: Trail | None = None) -> None:
        self._decide = engine.decide
        self._front = front = engine.front
        self._dead = front.dead
        self._heads = front.heads
        self._replace = replace
        self._trail = Trail() if trail is None else trail
        self._buffer = b""
        self._start = 0
        #: Where what waits is a blank and a word: that; it is then not in the buffer, nor are the words before it.
        self._held: str | None = None
        self._past: list[str] = []
        self.whole = False

    def feed(self, text: str, final: bool = False) -> str:
        held = self._held
        if held is not None:
            if not final:
                # Most of what streams bring: a word behind a word, or the rest of one, all known.
                if text in self._heads or (_WORD(text) and self._front.is_head(text)):
                    if held in self._dead or self._front.is_over(held, text):
                        past = self._past
                        past.append(held)
                        self._held = text
                        self.whole = True
                        if len(past) > _PAST:
                            self._recall("")
                        return held
                elif (joined := held + text) in self._heads or (_WORD(joined) and self._front.is_head(joined)):
                    self._held = joined
                    self.whole = False
                    return ""
            self._recall(held)
            self._held = None
        before = self._buffer
        buffer = before + text.encode("utf-8", "surrogatepass")
        start = self._start
        decided, findings = self._decide(buffer, start, final, self._trail)
        self.whole = decided == len(before)
        if decided == start:
            self._buffer = buffer
            return ""
        if findings:
            out = masked_text(buffer, start, decided, findings, self._replace)
        else:
            out = buffer[start:decided].decode("utf-8", "surrogatepass")
        if self.whole and _WORD(text):
            self._held = text
            buffer = before
        if decided > KEEP:
            buffer = buffer[decided - MARGIN :]
            self._trail.shift(decided - MARGIN)
            decided = MARGIN
        self._buffer = buffer
        self._start = decided
        return out

    def _recall(self, held: str) -> None:
        """Put the words that went out, and what waits, into the buffer: for the checks that look back."""
        past = "".join(self._past).encode()
        self._past.clear()
        start = self._start + len(past)
        buffer = self._buffer + past
        if start > KEEP:
            buffer = buffer[start - MARGIN :]
            self._trail.shift(start - MARGIN)
            start = MARGIN
        self._buffer = buffer + held.encode()
        self._start = start


def masked_text(buffer: bytes, start: int, decided: int, findings: Sequence[Finding], replace: Replace) -> str:
    """Return ``buffer`` from ``start`` to ``decided`` with each finding replaced."""
    parts: list[bytes] = []
    at = start
    for low, high, detector in findings:
        word = replace(detector, buffer[low:high].decode(*CODEC))
        if word is not None:
            parts += (buffer[at:low], word.encode(*CODEC))
            at = high
    parts.append(buffer[at:decided])
    return b"".join(parts).decode(*CODEC)
