"""A small application on the wire: what the endpoint is to the server, without the rest of the product."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson

from proxy.errors import ApiError
from proxy.server.wire import Wire

LIMIT = 1 << 20
HEADERS = b"content-type: application/json\r\nx-request-id: req_stub\r\n"


class StubCall:
    """Stands for a call: remembers when and why it was told to leave, and cancels its task as a call does."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.gone = False
        self.reason: str | None = None
        self.left_at = 0.0
        self.completed = False

    def leave(self, reason: str = "gone") -> None:
        if self.completed or self.reason is not None:
            return
        self.reason = reason
        self.gone = reason == "gone"
        self.left_at = time.monotonic()
        self.task.cancel()


class Stub:
    """Routes: /echo, /refuse (401 unread), /big, /stream, /hang, /endless, /fail, /late; ``seen`` lists what arrived."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.calls: list[StubCall] = []
        self.written = 0
        self.ended = 0
        self.closed = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        self.seen.append((scope["method"], scope["path"]))
        wire: Wire = scope["extensions"]["llm_sidecar"]
        try:
            await self._answer(scope["path"], wire, scope)
        except ApiError as error:
            extra = "".join(f"{name}: {value}\r\n" for name, value in error.headers).encode()
            wire.reply(error.status, HEADERS + extra, error.body())
        except ConnectionError:
            self.seen.append(("gone", scope["path"]))
        finally:
            self.ended += 1

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.closed = True
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, path: str, wire: Wire, scope: Any) -> None:
        if path == "/refuse":
            wire.reply(401, HEADERS, b'{"error":{"code":"invalid_api_key"}}')
            return
        if path == "/slowauth":
            await asyncio.sleep(0.3)
        body = await wire.read_body(LIMIT)
        if path == "/fail":
            raise RuntimeError("the stub fails as told")
        if path == "/silent":
            return
        if path == "/big":
            wire.reply(200, HEADERS, b"x" * int(body))
            return
        if path in ("/stream", "/hang", "/endless", "/cut"):
            await self._stream(path, wire, body)
            return
        wire.reply(
            200, HEADERS, orjson.dumps({"path": path, "size": len(body), "query": scope["query_string"].decode()})
        )

    async def _stream(self, path: str, wire: Wire, body: bytes) -> None:
        task = asyncio.current_task()
        assert task is not None
        call = StubCall(task)
        self.calls.append(call)
        wire.call = call  # type: ignore[assignment]
        try:
            told = orjson.loads(body or b"{}")
        except ValueError:
            raise ApiError("invalid_request", "The stub takes JSON.") from None
        try:
            if path == "/hang":
                await asyncio.sleep(told.get("seconds", 60))
                call.completed = True
                wire.reply(200, HEADERS, b"{}")
                return
            wire.start(200, HEADERS)
            count = 1 << 60 if path == "/endless" else told.get("count", 3)
            for number in range(count):
                data = b"data: %d" % number + b" " * told.get("pad", 0) + b"\n\n"
                wire.write(data)
                self.written += len(data)
                if wire.paused:
                    await wire.drain()
                await asyncio.sleep(told.get("interval", 0))
            if path == "/cut":
                return
            wire.end()
            call.completed = True
        except asyncio.CancelledError:
            task.uncancel()
            if call.reason == "shutdown":
                wire.write(b'data: {"error":{"code":"shutdown"}}\n\n')
                wire.end()
