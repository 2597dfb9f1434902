"""What every match of a pattern holds: a long run, as nearly every key does and little else, or one of some characters."""

from __future__ import annotations

from typing import Final, NamedTuple

from policies.redact.alphabet import characters
from policies.redact.atoms import Assertion, Atom, Node
from policies.redact.nodes import Choice, Flags, Repeat, Sequence

#: What a run consists of, and from where on it is a long one.
RUN: Final = "[A-Za-z0-9_/+~-]"
LONG: Final = 15
LONG_RUN: Final = f"{RUN}{{{LONG}}}"
_RUN: Final = characters(RUN)


class _Least(NamedTuple):
    """What every match has at least: the run it begins with, ends with, and the longest; ``whole``: it is a run itself."""

    whole: bool
    head: int
    tail: int
    best: int


_NONE: Final = _Least(False, 0, 0, 0)
_EMPTY: Final = _Least(True, 0, 0, 0)


def holds_long_run(node: Node) -> bool:
    """Tell whether every match of the pattern holds what :data:`LONG_RUN` matches."""
    return _least(node).best >= LONG


def holds_one_of(node: Node, wanted: frozenset[int]) -> bool:
    """Tell whether every match of the pattern holds one of these bytes of ASCII."""
    if isinstance(node, Atom):
        return not node.wide and characters(node.raw) <= wanted
    if isinstance(node, Flags):
        return holds_one_of(node.node, wanted)
    if isinstance(node, Choice):
        return all(holds_one_of(option, wanted) for option in node.options)
    if isinstance(node, Repeat):
        return node.low > 0 and holds_one_of(node.node, wanted)
    return isinstance(node, Sequence) and any(holds_one_of(part, wanted) for part in node.parts)


def _least(node: Node) -> _Least:
    if isinstance(node, Atom):
        return _Least(True, 1, 1, 1) if not node.wide and characters(node.raw) <= _RUN else _NONE
    if isinstance(node, Assertion):
        return _EMPTY
    if isinstance(node, Flags):
        return _least(node.node)
    if isinstance(node, Choice):
        options = [_least(option) for option in node.options]
        return _Least(all(o.whole for o in options), *(min(o[i] for o in options) for i in (1, 2, 3)))
    if isinstance(node, Repeat):
        one = _least(node.node)
        if one.whole:
            return _Least(True, *(node.low * one.best,) * 3)
        if node.low == 0:
            return _NONE
        return one if node.low == 1 else one._replace(best=max(one.best, one.tail + one.head))
    assert isinstance(node, Sequence)
    found = _EMPTY
    for part in node.parts:
        one = _least(part)
        found = _Least(
            found.whole and one.whole,
            found.head + one.head if found.whole else found.head,
            found.tail + one.tail if one.whole else one.tail,
            max(found.best, one.best, found.tail + one.head),
        )
    return found
