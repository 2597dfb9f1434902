"""The tree of a pattern, and what can be derived from it."""

from __future__ import annotations

from itertools import takewhile
from typing import Final

from policies.redact.alphabet import LONG_WORD, Head
from policies.redact.atoms import Assertion, Atom, Node

INFINITY: Final = 1 << 40


class Sequence(Node):
    __slots__ = ("parts",)

    def __init__(self, parts: list[Node]) -> None:
        super().__init__(
            sum(p.least for p in parts),
            min(INFINITY, sum(p.most for p in parts)),
            min(INFINITY, sum(p.size for p in parts)),
            any(p.wide for p in parts),
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
            run = run + part.least if part.word() else 0
            if run >= LONG_WORD:
                return True
        return False

    def word(self) -> bool:
        return all(part.word() for part in self.parts)

    def lead(self) -> tuple[bytes, bool]:
        found = b""
        for part in self.parts:
            begun, whole = part.lead()
            found += begun
            if not whole:
                return found, False
        return found, True

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
            min(o.least for o in options),
            max(o.most for o in options),
            max(o.size for o in options),
            any(o.wide for o in options),
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

    def word(self) -> bool:
        return all(option.word() for option in self.options)

    def heads(self) -> list[Head]:
        return [head for option in self.options for head in option.heads()]

    def lead(self) -> tuple[bytes, bool]:
        (lead, whole), *others = (option.lead() for option in self.options)
        for begun, ends in others:
            whole &= ends and begun == lead
            while not begun.startswith(lead):
                lead = lead[:-1]
        return lead, whole

    def begun(self) -> str:
        return "(?:" + "|".join(o.begun() for o in self.options) + ")"


_CLASSES: Final = frozenset("\\" + c for c in "dDwWsSpPC")

#: A prefilter counts no further than this: long counters make many automaton states.
_LEAST: Final = 8
#: Counters beyond this are left out of the beginnings of matches, for runs that white space ends anyway.
_COUNT: Final = 8


class Repeat(Node):
    __slots__ = ("high", "lazy", "low", "node")

    def __init__(self, node: Node, low: int, high: int, lazy: bool) -> None:
        super().__init__(node.least * low, min(INFINITY, node.most * high), min(INFINITY, node.size * high), node.wide)
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
        return self.node.word() and self.least >= LONG_WORD

    def word(self) -> bool:
        return self.node.word()

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
        if self.high < 2:
            return self.node.begun() if self.high else ""
        return _repeat(self.node.loose(), 0, self.high if self.high == INFINITY else self.high - 1) + self.node.begun()


class Flags(Node):
    """A group with flags of its own, ``(?i:…)``."""

    __slots__ = ("flags", "node")

    def __init__(self, flags: str, node: Node) -> None:
        super().__init__(node.least, node.most, node.size, node.wide)
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

    def word(self) -> bool:
        return self.node.word()

    def lead(self) -> tuple[bytes, bool]:
        return (b"", False) if "i" in self.flags else self.node.lead()

    def heads(self) -> list[Head]:
        return [head._replace(flagged=f"(?{self.flags}:{head.flagged})") for head in self.node.heads()]

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
