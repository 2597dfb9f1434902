"""The server's start and end, where the application or the port is not willing."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
import uvloop

from proxy.server.options import ServerOptions
from proxy.server.serve import STARTUP_FAILURE, Server
from tests.server.harness import on_uvloop, request, serving


class Lifespan:
    """An application that is nothing but its start and end."""

    def __init__(self, start: str = "complete", end: str = "complete") -> None:
        self.start = start
        self.end = end

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        await self._say("startup", self.start, send)
        assert (await receive())["type"] == "lifespan.shutdown"
        await self._say("shutdown", self.end, send)

    async def _say(self, phase: str, what: str, send: Any) -> None:
        if what == "hang":
            await asyncio.sleep(60)
        if what == "raise":
            raise RuntimeError(f"{phase} raises as told")
        await send({"type": f"lifespan.{phase}.{what}", "message": f"{phase} fails as told"})


def options(**more: Any) -> ServerOptions:
    """Return options of a server that ends quickly."""
    return ServerOptions(**{"listen": "127.0.0.1:0", "drain_delay": 0, "lifespan_timeout": 0.3, **more})


def run(server: Server) -> int:
    """Serve to the end, which must come."""

    async def limited() -> int:
        return await asyncio.wait_for(server.serve(), 10)

    return uvloop.run(limited())


@pytest.mark.parametrize("start", ["failed", "raise"])
def test_an_application_that_does_not_start_is_never_listened_for(start: str, caplog: Any, capfd: Any) -> None:
    """Its failure is exit code 3 and a record of our own logger; nothing goes to stdout."""
    started: list[Any] = []
    server = Server(Lifespan(start=start), options(), on_started=lambda *urls: started.append(urls))
    assert run(server) == STARTUP_FAILURE
    assert started == []
    assert "as told" in caplog.text
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(("end", "code"), [("complete", 0), ("failed", 1), ("hang", 1)])
def test_an_application_that_does_not_stop_is_left_after_its_time(end: str, code: int) -> None:
    """The lifespan's shutdown is awaited, but not for ever; the exit code tells."""
    server = Server(Lifespan(end=end), options(), on_started=lambda *_: server.stop())
    assert run(server) == code


def test_a_port_in_use_is_an_error_before_anything_starts() -> None:
    """The sentence names the address; the application is not started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"Cannot listen on {where}"):
            run(Server(Lifespan(start="raise"), options(listen=where)))


def test_a_stop_before_the_start_still_starts_and_stops_cleanly() -> None:
    """A signal during the start is not lost."""
    server = Server(Lifespan(), options())
    drained: list[bool] = []
    server._on_drain = lambda: drained.append(server.draining)
    server.stop()
    assert run(server) == 0
    assert drained == [True]


@on_uvloop
async def test_the_server_counts_its_own_refusals() -> None:
    """What never became a call is counted by error code."""
    async with serving() as site:
        for raw in (b"nonsense\r\n\r\n", b"GET /x HTTP/1.1\r\n\r\n", b"GET /" + b"x" * 20_000):
            async with await site.raw() as client:
                await client.ask(raw)
        async with await site.raw() as client:
            await client.ask(request("/echo", b"{}"))
        assert site.hub.refused == {"invalid_request": 2, "headers_too_large": 1}
