"""HTTP/1.1 on one client connection, from accept to close.

uvicorn's own protocol has no deadline on receiving, answers in text/plain, and notices a client's leaving
only while somebody waits in ``receive()`` and no second request is queued behind the first (uvicorn 0.54,
``protocols/http/httptools_impl.py``). This one tells the call at once, from the transport's callback.

A connection has at most one request in work. What arrives behind it stays unparsed (``ahead``); reading
goes on all the while, for only a read shows that the client is gone.
"""

from __future__ import annotations

import asyncio
from typing import Final

from proxy.errors import ApiError
from proxy.server.body import Body
from proxy.server.cycle import Cycle
from proxy.server.head import HeadParser
from proxy.server.hub import Hub
from proxy.server.worker import Worker
from proxy.ticker import NEVER

_BODY_AHEAD: Final = 64 * 1024
"""Received bytes of a body that nobody asked for yet, above which reading pauses."""
_OVER_CAP: Final = 64
"""Connections above the cap that are told so, before others are just dropped."""
_NOT_HTTP: Final = "This port speaks HTTP/1.1; send a request line."


class Protocol(Worker):
    """Take one connection's requests, one after the other, from its bytes."""

    __slots__ = ("_body_rested", "_body_since", "_partial")

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self._partial = b""
        self._body_since = NEVER
        self._body_rested = 0.0

    # --- the transport's callbacks ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        hub = self.hub
        self.attach(transport)
        self._parser = HeadParser({"client": _name(transport, "peername"), "server": _name(transport, "sockname")})
        self.deadline = hub.loop.time() + hub.options.receive_timeout
        hub.connections.add(self)
        hub.ticker.watch(self)
        if len(hub.connections) > hub.cap:
            if len(hub.connections) > hub.cap + _OVER_CAP:
                self.drop()
            else:
                self.refuse(
                    ApiError("overloaded", "The sidecar has too many connections; retry later.", retry_after=1.0)
                )

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.deadline = NEVER
        hub = self.hub
        hub.connections.discard(self)
        hub.ticker.forget(self)
        self.ahead = self._partial = b""
        if self.cycle is not None:
            self.cycle.leave()
        self._rouse()

    def eof_received(self) -> bool:
        """Take the end of the client's half for its leaving; only a request cut short still gets its 400."""
        cycle = self.cycle
        if self.closing:
            return False
        self.eof = True
        if cycle is None and self._partial:
            self.refuse(ApiError("invalid_request", "The request ended before its headers did; send it whole."))
            return True
        if cycle is None or cycle.complete:
            self.finish_closing(linger=False)
            return False
        incoming = cycle.incoming
        if incoming is not None and not incoming.done:
            if incoming.error is None:
                incoming.error = ApiError(
                    "invalid_request", "The request body is shorter than announced; send all of it."
                )
            self.deadline = NEVER
            cycle.wake()
            return True
        self.drop()
        return False

    def data_received(self, data: bytes) -> None:
        if self.closing:
            self.discard(data)
            return
        cycle = self.cycle
        if cycle is None:
            if self.write_paused:
                self._keep_ahead(data)
            elif self._partial:
                self._begin(self._partial + data, len(self._partial))
            else:
                self._begin(data, 0)
        elif cycle.incoming is not None and not cycle.incoming.done:
            self._take_body(cycle, data)
        else:
            self._keep_ahead(data)

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.cycle is not None:
            self.cycle.paused = True
        self.expect_progress()

    def resume_writing(self) -> None:
        self.write_paused = False
        cycle = self.cycle
        if cycle is not None:
            cycle.paused = False
            cycle.wake()
        if self.closing or self.lost:
            return
        self.deadline = NEVER
        if cycle is None:
            self._next()

    # --- requests ---

    def _begin(self, data: bytes, known: int) -> None:
        """Start the request at the beginning of ``data``, whose first ``known`` bytes were looked at before."""
        if known < 2 and data[:2] == b"\r\n":  # RFC 9112, 2.2: an empty line before a request is skipped
            data = data[2:]
            known = 0
            self._partial = b""
            if not data:
                return
        options = self.hub.options
        end = data.find(b"\r\n\r\n", known - 3 if known > 3 else 0) + 4
        if end < 4 or end > options.max_header_bytes:
            self._partial_head(data, known)
            return
        self._partial = b""
        try:
            head = self._parser.parse(data if end == len(data) else data[:end])
        except ApiError as error:
            self.refuse(error)
            return
        length = self._parser.length
        have = len(data) - end
        if length is not None and have >= length:
            cycle = Cycle(self, head, data[end : end + length], None)
            if have > length:
                self.ahead = data[end + length :]
        else:
            cycle = Cycle(self, head, None, Body(length))
            self._body_since = NEVER
        self.deadline = NEVER
        self.cycle = cycle
        if cycle.incoming is not None:
            if have:
                self._take_body(cycle, data[end:])
        elif have > length + options.max_ahead_bytes:  # type: ignore[operator]
            self.drop()
        if self.closing:
            cycle.ended()
            self.cycle = None
            return
        self.hub.running.add(cycle)
        if self.task is None:
            self.task = self.hub.loop.create_task(self._serve())
        else:
            self._rouse()

    def _partial_head(self, data: bytes, known: int) -> None:
        """Keep a head that is not complete yet, unless it can no longer become a good one."""
        options = self.hub.options
        if len(data) > options.max_header_bytes:
            self.refuse(
                ApiError(
                    "headers_too_large",
                    f"Request line and headers are larger than {options.max_header_bytes} bytes; send fewer or shorter ones.",
                )
            )
        elif not 65 <= data[0] <= 90 and data != b"\r":
            self.refuse(ApiError("invalid_request", _NOT_HTTP))
        elif data.count(b"\n") != data.count(b"\r\n") or b"\0" in data:
            self.refuse(ApiError("invalid_request", "The request's lines must end in CRLF and hold no NUL."))
        else:
            self._partial = data
            if not known and self.task is not None:  # the first head's time runs since the connection was made
                self.deadline = self.hub.loop.time() + options.receive_timeout

    def _take_body(self, cycle: Cycle, data: bytes) -> None:
        incoming = cycle.incoming
        assert incoming is not None
        if incoming.error is not None:
            return
        rest = cycle.feed(data)
        if incoming.error is not None or incoming.done:
            self.deadline = NEVER
            if rest:
                self._keep_ahead(rest)
            cycle.wake()
        elif cycle.asked:
            self.deadline = self._body_deadline(incoming)
            if not cycle.whole:
                cycle.wake()
        elif incoming.waiting > _BODY_AHEAD:
            self.read_no_more()

    def await_body(self, incoming: Body) -> None:
        """Let the body come in, within ``receive_timeout`` plus what the minimum rate allows."""
        self.read_on()
        now = self.hub.loop.time()
        if self._body_since == NEVER:  # what came before anybody asked earns no time
            self._body_since = now - incoming.received / self.hub.options.min_rate
        else:
            self._body_since += now - self._body_rested
        self.deadline = self._body_deadline(incoming)

    def rest_body(self) -> None:
        """Stop the body's clock until the application asks for more."""
        self._body_rested = self.hub.loop.time()
        self.deadline = NEVER

    def _body_deadline(self, incoming: Body) -> float:
        options = self.hub.options
        return self._body_since + options.receive_timeout + incoming.received / options.min_rate

    def _keep_ahead(self, data: bytes) -> None:
        self.ahead += data
        if len(self.ahead) > self.hub.options.max_ahead_bytes:
            self.drop()

    def _next(self) -> None:
        """Begin the request that waits behind the last one, if any, else wait for one."""
        self.deadline = self.hub.loop.time() + self.hub.options.keep_alive_timeout
        if self.ahead:
            data = self.ahead
            self.ahead = b""
            self._begin(data, 0)

    # --- ends ---

    def close_if_idle(self) -> None:
        """Close unless a request is in work or arriving."""
        if self.cycle is None and not self._partial and not self.closing:
            self.finish_closing(linger=False)

    def expired(self) -> None:
        """Act on the deadline of whatever the connection is at."""
        if self.lost:
            return
        cycle = self.cycle
        if self.write_paused or (self.closing and self.unsent()):
            self.check_progress()
        elif self.closing:
            self.drop()
        elif cycle is None:
            if self._partial:
                self.refuse(ApiError("request_timeout", "The request's headers did not arrive in time; send it again."))
            else:
                self.finish_closing(linger=False)
        elif cycle.incoming is not None and not cycle.incoming.done and cycle.incoming.error is None:
            cycle.incoming.error = ApiError(
                "request_timeout", "The request's body did not arrive in time; send it again."
            )
            cycle.wake()


def _name(transport: asyncio.Transport, which: str) -> tuple[str, int] | None:
    name = transport.get_extra_info(which)
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
