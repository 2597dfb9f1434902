"""RE2's syntax as a small tree, to derive from a pattern what RE2 itself cannot tell.

RE2 has no partial match. From the tree of a pattern we derive three things: the longest text it can match, a
cheaper pattern that every matching text also contains (a prefilter), and the pattern of *beginnings*: every text
that may still grow into a match. Anchored to the end of what a stream has brought so far, the last one says
exactly from where text has to wait.

Syntax: https://github.com/google/re2/wiki/Syntax.
"""

from __future__ import annotations

from typing import Final

from policies.redact.alphabet import PatternError
from policies.redact.atoms import Assertion, Atom, Node
from policies.redact.nodes import INFINITY, Choice, Flags, Repeat, Sequence

__all__ = ["INFINITY", "Node", "PatternError", "parse"]

_NOTHING: Final = "`{}` has nothing to repeat"


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.depth = 0
        #: Case has stopped to matter somewhere before: s and k may be wider than a byte.
        self.folded = False

    def parse(self) -> Node:
        node = self.choice()
        if self.at < len(self.pattern):
            raise PatternError("a `)` has no matching `(`")
        return node

    def choice(self) -> Node:
        self.depth += 1
        if self.depth > 100:
            raise PatternError("groups are nested more than 100 levels deep")
        flags: list[str] = []  # (?i) holds to the end of its group, over the alternatives that follow
        options = [self.sequence(flags)]
        while self.peek() == "|":
            self.at += 1
            before = list(flags)
            node = self.sequence(flags)
            for word in reversed(before):
                node = Flags(word, node)
            options.append(node)
        self.depth -= 1
        return options[0] if len(options) == 1 else Choice(options)

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def sequence(self, flags: list[str]) -> Node:
        parts: list[Node] = []
        while (char := self.peek()) and char not in "|)":
            node = self.item()
            if isinstance(node, str):
                flags.append(node)
                parts.append(Flags(node, self.sequence(flags)))
                break
            parts.append(self.quantified(node))
        return parts[0] if len(parts) == 1 else Sequence(parts)

    def quantified(self, node: Node) -> Node:
        while True:
            char = self.peek()
            if char == "*":
                low, high = 0, INFINITY
            elif char == "+":
                low, high = 1, INFINITY
            elif char == "?":
                low, high = 0, 1
            elif char == "{" and (bounds := self.bounds()):
                low, high = bounds
                self.at -= 1
            else:
                return node
            self.at += 1
            lazy = self.peek() == "?"
            self.at += lazy
            node = Repeat(node, low, high, lazy)

    def bounds(self) -> tuple[int, int] | None:
        end = self.pattern.find("}", self.at)
        low, comma, high = self.pattern[self.at + 1 : end].partition(",") if end > 0 else ("", "", "")
        if not low.isdecimal() or not (high == "" or high.isdecimal()):
            return None  # RE2 takes such a brace literally
        self.at = end + 1
        return int(low), int(high) if high else INFINITY if comma else int(low)

    def counted(self) -> bool:
        """Tell whether something is repeated here: behind ``(?i)`` or ``\\Q\\E``, RE2 would repeat what stands before them."""
        at = self.at
        found = self.peek() in tuple("*+?") or (self.peek() == "{" and self.bounds() is not None)
        self.at = at
        return found

    def item(self) -> Node | str:
        """Return the next piece; a string is a change of flags such as ``(?i)``."""
        char = self.pattern[self.at]
        if char == "(":
            return self.group()
        if char == "[":
            return self.character_class()
        if char == "\\":
            return self.escape()
        if self.counted():
            raise PatternError(_NOTHING.format(char))
        self.at += 1
        if char in "^$":
            return Assertion(char)
        return Atom("\\" + char if char in "{}" else char, self.folded)

    def group(self) -> Node | str:
        self.at += 1
        flags = None
        if self.peek() == "?":
            end = self.at + 1
            if self.pattern.startswith(("?P<", "?<"), self.at) and self.pattern[end : end + 2] not in ("<=", "<!"):
                end = self.pattern.find(">", end)
                if end < 0:
                    raise PatternError("a group's name is not closed")
                self.at = end + 1
            else:
                while self.pattern[end : end + 1] in ("i", "m", "s", "U", "-"):
                    end += 1
                flags = self.pattern[self.at + 1 : end]
                self.folded |= "i" in flags
                closer = self.pattern[end : end + 1]
                if closer == ")" and flags:
                    self.at = end + 1
                    return flags
                if closer != ":":
                    raise PatternError(
                        f"`({self.pattern[self.at : end + 1]}` is not part of RE2's syntax (it has no look-around)"
                    )
                self.at = end + 1
        node = self.choice()
        if self.peek() != ")":
            raise PatternError("a `(` is not closed")
        self.at += 1
        return Flags(flags, node) if flags else node if isinstance(node, Choice) else Sequence([node])

    def character_class(self) -> Node:
        start = self.at
        self.at += 1
        if self.peek() == "^":
            self.at += 1
        first = True
        while (char := self.peek()) != "]" or first:
            if not char:
                raise PatternError("a `[` is not closed")
            first = False
            if char == "\\":
                self.at += 2
            elif char == "[" and self.pattern[self.at + 1 : self.at + 2] == ":":
                end = self.pattern.find(":]", self.at)
                self.at = end + 2 if end > 0 else self.at + 1
            else:
                self.at += 1
        self.at += 1
        return Atom(self.pattern[start : self.at], self.folded)

    def escape(self) -> Node | str:
        pattern, start = self.pattern, self.at
        char = pattern[start + 1 : start + 2]
        self.at += 2
        if not char:
            raise PatternError("it ends with a lone backslash")
        if char in "AzbB":
            return Assertion(pattern[start : self.at])
        if char == "Q":
            end = pattern.find("\\E", self.at)
            literal = pattern[self.at : end if end >= 0 else None]
            behind = pattern[end + 2 :] if end >= 0 else ""
            # Each character by itself: what counts behind them counts the last one only.
            plain = "".join("\\" + c if not c.isalnum() and c.isascii() else c for c in literal)
            self.pattern, self.at = pattern[:start] + plain + behind, start
            if literal:
                return self.item()
            if self.counted():
                raise PatternError(_NOTHING.format(self.peek()))
            return Sequence([])
        if char == "C":
            raise PatternError("`\\C` matches single bytes, which text does not have")
        if char in "pPx" and pattern[self.at : self.at + 1] == "{":
            self.at = pattern.find("}", self.at) + 1 or len(pattern)
        elif char == "x":
            self.at += 2
        elif char in "pP":
            self.at += 1
        elif char in "01234567":
            while self.at < start + 4 and pattern[self.at : self.at + 1] in tuple("01234567"):
                self.at += 1
        return Atom(pattern[start : self.at], self.folded)


def parse(pattern: str) -> Node:
    """Return the tree of ``pattern``; raise :class:`PatternError` where it is not RE2's syntax."""
    return _Parser(pattern).parse()
