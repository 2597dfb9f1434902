"""The chunked transfer coding, read strictly: what two parsers could understand differently is refused.

RFC 9112, section 7.1. Chunk extensions and trailers are allowed, bounded, and thrown away.
"""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;%b(?:=(?:%b|%b))?)*\Z" % (_TOKEN, _TOKEN, _QUOTED))
_TRAILER: Final = re.compile(_TOKEN + rb":[\t -~\x80-\xff]*\Z")
MAX_LINE: Final = 1024
MAX_TRAILERS: Final = 8 * 1024

_HEAD, _DATA, _TAIL, _TRAILERS, _END = range(5)


class BadChunk(ValueError):
    """The body's framing is broken; nothing after it can be trusted."""


class ChunkedDecoder:
    """Take the chunked coding off a body, sans-IO.

    ``feed`` returns the data within what it is given and raises :class:`BadChunk`; after ``done``,
    ``rest`` holds the bytes that follow the body.
    """

    __slots__ = ("_left", "_line", "_state", "_trailers", "done", "rest")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self._state = _HEAD
        self._left = 0
        self._line = b""
        self._trailers = 0

    def feed(self, data: bytes) -> bytes:
        """Return the body's bytes found in ``data``."""
        out: list[bytes] = []
        at = 0
        end = len(data)
        while at < end:
            if self._state == _DATA:
                piece = data[at : at + self._left]
                out.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _TAIL
                continue
            newline = data.find(b"\n", at)
            if newline < 0:
                self._line += data[at:]
                self._check_open_line()
                break
            line = self._line + data[at : newline + 1]
            self._line = b""
            at = newline + 1
            if self._take(line):
                self.rest = data[at:]
                break
        return out[0] if len(out) == 1 else b"".join(out)

    def _check_open_line(self) -> None:
        line = self._line
        if len(line) > MAX_LINE:
            raise BadChunk("a line of the chunked body is too long")
        if b"\r" in line[:-1] or (self._state == _TAIL and line not in (b"", b"\r")):
            raise BadChunk("a chunk does not end where its size says")

    def _take(self, line: bytes) -> bool:
        """Act on one line, its end included; tell whether the body is over."""
        if len(line) > MAX_LINE:
            raise BadChunk("a line of the chunked body is too long")
        if line[-2:] != b"\r\n":
            raise BadChunk("a line of the chunked body does not end in CRLF")
        line = line[:-2]
        state = self._state
        if state == _TAIL:
            if line:
                raise BadChunk("a chunk does not end where its size says")
            self._state = _HEAD
        elif state == _HEAD:
            size = _SIZE.match(line)
            if size is None:
                raise BadChunk("a chunk's size is not a hexadecimal number")
            self._left = int(size[1], 16)
            self._state = _DATA if self._left else _TRAILERS
        elif line:
            self._trailers += len(line)
            if self._trailers > MAX_TRAILERS or _TRAILER.match(line) is None:
                raise BadChunk("the trailer of the chunked body is malformed")
        else:
            self._state = _END
            self.done = True
        return self.done
