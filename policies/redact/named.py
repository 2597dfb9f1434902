"""A text with a name, such as a member of ``metadata``: looked at as JSON would write it, its name before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from policies.redact.lanes import CODEC
from policies.redact.search import Finding, Trail

Decide = Callable[[bytes, int, bool, Trail], tuple[int, Sequence[Finding]]]
#: What a value may stand in: whichever it does not hold itself.
_QUOTES: Final = (b'"', b"'", b"`")
#: A longer name is none that anybody gives a key.
_LONGEST: Final = 128


def named(decide: Decide, name: str, value: bytes, trail: Trail) -> Sequence[Finding]:
    """Return what is found in ``value`` where it stands behind ``name``; the name itself is another text."""
    quote = next((quote for quote in _QUOTES if quote not in value), None)
    if quote is None or len(name) > _LONGEST:
        return decide(value, 0, True, trail)[1]
    before = b'"' + name.encode(*CODEC) + b'": ' + quote
    n, size = len(before), len(value)
    return [
        Finding(max(found.start - n, 0), min(found.end - n, size), found.detector)
        for found in decide(before + value + quote, 0, True, trail)[1]
        if found.start < n + size and found.end > n
    ]
