"""A request's body while it is still arriving."""

from __future__ import annotations

from typing import Final

from proxy.errors import ApiError
from proxy.server.chunked import BadChunk, ChunkedDecoder

_SMALL: Final = 4 * 1024
_BLOCK: Final = 64 * 1024


class Body:
    """Collect a body by its declared ``length``, or chunked where that is None. Sans-IO.

    Small pieces are copied together: a body that comes byte by byte must not cost an object per byte.
    ``error`` is what to refuse the request with, once its framing or size turned out bad.
    """

    __slots__ = ("_chunked", "_parts", "_tail", "done", "error", "length", "limit", "received", "taken")

    def __init__(self, length: int | None) -> None:
        self.length = length
        self.limit: int | None = None
        self.received = 0
        self.taken = 0
        self.done = False
        self.error: ApiError | None = None
        self._chunked = ChunkedDecoder() if length is None else None
        self._parts: list[bytes | bytearray] = []
        self._tail = bytearray()

    @property
    def waiting(self) -> int:
        """Return how many bytes were received and not taken yet."""
        return self.received - self.taken

    def feed(self, data: bytes) -> bytes:
        """Add received bytes; return those beyond the body's end."""
        rest = b""
        if self._chunked is None:
            assert self.length is not None
            left = self.length - self.received
            if len(data) > left:
                rest = data[left:]
                data = data[:left]
            self._add(data)
            self.done = self.received == self.length
        else:
            try:
                self._add(self._chunked.feed(data))
            except BadChunk as reason:
                self.error = ApiError("invalid_request", f"The request body is broken: {reason}; send it again.")
                return b""
            if self._chunked.done:
                self.done = True
                rest = self._chunked.rest
        if self.limit is not None and self.received > self.limit:
            self.error = too_large(self.limit)
        return rest

    def _add(self, data: bytes) -> None:
        self.received += len(data)
        if len(data) < _SMALL:
            self._tail += data
            if len(self._tail) < _BLOCK:
                return
            data = b""
        if self._tail:
            self._parts.append(self._tail)
            self._tail = bytearray()
        if data:
            self._parts.append(data)

    def take(self) -> bytes:
        """Return what was received since the last time."""
        if self._tail:
            self._parts.append(self._tail)
            self._tail = bytearray()
        parts = self._parts
        self._parts = []
        self.taken = self.received
        if len(parts) == 1 and type(parts[0]) is bytes:
            return parts[0]
        return b"".join(parts)


def too_large(limit: int) -> ApiError:
    """Return the refusal of a body above ``limit`` bytes."""
    return ApiError("request_too_large", f"The request body is larger than {limit} bytes; send a smaller one.")
