"""Durations, sizes and secrets as llm.yml writes them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, SecretStr

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w|mo|y)?")
_SECONDS: Final = {
    None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0,
    "mo": 2_678_400.0, "y": 31_622_400.0,
}  # fmt: skip
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|KiB|MiB|GiB)?")
_BYTES: Final = {
    None: 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3
}  # fmt: skip


def parse_duration(value: Any) -> float:
    """Return seconds from ``30``, ``30s``, ``5m``, ``1h``, ``1d``, ``2w``, ``13mo`` or ``100ms``."""
    if isinstance(value, bool):
        raise ValueError("a duration is a number of seconds, or a number with ms, s, m, h or d, such as 30s")
    if isinstance(value, int | float):
        if value < 0:
            raise ValueError("a duration cannot be negative")
        return float(value)
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip().replace("_", ""))):
        return float(match[1]) * _SECONDS[match[2]]
    raise ValueError("a duration is a number of seconds, or a number with ms, s, m, h or d, such as 30s")


def parse_size(value: Any) -> int:
    """Return bytes from ``1048576``, ``20MiB`` or ``1GB``."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip().replace("_", ""))):
        return int(float(match[1]) * _BYTES[match[2]])
    raise ValueError("a size is a number of bytes, or a number with KiB, MiB or GiB, such as 20MiB")


Duration = Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=float | str)]
"""Seconds."""
Size = Annotated[int, BeforeValidator(parse_size, json_schema_input_type=int | str)]
"""Bytes."""
Secret = SecretStr
"""A string that never shows in a repr, a log or /admin/config."""
