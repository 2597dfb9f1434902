"""A provider that a test plays itself, in this process: a Python function answers each call, in any vendor's dialect."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.fakes.behaviour import Behaviour
from tests.fakes.dialects import Anthropic, Ask, Dialect, Event, Gemini, OpenAI
from tests.fakes.ports import free_port

VENDORS = ("openai", "azure_openai", "anthropic", "gemini")
#: The header that carries the key, and what stands before it.
_KEYS = (("authorization", "Bearer "), ("api-key", ""), ("x-api-key", ""), ("x-goog-api-key", ""))


@dataclass(slots=True)
class Seen:
    """One call as it arrived. Times are monotonic seconds; ``left`` is when the client went away, if it did."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes
    at: float
    left: float | None = None

    @property
    def body(self) -> Any:
        return json.loads(self.raw) if self.raw else None

    @property
    def key(self) -> str:
        """The API key that it carries."""
        return next((self.headers[name].removeprefix(start) for name, start in _KEYS if name in self.headers), "")

    @property
    def dialect(self) -> Dialect:
        path = self.path.partition("?")[0]
        if path.endswith("/messages"):
            return Anthropic()
        if path.endswith(("GenerateContent", "generateContent")):
            return Gemini(path.endswith("streamGenerateContent"))
        return OpenAI()

    def ask(self, **behaviour: Any) -> Ask:
        """Return what is asked for, to be answered with ``behaviour``."""
        body = self.body or {}
        model = body.get("model") or self.path.split("/models/")[-1].partition(":")[0]
        return self.dialect.ask(Behaviour(**behaviour), "x1", model, body)


@dataclass(slots=True)
class Answer:
    """A reply: ``body`` whole, or pieces sent one by one (chunked), each piece bytes or seconds to wait."""

    body: bytes | Iterable[bytes | float] | AsyncIterator[bytes] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    cut: bool = False
    """Close the connection after the pieces, without the message's end."""


Play = Callable[[Seen], Answer | Awaitable[Answer]]


def say(seen: Seen, **behaviour: Any) -> Answer:
    """Return a good answer in the call's own dialect and form."""
    ask = seen.ask(**behaviour)
    if ask.stream:
        return Answer([event.data for event in seen.dialect.events(ask)], content_type=seen.dialect.content_type)
    return Answer(seen.dialect.whole(ask))


def events(seen: Seen, **behaviour: Any) -> list[Event]:
    """Return the events of a good stream in the call's dialect."""
    return list(seen.dialect.events(seen.ask(**behaviour)))


def refuse(seen: Seen, status: int, message: str = "no", code: str = "", type: str = "", **headers: str) -> Answer:
    """Return a refusal in the call's own dialect; header names with underscores for hyphens."""
    body = seen.dialect.error(status, message, code, type)
    return Answer(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


def stream_of(seen: Seen, pieces: Iterable[bytes | float], *, cut: bool = False) -> Answer:
    """Return a stream of ``pieces``."""
    return Answer(pieces, content_type=seen.dialect.content_type, cut=cut)


class Scripted:
    """The provider, running: ``async with Scripted(play) as provider``."""

    def __init__(self, play: Play, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.play = play
        self.calls: list[Seen] = []
        self.connects = 0
        self._tls = tls
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Scripted:
        port = free_port()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=self._tls, limit=1 << 24)
        self.url = f"{'https' if self._tls else 'http'}://{self._host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connects += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.IncompleteReadError:
            return False
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        raw = await reader.readexactly(int(headers.get("content-length") or 0))
        seen = Seen(method, path, headers, raw, time.monotonic())
        self.calls.append(seen)
        answering = asyncio.ensure_future(self._answer(seen, writer))
        # A client that says anything before its answer is whole has left: nobody pipelines here.
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                seen.left = time.monotonic()
                return False
            if leaving.done():
                return False
            return answering.result()
        finally:
            for one in (answering, leaving):
                one.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await one

    async def _answer(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        played = self.play(seen)
        answer = await played if isinstance(played, Awaitable) else played
        lines = [
            f"HTTP/1.1 {answer.status} X",
            f"content-type: {answer.content_type}",
            f"x-request-id: up_{len(self.calls)}",
        ]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        if isinstance(answer.body, bytes):
            lines.append(f"content-length: {len(answer.body)}")
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + answer.body)
            await writer.drain()
            return True
        lines.append("transfer-encoding: chunked")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async for piece in _pieces(answer.body):
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            elif piece:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
        if answer.cut:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


async def _pieces(body: Any) -> AsyncIterator[bytes | float]:
    if hasattr(body, "__aiter__"):
        async for piece in body:
            yield piece
    else:
        for piece in body:
            yield piece


def providers(url: str, *names: str, **common: Any) -> dict[str, Any]:
    """Return llm.yml's entries for the vendors ``names`` (all of them), each at ``url``."""
    shared: dict[str, Any] = {
        "api_key": "sk-upstream-CANARY4417",
        "max_retries": 0,
        "breaker": {"failures": 1_000_000},
        **common,
    }
    entries: dict[str, Any] = {
        "openai": {**shared, "base_url": f"{url}/v1"},
        "azure_openai": {**shared, "azure_endpoint": url},
        "anthropic": {**shared, "base_url": url, "max_tokens": 1000},
        "gemini": {**shared, "base_url": url},
    }
    return {name: entries[name] for name in names or VENDORS}


def llm_yml(entries: dict[str, Any], **more: Any) -> str:
    """Return the text of an llm.yml with these providers."""
    settings = {"default_provider": next(iter(entries)), "providers": entries, **more}
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
