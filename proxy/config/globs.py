"""Globs for model names: what they may look like, and whether they can match anything."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from proxy.config.problem import did_you_mean

_REGEX: Final = re.compile(r"[\^$\\()|+]")
_WILD: Final = re.compile(r"[*?\[\]]+")


def complaint(glob: str) -> str | None:
    """Return what is wrong with the glob itself, None if nothing is."""
    if not glob or glob != glob.strip():
        return "a glob must not be empty or begin or end with a blank"
    if match := _REGEX.search(glob):
        return f"`{match[0]}` is not part of a glob; `*` stands for any characters, `?` for one"
    return None


def unknown_provider(glob: str, providers: Iterable[str]) -> str | None:
    """Return the provider part of ``provider/model`` if no configured provider matches it."""
    part, slash, _ = glob.partition("/")
    if not slash or any(fnmatchcase(name, part) for name in providers):
        return None
    return part


def near_miss(glob: str, names: Iterable[str]) -> str | None:
    """Return the glob that was probably meant, if ``glob`` matches none of ``names`` but resembles one."""
    names = list(names)
    if "/" in glob or any(fnmatchcase(name, glob) for name in names):
        return None
    stem = _WILD.split(glob)[0]
    if len(stem) < 3:
        return None
    # A longer name is a version of a known one, not a slip of the keyboard.
    starts = {name[: len(stem)] for name in names if abs(len(name) - len(stem)) < 3 or glob != stem}
    near = did_you_mean(stem, starts - {stem}, 0.75)
    if near is None or stem.startswith(near) or (sorted(stem) != sorted(near) and not _one_slip(stem, near)):
        return None
    return near + glob[len(stem) :]


def _one_slip(word: str, other: str) -> bool:
    """Return whether one letter was changed, added or left out (digits are versions, not slips)."""
    if len(word) == len(other):
        differ = [(a, b) for a, b in zip(word, other, strict=True) if a != b]
        return len(differ) == 1 and not any(c.isdigit() for c in differ[0])
    short, long = sorted((word, other), key=len)
    return len(long) - len(short) == 1 and any(
        long[:i] + long[i + 1 :] == short and not long[i].isdigit() for i in range(len(long))
    )
