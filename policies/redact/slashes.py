"""Slashes as PHP's JSON writes them, ``https:\\/\\/``: looked at without their backslashes, found where they stand."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final

from policies.redact.search import Finding, Trail

Decide = Callable[[bytes, int, bool, Trail | None], tuple[int, Sequence[Finding]]]
#: What all such texts hold.
ESCAPED: Final = b"\\/"
#: JSON in JSON doubles the backslash of its own and adds one for it.
_ESCAPED: Final = re.compile(rb"(\\{1,3}+)/")


def without(decide: Decide, text: bytes, start: int, final: bool, trail: Trail | None) -> tuple[int, Sequence[Finding]]:
    """Return what ``decide`` does for ``text`` without the backslashes before slashes, in offsets of ``text``."""
    # No loop in Python over what there may be many of.
    pieces = _ESCAPED.split(text)
    plain = pieces[0::2]
    brief = b"/".join(plain)
    #: Where a slash stands in the short text, and how many bytes went up to there.
    places = [at + n for n, at in enumerate(accumulate(map(len, plain[:-1])))]
    gone = [0, *accumulate(map(len, pieces[1::2]))]
    count = range(len(places))

    def long(at: int) -> int:
        # A place right before a slash is before its backslash, too.
        return at + gone[bisect_left(places, at)]

    def short(at: int) -> int:
        n = bisect_left(count, at, key=lambda i: places[i] + gone[i])
        return max(at - gone[n], places[n - 1] if n else at)

    if trail is None:
        decided, findings = decide(brief, short(start), final, None)
    else:
        base = trail.base
        inner = Trail(
            {
                name: (level, short(max(last - base, 0)) + min(last - base, 0))
                for name, (level, last) in trail.levels.items()
            }
        )
        inner.need = trail.need - gone[-1]
        inner.resume = {name: short(at) for name, at in trail.resume.items()}
        decided, findings = decide(brief, short(start), final, inner)
        trail.resume = {name: long(at) for name, at in inner.resume.items()}
        trail.levels.update(
            {name: (level, base + (long(last) if last > 0 else last)) for name, (level, last) in inner.levels.items()}
        )
        trail.need = inner.need + gone[-1]
    return long(decided), [Finding(long(low), long(high), detector) for low, high, detector in findings]
