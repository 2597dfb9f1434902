"""Read HTTP replies strictly: what is no proper reply raises, so that a test sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_HEAD = 262_144
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*")
_HEADER = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([^\r\n\x00]*?)[ \t]*")


class Broken(Exception):
    """The peer sent what is no HTTP/1.1 reply."""


@dataclass(slots=True)
class Reply:
    """One reply. ``complete`` is False where the connection ended before the message did."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False

    def header(self, name: str) -> str | None:
        """Return the only value of a header; AssertionError if it came twice."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) < 2, f"{name} came {len(found)} times"
        return found[0] if found else None

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """Return ``error.code`` of an OpenAI-shaped error; AssertionError where the body is none."""
        return openai_error(self)["code"]


def openai_error(reply: Reply) -> dict[str, Any]:
    """Return the ``error`` object; AssertionError unless it has exactly OpenAI's four fields, well typed."""
    assert (reply.header("content-type") or "").startswith("application/json"), (
        reply.status,
        reply.headers,
        reply.body[:200],
    )
    error: dict[str, Any] = json.loads(reply.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    assert isinstance(error["message"], str) and error["message"], error
    assert isinstance(error["type"], str) and isinstance(error["code"], str), error
    assert error["param"] is None or isinstance(error["param"], str), error
    return error


class ReplyReader:
    """Turn bytes into replies: ``feed`` returns those completed, ``eof`` the one that the end completes or breaks.

    ``body_so_far`` grows while a reply's body arrives; ``head_in`` tells that its head is in.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._reply: Reply | None = None
        self._left: int | None = 0
        self._mode = "head"
        self._body: list[bytes] = []
        self.heads_only = False

    @property
    def current(self) -> Reply | None:
        """Return the reply under way, its body as far as it came."""
        if self._reply is not None:
            self._reply.body = b"".join(self._body)
        return self._reply

    @property
    def rest(self) -> bytes:
        """Return bytes that belong to no reply yet."""
        return self._buffer

    def feed(self, data: bytes) -> list[Reply]:
        self._buffer += data
        done: list[Reply] = []
        while True:
            step = getattr(self, f"_{self._mode}")()
            if step is None:
                return done
            if step is not True:
                done.append(step)

    def eof(self) -> Reply | None:
        """Return the reply that was under way: complete only if it was delimited by the connection's end."""
        if self._reply is None:
            if self._buffer:
                raise Broken(f"bytes that are no reply: {self._buffer[:200]!r}")
            return None
        reply = self.current
        assert reply is not None
        if self._mode == "until_end":
            reply.complete = True
        self._reply = None
        return reply

    def _head(self) -> Any:
        end = self._buffer.find(b"\r\n\r\n")
        if max(end, len(self._buffer) if end < 0 else 0) > MAX_HEAD:
            raise Broken("a head without end")
        if end < 0:
            if self._buffer and not b"HTTP/1.1 ".startswith(self._buffer[:9]):
                raise Broken(f"no status line: {self._buffer[:200]!r}")
            return None
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        first, *lines = head.split(b"\r\n")
        if not (match := _STATUS.fullmatch(first)):
            raise Broken(f"no status line: {first[:200]!r}")
        reply = Reply(int(match[1]))
        for line in lines:
            if not (found := _HEADER.fullmatch(line)):
                raise Broken(f"no header: {line[:200]!r}")
            reply.headers.append((found[1].decode().lower(), found[2].decode("latin-1")))
        if reply.status < 200:
            reply.complete = True
            return reply
        self._reply = reply
        self._body = []
        length, coding = reply.header("content-length"), reply.header("transfer-encoding")
        if length is not None and coding is not None:
            raise Broken("content-length and transfer-encoding together")
        if coding is not None:
            if coding != "chunked":
                raise Broken(f"transfer-encoding {coding}")
            self._mode = "chunk_size"
        elif reply.status in (204, 304) or self.heads_only:
            return self._complete()
        elif length is not None:
            self._left = int(length)
            self._mode = "counted"
            if not self._left:
                return self._complete()
        else:
            self._mode = "until_end"
        return True

    def _complete(self) -> Reply:
        reply = self.current
        assert reply is not None
        reply.complete = True
        self._reply = None
        self._mode = "head"
        return reply

    def _counted(self) -> Any:
        if not self._buffer:
            return None
        assert self._left is not None
        piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._left -= len(piece)
        self._body.append(piece)
        return None if self._left else self._complete()

    def _until_end(self) -> Any:
        if self._buffer:
            self._body.append(self._buffer)
            self._buffer = b""
        return None

    def _chunk_size(self) -> Any:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return None
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", line):
            raise Broken(f"no chunk size: {line[:50]!r}")
        self._left = int(line, 16)
        self._mode = "chunk" if self._left else "trailer"
        return True

    def _chunk(self) -> Any:
        assert self._left is not None
        if len(self._buffer) < self._left + 2:
            return None
        if self._buffer[self._left : self._left + 2] != b"\r\n":
            raise Broken("a chunk that does not end where it says")
        self._body.append(self._buffer[: self._left])
        self._buffer = self._buffer[self._left + 2 :]
        self._mode = "chunk_size"
        return True

    def _trailer(self) -> Any:
        if len(self._buffer) < 2:
            return None
        if self._buffer[:2] != b"\r\n":
            raise Broken("trailers, which nobody asked for")
        self._buffer = self._buffer[2:]
        return self._complete()


def sse(body: bytes) -> Iterator[tuple[str, str]]:
    """Yield ``(event, data)`` of each complete server-sent event; comments and a last, unfinished one are left out."""
    text = body.decode("utf-8")
    *whole, _ = text.replace("\r\n", "\n").split("\n\n")
    for block in whole:
        event, data = "", []
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                event = value
            elif name == "data":
                data.append(value)
        if data:
            yield event, "\n".join(data)


@dataclass(slots=True)
class StreamSeen:
    """A chat stream as a client saw it."""

    chunks: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    done: int = 0
    after_end: int = 0
    """Events after ``[DONE]`` or an error frame: must be none."""

    @property
    def text(self) -> str:
        return "".join(
            choice.get("delta", {}).get("content") or ""
            for chunk in self.chunks
            for choice in chunk.get("choices") or ()
            if not choice.get("index")
        )

    @property
    def numbers(self) -> list[int]:
        """Return the numbers of the numbered chunks, in the order seen."""
        return [int(word) for word in self.text.split() if word != "pad"]

    @property
    def finish(self) -> str | None:
        return next(
            (c["finish_reason"] for chunk in self.chunks for c in chunk["choices"] if c.get("finish_reason")), None
        )

    @property
    def usage(self) -> list[dict[str, Any]]:
        return [chunk["usage"] for chunk in self.chunks if chunk.get("usage")]


def stream(body: bytes) -> StreamSeen:
    """Return what a chat stream's body says; AssertionError for an event that is no JSON object."""
    seen = StreamSeen()
    for _, data in sse(body):
        if seen.done or seen.errors:
            seen.after_end += 1
        if data == "[DONE]":
            seen.done += 1
            continue
        chunk = json.loads(data)
        assert isinstance(chunk, dict), chunk
        if "error" in chunk:
            assert set(chunk["error"]) == {"message", "type", "param", "code"}, chunk
            seen.errors.append(chunk["error"])
        else:
            seen.chunks.append(chunk)
    return seen
