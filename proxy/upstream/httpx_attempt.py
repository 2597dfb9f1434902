"""One attempt on an httpx2 transport: its limits as it goes along, its errors in the contract's words."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

import httpx2

from proxy.errors import UpstreamError
from proxy.upstream import faults
from proxy.upstream.base import UpstreamRequest

if TYPE_CHECKING:
    from proxy.upstream.httpx_twin import HttpxUpstream

_NO_TIMEOUTS: Final = {"connect": None, "read": None, "write": None, "pool": None}
_ENDED_EARLY: Final = ("disconnected", "closed connection")


class Attempt:
    """One request on the transport, with the limit that applies armed as it goes along."""

    def __init__(self, upstream: HttpxUpstream, until: float) -> None:
        self._upstream = upstream
        self._timeouts = upstream.timeouts
        self._until = until
        self._sending = self._connected = upstream.mocked
        self._stream: Any = None
        self._handshake = False
        self._limit: asyncio.Timeout | None = None
        self.stale = False
        """A kept connection ended without a byte of the reply."""

    async def run(
        self,
        transport: httpx2.AsyncBaseTransport,
        request: UpstreamRequest,
        url: str,
        headers: list[tuple[bytes, bytes]],
    ) -> httpx2.Response:
        timeouts, until = self._timeouts, self._until
        message = httpx2.Request(
            request.method,
            url,
            headers=headers,
            content=request.body,
            extensions={"timeout": dict(_NO_TIMEOUTS), "trace": self._trace, "target": _target(url)},
        )
        wait = timeouts.first_byte if self._sending else timeouts.connect
        try:
            async with asyncio.timeout_at(min(asyncio.get_running_loop().time() + wait, until)) as self._limit:
                return await transport.handle_async_request(message)
        except TimeoutError:
            if asyncio.get_running_loop().time() >= until:
                raise faults.total_timeout(timeouts.total) from None
            if self._sending:
                raise faults.first_byte_timeout(timeouts.first_byte) from None
            raise faults.connect_timeout(timeouts.connect) from None
        except httpx2.TimeoutException:
            raise faults.connect_timeout(timeouts.connect) from None
        except httpx2.ProxyError:
            raise faults.unreachable("the forward proxy refused") from None
        except httpx2.LocalProtocolError:
            raise  # our own mistake
        except httpx2.HTTPError as error:
            raise self._fault(error) from None
        finally:
            # httpcore2 forgets a connection whose TLS handshake is cancelled: it would stay open for ever.
            if self._stream is not None and self._handshake:
                self._upstream.spawn(self._stream.aclose())

    def _fault(self, error: httpx2.HTTPError) -> UpstreamError:
        cause = _cause(error)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return faults.tls(faults.why_tls(cause))
        if isinstance(error, httpx2.ProtocolError) and not ended_early(error):
            return faults.invalid("broken HTTP", retryable=True)
        if self._handshake:
            return faults.handshake_lost()
        if not self._sending:
            return faults.unreachable(
                faults.why_unreachable(cause) if isinstance(cause, OSError) else "connection failed"
            )
        self.stale = not self._connected
        return faults.unreachable("it closed the connection without an answer")

    async def _trace(self, event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            self._connected = True
        elif event == "connection.connect_tcp.complete":
            self._stream = info["return_value"]
        elif event.endswith("start_tls.started"):
            self._handshake = True
        elif event.endswith("start_tls.complete"):
            self._handshake = False
        elif event.startswith("http11.send_request_"):
            sent = info.get("request")
            if sent is not None and sent.method == b"CONNECT":
                return
            if self._sending or sent is not None:
                self._sending = True
                now = asyncio.get_running_loop().time()
                if self._limit is not None and not self._limit.expired():
                    self._limit.reschedule(min(now + self._timeouts.first_byte, self._until))


def _target(url: str) -> bytes:
    """Return the request target as it was written: httpx2 would normalise it."""
    path = url.split("://", 1)[1]
    return path[path.index("/") :].encode("ascii")


def ended_early(error: Exception) -> bool:
    """Tell whether a protocol error only means that the connection ended."""
    text = str(error).lower()
    return any(words in text for words in _ENDED_EARLY)


def _cause(error: BaseException) -> BaseException:
    """Return the innermost exception: the operating system's or OpenSSL's own."""
    seen: BaseException = error
    for _ in range(10):
        inner = seen.__cause__ or seen.__context__
        if isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]
        if inner is None or isinstance(seen, ssl.SSLError | ConnectionError | socket.gaierror):
            break
        seen = inner
    return seen
