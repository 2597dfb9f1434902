"""``${NAME}``, ``${NAME:-default}``, ``${file:/path}`` and ``${fernet:TOKEN}`` inside scalars.

Expansion happens after parsing, on one scalar at a time: whatever a variable holds, it stays that scalar's
text and can add no key, no list item and no second expansion.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.config.document import Document
from proxy.config.environment import VARIABLES
from proxy.config.problem import Path, did_you_mean

FERNET_KEYS: Final = "LLM_SIDECAR_FERNET_KEYS"
MAX_FILE: Final = 1 << 16

_OPEN: Final = re.compile(r"\$(\$?)\{")
_INNER: Final = re.compile(
    r"(?:(?P<scheme>file|fernet):(?P<what>[^}]*?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*))(?P<default>:-[^}]*)?\}"
)
_BARE: Final = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Unset:
    """What stands for a scalar whose variable is not set, or set to nothing."""

    __slots__ = ("empty", "reason", "suggestion")

    def __init__(self, reason: str, suggestion: str | None = None, *, empty: bool = False) -> None:
        self.reason = reason
        self.suggestion = suggestion
        self.empty = empty
        """The file says itself that nothing may stand there: ``${NAME:-}``."""

    def sentence(self) -> str:
        """Return what to do about it where a value is needed."""
        return (
            self.reason if self.suggestion else f"{self.reason}; set it, or give a default as in `${{NAME:-default}}`"
        )


class _Broken(Exception):
    """An expansion that cannot be made; the message says why."""


@dataclass(slots=True)
class Expander:
    """Expand the scalars of a document, noting mistakes in it.

    ``whole`` holds the paths of scalars that are one expansion and nothing else (their type is the
    setting's, not YAML's); ``touched`` those with any expansion (their values are never printed);
    ``broken`` those whose expansion failed and was complained about.
    """

    document: Document
    environ: Mapping[str, str]
    folder: str
    whole: set[Path] = field(default_factory=set)
    touched: set[Path] = field(default_factory=set)
    broken: set[Path] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    """The variables that the document names."""
    files: set[str] = field(default_factory=set)
    """Full paths of the files that were read."""
    _fernet: Any = None

    def expand(self, value: Any, path: Path) -> Any:
        """Return ``value`` with its expansions made; :class:`Unset` where a whole scalar has none."""
        if type(value) is dict:
            return {key: self.expand(item, (*path, key)) for key, item in value.items()}
        if type(value) is list:
            return [self.expand(item, (*path, i)) for i, item in enumerate(value)]
        if type(value) is str and "$" in value:
            return self._scalar(value, path)
        return value

    def _scalar(self, text: str, path: Path) -> Any:
        if _BARE.fullmatch(text):
            self.document.add(path, f"`{text}` is taken literally; write `${{{text[1:]}}}` for the variable's value")
            return text
        pieces: list[str] = []
        position = 0
        try:
            while opening := _OPEN.search(text, position):
                pieces.append(text[position : opening.start()])
                if opening[1]:
                    pieces.append("${")
                    position = opening.end()
                    continue
                inner = _INNER.match(text, opening.end())
                if inner is None:
                    raise _Broken(
                        "`${` begins an expansion such as `${NAME}`, `${NAME:-default}` or `${file:/path}`; "
                        "write `$${` for the characters themselves"
                    )
                self.touched.add(path)
                whole = opening.start() == 0 and inner.end() == len(text)
                found = self._lookup(inner)
                if whole:
                    self.whole.add(path)
                    return found
                if isinstance(found, Unset):
                    if found.empty:
                        position = inner.end()
                        continue
                    self.broken.add(path)
                    self.document.add(path, found.sentence(), found.suggestion)
                    return ""
                pieces.append(found)
                position = inner.end()
        except _Broken as broken:
            self.broken.add(path)
            self.document.add(path, str(broken))
            return ""
        pieces.append(text[position:])
        return "".join(pieces)

    def _lookup(self, match: re.Match[str]) -> str | Unset:
        default = match["default"]
        if match["scheme"] == "file":
            value = self._file(match["what"], default is not None)
        elif match["scheme"] == "fernet":
            value = self._decrypt(match["what"])
        else:
            value = self._variable(match["name"])
        if not isinstance(value, Unset) or default is None:
            return value
        return default[2:] if len(default) > 2 else Unset(value.reason, empty=True)

    def _variable(self, name: str) -> str | Unset:
        self.asked.add(name)
        value = self.environ.get(name)
        if value is None:
            near = None if name in VARIABLES else did_you_mean(name, {*self.environ, *VARIABLES}, 0.85)
            return Unset(f"the environment variable {name} is not set", near)
        if not value.strip():
            return Unset(f"the environment variable {name} is empty")
        if _CONTROL.search(value):
            raise _Broken(f"the value of the environment variable {name} holds a line break or control character")
        return value

    def _file(self, name: str, optional: bool) -> str | Unset:
        if not name.strip():
            raise _Broken("`${file:` needs the path of a file, such as `${file:/run/secrets/key}`")
        full = os.path.join(self.folder, os.path.expanduser(name))
        self.files.add(full)
        try:
            with open(full, "rb") as handle:
                data = handle.read(MAX_FILE + 1)
        except OSError as error:
            if optional:
                return Unset(f"the file {name} cannot be read")
            raise _Broken(f"the file {name} cannot be read ({error.strerror})") from None
        if len(data) > MAX_FILE:
            raise _Broken(f"the file {name} is larger than {MAX_FILE >> 10} KiB")
        try:
            text = data.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            raise _Broken(f"the file {name} is not UTF-8 text") from None
        return text if text.strip() else Unset(f"the file {name} is empty")

    def _decrypt(self, token: str) -> str:
        if self._fernet is None:
            self._fernet = fernet(self.environ)
        # cryptography costs 30 ms to import; only who uses it pays.
        from cryptography.fernet import InvalidToken

        try:
            plain: bytes = self._fernet.decrypt(token.strip().encode())
        except (InvalidToken, ValueError):
            raise _Broken(f"the Fernet token opens with none of the keys in {FERNET_KEYS}") from None
        return plain.decode("utf-8", "replace")


def fernet(environ: Mapping[str, str]) -> Any:
    """Return the ``MultiFernet`` of ``LLM_SIDECAR_FERNET_KEYS``: a comma list, the first key encrypts."""
    keys = [key.strip() for key in environ.get(FERNET_KEYS, "").split(",") if key.strip()]
    if not keys:
        raise _Broken(f"{FERNET_KEYS} is not set; it must hold the key that encrypted this token")
    from cryptography.fernet import Fernet, MultiFernet

    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        raise _Broken(f"{FERNET_KEYS} must be a comma list of Fernet keys (32 bytes in url-safe base64)") from None


FernetError = _Broken
