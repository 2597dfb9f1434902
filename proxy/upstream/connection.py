"""One HTTP/1.1 connection to a provider: its socket, its times and its ends.

Cheap by construction: a call on a kept connection makes one write, waits on at most one future until the
reply's head is in, and has most bodies at hand by then. Body pieces go from the parser into a list without a
Python frame each, and leave joined, one piece per network read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from typing import TYPE_CHECKING, Any, Final

from proxy.errors import UpstreamError
from proxy.ticker import NEVER, ticker
from proxy.upstream import faults
from proxy.upstream.base import Timeouts
from proxy.upstream.incoming import Incoming
from proxy.upstream.reply import HIGH_WATER, RawReply

if TYPE_CHECKING:
    from proxy.upstream.pool import Pool

MAX_HEAD: Final = 64 * 1024
"""Bytes of all heads of one reply, interim ones included."""
MAX_BARREN: Final = 64 * 1024
"""Bytes in a row, after the head, with no body among them: chunk extensions, trailers."""
LINGER_SECONDS: Final = 1.0
LINGER_BYTES: Final = 16 * 1024
SLICE: Final = 64 * 1024
_RESCUE: Final = 1024 * 1024


class Connection(asyncio.BufferedProtocol, Incoming):
    """A connection and the one exchange on it, if any. Idle, any byte or end discards it.

    The pool keeps it only if the request was sent and the reply read in full, nothing came after it, and
    both sides wish to go on.
    """

    __slots__ = (
        "_barren", "_buffer", "_head_room", "_loop", "_lost_it", "_pool", "_sent", "_transport", "_write_paused", "born",
        "paused", "secure", "used",
    )  # fmt: skip

    def __init__(self, pool: Pool, limits: Timeouts, *, secure: bool) -> None:
        self._loop = loop = asyncio.get_running_loop()
        super().__init__(limits, loop.time)
        self._pool = pool
        self._buffer = pool.buffer
        self.born = loop.time()
        self.secure = secure
        self.used = False
        """It has carried an exchange before: the server may have given it up just now."""
        self.paused = False
        self._transport: asyncio.Transport | None = None
        self._lost_it = False
        self._write_paused = False

    # The client's side.

    def ready(self, transport: asyncio.Transport) -> None:
        """Take the finished transport (after TLS) into use."""
        self._transport = transport
        transport.set_write_buffer_limits(high=SLICE)
        ticker().watch(self)

    @property
    def closing(self) -> bool:
        """It has ended or is about to: nothing more can be sent on it."""
        transport = self._transport
        return self._lost_it or transport is None or transport.is_closing()

    def begin(self, payload: bytes, method: str, now: float, until: float, room: int, *, sent: bool) -> RawReply:
        """Write the request (or its beginning, ``sent`` false) and return the reply to wait for.

        ``until`` is the time by which all must be over, ``room`` the cap on the reply's body.
        """
        transport = self._transport
        assert transport is not None
        reply = self._reply = RawReply(self._loop, self)
        self._method = method
        self._until = until
        self._room = room
        self._sent = sent
        self._raw.clear()  # of trailers
        self._head_room = MAX_HEAD
        self._interims = 0
        self._barren = 0
        self._until_eof = False
        self._finished = False
        wait = now + self._limits.first_byte
        self.deadline = wait if wait < until else until  # noqa: FURB136
        transport.write(payload)
        return reply

    async def send_rest(self, reply: RawReply, body: bytes, offset: int) -> None:
        """Write the rest of a big body as fast as the peer takes it; stop at a final head or an error."""
        view = memoryview(body)
        transport = self._transport
        assert transport is not None
        while offset < len(view):
            if self._write_paused:
                await reply.wait()
            else:
                # What the peer said meanwhile is read before we write into a connection it may have closed.
                await asyncio.sleep(0)
            if reply.status or reply.error is not None:
                return
            if not self._write_paused:
                transport.write(view[offset : offset + SLICE])
                offset += SLICE
        self._sent = True

    def give_up(self, reply: RawReply) -> None:
        """Close without ceremony: the owner of ``reply`` has left."""
        if self._reply is reply:
            self._reply = None
            self.abort()

    def linger(self) -> None:
        """Read the message's end for a moment and then be kept: the owner needs nothing more."""
        if self.paused:
            self.resume()
        self._room = min(self._room, LINGER_BYTES)
        self._until = self.deadline = min(self._until, self._now() + LINGER_SECONDS)

    def pause(self) -> None:
        """Read nothing for now: it is our side that keeps the other waiting, until the total limit."""
        if not self.paused and self._transport is not None:
            self.paused = True
            self._transport.pause_reading()
        self.deadline = self._until

    def resume(self) -> None:
        """Read on: the owner took what was queued."""
        self.paused = False
        self._arm(self._limits.idle)
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """End an idle connection politely (TLS says goodbye within 50 ms)."""
        self.deadline = NEVER
        self._pool.forget(self)
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self.deadline = NEVER
        self._pool.forget(self)
        if self._transport is not None:
            self._transport.abort()

    # The ticker's side.

    def expired(self) -> None:
        reply = self._reply
        limits = self._limits
        if reply is None:
            self.close()
        elif self._now() >= self._until:
            self._fail(reply, faults.total_timeout(limits.total))
        elif not reply.status and self._head_room == MAX_HEAD:
            self._fail(reply, faults.first_byte_timeout(limits.first_byte))
        elif not reply.status:
            self._fail(reply, faults.first_byte_timeout(limits.first_byte if self._interims else limits.idle))
        else:
            self._fail(reply, faults.idle_timeout(limits.idle))

    # The network's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # until `ready`: it may end before that

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._received(self._buffer[:nbytes])

    def _received(self, data: memoryview) -> None:
        reply = self._reply
        if reply is None:
            self.abort()  # nothing was asked for
            return
        had_head = reply.status
        if not had_head:
            room = self._head_room - len(data)
            if room < 0:
                self._feed_long_head(reply, data)
                return
            first = self._head_room == MAX_HEAD
            self._head_room = room
        error: UpstreamError | None = None
        try:
            self._parser.feed_data(data)
        except Exception as broken:
            error = self._parser_failed(reply, broken)
        pieces = self._pieces
        if pieces:
            if self._doubt:
                del pieces[self._body_end :]
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._barren = 0
            self._room -= len(body)
            if self._room < 0:
                error = faults.invalid("its body is larger than the sidecar allows")
            elif body:
                reply.put(body)
        elif had_head:
            self._barren += len(data)
            if self._barren > MAX_BARREN:
                error = faults.invalid("chunk extensions or trailers without end")
        if error is not None:
            self._fail(reply, error)
            return
        if self._finished:
            self._finish(reply)
        elif not reply.status:
            if first and not self._interims:
                self._arm(self._limits.idle)
            return
        elif reply.queued >= HIGH_WATER:
            self.pause()
        else:
            self._arm(self._limits.idle)
            if reply.sink is not None:
                return  # its task sleeps on
        reply.wake()

    def eof_received(self) -> None:
        reply = self._reply
        if reply is None:
            self.close()
        elif self._until_eof:
            self._finish(reply)
            reply.wake()
        else:
            self._lost(reply, None)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        reply = self._reply
        if reply is not None and exc is not None and not self.secure:
            self._rescue(reply)
            reply = self._reply
        if reply is not None:
            self._lost(reply, exc)
        self._pool.forget(self)
        self._pool.gone(self)
        ticker().forget(self)
        self._lost_it = True
        self._parser = None  # it holds our methods: without it the connection is freed at once, not by the collector

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        reply = self._reply
        if reply is not None:
            if not reply.status:
                self._arm(self._limits.first_byte)
            reply.wake()

    # Ends.

    def _feed_long_head(self, reply: RawReply, data: memoryview) -> None:
        room = self._head_room
        if room:
            self._received(data[:room])
            if not self.closing:
                self._received(data[room:])
        else:
            self._fail(reply, faults.invalid(f"its head is larger than {MAX_HEAD} bytes", retryable=True))

    def _finish(self, reply: RawReply) -> None:
        self._reply = None
        reply.conn = None
        reply.complete = True
        self.used = True
        transport = self._transport
        assert transport is not None
        if self._doubt or not self._sent or transport.get_write_buffer_size():
            self.abort()
        elif self._keep and not transport.is_closing():
            if self.paused:
                self.paused = False
                transport.resume_reading()
            self._pool.keep(self, reply.headers.get("keep-alive"), self._now())
        else:
            self.close()

    def _fail(self, reply: RawReply, error: UpstreamError) -> None:
        self._reply = None
        reply.conn = None
        reply.error = error
        self.abort()
        reply.wake()

    def _lost(self, reply: RawReply, exc: Exception | None) -> None:
        self._reply = None
        reply.conn = None
        if reply.status:
            reply.error = faults.lost()
        elif isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            reply.error = faults.tls(faults.why_tls(exc))
        else:
            reply.error = faults.unreachable("it closed the connection without an answer")
            reply.stale = self.used and self._head_room == MAX_HEAD
        reply.wake()

    def _rescue(self, reply: RawReply) -> None:
        """Read what the kernel still holds: a complete reply wins over the write error that ended the connection."""
        sock: Any = self._transport.get_extra_info("socket") if self._transport is not None else None
        left = _RESCUE
        with contextlib.suppress(OSError, ValueError):
            while sock is not None and self._reply is reply and left > 0:
                data = os.read(sock.fileno(), 65536)
                left -= len(data)
                if not data:
                    return  # after an error this is no end that a body without length could trust
                self._received(memoryview(data))
