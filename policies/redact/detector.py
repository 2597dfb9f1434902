"""One thing to look for: a pattern, what it is replaced with, and how a candidate is confirmed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import re2
from re2 import _re2

from policies.redact.alphabet import SPACE, characters
from policies.redact.gates import SIGN, SIGNS
from policies.redact.runs import LONG_RUN, holds_long_run, holds_one_of
from policies.redact.syntax import Node, PatternError, parse

#: Bytes that a candidate's check may look at before the match, and that a stream therefore keeps.
CONTEXT: Final = 96
#: Bytes that a match of a built-in detector without a bound of its own may take: a private key has some thousand.
CAP: Final = 16_384
#: Bytes before a match in which its detector's ``after`` is looked for.
NEAR: Final = 64
#: What a candidate costs that is turned down (see :mod:`policies.redact.search`).
WEIGHT: Final = 192
MEDIUM: Final = 256
DEAR: Final = 384

#: Bytes of the widest character.
_WIDEST: Final = 4
#: What is more than itself in a pattern.
_SPECIAL: Final = "\\.[](){}*+?|^$"
Span = tuple[int, int]


def options(*, captures: bool = True, memory: int = 8 << 20) -> Any:
    """Return RE2's options as every pattern here is compiled with them."""
    wanted = re2.Options()
    wanted.log_errors = False
    wanted.never_capture = not captures
    wanted.max_mem = memory
    return wanted


class Hit:
    """A candidate: where in the UTF-8 text the pattern matched. ``value`` is what would be replaced."""

    __slots__ = ("end", "secret", "spans", "start", "text")

    def __init__(self, text: bytes, spans: list[Span], secret: int) -> None:
        self.text = text
        self.spans = spans
        self.start, self.end = spans[0]
        self.secret = spans[secret] if spans[secret][0] >= 0 else spans[0]

    @property
    def value(self) -> str:
        return self.text[self.secret[0] : self.secret[1]].decode("utf-8", "replace")

    @property
    def before(self) -> bytes:
        """Return the text before the match, at most :data:`CONTEXT` bytes."""
        return self.text[max(0, self.start - CONTEXT) : self.start]

    @property
    def after(self) -> bytes:
        """Return the byte after the match, empty at the text's end."""
        return self.text[self.end : self.end + 1]

    def group(self, n: int) -> str:
        start, end = self.spans[n]
        return "" if start < 0 else self.text[start:end].decode("utf-8", "replace")


#: True, False, or the part of the text to replace (inside the match).
Verdict = bool | Span
Check = Callable[[Hit], Verdict]


class Detector:
    """A pattern with a name.

    ``secret`` is the group that is replaced (0: the whole match). ``check`` confirms a candidate. Overlapping
    findings are settled by ``priority``, then length, then position. ``cap`` bounds a match in bytes where the
    pattern does not, ``longest`` in characters. ``hint`` is a cheaper pattern that occurs wherever this one does, best one that
    counts little before its first characters are known; ``gate`` is one of :mod:`policies.redact.gates` that must occur
    for the hint to be looked for at all, by default a long run or a sign if each match holds one; ``core`` is one that occurs
    inside of each match, ``after`` one that must occur in the :data:`NEAR` bytes before it. ``aligned`` says that matches begin where words or signs do. ``yields``: a candidate that
    begins inside of another detector's finding of higher priority is not checked. ``weight`` is what a candidate
    that is turned down costs, in bytes of the text's budget: some 36 for a microsecond. Raise
    :class:`PatternError` for a pattern that RE2 does not take, or that matches the empty text.
    """

    __slots__ = (
        "_hint", "after", "back", "bounded", "cap", "check", "core", "first", "gate", "group", "literal", "longest", "mark", "match", "name", "node", "pattern", "priority",
        "replacement", "scan", "secret", "weight", "word", "yields",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        pattern: str,
        *,
        group: str = "",
        replacement: str = "[API_KEY]",
        priority: int = 70,
        secret: int = 0,
        check: Check | None = None,
        hint: str = "",
        gate: str = "",
        cap: int = CAP,
        longest: int = 0,
        aligned: bool = False,
        core: str = "",
        after: str = "",
        weight: int = WEIGHT,
        yields: bool = False,
    ) -> None:
        self.name = name
        self.pattern = pattern
        self.group = group
        self.replacement = replacement
        #: What a hash or a number is put to; brackets only around it.
        self.word = replacement.replace("[", "").replace("]", "") or "REDACTED"
        #: The same where it is given back: an upstream that writes JSON must find nothing to escape in it.
        self.mark = self.word if re.fullmatch("[A-Za-z0-9 ._:-]+", self.word) else "REDACTED"
        self.priority = priority
        self.secret = secret
        self.check = check
        try:
            compiled = _re2.RE2(pattern.encode(), options())
        except UnicodeEncodeError:
            raise PatternError("it holds half of a surrogate pair") from None
        if not compiled.ok():
            error = compiled.error()
            raise PatternError(f"RE2 does not take it: {error.decode() if isinstance(error, bytes) else error}")
        if not 0 <= secret <= compiled.NumberOfCapturingGroups():
            raise PatternError(f"it has no group {secret}")
        self.match = compiled.Match
        #: The same without groups, where it has some: much faster.
        self.scan = self.match if compiled.NumberOfCapturingGroups() == 0 else compile_union([pattern], memory=8 << 20)
        self.node: Node = parse(pattern)
        if self.node.least == 0:
            raise PatternError("it matches the empty text, and so everywhere")
        #: The most characters of a match, where that is not its most bytes.
        self.longest = longest if self.node.wide else 0
        self.cap = longest * _WIDEST if self.longest else longest or cap
        self.bounded = self.node.most <= longest if self.longest else self.node.size <= self.cap
        self._hint = hint
        self.gate = gate or (LONG_RUN if holds_long_run(self.node) else SIGN * holds_one_of(self.node, SIGNS))
        self.core = compile_union([core]) if core else None
        #: No match is without it, and none begins more than `back` bytes before it.
        self.literal, self.back = core.encode() if core and not set(core) & set(_SPECIAL) else b"", self.cap
        if not self.literal and len(lead := self.node.lead()[0]) > 1:
            self.literal, self.back = lead, 0
        self.after = compile_union([after]) if after else None
        self.weight = weight
        self.yields = yields
        self.first = frozenset() if aligned else _inside(self.node)

    @property
    def reach(self) -> int:
        """Return the most bytes that an open match can have."""
        return min(self.node.size, self.cap)

    @property
    def hint(self) -> str:
        return self._hint or self.node.hint()

    @property
    def delay(self) -> int:
        """Return how many characters a stream may have to wait while a match of this detector is still open."""
        return min(self.node.most, self.longest or self.cap)


def _inside(node: Node) -> frozenset[int]:
    """Return the first bytes of matches that may begin elsewhere than where a word or a sign begins.

    A byte beyond ASCII stands for all of them.
    """
    found: set[int] = set()
    for head in node.heads():
        matched = characters(head.flagged)
        found |= matched & SPACE  # \\b is where a word ends, too: white space may begin a match there
        if not head.word:
            found |= {byte for byte in matched if byte == 128 or chr(byte).isalnum() or chr(byte) == "_"}
    return frozenset(found)


def compile_union(patterns: list[str], memory: int = 64 << 20) -> Callable[..., list[Span]]:
    """Return the matcher of any of ``patterns``."""
    union = "|".join(f"(?:{pattern})" for pattern in patterns)
    compiled = _re2.RE2(union.encode(), options(captures=False, memory=memory))
    if not compiled.ok():
        raise PatternError(f"the patterns are too large together: {compiled.error()!r}")
    matcher: Callable[..., list[Span]] = compiled.Match
    return matcher
