"""The sidecar's own HTTP/1.1 client: one origin, pooled connections, every limit of the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Final

from proxy.upstream import faults
from proxy.upstream.base import Timeouts, Upstream, UpstreamReply, UpstreamRequest
from proxy.upstream.connection import SLICE, Connection
from proxy.upstream.head import USER_AGENT, HeadWriter
from proxy.upstream.pool import Pool
from proxy.upstream.reply import RawReply
from proxy.upstream.tls import client_context
from proxy.upstream.url import parse_origin

MAX_BODY: Final = 256 * 1024 * 1024
"""Bytes of one reply's body, whole or streamed."""


class RawUpstream(Upstream):
    """Connections to one provider over our own HTTP/1.1 client (RFC 9112), plain or TLS.

    A kept connection that ends without a byte of the reply is retried once on a new one, if
    ``allow_retry()`` (the provider's retry budget) says so.

    Raises:
        ValueError: base_url, a header of ``extra_headers``, ``min_tls`` or ``ca_file`` is unfit.
    """

    def __init__(
        self,
        base_url: str,
        timeouts: Timeouts,
        *,
        min_tls: str = "1.3",
        ca_file: str | None = None,
        extra_headers: Iterable[tuple[str, str]] = (),
        max_body: int = MAX_BODY,
        user_agent: str = USER_AGENT,
        allow_retry: Callable[[], bool] | None = None,
    ) -> None:
        origin = parse_origin(base_url)
        self._timeouts = timeouts
        self._max_body = max_body
        self._head = HeadWriter(origin, extra_headers, user_agent)
        self.pool = Pool(origin, timeouts, client_context(min_tls, ca_file) if origin.secure else None)
        if allow_retry is not None:
            self.allow_retry = allow_retry

    async def send(self, request: UpstreamRequest, credentials: Sequence[tuple[str, str]]) -> UpstreamReply:
        head = self._head.write(request, credentials)
        now = monotonic()
        until = now + self._timeouts.total
        pool = self.pool
        conn = pool.take(now)
        if conn is None:
            conn = await pool.open(now, until)
        if conn.closing:
            raise faults.unreachable("the connection ended as soon as it was made")
        request.began = True
        body = request.body
        if len(body) <= SLICE:
            reply = conn.begin(head + body, request.method, now, until, self._max_body, sent=True)
        else:
            reply = await self._begin_big(conn, request, head, now, until)
        while not reply.status:
            if reply.error is not None:
                if reply.stale and self.allow_retry():
                    return await self._again(request, head, until)
                raise reply.error
            waiter = reply.waiter()  # wait(), without its frame
            try:
                await waiter
            except BaseException:
                reply.close()
                raise
        return reply

    async def aclose(self) -> None:
        await self.pool.aclose()

    async def _begin_big(
        self, conn: Connection, request: UpstreamRequest, head: bytes, now: float, until: float
    ) -> RawReply:
        body = request.body
        reply = conn.begin(head + body[:SLICE], request.method, now, until, self._max_body, sent=len(body) <= SLICE)
        try:
            await conn.send_rest(reply, body, SLICE)
        except BaseException:
            reply.close()
            raise
        return reply

    async def _again(self, request: UpstreamRequest, head: bytes, until: float) -> RawReply:
        """Send once more, on a connection that nobody used before."""
        now = monotonic()
        if now >= until:
            raise faults.total_timeout(self._timeouts.total)
        conn = await self.pool.open(now, until)
        reply = await self._begin_big(conn, request, head, monotonic(), until)
        while not reply.status:
            if reply.error is not None:
                raise reply.error
            await reply.wait()
        return reply
