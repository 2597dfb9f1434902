"""The server stays an ASGI server for Starlette's routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.server.harness import on_uvloop, request, serving


class Watching:
    """Note whether a streaming route learnt that its client left."""

    cancelled = False


def build(watching: Watching) -> Starlette:
    """Return an application with the kinds of routes that admin and health have."""

    async def hello(request: Request) -> Response:
        return PlainTextResponse("hello", headers={"x-a": "b"})

    async def post(request: Request) -> Response:
        return JSONResponse({"size": len(await request.body()), "state": request.state.store})

    async def pieces(request: Request) -> Response:
        return JSONResponse([len(piece) async for piece in request.stream()])

    async def stream(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            try:
                for number in range(int(request.query_params.get("count", "3"))):
                    yield b"part %d\n" % number
                    await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                watching.cancelled = True
                raise

        return StreamingResponse(parts(), media_type="text/plain")

    async def fail(request: Request) -> Response:
        raise RuntimeError("fails as told")

    async def half(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"part"
            raise RuntimeError("fails as told")

        return StreamingResponse(parts())

    async def length(request: Request) -> Response:
        return Response(headers={"content-length": "7"}, content=b"" if request.method == "HEAD" else b"7 bytes")

    async def none(request: Request) -> Response:
        return Response(status_code=204)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        yield {"store": "memory"}

    return Starlette(
        routes=[
            Route("/hello", hello),
            Route("/post", post, methods=["POST"]),
            Route("/pieces", pieces, methods=["POST"]),
            Route("/stream", stream),
            Route("/fail", fail),
            Route("/half", half),
            Route("/none", none),
            Route("/length", length),
        ],
        lifespan=lifespan,
    )


GET = "GET"


@on_uvloop
async def test_routes_are_served_on_a_kept_connection() -> None:
    """Whole replies, 404, 405, 204, bodies and lifespan state work, one connection for all."""
    async with serving(build(Watching())) as site, await site.raw() as client:
        reply = await client.ask(request("/hello", method=GET))
        assert (reply.status, reply.body, reply.headers["x-a"]) == (200, b"hello", "b")
        assert reply.headers["content-length"] == "5"
        assert (await client.ask(request("/nothing", method=GET))).status == 404
        assert (await client.ask(request("/hello", b"x"))).status == 405
        assert (await client.ask(request("/none", method=GET))).status == 204
        assert (await client.ask(request("/post", b"x" * 300_000))).body == b'{"size":300000,"state":"memory"}'
        assert (await client.ask(request("/pieces", b"x" * 10))).body == b"[10,0]"


@on_uvloop
async def test_head_has_the_headers_and_no_body() -> None:
    """HEAD answers with GET's content-length and no body, streams included."""
    async with serving(build(Watching())) as site, await site.raw() as client:
        await client.send(request("/hello", method="HEAD"))
        reply = await client.response(head_only=True)
        assert (reply.status, reply.headers["content-length"]) == (200, "5")
        await client.send(request("/length", method="HEAD"))
        assert (await client.response(head_only=True)).headers["content-length"] == "7"
        await client.send(request("/stream", method="HEAD"))
        assert (await client.response(head_only=True)).status == 200
        assert (await client.ask(request("/hello", method=GET))).body == b"hello"


@on_uvloop
async def test_streams_are_chunked_and_end_with_their_client() -> None:
    """A streaming route's pieces arrive, and a client's leaving cancels it."""
    watching = Watching()
    async with serving(build(watching)) as site:
        async with await site.raw() as client:
            reply = await client.ask(request("/stream", method=GET))
            assert reply.body == b"part 0\npart 1\npart 2\n"
            await client.send(request("/stream?count=1000", method=GET))
            await client.reader.readuntil(b"part 3")
        await site.until(lambda: watching.cancelled)
        await site.until(lambda: not site.hub.running)


@on_uvloop
async def test_a_body_may_be_streamed_in() -> None:
    """A route that reads piece by piece sees the body's bytes as they come."""
    async with serving(build(Watching())) as site, await site.raw() as client:
        raw = request("/pieces", b"x" * 30)
        await client.send(raw[:-20])
        await asyncio.sleep(0.05)
        await client.send(raw[-20:])
        sizes = eval((await client.response()).body)
        assert sum(sizes) == 30
        assert len([size for size in sizes if size]) == 2


@on_uvloop
async def test_a_body_that_stalls_on_a_route_is_cut() -> None:
    """The deadline holds for routes that never heard of it."""
    async with serving(build(Watching()), receive_timeout=0.3) as site, await site.raw() as client:
        await client.send(request("/post", b"x" * 30)[:-20])
        (await client.response()).check_error(408, "request_timeout")
        assert await client.closed() == b""


@pytest.mark.parametrize("path", ["/fail", "/silent"])
@on_uvloop
async def test_a_crash_before_the_reply_is_an_internal_error(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """An application that raises or forgets to reply costs a 500 in OpenAI's shape, no detail, and a log line."""
    async with serving() as site, await site.raw() as client:
        reply = await client.ask(request(path, b"{}"))
        reply.check_error(500, "internal_error")
        assert b"told" not in reply.body
        assert (await client.ask(request("/echo", b"{}"))).status == 200
    assert [record.name for record in caplog.records] == (["llm_sidecar"] if path == "/fail" else [])


@pytest.mark.parametrize("starlette", [True, False])
@on_uvloop
async def test_a_crash_within_the_reply_cuts_the_connection(starlette: bool) -> None:
    """A reply that cannot be completed is never ended as if it were whole."""
    async with serving(build(Watching()) if starlette else None) as site, await site.raw() as client:
        await client.send(request("/half", method=GET) if starlette else request("/cut", b"{}"))
        rest = await client.closed()
        assert b"\r\n0\r\n" not in rest


@on_uvloop
async def test_a_second_listener_serves_health_only() -> None:
    """ops_listen brings another application on another port, in the same loop, with the same drain."""
    async with serving(ops_app=build(Watching()), ops_listen="127.0.0.1:0") as site:
        await site.probe()
        assert len(site.ops_urls) == 1
        port = int(site.ops_urls[0].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/hello", method=GET))
        assert b"200 OK" in await reader.readline()
        writer.transport.abort()


@on_uvloop
async def test_a_unix_socket_works(tmp_path_factory: pytest.TempPathFactory) -> None:
    """listen: unix:/path serves, removes its file at the end, and takes over one that a killed sidecar left."""
    path = str(tmp_path_factory.mktemp("s") / "s")
    import socket

    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    async with serving(listen=f"unix:{path}") as site:
        assert site.urls == [f"unix:{path}"]
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(request("/echo", b"{}"))
        assert b"200 OK" in await reader.readline()
        writer.transport.abort()
    with pytest.raises(FileNotFoundError):
        await asyncio.open_unix_connection(path)
