"""RE2's syntax as a small tree, to derive from a pattern what RE2 itself cannot tell.

RE2 has no partial match. From the tree of a pattern we derive three things: the longest text it can match, a
cheaper pattern that every matching text also contains (a prefilter), and the pattern of *beginnings*: every text
that may still grow into a match. Anchored to the end of what a stream has brought so far, the last one says
exactly from where text has to wait.

Syntax: https://github.com/google/re2/wiki/Syntax.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import takewhile
from typing import Final, NamedTuple

import re2
from re2 import _re2

INFINITY: Final = 1 << 40
#: What plain words consist of, and what may stand between them. Nothing of it makes a text worth a look.
_QUIET: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz ,'\n\r\t")
_BETWEEN: Final = frozenset(b" ,'\n\r\t")
_SPACE: Final = frozenset(b" \t\n\r\v\f")
#: What is worth a look: a sign, a digit, or a long word. Every match of a :meth:`Node.loud` pattern holds one.
LOUD: Final = re.compile(rb"[^A-Za-z ,'\n\r\t]|[A-Za-z]{11}")
_LONG_WORD: Final = 11


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
    for char in ("é", "я", "中", "😀"):
        text = char.encode()
        if compiled.Match(both, text, 0, len(text))[0][0] == 0:
            found.add(128)
    return frozenset(found)


def _silent() -> re2.Options:
    wanted = re2.Options()
    wanted.log_errors = False
    return wanted



class PatternError(ValueError):
    """The pattern cannot be used; the message says why, in one sentence without its name."""


class Head(NamedTuple):
    """A possible first character: ``raw`` as a pattern, ``flags`` around it, ``word``: only where \\b holds."""

    raw: str
    flags: str
    word: bool


class Node:
    """A piece of a pattern.

    ``least`` and ``most`` are the lengths it can match, in characters; ``size`` the most in bytes of UTF-8.
    """

    __slots__ = ("least", "most", "size")

    def __init__(self, least: int, most: int, size: int) -> None:
        self.least = least
        self.most = most
        self.size = size

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

    def opening(self) -> str:
        """Return a pattern of the characters that every match begins with, empty if there are too few to tell."""
        return ""

    def heads(self) -> list[Head]:
        """Return what a match can begin with: each possible first character, and whether a word begins there."""
        return []


class Atom(Node):
    """One character, class or escape: exactly one character wide."""

    __slots__ = ("raw",)

    def __init__(self, raw: str) -> None:
        super().__init__(1, 1, 4 if 128 in characters(raw) else 1)
        self.raw = raw

    @property
    def solid(self) -> bool:
        """Tell whether this matches no white space."""
        return characters(self.raw).isdisjoint(_SPACE)

    @property
    def wordlike(self) -> bool:
        """Tell whether a run of this is one word, or holds something loud."""
        return characters(self.raw).isdisjoint(_BETWEEN)

    def text(self) -> str:
        return self.raw

    def begun(self) -> str:
        return self.raw + "?"

    def heads(self) -> list[Head]:
        return [Head(self.raw, "", False)]

    def loud(self) -> bool:
        return characters(self.raw).isdisjoint(_QUIET)


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


class Sequence(Node):
    __slots__ = ("parts",)

    def __init__(self, parts: list[Node]) -> None:
        super().__init__(
            sum(p.least for p in parts), min(INFINITY, sum(p.most for p in parts)), min(INFINITY, sum(p.size for p in parts))
        )
        self.parts = parts

    def text(self) -> str:
        return "".join(p.text() for p in self.parts)

    def relaxed(self) -> str:
        return "".join(p.relaxed() for p in self.parts)

    def begun(self) -> str:
        result = ""
        for part in reversed(self.parts):
            # begun(xy) = begun(x) | x begun(y); for one character or an assertion x both fold into (?:x…)?
            if isinstance(part, Atom | Assertion):
                result = f"(?:{part.text()}{result})?" if result or isinstance(part, Atom) else ""
            elif not result:
                result = part.begun()
            else:
                result = f"(?:{part.loose()}{result}|{part.begun()})"
        return result


    def loose(self) -> str:
        return "".join(p.loose() for p in self.parts)

    def opening(self) -> str:
        first = self.parts[0] if self.parts else self
        if isinstance(first, Choice | Flags):
            return first.opening()
        head = list(takewhile(lambda part: isinstance(part, Atom | Assertion), self.parts))
        return "".join(p.text() for p in head) if sum(p.least for p in head) > 2 else ""

    def loud(self) -> bool:
        run = 0
        for part in self.parts:
            if part.loud():
                return True
            node = part.node if isinstance(part, Repeat) else part
            word = isinstance(part, Assertion) or (isinstance(node, Atom) and node.wordlike)
            run = run + part.least if word else 0
            if run >= _LONG_WORD:
                return True
        return False

    def heads(self) -> list[Head]:
        found: list[Head] = []
        word = False
        for part in self.parts:
            if isinstance(part, Assertion):
                word |= part.raw == "\\b"
                continue
            found += (head._replace(word=head.word or word) for head in part.heads())
            if part.least:
                break
        return found

    def hint(self) -> str:
        # A pattern that begins with a run but holds a word of its own is found by that word.
        if self.parts and isinstance(next((p for p in self.parts if not isinstance(p, Assertion)), None), Repeat):
            best = run = ""
            for part in [*self.parts, self.parts[0]]:
                if isinstance(part, Atom) and part.raw[0] != "[" and part.raw not in (".", *_CLASSES):
                    run += part.raw
                else:
                    best = max(best, run, key=len)
                    run = ""
            if len(best) > 3:
                return best
        return self.relaxed()


class Choice(Node):
    __slots__ = ("options",)

    def __init__(self, options: list[Node]) -> None:
        super().__init__(
            min(o.least for o in options), max(o.most for o in options), max(o.size for o in options)
        )
        self.options = options

    def text(self) -> str:
        return "(?:" + "|".join(o.text() for o in self.options) + ")"

    def relaxed(self) -> str:
        return "(?:" + "|".join(o.relaxed() for o in self.options) + ")"

    def hint(self) -> str:
        return "(?:" + "|".join(o.hint() for o in self.options) + ")"

    def loose(self) -> str:
        return "(?:" + "|".join(o.loose() for o in self.options) + ")"

    def opening(self) -> str:
        found = [option.opening() for option in self.options]
        return "(?:" + "|".join(found) + ")" if all(found) else ""

    def loud(self) -> bool:
        return all(option.loud() for option in self.options)

    def heads(self) -> list[Head]:
        return [head for option in self.options for head in option.heads()]

    def begun(self) -> str:
        return "(?:" + "|".join(o.begun() for o in self.options) + ")"


_CLASSES: Final = frozenset("\\" + c for c in "dDwWsSpPC")

#: A prefilter counts no further than this: words are shorter, and long counters make many automaton states.
_LEAST: Final = 24
#: Counters beyond this are left out of the beginnings of matches, for runs that white space ends anyway.
_COUNT: Final = 8


class Repeat(Node):
    __slots__ = ("high", "lazy", "low", "node")

    def __init__(self, node: Node, low: int, high: int, lazy: bool) -> None:
        super().__init__(node.least * low, min(INFINITY, node.most * high), min(INFINITY, node.size * high))
        self.node = node
        self.low = low
        self.high = high
        self.lazy = lazy

    def text(self) -> str:
        return _repeat(self.node.text(), self.low, self.high) + ("?" if self.lazy else "")

    def relaxed(self) -> str:
        high = INFINITY if self.high > 3 else self.high
        return _repeat(self.node.relaxed(), min(self.low, _LEAST), high)

    def loud(self) -> bool:
        if self.low and self.node.loud():
            return True
        return isinstance(self.node, Atom) and self.node.wordlike and self.low >= _LONG_WORD

    def heads(self) -> list[Head]:
        return self.node.heads()

    def loose(self) -> str:
        if isinstance(self.node, Atom) and self.high > _COUNT and self.node.solid:
            return _repeat(self.node.text(), self.low if self.low <= _COUNT else 0, INFINITY)
        return _repeat(self.node.loose(), self.low, self.high)

    def begun(self) -> str:
        if isinstance(self.node, Atom):
            # Long counters make the automaton large; a run without white space ends by itself soon enough.
            loose = self.high > _COUNT and self.node.solid
            return _repeat(self.node.text(), 0, INFINITY if loose else self.high)
        if self.high == 1:
            return self.node.begun()
        return _repeat(self.node.loose(), 0, self.high if self.high == INFINITY else self.high - 1) + self.node.begun()


class Flags(Node):
    """A group with flags of its own, ``(?i:…)``."""

    __slots__ = ("flags", "node")

    def __init__(self, flags: str, node: Node) -> None:
        super().__init__(node.least, node.most, node.size)
        self.flags = flags
        self.node = node

    def text(self) -> str:
        return f"(?{self.flags}:{self.node.text()})"

    def relaxed(self) -> str:
        return f"(?{self.flags}:{self.node.relaxed()})"

    def hint(self) -> str:
        return f"(?{self.flags}:{self.node.hint()})"

    def loose(self) -> str:
        return f"(?{self.flags}:{self.node.loose()})"

    def opening(self) -> str:
        found = self.node.opening()
        return f"(?{self.flags}:{found})" if found else ""

    def loud(self) -> bool:
        return self.node.loud()

    def heads(self) -> list[Head]:
        return [head._replace(flags=self.flags + head.flags) for head in self.node.heads()]

    def begun(self) -> str:
        return f"(?{self.flags}:{self.node.begun()})"


def _repeat(text: str, low: int, high: int) -> str:
    if low == high == 1:
        return text
    grouped = f"(?:{text})"
    if high == INFINITY:
        return grouped + ("*" if low == 0 else "+" if low == 1 else f"{{{low},}}")
    if high == 0:
        return ""
    return grouped + ("?" if (low, high) == (0, 1) else f"{{{low}}}" if low == high else f"{{{low},{high}}}")


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.depth = 0

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

    def item(self) -> Node | str:
        """Return the next piece; a string is a change of flags such as ``(?i)``."""
        char = self.pattern[self.at]
        if char == "(":
            return self.group()
        if char == "[":
            return self.character_class()
        if char == "\\":
            return self.escape()
        self.at += 1
        if char in "^$":
            return Assertion(char)
        if char in "*+?":
            raise PatternError(f"`{char}` has nothing to repeat")
        return Atom("\\" + char if char in "{}" else char)

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
                closer = self.pattern[end : end + 1]
                if closer == ")" and flags:
                    self.at = end + 1
                    return flags
                if closer != ":":
                    raise PatternError(
                        f"`({self.pattern[self.at:end + 1]}` is not part of RE2's syntax (it has no look-around)"
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
        return Atom(self.pattern[start : self.at])

    def escape(self) -> Node:
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
            self.at = end + 2 if end >= 0 else len(pattern)
            return Sequence([Atom("\\" + c if not c.isalnum() and c.isascii() else c) for c in literal])
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
        return Atom(pattern[start : self.at])


def parse(pattern: str) -> Node:
    """Return the tree of ``pattern``; raise :class:`PatternError` where it is not RE2's syntax."""
    return _Parser(pattern).parse()
