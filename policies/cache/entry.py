"""An answer as the store keeps it: when it was given, and the whole completion in OpenAI's shape.

A recorded stream is folded into the completion that says the same, so one entry serves both forms.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import inf
from typing import Any, Final
from zlib import crc32

import orjson

from policies.base import Chunk
from proxy.shape import Fold

#: Form, wall time, checksum of the answer: what is no entry, or was cut, is found out without parsing it.
_HEAD: Final = struct.Struct(">2sdI")
_FORM: Final = b"a2"
_HEAD_SIZE: Final = _HEAD.size
#: An answer that ended otherwise is cut, filtered or broken.
KEPT_FINISHES: Final = frozenset(("stop", "tool_calls"))


class Kept(Chunk):
    """A kept answer, parsed when somebody looks into it: most go out as they came."""

    __slots__ = ()

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.whole = True

    def __getattr__(self, name: str) -> Any:
        if name != "data":
            raise AttributeError(name)
        assert self.raw is not None
        data: dict[str, Any] = orjson.loads(self.raw)
        self.data = data
        return data


def pack(record: Sequence[bytes], *, whole: bool, at: float, known: bool = False) -> bytes | None:
    """Return the entry for an answer's chunks, None if it is none to be kept.

    ``known``: a whole answer is known to be :func:`complete`, so that nobody has to look again.
    """
    if not record:
        return None
    if whole:
        body = record[0]
        if known:
            return _packed(body, at)
        data = orjson.loads(body)
    else:
        fold = Fold()
        for raw in record:
            fold.feed(Chunk(orjson.loads(raw)))
        data = fold.whole().data
        body = orjson.dumps(data)
    return _packed(body, at) if complete(data) else None


def _packed(body: bytes, at: float) -> bytes:
    return _HEAD.pack(_FORM, at, crc32(body)) + body


def complete(data: dict[str, Any]) -> bool:
    """Tell whether every choice came to its natural end; embeddings have none."""
    choices = data.get("choices")
    if choices is None:
        return type(data.get("data")) is list and bool(data["data"])
    if type(choices) is not list or not choices:
        return False
    for choice in choices:  # noqa: SIM110 - a generator costs as much as all the rest
        if type(choice) is not dict or choice.get("finish_reason") not in KEPT_FINISHES:
            return False
    return True


def unpack(value: bytes) -> tuple[float, Chunk] | None:
    """Return what :func:`pack` packed: the wall time, and the answer; None for anything else that a store may hold."""
    if len(value) <= _HEAD_SIZE:
        return None
    form, at, checksum = _HEAD.unpack_from(value)
    body = value[_HEAD_SIZE:]
    if form != _FORM or crc32(body) != checksum or not 0 <= at < inf:
        return None
    return at, Kept(body)
