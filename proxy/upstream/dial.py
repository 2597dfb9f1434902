"""Make a connection: addresses raced as in RFC 8305, then TLS; whatever happens, no socket stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, TypeVar

from proxy.upstream.resolve import Address

ATTEMPT_DELAY: Final = 0.25
"""Seconds before the next address is tried beside the first (RFC 8305, section 5)."""
SHUTDOWN_TIMEOUT: Final = 0.05
"""Seconds for TLS's close_notify; uvloop's default keeps dead connections for 30 s."""


class HandshakeLost(OSError):
    """The peer closed in the middle of the TLS handshake: often how a server says that it wants another version."""


P = TypeVar("P", bound=asyncio.BaseProtocol)


async def dial(
    addresses: list[Address],
    protocol: Callable[[], P],
    *,
    context: ssl.SSLContext | None = None,
    host: str = "",
    handshake_timeout: float = 60.0,
) -> tuple[asyncio.Transport, P]:
    """Return a connected transport and its protocol; with ``context``, after TLS with the name ``host`` checked.

    Cancelling closes the socket at any point.

    Raises:
        ssl.SSLError: the handshake failed.
        HandshakeLost: the connection was lost in the handshake.
        OSError: no address could be reached.
    """
    loop = asyncio.get_running_loop()
    sock = await _race(loop, addresses)
    try:
        _set_options(sock)
        raw, conn = await loop.create_connection(protocol, sock=sock)
    except BaseException:
        sock.close()
        raise
    if context is None:
        return raw, conn
    try:
        secured = await loop.start_tls(
            raw,
            conn,
            context,
            server_hostname=host,
            ssl_handshake_timeout=handshake_timeout,
            ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
        )
    except BaseException as error:
        raw.abort()
        if isinstance(error, ConnectionError):
            raise HandshakeLost from None
        raise
    if secured is None:  # pragma: no cover - asyncio's types allow it: the transport was closed meanwhile
        raw.abort()
        raise HandshakeLost
    return secured, conn


def _set_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A stream may be silent for minutes while the model thinks; NAT boxes forget such flows.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 4)):
        option = getattr(socket, name, None)
        if option is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, seconds)


async def _connect(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


def _close_late(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _race(loop: asyncio.AbstractEventLoop, addresses: list[Address]) -> socket.socket:
    if len(addresses) == 1:
        return await _connect(loop, addresses[0])
    waiting = list(reversed(addresses))
    running: set[asyncio.Task[socket.socket]] = set()
    first: BaseException | None = None
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(_connect(loop, waiting.pop())))
            delay: Any = ATTEMPT_DELAY if waiting else None
            done, _ = await asyncio.wait(running, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                error = attempt.exception()
                if error is None:
                    running.discard(attempt)
                    return attempt.result()
                running.discard(attempt)
                first = first or error
        raise first or OSError("no address")
    finally:
        for attempt in running:
            attempt.cancel()
            attempt.add_done_callback(_close_late)
