"""A piece of a pattern, and the smallest ones: single characters and conditions of no width."""

from __future__ import annotations

from policies.redact.alphabet import BETWEEN, QUIET, SPACE, Head, characters


class Node:
    """A piece of a pattern.

    ``least`` and ``most`` are the lengths it can match, in characters; ``size`` the most in bytes of UTF-8. ``wide``:
    a match may hold characters of more than a byte.
    """

    __slots__ = ("least", "most", "size", "wide")

    def __init__(self, least: int, most: int, size: int, wide: bool = False) -> None:
        self.least = least
        self.most = most
        self.size = size
        self.wide = wide

    def text(self) -> str:
        """Return the pattern without captures."""
        raise NotImplementedError

    def relaxed(self) -> str:
        """Return a cheaper pattern that is found wherever this one is."""
        return self.text()

    def hint(self) -> str:
        """Return a pattern that is found, somewhere, in every text in which this one is found."""
        return self.relaxed()

    def loose(self) -> str:
        """Return the pattern with the long counters of :meth:`begun` left out."""
        return self.text()

    def begun(self) -> str:
        """Return a pattern of every beginning of a match, from nothing at all to the whole.

        It may match a little more than that, never less.
        """
        raise NotImplementedError

    def loud(self) -> bool:
        """Tell whether every match holds a character beyond letters, spaces, commas and apostrophes, or a long word."""
        return False

    def word(self) -> bool:
        """Tell whether every match is a single word, or holds something loud."""
        return False

    def opening(self) -> str:
        """Return a pattern of the characters that every match begins with, empty if there are too few to tell."""
        return ""

    def heads(self) -> list[Head]:
        """Return what a match can begin with: each possible first character, and whether a word begins there."""
        return []

    def lead(self) -> tuple[bytes, bool]:
        """Return the characters of ASCII that every match begins with, and whether they are all there is to it."""
        return b"", False


class Atom(Node):
    """One character, class or escape: exactly one character wide; ``folded``: whatever its case."""

    __slots__ = ("matched", "raw")

    def __init__(self, raw: str, folded: bool = False) -> None:
        #: What it matches, as :func:`characters` tells it: a long s without case is any s.
        self.matched = characters(f"(?i:{raw})" if folded else raw)
        wide = 128 in self.matched
        super().__init__(1, 1, 4 if wide else 1, wide)
        self.raw = raw

    @property
    def solid(self) -> bool:
        """Tell whether this matches no white space."""
        return self.matched.isdisjoint(SPACE)

    def word(self) -> bool:
        return self.matched.isdisjoint(BETWEEN)

    def text(self) -> str:
        return self.raw

    def begun(self) -> str:
        return self.raw + "?"

    def heads(self) -> list[Head]:
        return [Head(self.raw, self.raw, False)]

    def lead(self) -> tuple[bytes, bool]:
        matched = characters(self.raw)
        return (bytes(matched), True) if len(matched) == 1 and 128 not in matched else (b"", False)

    def loud(self) -> bool:
        return self.matched.isdisjoint(QUIET)


class Assertion(Node):
    """A condition of no width: anchors and word boundaries."""

    __slots__ = ("raw",)

    def __init__(self, raw: str) -> None:
        super().__init__(0, 0, 0)
        self.raw = raw

    def text(self) -> str:
        return self.raw

    def begun(self) -> str:
        return ""

    def word(self) -> bool:
        return True

    def lead(self) -> tuple[bytes, bool]:
        return b"", True
