"""The narrow waist towards the network: what is sent upstream and what comes back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.upstream import faults

Headers = dict[str, str]
"""Reply headers, names in lower case; of a repeated header the last value."""


@dataclass(slots=True)
class UpstreamRequest:
    """One HTTP request as a provider wants it, without credentials.

    ``path`` is appended to the provider's base URL, query included. ``headers`` are name/value pairs in
    lower case, without host, content-length and the key's own: the same tuple for every request, where
    nothing varies, spares their encoding. ``memo`` is the translator's: what it has
    to remember from encoding to decode the answer (tool names, the forced tool, …).
    """

    path: str
    body: bytes
    headers: Sequence[tuple[str, str]] = ()
    method: str = "POST"
    stream: bool = False
    dropped: tuple[str, ...] = ()
    """Names of the caller's parameters that the target cannot take and `unsupported: drop` left out."""
    applied_max_tokens: int | None = None
    """The bound on the answer where we set it, not the caller."""
    memo: Any = None
    began: bool = False
    """Some of it may have reached the server; set by the transport just before the first byte is written."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect (TLS included), to the reply's first byte, between two reads, in all."""

    connect: float = 5.0
    first_byte: float = 30.0
    idle: float = 30.0
    total: float = 600.0


class UpstreamReply(ABC):
    """A reply whose head has arrived. Whoever holds it must read it to the end or close it."""

    status: int
    headers: Headers

    @abstractmethod
    async def read(self) -> bytes:
        """Return the next piece of the body as the network gave it, ``b""`` at its end.

        Raises:
            UpstreamError: ``upstream_timeout``, ``upstream_error`` (a ``Truncated``: the connection was lost
                before the message's end) or ``upstream_invalid_response`` (broken framing, a cap exceeded).

        What arrived before an error is returned first. Cancelling closes the connection.
        """

    def read_nowait(self) -> bytes | None:
        """Return what :meth:`read` would return at once, None where it would have to wait. Optional.

        Saves an await where the next piece is queued already.
        """
        return None

    def push_to(self, sink: Callable[[bytes], None] | None) -> bool:
        """Hand what arrives from now on straight to ``sink``, from the network's callback; None: queue it again. Optional.

        False if that cannot be: something is queued or has ended, or this reply only reads. ``sink`` must not raise.
        """
        return False

    async def pushed(self) -> None:
        """Wait until the sink was taken away, or the reply ended. Cancelling closes the connection."""
        raise NotImplementedError

    def pause(self) -> None:  # noqa: B027 - a reply that is read on demand has nothing to pause
        """Let the network wait until somebody reads again: what it brings meanwhile would only lie in memory. Optional."""

    async def body(self, limit: int) -> bytes:
        """Return the whole (rest of the) body; raise ``upstream_invalid_response`` above ``limit`` bytes."""
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

    @abstractmethod
    def close(self) -> None:
        """Give the connection back if the message was read to its end, else abort it. Idempotent."""

    def release(self) -> None:
        """Give the connection back once the message ends, if that is soon; what still arrives is dropped.

        For an answer that is complete although its last bytes (a chunk's end, a trailer) are on their way.
        """
        self.close()


def _always() -> bool:
    return True


class Upstream(ABC):
    """Connections to one origin (one provider entry of llm.yml).

    ``allow_retry`` is asked before a request is sent a second time because the kept connection it went out
    on turned out to be closed: set it to the provider's retry budget.
    """

    allow_retry: Callable[[], bool] = staticmethod(_always)

    @abstractmethod
    async def send(self, request: UpstreamRequest, credentials: Sequence[tuple[str, str]]) -> UpstreamReply:
        """Send ``request`` with ``credentials`` headers added; return when the final reply's head is in.

        Cancelling closes the socket. Never follows redirects.

        Raises:
            UpstreamError: ``upstream_unreachable``, ``upstream_tls``, ``upstream_timeout``,
                ``upstream_invalid_response``.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close idle connections; those in use end with their replies."""
