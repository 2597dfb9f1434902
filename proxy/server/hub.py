"""What all connections of one listener share."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from proxy.errors import ApiError
from proxy.server.options import ServerOptions
from proxy.server.refusal import refusal
from proxy.ticker import Ticker, ticker

if TYPE_CHECKING:
    from proxy.server.cycle import Cycle
    from proxy.server.head import Handler
    from proxy.server.protocol import Protocol

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


def _none(method: str, path: str) -> Handler | None:
    return None


class Hub:
    """The application, the limits, the live connections and the requests in work of one listener.

    An application may have ``direct(method, path)``, which returns a coroutine function that serves this route
    from the wire and the headers (a dict, the request's only while it is served), or None: then ASGI does.

    ``running`` holds every request whose application coroutine has not ended, its client there or not;
    ``refused`` counts the replies that the server itself gave, by error code; ``on_refused(error, request_id)``
    is told of each.
    """

    __slots__ = (
        "app", "bodies", "cap", "connections", "direct", "draining", "lifespan_state", "loop", "on_refused", "options", "refused",
        "running", "ticker",
    )  # fmt: skip

    def __init__(self, app: App, options: ServerOptions, cap: int) -> None:
        self.app = app
        self.direct: Callable[[str, str], Handler | None] = getattr(app, "direct", _none)
        self.options = options
        self.cap = cap
        self.loop = asyncio.get_running_loop()
        self.ticker: Ticker = ticker()
        self.connections: set[Protocol] = set()
        self.running: set[Cycle] = set()
        self.bodies = 0
        """Bytes of request bodies held for requests in work."""
        self.draining = False
        self.lifespan_state: dict[str, Any] = {}
        self.refused: Counter[str] = Counter()
        self.on_refused: Callable[[ApiError, str], None] | None = None

    def refusal(self, error: ApiError) -> tuple[int, bytes, bytes]:
        """Return status, header lines and body of a reply that the server itself gives, with a request id of its own."""
        request_id = f"req_{secrets.token_hex(12)}"
        self.refused[error.code] += 1
        if self.on_refused is not None:
            self.on_refused(error, request_id)
        return refusal(error, request_id)

    def busy(self) -> bool:
        """Tell whether a request is in work, or part of a reply not yet handed to the kernel."""
        return bool(self.running) or any(connection.unsent() for connection in self.connections)
