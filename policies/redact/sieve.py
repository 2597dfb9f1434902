"""Which detectors can find anything in a text at all: cheap prefilters, asked before any pattern runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from re2 import _re2

from policies.redact.detector import Detector, compile_union, options
from policies.redact.runs import LONG_RUN

_ANYWHERE: Final = _re2.RE2.Anchor.UNANCHORED
_NEVER: Final = "[^\\x00-\\x{10FFFF}]"
#: At the end only: what a set finds it notes at each place anew, and so a pattern that matches everywhere doubles its cost.
#: RE2's sets answer "nothing" when they run out of memory, and with this "not even that".
_ALWAYS: Final = rb"\z"
#: What a set may take, in bytes: first what all but the largest need.
_MEMORY: Final = (64 << 20, 256 << 20)


def _compiled(patterns: Sequence[bytes]) -> Any:
    """Return the set of ``patterns``, None if they are too large together: asked all the same, RE2 ends the process."""
    for memory in _MEMORY:
        made = _re2.Set(_ANYWHERE, options(captures=False, memory=memory))
        for pattern in patterns:
            made.Add(pattern)
        if made.Compile():
            return made
    return None


class _Family:
    """Detectors whose hints one automaton looks for."""

    __slots__ = ("_none", "_set", "members")

    def __init__(self, hints: Sequence[str], members: Sequence[int]) -> None:
        self.members = list(members)
        """The place, among all detectors, of each one whose hint is here."""
        self._set = _compiled([*(hint.encode() for hint in hints), _ALWAYS])
        self._none = [len(hints)]

    def occur(self, text: bytes) -> Sequence[int] | None:
        """Return which hints occur in ``text``, None if that cannot be told."""
        if self._set is None:
            return None
        found: list[int] = self._set.Match(text)
        if found == self._none:
            return ()
        last = self._none[0]
        return [n for n in found if n != last] if last in found else None


def _kind(detector: Detector) -> str:
    """Return whose patterns a detector's stays among, so that they make no states of the automaton beside others'."""
    if detector.group in ("own", "packs"):
        return "own"
    if detector.gate == LONG_RUN and detector.node.lead()[0]:
        return "led"  # by a word of its own: alive at few places of a text
    return "built-in"


class Sieve:
    """The hints of a set of detectors: in families, each asked only where its gate occurs."""

    __slots__ = ("_any", "_first", "_gated", "_long", "_others", "_run", "_runs", "_size")

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self._size = len(detectors)
        self._long = [n for n, detector in enumerate(detectors) if detector.hint == LONG_RUN]
        """Places of the detectors that are asked wherever a long run is: it is all that can be told beforehand."""
        families: dict[tuple[str, str], list[int]] = {}
        for n, detector in enumerate(detectors):
            if detector.hint != LONG_RUN:
                families.setdefault((detector.gate, _kind(detector)), []).append(n)
        hints = [f"(?:{detector.hint})" for detector in detectors]
        free = families.pop(("", "built-in"), [])
        own = families.get(("", "own"), [])
        built = {key: _Family([hints[n] for n in members], members) for key, members in families.items()}
        self._others = [one for (gate, _), one in built.items() if not gate]
        """Asked always."""
        self._runs = [one for (gate, _), one in built.items() if gate == LONG_RUN]
        gates = [f"(?:{gate})" for gate, _ in built if gate not in ("", LONG_RUN)]
        self._gated = [one for (gate, _), one in built.items() if gate not in ("", LONG_RUN)]
        first = gates + [hints[n] for n in free]
        self._first = _Family(first, free)
        self._run = compile_union([LONG_RUN]) if self._long or self._runs else None
        self._any = compile_union(first + [hints[n] for n in own] or [_NEVER])

    def pass_on(self, text: bytes, start: int, size: int) -> Sequence[int]:
        """Return the places of the detectors that can find anything in ``text`` from ``start`` on, in order.

        What lies before ``start`` may add some for nothing.
        """
        run = self._run
        long = run is not None and run(_ANYWHERE, text, start, size)[0][0] >= 0
        if start and not long and self._any(_ANYWHERE, text, start, size)[0][0] < 0:
            return ()  # a set cannot be asked from a place on
        first = self._first.occur(text)
        if first is None:
            return range(self._size)
        asked = [*self._others]
        found: list[int] = []
        gated = self._gated
        for n in first:
            if n < len(gated):
                asked.append(gated[n])
            else:
                found.append(self._first.members[n - len(gated)])
        if long:
            found += self._long
            asked += self._runs
        for family in asked:
            occur = family.occur(text)
            members = family.members
            found += members if occur is None else [members[n] for n in occur]
        found.sort()
        return found
