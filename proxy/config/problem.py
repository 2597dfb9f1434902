"""Mistakes in a configuration, as sentences with a place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""Where a value stands: keys and list positions from the top of the document."""

_BARE = re.compile(r"[^\s.\[\]\"']+")


def key_path(path: Path) -> str:
    """Return ``policies[2].rate_limit.requests`` for ``("policies", 2, "rate_limit", "requests")``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = step if _BARE.fullmatch(step) else f'"{step}"'
            text += f".{name}" if text else name
    return text


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the name among ``known`` that ``word`` most likely stands for, None if none is near."""
    by_lower = {name.lower(): name for name in known if name != word}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[near[0]] if near else None


def listed(names: Iterable[str], last: str = "or") -> str:
    """Return names as prose: ```a`, `b` or `c```."""
    quoted = [f"`{name}`" for name in names]
    if len(quoted) < 2:
        return "".join(quoted)
    return f"{', '.join(quoted[:-1])} {last} {quoted[-1]}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the file, its line (0 where there is none), the key and a sentence."""

    file: str
    line: int
    key_path: str
    message: str
    suggestion: str | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        where = f"{place}: {self.key_path}" if self.key_path else place
        hint = f"; did you mean `{self.suggestion}`?" if self.suggestion else ""
        return f"{where}: {self.message}{hint}"

    def as_dict(self) -> dict[str, str | int | None]:
        """Return the problem for ``check --json``."""
        return {
            "file": self.file,
            "line": self.line or None,
            "key": self.key_path,
            "message": self.message,
            "suggestion": self.suggestion,
        }


class ConfigError(Exception):
    """A configuration that cannot be used, with everything that is wrong about it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = list(problems)
