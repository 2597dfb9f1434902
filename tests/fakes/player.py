"""Plays one behaviour on a connection: head, body, framing, and every way to get them wrong."""

from __future__ import annotations

import time
import zlib
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from tests.fakes.behaviour import Behaviour, at
from tests.fakes.connection import Connection, Cut, Gone
from tests.fakes.dialects import Ask, Dialect, Event, dumps
from tests.fakes.records import Record

_HOSTILE = (
    ("set-cookie", "session=stolen; Path=/"),
    ("set-cookie", "second=cookie"),
    ("server", "evil/6.6"),
    ("via", "1.1 evil"),
    ("x-powered-by", "evil"),
    ("location", "http://evil.invalid/"),
    ("access-control-allow-origin", "*"),
    ("access-control-allow-credentials", "true"),
    ("x-ratelimit-remaining-requests", "99999"),
    ("x-ratelimit-limit-requests", "99999"),
    ("x-llm-model", "spoofed"),
    ("x-llm-provider", "spoofed"),
    ("x-llm-cache", "hit"),
    ("x-quota-limit-tokens", "1"),
    ("strict-transport-security", "max-age=1"),
    ("content-security-policy", "default-src *"),
    ("x-evil", "e" * 4000),
    ("retry-after", "99999"),
    ("www-authenticate", "Basic realm=evil"),
    ("content-disposition", "attachment"),
    ("trailer", "x-evil-trailer"),
    ("alt-svc", 'h3=":443"'),
    ("refresh", "0; url=http://evil.invalid/"),
    ("link", "<http://evil.invalid/>; rel=preload"),
)


class Player:
    """One reply. ``count`` is called with what the kernel took, so that the record is never ahead of it."""

    def __init__(self, connection: Connection, record: Record, ask: Ask, dialect: Dialect) -> None:
        self.wire = connection
        self.record = record
        self.ask = ask
        self.b: Behaviour = ask.behaviour
        self.dialect = dialect
        self.framing = self.b.framing
        self.cut_kind, _, self.cut_at = self.b.cut.partition("@")
        self.cut_byte = int(self.cut_at) if self.cut_at.isdigit() else -1
        self.deflate = zlib.compressobj(wbits=31) if self.b.gzip else None

    # --- phases -----------------------------------------------------------------------------------
    async def hang(self, phase: str) -> None:
        """Hang here if told to: until the peer leaves, or ``hold`` has passed."""
        if self.b.hang == phase:
            await self.wire.pause(self.b.hold)

    async def station(self, name: str) -> None:
        if self.cut_kind and self.cut_at == name:
            await self.wire.cut(self.cut_kind)
        await self.hang(name)

    async def play(self) -> None:
        """Answer as told."""
        b = self.b
        if b.headers:
            await self.wire.pause(b.headers)
        await self.station("headers")
        if b.bomb in ("headers", "header", "status", "informational"):
            await self._head_bomb()
            if b.bomb != "informational":
                return
        if b.redirect:
            return await self._redirect()
        if b.status != 200:
            return await self._refuse()
        as_stream = {"json": False, "sse": True}.get(b.answer, self.ask.stream)
        self.record.stream = as_stream
        if b.bomb in ("line", "events", "gzip", "body", "trailers"):
            await self._body_bomb(as_stream)
        elif as_stream:
            await self._stream()
        else:
            await self._whole()
        self.record.end = "answered"
        await self.hang("end")

    async def _redirect(self) -> None:
        target = f"http://127.0.0.1:{self.b.redirect}{self.record.path}"
        await self._head(302, [("location", target), ("content-type", "text/plain")], 5)
        await self._raw(b"moved")
        self.record.end = "refused"

    async def _refuse(self) -> None:
        b = self.b
        body, content_type = error_body(self.dialect, self.record, b)
        headers = [("content-type", content_type)] if content_type else []
        if b.after:
            headers.append(("Retry-After", b.after))
        if b.afterms:
            headers.append(("retry-after-ms", b.afterms))
        if b.afterdate >= 0:
            headers.append(("Retry-After", formatdate(time.time() + b.afterdate, usegmt=True)))
        if b.reset:
            headers.append(("x-ratelimit-reset-requests", b.reset))
        length = len(body) + (50 if b.body == "truncated" else 0)
        await self._head(b.status, headers, length)
        await self._body(body)
        self.record.end = "refused"
        if b.body == "truncated":
            await self.wire.cut("fin")

    async def _whole(self) -> None:
        await self.hang("first")
        body = self.dialect.whole(self.ask)
        if self.b.bad:
            body = spoil(body, at(self.b.bad)[0])
        if self.deflate is not None:
            body = self.deflate.compress(body) + self.deflate.flush()
        await self._head(200, [("content-type", "application/json")], len(body))
        if self.b.first:
            await self.wire.pause(self.b.first)
        await self._body(body)
        self.record.chunks = self.b.chunks
        self.record.tokens = self.ask.completion_tokens
        self.record.usage = self.ask.usage
        await self._end()

    async def _stream(self) -> None:
        b = self.b
        if not self.framing:
            self.framing = "chunked"
        headers = [("content-type", self.dialect.content_type), ("cache-control", "no-cache")]
        if self.framing == "length":
            events = list(self.dialect.events(self.ask))
            await self._head(200, headers, sum(len(e.data) for e in events))
        else:
            await self._head(200, headers, None)
        if b.first:
            await self.wire.pause(b.first)
        await self.station("first")
        omit = set(b.omit.split("+"))
        bad, bad_at = at(b.bad)
        error = b.error.split(":", 2) if b.error else []
        half = int(b.hang[5:]) if b.hang.startswith("half@") else -1
        k = 0
        turn = 0
        for event in self.dialect.events(self.ask):
            mark = event.mark
            if mark in ("chunk", "part") and k == 0 and (error and int(error[0]) == 0):
                return await self._error(error)
            if mark in ("finish", "usage", "done"):
                if mark == "usage" and b.usage == "late":
                    await self.wire.pause(0.3)
                await self.station(mark)
            if mark in omit:
                continue
            if bad and mark in ("chunk", "finish") and k == bad_at:
                await self._body(bad_event(self.dialect, bad))
                bad = ""
            if half == k and mark in ("chunk", "finish"):
                await self._body(event.data[: len(event.data) // 2])
                await self.wire.pause(b.hold)
                await self._body(event.data[len(event.data) // 2 :])
                half = -1
            else:
                await self._body(event.data)
            self._count(event)
            if mark == "chunk":
                k += 1
                await self.station(f"chunk{k}")
                if error and int(error[0]) == k:
                    return await self._error(error)
                if b.interval:
                    await self.wire.pause(b.interval)
            turn += 1
            if turn % 16 == 0:
                await self.wire.pause(0)
        if b.omit and self.cut_kind == "fin" and self.cut_at == "end":
            await self.wire.cut("fin")
        await self._end()

    def _count(self, event: Event) -> None:
        record = self.record
        if event.mark == "chunk":
            record.chunks += 1
        record.reached = event.mark
        record.tokens += event.tokens
        record.chars += len(event.text)
        record.wide += len(event.text.encode())
        if self.ask.usage is not None:
            record.usage = self.ask.usage

    async def _error(self, error: list[str]) -> None:
        code = error[1] if len(error) > 1 else ""
        message = error[2] if len(error) > 2 else "the model fell over in mid-sentence"
        await self._body(self.dialect.error_event(message, code))
        await self._end()

    # --- bytes ------------------------------------------------------------------------------------
    async def _head(self, status: int, headers: list[tuple[str, str]], length: int | None) -> None:
        b = self.b
        self.record.status = status
        try:
            reason = HTTPStatus(status).phrase
        except ValueError:
            reason = "Whatever"
        lines = [f"HTTP/1.1 {status} {reason}"]
        if b.hdr == "hostile":
            lines += [f"{name}: {value}" for name, value in _HOSTILE]
            lines.append("x-request-id: <script>alert(1)</script>" + "A" * 200)
        elif b.hdr == "badid":
            lines.append("x-request-id: a b\tc;d=e")
        else:
            lines.append(f"x-request-id: {self.record.id}")
            lines.append(f"request-id: {self.record.id}")
        lines += [f"{name}: {value}" for name, value in headers]
        if b.gzip or b.bomb == "gzip":
            lines.append("content-encoding: gzip")
        if length is None and self.framing in ("", "chunked", "badchunk", "both"):
            lines.append("transfer-encoding: chunked")
            if self.framing == "both":
                lines.append("content-length: 10")
            self.framing = self.framing or "chunked"
        elif self.framing == "close":
            lines.append("connection: close")
        else:
            match self.framing:
                case "short":
                    lines.append(f"content-length: {(length or 0) + 1000}")
                case "long":
                    lines.append(f"content-length: {max(0, (length or 0) - 20)}")
                case "double":
                    lines += [f"content-length: {length}", f"content-length: {(length or 0) + 1}"]
                case "both":
                    lines += [f"content-length: {length}", "transfer-encoding: chunked"]
                case "chunked":
                    lines.append("transfer-encoding: chunked")
                case _:
                    self.framing = "length"
                    lines.append(f"content-length: {length}")
        if b.close:
            lines.append("connection: close")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        self.record.replied = time.monotonic()
        if self.cut_at == "head" and self.cut_kind:
            await self.wire.write(head[: len(head) // 2])
            await self.wire.cut(self.cut_kind)
        await self.wire.write(head)

    async def _body(self, payload: bytes) -> None:
        """Write body bytes, cutting at the byte told."""
        if self.deflate is not None and self.framing == "chunked":
            payload = self.deflate.compress(payload) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
        room = self.cut_byte - self.record.sent
        if self.cut_byte >= 0 and len(payload) > room:
            await self._pieces(payload[:room])
            self.record.missing = len(payload) - room
            await self.wire.cut(self.cut_kind)
        await self._pieces(payload)

    async def _pieces(self, payload: bytes) -> None:
        step = self.b.split
        if not step:
            return await self._raw(payload)
        for i in range(0, len(payload), step):
            await self._raw(payload[i : i + step])
            await self.wire.pause(0)

    async def _raw(self, payload: bytes) -> None:
        if not payload:
            return
        if self.framing in ("chunked", "both"):
            data = b"%x\r\n%b\r\n" % (len(payload), payload)
        elif self.framing == "badchunk" and self.record.sent > 100:
            data = b"zz\r\n" + payload + b"\r\n"
        elif self.framing == "badchunk":
            data = b"%x\r\n%b\r\n" % (len(payload), payload)
        else:
            data = payload
        await self.wire.write(data)
        self.record.sent += len(payload)

    async def _end(self) -> None:
        if self.cut_byte == self.record.sent:
            await self.wire.cut(self.cut_kind)
        if self.framing in ("chunked", "both", "badchunk"):
            await self.wire.write(b"0\r\n\r\n")
        if self.framing in ("close", "short", "long", "double", "badchunk") or self.b.close:
            self.record.end = "answered"
            self.wire.cut_by_us = True
            self.wire.transport.close()

    # --- bombs ------------------------------------------------------------------------------------
    async def _head_bomb(self) -> None:
        b = self.b
        size = b.bombsize
        if b.bomb == "informational":
            for _ in range(size or 1000):
                await self.wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        start = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        if b.bomb == "status":
            start = b"HTTP/1.1 200 " + b"O" * (size or 1 << 20) + b"\r\n"
        await self.wire.write(start)
        if b.bomb == "headers":
            for i in range(size or 20_000):
                await self.wire.write(b"x-bomb-%d: %b\r\n" % (i, b"b" * 40))
        else:
            await self.wire.write(b"x-bomb: ")
            for _ in range((size or 1 << 20) // 1024):
                await self.wire.write(b"b" * 1024)
        body = self.dialect.whole(self.ask)
        await self.wire.write(b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        self.record.end = "answered"

    async def _body_bomb(self, as_stream: bool) -> None:
        b = self.b
        size = b.bombsize
        content_type = self.dialect.content_type if as_stream else "application/json"
        await self._head(200, [("content-type", content_type)], None)
        match b.bomb:
            case "line":
                await self._raw(b"data: ")
                for _ in range((size or 100 << 20) // 65536):
                    await self._raw(b"a" * 65536)
            case "body":
                await self._raw(b'{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"content":"')
                for _ in range((size or 200 << 20) // 65536):
                    await self._raw(b"a" * 65536)
                await self._raw(b'"}}]}')
            case "gzip":
                for piece in gzip_bomb(size or 256 << 20):
                    await self._raw(piece)
            case "events":
                tiny = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
                for _ in range((size or 1_000_000) // 100):
                    await self._raw(tiny * 100)
                    self.record.chunks += 100
                    self.record.tokens += 100
                    self.record.chars += 100
                    self.record.wide += 100
                for event in self.dialect.events(self.ask):
                    if event.mark in ("finish", "usage", "done"):
                        await self._raw(event.data)
            case "trailers":
                await self._raw(self.dialect.whole(self.ask))
                await self.wire.write(b"0\r\n")
                for i in range(size or 20_000):
                    await self.wire.write(b"x-trailer-%d: %b\r\n" % (i, b"t" * 40))
                await self.wire.write(b"\r\n")
                return
        await self._end()


@lru_cache(maxsize=2)
def gzip_bomb(size: int) -> list[bytes]:
    """Return gzip data that unpacks to ``size`` spaces inside a JSON string."""
    deflate = zlib.compressobj(9, wbits=31)
    block = b" " * (1 << 20)
    out = [deflate.compress(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"')]
    for _ in range(size >> 20):
        out.append(deflate.compress(block))
    out.append(deflate.compress(b'"}}]}') + deflate.flush())
    return [piece for piece in out if piece]


def spoil(body: bytes, how: str) -> bytes:
    """Return a whole reply's body made wrong."""
    match how:
        case "json":
            return body[: len(body) // 2]
        case "event":
            return b"[1, 2, 3]"
        case "shape":
            return b'{"id":7,"object":[],"choices":"none","usage":"much","content":4,"candidates":{}}'
        case "utf8":
            return body.replace(b" 000001", b" \xff\xfe\xc3(\xed\xa0\x80")
        case "line":
            return b"<html><body>502 from a load balancer</body></html>"
        case "nul":
            return b"\x00" * 100
        case "nan":
            return b'{"id":"x","choices":[],"usage":{"prompt_tokens":NaN,"completion_tokens":Infinity}}'
        case "deep":
            return b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        case "comment" | "unknown":
            return body
    raise ValueError(f"no way to make a whole reply {how!r}")


def bad_event(dialect: Dialect, how: str) -> bytes:
    """Return something that is no good event (``comment`` and ``unknown`` are: they must be passed over)."""
    match how:
        case "json":
            return dialect.cut_event()
        case "event":
            return b"data: 42\n\n"
        case "shape":
            return dialect.bad_shape()
        case "utf8":
            return b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"\xff\xfe\xed\xa0\x80"},"finish_reason":null}]}\n\n'
        case "line":
            return b"<html>what is this</html>\n\n"
        case "nul":
            return b"data: \x00\x00\x00\n\n"
        case "comment":
            return b": still there\n\n:\n\nid: 7\nretry: 10\n\n"
        case "unknown":
            return dialect.unknown()
        case "nan" | "deep":
            return b"data: " + spoil(b"", how) + b"\n\n"
    raise ValueError(f"no way to make an event {how!r}")


def error_body(dialect: Dialect, record: Record, b: Behaviour) -> tuple[bytes, str]:
    """Return an error reply's body and its content type."""
    message = b.msg or f"the fake upstream says {b.status}"
    json_type = "application/json"
    match b.body:
        case "json":
            return dialect.error(b.status, message, b.code, b.type), json_type
        case "html":
            return (
                f"<html><head><title>{b.status}</title></head><body><h1>{message}</h1></body></html>".encode(),
                "text/html",
            )
        case "empty":
            return b"", ""
        case "text":
            return message.encode(), "text/plain"
        case "nested":
            inner = dumps({"error": {"message": message, "code": b.code}}).decode()
            return dumps({"error": {"message": inner}}), json_type
        case "array":
            return dumps([{"error": {"code": b.status, "message": message, "status": b.code or "INTERNAL"}}]), json_type
        case "number":
            return b"42", json_type
        case "null":
            return b"null", json_type
        case "plainjson":
            return dumps({"detail": [{"loc": ["body"], "msg": message}]}), json_type
        case "truncated":
            return dialect.error(b.status, message, b.code, b.type)[:-10], json_type
        case "key":
            sent = " ".join(f"{name}: {value}" for name, value in record.headers)
            return dialect.error(b.status, f"Incorrect API key provided: {sent}", b.code, b.type), json_type
        case "big":
            return dialect.error(b.status, message + " x" * 2_000_000, b.code, b.type), json_type
        case "utf8":
            return b'{"error":{"message":"\xff\xfe' + message.encode() + b'"}}', json_type
    raise ValueError(f"no error body called {b.body!r}")


__all__ = ["Cut", "Gone", "Player"]
