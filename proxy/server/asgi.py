"""ASGI's ``receive`` and ``send`` over a request's wire: for Starlette's routes, off the hot path."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from proxy.errors import ApiError
from proxy.server.hub import Message
from proxy.server.wire import Wire

if TYPE_CHECKING:
    from proxy.server.body import Body
    from proxy.server.head import Head


class AsgiSide(Wire):
    """Speak ASGI (HTTP, spec 2.3) by means of the wire's own methods."""

    head: Head
    body: bytes | None
    incoming: Body | None
    complete: bool

    _start: tuple[int, bytes, int | None] | None = None
    """Status, header lines and declared length of a reply that ``send`` was told of and did not write yet."""
    _left: int | None = None
    """Bytes that a reply of declared length still owes."""

    async def receive(self) -> Message:
        """Return the next piece of the request's body, or ``http.disconnect``."""
        while not (self.gone or self.complete):
            incoming = self.incoming
            if incoming is None:
                if self.body is not None:
                    body, self.body = self.body, None
                    return {"type": "http.request", "body": body, "more_body": False}
            elif incoming.error is not None:
                self.refuse(incoming.error)
                break
            elif incoming.waiting or incoming.done:
                return {"type": "http.request", "body": self.take_piece(), "more_body": not incoming.done}
            else:
                self.ask_for_body()
            await self.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Write a part of the reply; nothing once the client is gone."""
        if self.gone or self.complete:
            return
        if message["type"] == "http.response.start":
            self._start = self._lines(message["status"], message.get("headers", ()))
            return
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        if not self.started:
            if self._start is None:
                raise RuntimeError("the reply's body came before its start")
            self._send_first(*self._start, body, more)
        elif self._left is not None:
            self._send_counted(body, more)
        else:
            if body:
                self.write(body)
            if not more:
                self.end()
        if self.paused:
            await self.drain()

    def _send_first(self, status: int, lines: bytes, length: int | None, body: bytes, more: bool) -> None:
        if not more and (length is None or length == len(body) or self.head.is_head):
            if self.head.is_head and length is not None:
                lines += b"content-length: %d\r\n" % length
            self.reply(status, lines, body)
        elif length is None:
            self.start(status, lines)
            if body:
                self.write(body)
        else:
            self._left = length
            self.start_counted(status, lines + b"content-length: %d\r\n" % length)
            self._send_counted(body, more)

    def _send_counted(self, body: bytes, more: bool) -> None:
        assert self._left is not None
        self._left -= len(body)
        if self._left < 0 or (self._left and not more):
            raise RuntimeError("the reply is not as long as its content-length says")
        if not self.head.is_head:
            self.write_raw(body)
        if not more:
            self.end_counted()

    @staticmethod
    def _lines(status: int, headers: Any) -> tuple[int, bytes, int | None]:
        length: int | None = None
        lines: list[bytes] = []
        for name, value in headers:
            lower = name.lower()
            if b"\n" in value or b"\r" in value or b"\0" in value or not name or b"\n" in name or b":" in name:
                raise RuntimeError("a header of the reply is malformed")
            if lower == b"content-length":
                length = int(value)
            elif lower not in (b"connection", b"transfer-encoding", b"keep-alive"):  # those are the server's
                lines.append(b"%b: %b\r\n" % (lower, value))
        return status, b"".join(lines), length

    # what the cycle provides
    def ask_for_body(self) -> None:
        """Let the client send the body, against the clock."""
        raise NotImplementedError

    def take_piece(self) -> bytes:
        """Return what has arrived of the body."""
        raise NotImplementedError

    def wait(self) -> asyncio.Future[None]:
        """Return a future that is done when the body grew or the client left."""
        raise NotImplementedError

    def refuse(self, error: ApiError) -> None:
        """Reply with the server's own error."""
        raise NotImplementedError

    def start_counted(self, status: int, lines: bytes) -> None:
        """Write the head of a reply of declared length."""
        raise NotImplementedError

    def write_raw(self, data: bytes) -> None:
        """Write bytes as they are."""
        raise NotImplementedError

    def end_counted(self) -> None:
        """End a reply of declared length."""
        raise NotImplementedError
