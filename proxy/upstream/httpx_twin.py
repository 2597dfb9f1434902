"""The same upstream on httpx2: for forward proxies and mock transports. Four times the cost, the same promises.

It works on httpx2's transport, below its client: no cookies, no redirects, no environment, no decoding.
Known differences: httpcore2 writes a request's body to its end before it reads, so that an early refusal of a
big one may be lost to the write error; it counts no interim replies (the first-byte limit bounds them) and
takes two equal content-lengths for one.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import httpx2

from proxy.errors import UpstreamError
from proxy.upstream import faults
from proxy.upstream.base import Headers, Timeouts, Upstream, UpstreamReply, UpstreamRequest
from proxy.upstream.client import MAX_BODY
from proxy.upstream.connection import LINGER_BYTES, LINGER_SECONDS, MAX_HEAD
from proxy.upstream.head import USER_AGENT, HeadWriter
from proxy.upstream.pool import MAX_IDLE, MAX_IDLE_SECONDS
from proxy.upstream.tls import client_context
from proxy.upstream.url import parse_origin

_NO_TIMEOUTS: Final = {"connect": None, "read": None, "write": None, "pool": None}
_ENDED_EARLY: Final = ("disconnected", "closed connection")


class HttpxUpstream(Upstream):
    """Connections to one provider over httpx2, through ``proxy`` (http, https or socks5 URL) where given.

    ``transport`` replaces the network altogether (``httpx2.MockTransport``).

    Raises:
        ValueError: base_url, proxy, a header, ``min_tls`` or ``ca_file`` is unfit.
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
        proxy: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        origin = parse_origin(base_url)
        self.timeouts = timeouts
        self._max_body = max_body
        self._head = HeadWriter(origin, extra_headers, user_agent)
        self._base = f"{'https' if origin.secure else 'http'}://{origin.authority}"
        self.mocked = transport is not None
        if transport is None:
            tls = origin.secure or (proxy is not None and proxy.startswith("https:"))
            # A context without authorities trusts nobody; to load the system's takes 20 ms.
            context = client_context(min_tls, ca_file) if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            transport = _transport(context, proxy)
        self._transport = transport
        if allow_retry is not None:
            self.allow_retry = allow_retry
        self._active = 0
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, request: UpstreamRequest, credentials: list[tuple[str, str]]) -> UpstreamReply:
        loop = asyncio.get_running_loop()
        until = loop.time() + self.timeouts.total
        # One writer of heads for both implementations: the same headers, the same refusals.
        lines = self._head.write(request, credentials).split(b"\r\n")[1:-2]
        headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        url = self._base + self._head.target(request.path)
        self._active += 1
        try:
            attempt = _Attempt(self, until)
            try:
                reply = await attempt.run(self._transport, request, url, headers)
            except UpstreamError:
                if not attempt.stale or not self.allow_retry():
                    raise
                attempt = _Attempt(self, until)
                reply = await attempt.run(self._transport, request, url, headers)
            return HttpxReply(self, reply, self.timeouts, until, self._max_body, head_only=request.method == "HEAD")
        except BaseException:
            self.done()
            raise

    def done(self) -> None:
        """Note that an exchange is over."""
        self._active -= 1
        if self._closing and not self._active:
            self.spawn(self._transport.aclose())

    def spawn(self, work: Any) -> None:
        """Run a closing in the background; :meth:`aclose` waits for it."""
        task = asyncio.get_running_loop().create_task(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        self._closing = True
        if not self._active:
            await _quietly(self._transport.aclose())
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=LINGER_SECONDS)


class HttpxReply(UpstreamReply):
    """A reply on an httpx2 transport, read as the network gives it."""

    def __init__(
        self,
        upstream: HttpxUpstream,
        response: httpx2.Response,
        timeouts: Timeouts,
        until: float,
        room: int,
        *,
        head_only: bool,
    ) -> None:
        self._upstream = upstream
        self._response = response
        self._timeouts = timeouts
        self._until = until
        self._room = room
        self._over = False
        self._error: UpstreamError | None = None
        self.status = response.status_code
        self.headers: Headers = {
            name.decode("latin-1").lower(): value.strip().decode("latin-1") for name, value in response.headers.raw
        }
        stream: Any = response.stream
        self._pieces: AsyncIterator[bytes] = aiter(stream)
        fault = _unfit(self.status, self.headers, response.headers.raw, room)
        if fault is not None:
            self._end(fault)
            raise fault
        if head_only:
            self._end(None)

    async def read(self) -> bytes:
        while not self._over:
            now = asyncio.get_running_loop().time()
            idle = now + self._timeouts.idle
            try:
                async with asyncio.timeout_at(min(idle, self._until)) as limit:
                    piece = await anext(self._pieces)
            except StopAsyncIteration:
                self._over = True
                await _quietly(self._response.aclose())  # now, so that the next call finds the connection
                self._upstream.done()
            except TimeoutError:
                if not limit.expired():
                    self._end(faults.lost())
                elif idle <= self._until:
                    self._end(faults.idle_timeout(self._timeouts.idle))
                else:
                    self._end(faults.total_timeout(self._timeouts.total))
            except httpx2.HTTPError as error:
                broken = isinstance(error, httpx2.ProtocolError) and not _ended_early(error)
                self._end(faults.invalid("broken HTTP in its body") if broken else faults.lost())
            except BaseException:
                self.close()
                raise
            else:
                self._room -= len(piece)
                if self._room < 0:
                    self._end(faults.invalid("its body is larger than the sidecar allows"))
                elif piece:
                    return piece
        if self._error is not None:
            raise self._error
        return b""

    async def body(self, limit: int) -> bytes:
        length = self.headers.get("content-length", "")
        parts: list[bytes] = []
        size = int(length) if length.isdecimal() else 0
        if size <= limit:
            size = 0
            while piece := await self.read():
                size += len(piece)
                if size > limit:
                    break
                parts.append(piece)
            else:
                return b"".join(parts)
        self.close()
        raise faults.invalid(f"it is larger than {limit} bytes")

    def close(self) -> None:
        if not self._over:
            self._end(faults.closed())

    def release(self) -> None:
        if not self._over:
            self._over = True
            self._error = faults.closed()
            self._upstream.spawn(self._drain())

    async def _drain(self) -> None:
        left = LINGER_BYTES
        try:
            with suppress(Exception):
                async with asyncio.timeout(LINGER_SECONDS):
                    async for piece in self._pieces:
                        left -= len(piece)
                        if left < 0:
                            break
            await self._response.aclose()
        finally:
            self._upstream.done()

    def _end(self, error: UpstreamError | None) -> None:
        self._over = True
        self._error = error
        self._upstream.spawn(self._response.aclose())
        self._upstream.done()


class _Attempt:
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
        if isinstance(error, httpx2.ProtocolError) and not _ended_early(error):
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


def _transport(context: ssl.SSLContext, proxy: str | None) -> httpx2.AsyncBaseTransport:
    limits = httpx2.Limits(
        max_connections=None,  # a pool that queues leaks places when waiters are cancelled (httpcore#1093)
        max_keepalive_connections=MAX_IDLE,
        keepalive_expiry=MAX_IDLE_SECONDS,
    )
    try:
        through = httpx2.Proxy(proxy, ssl_context=context if proxy.startswith("https:") else None) if proxy else None
        if through is not None and not through.url.host:
            raise ValueError("it names no host")
        return httpx2.AsyncHTTPTransport(verify=context, trust_env=False, limits=limits, proxy=through)
    except (httpx2.InvalidURL, ValueError, ImportError) as error:
        raise ValueError(f"proxy cannot be used: {error}") from None


def _target(url: str) -> bytes:
    """Return the request target as it was written: httpx2 would normalise it."""
    path = url.split("://", 1)[1]
    return path[path.index("/") :].encode("ascii")


def _unfit(status: int, headers: Headers, raw: list[tuple[bytes, bytes]], room: int) -> UpstreamError | None:
    """Return what is wrong with a reply's head."""
    if status < 200:
        return faults.invalid(f"the unexpected status {status}", retryable=True)
    if sum(len(name) + len(value) + 4 for name, value in raw) > MAX_HEAD:
        return faults.invalid(f"its head is larger than {MAX_HEAD} bytes", retryable=True)
    coding = headers.get("transfer-encoding")
    if coding is not None and (coding.lower() != "chunked" or "content-length" in headers):
        return faults.invalid("broken HTTP (transfer-encoding)", retryable=True)
    if int(headers.get("content-length", "0") or "0") > room:
        return faults.invalid("its body is larger than the sidecar allows")
    if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        return faults.invalid("it is compressed, which was not asked for")
    return None


def _ended_early(error: Exception) -> bool:
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


async def _quietly(work: Any) -> None:
    with suppress(Exception):
        await work
