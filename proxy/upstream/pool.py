"""The connections to one origin: opened when needed, kept while good, never waited for.

There is no queue: how many calls are in flight is decided at admission. A pool that queues leaks places when
waiters are cancelled (httpcore#1093).
"""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import Final

from proxy.upstream import faults
from proxy.upstream.base import Timeouts
from proxy.upstream.connection import Connection
from proxy.upstream.dial import HandshakeLost, dial
from proxy.upstream.resolve import Resolver
from proxy.upstream.url import Origin

MAX_IDLE_SECONDS: Final = 30.0
MAX_AGE: Final = 600.0
MAX_IDLE: Final = 256
READ_SIZE: Final = 64 * 1024
_TIMEOUT: Final = re.compile(r"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


class Pool:
    """Connections to one origin.

    ``idle_seconds``: how long a connection is kept unused, less where the server names a shorter
    ``Keep-Alive: timeout``. ``max_age``: after which it is not reused, so that DNS changes take effect.
    """

    __slots__ = ("_closed", "_context", "_idle", "_idle_seconds", "_max_age", "_max_idle", "_open", "_origin",
                 "_resolver", "_timeouts", "buffer", "opened", "reused")  # fmt: skip

    def __init__(
        self,
        origin: Origin,
        timeouts: Timeouts,
        context: ssl.SSLContext | None,
        *,
        idle_seconds: float = MAX_IDLE_SECONDS,
        max_age: float = MAX_AGE,
        max_idle: int = MAX_IDLE,
    ) -> None:
        self._origin = origin
        self._timeouts = timeouts
        self._context = context
        self._idle_seconds = idle_seconds
        self._max_age = max_age
        self._max_idle = max_idle
        self._resolver = Resolver(origin.host, origin.port)
        self._idle: dict[Connection, None] = {}
        self._open: set[Connection] = set()
        self._closed = False
        # Each read is consumed before the loop reads again, so that all connections can share one buffer.
        # Its size bounds what a connection queues: the high-water mark plus one read.
        self.buffer = memoryview(bytearray(READ_SIZE))
        self.opened = 0
        """Connections made so far."""
        self.reused = 0
        """Exchanges begun on a kept connection."""

    @property
    def size(self) -> int:
        """Connections that are open, in use or idle."""
        return len(self._open)

    @property
    def idle(self) -> int:
        """Connections kept for the next call."""
        return len(self._idle)

    def take(self, now: float) -> Connection | None:
        """Return the connection that was used last, or None."""
        idle = self._idle
        while idle:
            conn, _ = idle.popitem()
            if conn.deadline > now and not conn.closing:
                self.reused += 1
                return conn
            conn.close()
        return None

    async def open(self, now: float, until: float) -> Connection:
        """Return a new connection; cancelling leaves no socket behind.

        Raises:
            UpstreamError: ``upstream_unreachable``, ``upstream_tls``, ``upstream_timeout``.
        """
        timeouts = self._timeouts
        end = now + timeouts.connect
        try:
            async with asyncio.timeout_at(min(until, end)) as limit:
                addresses = await self._resolver.addresses()
                transport, conn = await dial(addresses, self._new, context=self._context, host=self._origin.host)
        except ssl.SSLError as error:
            raise faults.tls(faults.why_tls(error)) from None
        except HandshakeLost:
            raise faults.handshake_lost() from None
        except OSError as error:
            if limit.expired():
                fault = (
                    faults.connect_timeout(timeouts.connect) if end <= until else faults.total_timeout(timeouts.total)
                )
                raise fault from None
            raise faults.unreachable(faults.why_unreachable(error)) from None
        if conn.closing:
            raise faults.unreachable("it closed the connection at once")
        self.opened += 1
        self._open.add(conn)
        conn.ready(transport)
        return conn

    def _new(self) -> Connection:
        return Connection(self, self._timeouts, secure=self._context is not None)

    def keep(self, conn: Connection, hint: str | None, now: float) -> None:
        """Keep ``conn`` for the next call; ``hint`` is the server's Keep-Alive header."""
        seconds = self._idle_seconds
        if hint is not None:
            seconds = min(seconds, keep_seconds(hint, seconds))
        end = min(now + seconds, conn.born + self._max_age)
        if self._closed or end <= now or len(self._idle) >= self._max_idle:
            conn.close()
            return
        conn.deadline = end
        self._idle[conn] = None

    def forget(self, conn: Connection) -> None:
        """Never hand ``conn`` out again."""
        self._idle.pop(conn, None)

    def gone(self, conn: Connection) -> None:
        """Note that ``conn``'s socket is closed."""
        self._open.discard(conn)

    async def aclose(self) -> None:
        """Close the idle connections; those in use close after their replies."""
        self._closed = True
        leaving = list(self._idle)
        for conn in leaving:
            conn.close()
        for _ in range(20):
            await asyncio.sleep(0 if not self._context else 0.005)
            if self._open.isdisjoint(leaving):
                return
        for conn in leaving:
            conn.abort()
        await asyncio.sleep(0)


def keep_seconds(hint: str, default: float) -> float:
    """Return how long a connection may stay unused, below the server's ``Keep-Alive: timeout`` (RFC 2068, 19.7.1.1)."""
    match = _TIMEOUT.search(hint)
    if match is None:
        return default
    seconds = float(match[1])
    return seconds - 1.0 if seconds > 2.0 else seconds / 2
