"""What a caller wants of the cache: the request's ``cache-control`` header (RFC 9111, section 5.2.1)."""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple


class Wish(NamedTuple):
    """``read`` an entry of at most ``max_age`` seconds; ``keep`` the answer."""

    read: bool = True
    keep: bool = True
    max_age: float = inf


ANY: Final = Wish()


def wish(header: str) -> Wish:
    """Return what ``header`` asks for: ``no-store`` nothing of the cache, ``no-cache`` a fresh answer (which is
    kept), ``max-age=N`` none older than N seconds. Unknown directives mean nothing.
    """
    read, keep, max_age = True, True, inf
    for part in header.lower().split(","):
        name, _, value = part.strip().partition("=")
        name, value = name.strip(), value.strip().strip('"')
        if name == "no-store":
            read = keep = False
        elif name == "no-cache":
            read = False
        elif name == "max-age":
            # A value that is no number counts as stale, one beyond all bounds as very large (RFC 9111, 4.2.1 and 1.2.2).
            max_age = min(max_age, float(value) if value.isascii() and value.isdigit() else 0.0)
    if max_age <= 0:
        read = False
    return Wish(read, keep, max_age)
