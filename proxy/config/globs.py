"""Globs for model names: what they may look like, and whether they can match anything."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

_REGEX: Final = re.compile(r"[\^$\\()|+{},;]")
_WILD: Final = re.compile(r"[*?\[\]]+")


def complaint(glob: str) -> str | None:
    """Return what is wrong with the glob itself, None if nothing is."""
    if not glob or glob != glob.strip():
        return "a glob must not be empty or begin or end with a blank"
    if match := _REGEX.search(glob):
        return f"`{match[0]}` is not part of a glob; `*` stands for any characters, `?` for one"
    if glob.rfind("[") > glob.rfind("]"):
        return "the `[` is not closed; it begins a set of characters such as `[45]`"
    if glob.startswith("!"):
        return "a glob cannot exclude; list the models that may be used"
    if glob.startswith("/") or glob.endswith("/"):
        return "a glob with `/` means provider/model, and one of the two is missing; write `provider/*` for all of its models"
    return None


def unknown_provider(glob: str, providers: Iterable[str]) -> str | None:
    """Return the provider part of ``provider/model`` if no configured provider matches it."""
    part, slash, _ = glob.partition("/")
    if not slash or any(fnmatchcase(name, part) for name in providers):
        return None
    return part


def literal(globs: Iterable[str]) -> frozenset[str]:
    """Return the models that ``globs`` name in full, without their providers."""
    return frozenset(glob.partition("/")[2] or glob for glob in globs if not _WILD.search(glob))


def near_miss(glob: str, names: Iterable[str]) -> str | None:
    """Return the glob that was probably meant, if ``glob`` matches none of ``names`` but resembles one."""
    names = list(names)
    if "/" in glob or any(fnmatchcase(name, glob) for name in names):
        return None
    stem = _WILD.split(glob)[0]
    if len(stem) < 4:
        return None
    for name in names:
        lengths = (len(name),) if glob == stem else (len(stem), len(stem) + 1, len(stem) - 1)
        for length in lengths:
            if _slip(stem, name[:length]):
                return name[:length] + glob[len(stem) :]
    return None


def _slip(word: str, meant: str) -> bool:
    """Return whether one letter of ``meant`` was changed, left out, doubled or swapped with the next.

    Digits tell versions apart, and so does what is added at the end: neither is a slip.
    """
    if word == meant or word.startswith(meant) or meant.startswith(word):
        return False
    if len(word) == len(meant):
        differ = [i for i, (a, b) in enumerate(zip(word, meant, strict=True)) if a != b]
        if len(differ) == 1:
            return not word[differ[0]].isdigit() and not meant[differ[0]].isdigit()
        return len(differ) == 2 and word[differ[0]] == meant[differ[1]] and word[differ[1]] == meant[differ[0]]
    short, long = sorted((word, meant), key=len)
    return len(long) - len(short) == 1 and any(
        long[:i] + long[i + 1 :] == short and not long[i].isdigit() for i in range(len(long))
    )
