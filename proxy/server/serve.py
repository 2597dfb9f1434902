"""The server's life: listen, serve, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from typing import Any, Final

import uvicorn
import uvloop

from proxy.errors import ApiError
from proxy.server import listen
from proxy.server.hub import App, Hub
from proxy.server.options import ServerOptions
from proxy.server.protocol import Protocol
from proxy.server.signals import Signals

log = logging.getLogger("llm_sidecar")

_POLL: Final = 0.05
_LAST_WORDS: Final = 0.5
"""How long calls that were told to end may take to write their error frame and settle."""
_FLUSH: Final = 0.2
_OPS_CONNECTIONS: Final = 128
STARTUP_FAILURE: Final = 3


class Server:
    """Serve ``app`` on ``options.listen``, and ``ops_app`` on ``options.ops_listen``, until a signal or :meth:`stop`.

    ``draining`` is true from the first signal on: readiness must say so. Callbacks, all synchronous and on
    the loop: ``on_started(urls, ops_urls)`` once clients can connect; ``on_drain()`` when draining begins;
    ``on_reload()`` at SIGHUP; ``on_refused(error, request_id)`` when the server itself refused what never became
    a call. ``hub`` counts connections, requests in work and the server's own refusals.
    """

    def __init__(
        self,
        app: App,
        options: ServerOptions,
        *,
        ops_app: App | None = None,
        on_started: Callable[[list[str], list[str]], None] | None = None,
        on_drain: Callable[[], None] | None = None,
        on_reload: Callable[[], None] | None = None,
        on_refused: Callable[[ApiError, str], None] | None = None,
    ) -> None:
        self.options = options
        self.draining = False
        self.hub: Hub | None = None
        self._app = app
        self._ops_app = ops_app
        self._on_started = on_started
        self._on_drain = on_drain
        self._on_reload = on_reload
        self._on_refused = on_refused
        self._hubs: list[Hub] = []
        self._sockets: list[socket.socket] = []
        self._addresses: list[str] = []
        self._servers: list[asyncio.AbstractServer] = []
        self._stop: asyncio.Event | None = None
        self._delay = 0.0

    def run(self) -> int:
        """Serve on a loop of its own (uvloop); return the exit code. Raises OSError where it cannot listen."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self.serve())

    async def serve(self) -> int:
        """Serve on the running loop; return the exit code: 0, 3 where the application did not start, 1 where it did
        not stop."""
        self._stop = asyncio.Event()
        if self.draining:
            self._stop.set()
        asyncio.get_running_loop().set_exception_handler(_on_loop_error)
        try:
            api = self._bind(self.options.listen)
            ops = self._bind(self.options.ops_listen) if self.options.ops_listen and self._ops_app else []
            lifespan = _lifespan(self._app)
            with Signals(asyncio.get_running_loop(), self._on_signal, self._on_reload):
                await lifespan.startup()
                if lifespan.should_exit:
                    return STARTUP_FAILURE
                hub = self.hub = await self._listen(api, self._app, listen.connection_cap(self.options))
                hub.lifespan_state = lifespan.state
                if ops and self._ops_app is not None:
                    await self._listen(ops, self._ops_app, _OPS_CONNECTIONS)
                if self._on_started is not None:
                    self._on_started([listen.url(one) for one in api], [listen.url(one) for one in ops])
                await self._stop.wait()
                await self._drain()
                return await self._end_lifespan(lifespan)
        finally:
            self._close_listeners()

    def stop(self, *, delay: bool = True) -> None:
        """Begin to drain, as SIGTERM does; without ``delay`` as SIGINT does."""
        if self.draining:
            return
        self.draining = True
        for hub in self._hubs:
            hub.draining = True
        self._delay = self.options.drain_delay if delay else 0.0
        if self._on_drain is not None:
            self._on_drain()
        if self._stop is not None:
            self._stop.set()

    def _on_signal(self, number: int) -> None:
        self.stop(delay=number != signal.SIGINT)

    # --- begin ---

    def _bind(self, address: str) -> list[socket.socket]:
        sockets = listen.bind(address, self.options)
        self._sockets += sockets
        self._addresses.append(address)
        return sockets

    async def _listen(self, sockets: list[socket.socket], app: App, cap: int) -> Hub:
        hub = Hub(app, self.options, cap)
        hub.draining = self.draining
        hub.on_refused = self._on_refused
        self._hubs.append(hub)
        loop = asyncio.get_running_loop()
        for one in sockets:
            create = loop.create_unix_server if one.family == socket.AF_UNIX else loop.create_server
            self._servers.append(await create(lambda: Protocol(hub), sock=one, backlog=self.options.backlog))
        return hub

    # --- end ---

    def _close_listeners(self) -> None:
        for server in self._servers:
            server.close()
        listen.close(self._sockets, *self._addresses)
        self._servers = []
        self._sockets = []
        self._addresses = []

    async def _drain(self) -> None:
        """Accept for a while, close the listeners, let calls end, end the rest."""
        loop = asyncio.get_running_loop()
        if self._delay:
            await asyncio.sleep(self._delay)
        deadline = loop.time() + self.options.shutdown_grace
        self._close_listeners()
        await asyncio.sleep(0)  # what has arrived by now is read before idle connections are closed
        for connection in self._connections():
            connection.close_if_idle()
        await self._until_quiet(deadline)
        for cycle in self._running():
            if cycle.call is not None and not cycle.gone:
                cycle.call.leave("shutdown")
            else:
                cycle.cancel()
        await self._until_quiet(loop.time() + _LAST_WORDS)
        for cycle in self._running():
            cycle.cancel()
        for connection in self._connections():
            connection.finish_closing(linger=False)
        await self._until_quiet(loop.time() + _FLUSH)
        for connection in self._connections():
            connection.drop()
        await asyncio.sleep(0)

    async def _until_quiet(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        while any(hub.busy() for hub in self._hubs) and (left := deadline - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(_POLL, left))

    def _connections(self) -> list[Protocol]:
        return [connection for hub in self._hubs for connection in hub.connections]

    def _running(self) -> list[Any]:
        return [cycle for hub in self._hubs for cycle in hub.running]

    async def _end_lifespan(self, lifespan: Any) -> int:
        try:
            await asyncio.wait_for(lifespan.shutdown(), self.options.lifespan_timeout)
        except TimeoutError:
            log.error("The application did not shut down within %s s.", self.options.lifespan_timeout)
            return 1
        return 1 if lifespan.should_exit else 0


def _on_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if not isinstance(error, ConnectionError):  # a client's leaving is no news
        log.error("%s", context.get("message", "An error reached the event loop."), exc_info=error)


def _lifespan(app: App) -> Any:
    """Return uvicorn's lifespan handling for ``app``, its log lines going to ours."""
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.parent = log
        logger.setLevel(logging.WARNING)
    config = uvicorn.Config(
        app, interface="asgi3", lifespan="on", ws="none", http=Protocol, loop="none", log_config=None,
        access_log=False, proxy_headers=False, server_header=False, date_header=False,
    )  # fmt: skip
    config.load()
    return config.lifespan_class(config)
