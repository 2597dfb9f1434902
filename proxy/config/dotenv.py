"""``.env.llm`` and ``.env``: variables in files, for development.

One ``NAME=value`` a line, optionally after ``export``. Unquoted values end at `` #``; ``'…'`` is literal;
``"…"`` knows ``\\n``, ``\\t``, ``\\"`` and ``\\\\``. Nothing is expanded, no value spans lines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

from proxy.config.problem import ConfigError, Problem

FILES: Final = (".env.llm", ".env")
_LINE: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_DOUBLE: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SINGLE: Final = re.compile(r"'([^']*)'")
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}
_COMMENT: Final = re.compile(r"(?:^|\s+)#.*$")


def parse(text: str, file: str) -> dict[str, str]:
    """Return the variables of a dotenv file; the last of a repeated name counts.

    Raises:
        ConfigError: a line is no assignment, with its number.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        value = _value(match[2].strip()) if match else None
        if match is None or value is None:
            reason = "a quotation mark is not closed" if match else "a line must read `NAME=value`"
            problems.append(Problem(file, number, match[1] if match else "", reason))
        else:
            found[match[1]] = value
    if problems:
        raise ConfigError(problems)
    return found


def _value(text: str) -> str | None:
    quote = text[:1]
    if quote not in ("'", '"'):
        return _COMMENT.sub("", text)
    match = (_DOUBLE if quote == '"' else _SINGLE).match(text)
    if match is None or _COMMENT.sub("", text[match.end() :]).strip():
        return None
    if quote == "'":
        return match[1]
    return _ESCAPE.sub(lambda m: _ESCAPES.get(m[1], m[1]), match[1])


def environment(environ: Mapping[str, str], folder: str) -> dict[str, str]:
    """Return all variables: the process's own win, then ``.env.llm``, then ``.env`` of ``folder``."""
    result: dict[str, str] = {}
    problems: list[Problem] = []
    for name in reversed(FILES):
        try:
            with open(os.path.join(folder, name), encoding="utf-8-sig") as handle:
                result.update(parse(handle.read(), name))
        except ConfigError as error:
            problems.extend(error.problems)
        except UnicodeDecodeError:
            problems.append(Problem(name, 0, "", "the file is not UTF-8 text"))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
        except OSError as error:
            problems.append(Problem(name, 0, "", f"the file cannot be read ({error.strerror})"))
    if problems:
        raise ConfigError(problems)
    result.update(environ)
    return result
