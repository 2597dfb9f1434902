"""The same upstream on httpx2: for forward proxies and mock transports. Four times the cost, the same promises.

It works on httpx2's transport, below its client: no cookies, no redirects, no environment, no decoding.
Known differences: httpcore2 writes a request's body to its end before it reads, so that an early refusal of a
big one may be lost to the write error; it counts no interim replies (the first-byte limit bounds them), takes
two equal content-lengths for one, and reads lines that end in LF alone or are folded.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import httpx2

from proxy.errors import UpstreamError
from proxy.upstream import faults
from proxy.upstream.base import Headers, Timeouts, Upstream, UpstreamReply, UpstreamRequest
from proxy.upstream.client import MAX_BODY
from proxy.upstream.connection import LINGER_BYTES, LINGER_SECONDS, MAX_HEAD
from proxy.upstream.head import USER_AGENT, HeadWriter
from proxy.upstream.httpx_attempt import Attempt, ended_early
from proxy.upstream.pool import MAX_IDLE, MAX_IDLE_SECONDS
from proxy.upstream.tls import client_context
from proxy.upstream.url import parse_origin


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

    async def send(self, request: UpstreamRequest, credentials: Sequence[tuple[str, str]]) -> UpstreamReply:
        loop = asyncio.get_running_loop()
        until = loop.time() + self.timeouts.total
        # One writer of heads for both implementations: the same headers, the same refusals.
        lines = self._head.write(request, credentials).split(b"\r\n")[1:-2]
        headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        url = self._base + self._head.target(request.path)
        self._active += 1
        request.began = True
        try:
            attempt = Attempt(self, until)
            try:
                reply = await attempt.run(self._transport, request, url, headers)
            except UpstreamError:
                if not attempt.stale or not self.allow_retry():
                    raise
                attempt = Attempt(self, until)
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
                await _quietly(_put_back(self._response))  # now, so that the next call finds the connection
                self._upstream.done()
            except TimeoutError:
                if not limit.expired():
                    self._end(faults.lost())
                elif idle <= self._until:
                    self._end(faults.idle_timeout(self._timeouts.idle))
                else:
                    self._end(faults.total_timeout(self._timeouts.total))
            except httpx2.HTTPError as error:
                broken = isinstance(error, httpx2.ProtocolError) and not ended_early(error)
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
            await _put_back(self._response)
        finally:
            self._upstream.done()

    def _end(self, error: UpstreamError | None) -> None:
        self._over = True
        self._error = error
        self._upstream.spawn(self._response.aclose())
        self._upstream.done()


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


async def _put_back(response: httpx2.Response) -> None:
    """Give back the connection of a reply that was read, or close it: bytes behind the message would pass for the
    next reply, another caller's (httpcore2 looks for them on the socket only, not in what it has read).
    """
    reader: Any = response.stream
    for inner in ("_httpcore_stream", "_stream", "_connection", "_h11_state"):
        reader = getattr(reader, inner, None)
    stream = response.extensions.get("network_stream")
    if stream is not None and (reader is None or reader.trailing_data[0]):
        await stream.aclose()
    await response.aclose()


async def _quietly(work: Any) -> None:
    with suppress(Exception):
        await work
