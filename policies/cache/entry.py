"""An answer as the store keeps it: when it was given, and the whole completion in OpenAI's shape.

A recorded stream is folded into the completion that says the same, so one entry serves both forms.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import inf
from typing import Any, Final, NamedTuple

import orjson

from policies.base import Chunk
from proxy.shape import Fold

_HEAD: Final = struct.Struct(">2sd")
_FORM: Final = b"a1"
#: An answer that ended otherwise is cut, filtered or broken.
KEPT_FINISHES: Final = frozenset(("stop", "tool_calls"))


class Entry(NamedTuple):
    """A kept answer and the wall time at which it was given."""

    at: float
    chunk: Chunk


def pack(record: Sequence[bytes], *, whole: bool, at: float, known: bool = False) -> bytes | None:
    """Return the entry for an answer's chunks, None if it is none to be kept.

    ``known``: a whole answer is known to be :func:`complete`, so that nobody has to look again.
    """
    if not record:
        return None
    if whole:
        body = record[0]
        if known:
            return _HEAD.pack(_FORM, at) + body
        data = orjson.loads(body)
    else:
        fold = Fold()
        for raw in record:
            fold.feed(Chunk(orjson.loads(raw)))
        data = fold.whole().data
        body = orjson.dumps(data)
    return _HEAD.pack(_FORM, at) + body if complete(data) else None


def complete(data: dict[str, Any]) -> bool:
    """Tell whether every choice came to its natural end; embeddings have none."""
    choices = data.get("choices")
    if choices is None:
        return type(data.get("data")) is list and bool(data["data"])
    if type(choices) is not list or not choices:
        return False
    return all(type(choice) is dict and choice.get("finish_reason") in KEPT_FINISHES for choice in choices)


def unpack(value: bytes) -> Entry | None:
    """Return what :func:`pack` packed, None for anything else: a shared store may hold it."""
    if len(value) < _HEAD.size or value[:2] != _FORM:
        return None
    (_, at), body = _HEAD.unpack_from(value), value[_HEAD.size :]
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(data) is not dict or not complete(data) or not 0 <= at < inf:
        return None
    return Entry(at, Chunk(data, body, whole=True))
