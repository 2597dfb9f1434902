"""One request and its reply on a connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from proxy.errors import ApiError
from proxy.server.asgi import AsgiSide
from proxy.server.body import Body, too_large
from proxy.server.refusal import STATUS_LINE

if TYPE_CHECKING:
    from proxy.server.head import Head
    from proxy.server.protocol import Protocol

_BODYLESS: Final = frozenset((204, 304))
_LARGE: Final = 16 * 1024
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE: Final = b"connection: close\r\n\r\n"
_RETRY_SECONDS: Final = 1.0
_LEFT: Final = "the client left"


class Cycle(AsgiSide):
    """A request's wire. It writes to its connection until the reply is ``complete`` or the client ``gone``.

    ``incoming`` is the body while parts of it are missing, else None; ``body`` the whole one, as received.
    """

    def __init__(self, connection: Protocol, head: Head, body: bytes | None, incoming: Body | None) -> None:
        self.connection = connection
        self.head = head
        self.body = body
        self.incoming = incoming
        # On the instance, though most stay as they are: read from the class each would cost three times as much.
        self.call = None
        self.gone = False
        self.paused = False
        self.started = False
        self.complete = False
        self.asked = False
        """The application waits for the body; ``whole``: for all of it."""
        self.whole = False
        self._waiter: asyncio.Future[None] | None = None
        self._chunked = True
        self._keep = True
        self._close = False
        self._held = 0

    @property
    def task(self) -> asyncio.Task[None] | None:
        return self.connection.task

    # --- the request's body ---

    async def read_body(self, limit: int) -> bytes:
        body = self.body
        if body is None:
            return await self._receive(limit)
        if self.gone:
            raise ConnectionResetError(_LEFT)
        if len(body) > limit:
            raise too_large(limit)
        self.hold(len(body))
        return body

    async def _receive(self, limit: int) -> bytes:
        incoming = self.incoming
        assert incoming is not None
        incoming.limit = limit
        self.whole = True
        if (incoming.length or incoming.received) > limit:
            raise too_large(limit)
        if incoming.length is not None:
            # The declared size is reserved at once: bodies that arrive side by side must not starve each other.
            self.hold(incoming.length - self._held)
        while True:
            if incoming.error is not None:
                raise incoming.error
            if incoming.done:
                break
            if self.gone:
                raise ConnectionResetError(_LEFT)
            self.ask_for_body()
            await self.wait()
        self.incoming = None
        return incoming.take()

    def ask_for_body(self) -> None:
        incoming = self.incoming
        assert incoming is not None
        if not self.asked:
            self.asked = True
            if self.head.expects and not incoming.received and not self.started:
                self.connection.write(_CONTINUE)
            self.connection.await_body(incoming)

    def take_piece(self) -> bytes:
        """Return what has arrived of the body, and stop the clock until somebody asks again."""
        incoming = self.incoming
        assert incoming is not None
        if self.asked:
            self.asked = False
            self.connection.rest_body()
        if incoming.done:
            self.incoming = None
        return incoming.take()

    def hold(self, size: int) -> None:
        """Count ``size`` more bytes against what all bodies together may take; raise ``overloaded`` above it."""
        hub = self.connection.hub
        hub.bodies += size
        self._held += size
        if hub.bodies > hub.options.max_bodies_bytes:
            raise ApiError(
                "overloaded", "Too many large requests are being received; retry later.", retry_after=_RETRY_SECONDS
            )

    def feed(self, data: bytes) -> bytes:
        """Take received bytes of the body; return those beyond its end."""
        incoming = self.incoming
        assert incoming is not None
        before = incoming.received
        rest = incoming.feed(data)
        try:
            if incoming.received > self._held:
                self.hold(incoming.received - max(before, self._held))
        except ApiError as error:
            incoming.error = error
        return rest

    # --- waiting ---

    def wait(self) -> asyncio.Future[None]:
        waiter = self._waiter
        if waiter is None or waiter.done():
            waiter = self._waiter = self.connection.hub.loop.create_future()
        return waiter

    def wake(self) -> None:
        """Let whoever waits look again."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def leave(self) -> None:
        """Be told that the connection ended. Behind a complete reply that only ends the wait for a slow reader."""
        self.paused = False
        if self.gone or self.complete:
            self.wake()
            return
        self.gone = True
        self.wake()
        if self.call is not None:
            self.call.leave("gone")

    def cancel(self) -> None:
        """End the application's work on this request."""
        self.connection.cancel()

    async def drain(self) -> None:
        while self.paused and not self.gone:
            await self.wait()

    # --- the reply ---

    def reply(self, status: int, headers: bytes, body: bytes) -> None:
        if self.gone or self.started:
            return
        self.started = True
        head = self.head
        connection = self.connection
        if head.is_head or status in _BODYLESS:
            size = (
                b"" if status in _BODYLESS or b"content-length:" in headers else b"content-length: %d\r\n" % len(body)
            )
            body = b""
        else:
            size = b"content-length: %d\r\n" % len(body)
        keep = head.keep_alive and not self._close and not connection.hub.draining and self._arrived()
        end = b"\r\n" if keep else _CLOSE
        if len(body) < _LARGE:
            connection.write(b"".join((STATUS_LINE[status], headers, size, end, body)))
        else:
            connection.transport.writelines((b"".join((STATUS_LINE[status], headers, size, end)), body))
        self._finish(keep)

    def start(self, status: int, headers: bytes) -> None:
        if self.head.http10:
            self._chunked = False
            self.start_counted(status, headers)
        else:
            self.start_counted(status, headers + b"transfer-encoding: chunked\r\n")

    def start_counted(self, status: int, lines: bytes) -> None:
        if self.gone or self.started:
            return
        self.started = True
        self._keep = self.head.keep_alive and not self.connection.hub.draining and self._arrived()
        end = b"\r\n" if self._keep else _CLOSE
        self.connection.write(b"".join((STATUS_LINE[status], lines, end)))

    def write(self, data: bytes) -> None:
        if self.gone or self.complete or not data or self.head.is_head:
            return
        if not self._chunked:
            self.connection.write(data)
        elif len(data) < _LARGE:
            self.connection.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self.connection.transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))

    def write_raw(self, data: bytes) -> None:
        if data and not self.gone and not self.complete:
            self.connection.write(data)

    def end(self) -> None:
        if self.gone or self.complete:
            return
        if self._chunked and not self.head.is_head:
            self.connection.write(b"0\r\n\r\n")
        self._finish(self._keep and not self.connection.hub.draining)

    def end_counted(self) -> None:
        if self.gone or self.complete:
            return
        self._finish(self._keep and not self.connection.hub.draining)

    def last(self) -> None:
        self._keep = False
        self._close = True

    def abort(self) -> None:
        if not self.complete:
            self.complete = True
            self.connection.drop()

    def refuse(self, error: ApiError) -> None:
        self.reply(*self.connection.hub.refusal(error))

    def _arrived(self) -> bool:
        """Tell whether the whole body has arrived, read or not."""
        return self.incoming is None or self.incoming.done

    def _finish(self, keep: bool) -> None:
        self.complete = True
        if not keep:
            self.connection.finish_closing(linger=not self._arrived())

    def ended(self) -> None:
        """Give back what the request held; called when the application has returned."""
        self.connection.hub.bodies -= self._held
        self._held = 0
        self.body = None
        self.call = None
        self._waiter = None
