"""Words for what pydantic complains about."""

from __future__ import annotations

import re
from typing import Any, Final

REQUIRED: Final = "this key is required"
_CLASS: Final = re.compile(r"\^\[A-Za-z0-9(.*)\]\{\d,(\d+)\}\$")
_DIGITS: Final = re.compile(r"\\d(?:\{(\d)\})?")
_SHAPE: Final = re.compile(r"\^([-/.:0]+)\$")
KINDS: Final = {
    "string": "a text", "int": "a whole number", "float": "a number", "bool": "true or false",
    "list": "a list", "tuple": "a list", "set": "a list", "frozen_set": "a list", "dict": "keys with values",
    "model": "keys with values", "mapping": "keys with values",
}  # fmt: skip


def pattern(regex: str) -> str:
    """Return what a pattern asks for, in words for a plain class of characters."""
    if match := _CLASS.fullmatch(regex):
        signs = match[1].replace("\\", "")
        return f"this takes letters, digits and `{signs}`, at most {match[2]} characters"
    if match := _SHAPE.fullmatch(_DIGITS.sub(lambda digits: "0" * int(digits[1] or 1), regex)):
        return f"this must look like {match[1]}"
    return f"this must match `{regex}`"


def kind(error: str) -> str:
    """Return which kind of value was expected: ``int`` for ``int_type`` and ``int_parsing``."""
    for suffix in ("_type", "_parsing", "_parsing_size"):
        if error.endswith(suffix):
            return error.removesuffix(suffix)
    return ""


def not_boolean(raw: Any) -> str:
    """Return what to write in place of ``raw`` where a boolean is wanted."""
    word = str(raw).strip().lower()
    if isinstance(raw, str) and word in ("yes", "on", "y"):
        return f"`{raw}` is a text in YAML 1.2; write true"
    if isinstance(raw, str) and word in ("no", "off", "n"):
        return f"`{raw}` is a text in YAML 1.2; write false"
    return "this must be true or false"


def number(value: Any) -> str:
    """Return a bound as people write it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def unit(value: Any) -> str:
    """Return the unit of the bound that ``value`` breaks: a number with a unit of its own is a time or a size."""
    if not isinstance(value, str) or not value[-1:].isalpha():
        return ""
    return " bytes" if value.endswith("B") else " seconds"
