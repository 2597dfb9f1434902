"""Characters: what a class of a pattern matches, and which ones make a text worth a look."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

import re2
from re2 import _re2

#: What plain words consist of, and what may stand between them. Nothing of it makes a text worth a look.
QUIET: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz ,'\n\r\t")
BETWEEN: Final = frozenset(b" ,'\n\r\t")
SPACE: Final = frozenset(b" \t\n\r\v\f")
#: What is worth a look: a sign, a digit, or a long word. Every match of a :meth:`Node.loud` pattern holds one.
LOUD: Final = re.compile(rb"[^A-Za-z ,'\n\r\t]|[A-Za-z]{11}")
LONG_WORD: Final = 11


@lru_cache(maxsize=2_048)
def characters(raw: str) -> frozenset[int]:
    """Return the bytes below 128 that a character, class or escape matches; a byte above stands for all beyond."""
    if raw == ".":
        return frozenset(range(129))
    compiled = _re2.RE2(raw.encode(), _silent())
    if not compiled.ok():
        return frozenset(range(129))
    both = _re2.RE2.Anchor.ANCHOR_BOTH
    found = {byte for byte in range(128) if compiled.Match(both, bytes((byte,)), 0, 1)[0][0] == 0}
    bounded, _, last = compiled.PossibleMatchRange(4)
    if not bounded or last[:1] > b"\x7f":  # told by RE2, not by samples: a single ideograph or script counts
        found.add(128)
    return frozenset(found)


def _silent() -> re2.Options:
    wanted = re2.Options()
    wanted.log_errors = False
    return wanted


class PatternError(ValueError):
    """The pattern cannot be used; the message says why, in one sentence without its name."""


class Head(NamedTuple):
    """A possible first character: ``raw`` as a pattern, ``flagged`` in its groups' flags, ``word``: only where \\b holds."""

    raw: str
    flagged: str
    word: bool
