"""A provider that misbehaves as told: ``python -m tests.fakes.upstream --port 0``.

One asyncio server without a framework. What to do with a call stands in its model's name
(:mod:`tests.fakes.behaviour`), in the URL's path (``/~SPEC/v1/…``), or was registered before:

``POST /__control`` ``{"model": NAME, "spec": SPEC}`` gives a model name a behaviour too long for a name;
``{"listen": KIND}`` opens another port (http, full, silent, refuse, reset, garbage) and answers ``{"port": N}``;
``{"accept": false}`` closes the main port until ``{"accept": true}``: use a control port of its own then.
``GET /__calls?tag=T&since=N`` returns the records, ``DELETE /__calls`` forgets them; ``GET /__state`` counts.

It prints one JSON line: ``{"port": …, "control": …}``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import socket as sockets
import ssl
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.behaviour import Behaviour, parse, well_behaved
from tests.fakes.connection import Connection
from tests.fakes.dialects import Anthropic, Completions, Dialect, Embeddings, Gemini, GeminiEmbeddings, OpenAI, dumps
from tests.fakes.odd import OddListener
from tests.fakes.player import Player
from tests.fakes.records import Record, Socket


class FakeServer:
    """All listeners, records and registered behaviours of one fake upstream."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.records: list[Record] = []
        self.sockets: list[Socket] = []
        self.garbage: list[bytes] = []
        self.registered: dict[str, str] = {}
        self.failed: Counter[str] = Counter()
        self.odd: dict[int, OddListener] = {}
        self._servers: dict[int, asyncio.Server] = {}
        self._n = 0
        self.port = 0

    # --- what connections ask ---------------------------------------------------------------------
    def next_id(self) -> str:
        self._n += 1
        return f"up_{self._n:08d}"

    def accepted(self, listener: str) -> Socket:
        found = Socket(len(self.sockets), listener, time.monotonic())
        self.sockets.append(found)
        return found

    def path_behaviour(self, record: Record) -> Behaviour | None:
        """Return the behaviour that the path's first segment names, None without one."""
        if not record.path.startswith("/~"):
            return None
        spec = unquote(record.path[2:].split("/", 1)[0])
        try:
            return parse(spec)
        except ValueError as error:
            record.problem = str(error)
            return None

    async def handle(self, wire: Connection, record: Record) -> None:
        """Answer one request."""
        if record.path.startswith("/__"):
            return await self._control(wire, record)
        base = self.path_behaviour(record)
        if base is not None and base.early:
            body = dumps({"error": {"message": "no need to read on", "type": "x", "param": None, "code": None}})
            head = f"HTTP/1.1 {base.early} Early\r\nx-request-id: {record.id}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            record.status = base.early
            record.end = "refused"
            await wire.write(head.encode() + (b"connection: close\r\n" if base.close else b"") + b"\r\n" + body)
            if base.close:
                await wire.pause(0.05)
                await wire.cut("fin")
            return await wire.body_read()
        url = urlsplit(record.path)
        path = unquote(url.path)
        try:
            body = json.loads(record.body) if record.body else {}
        except ValueError:
            record.problem = "the request's body is not JSON"
            return await self._simple(
                wire, record, 400, {"error": {"message": "not JSON", "type": "invalid_request_error"}}
            )
        dialect: Dialect | None = None
        model = str(body.get("model") or "") if isinstance(body, dict) else ""
        if path.endswith("/chat/completions"):
            dialect = OpenAI()
            if not model and "/deployments/" in path:
                model = path.split("/deployments/")[1].split("/")[0]
        elif path.endswith("/completions"):
            dialect = Completions()
        elif path.endswith("/messages"):
            dialect = Anthropic()
        elif path.endswith("/embeddings"):
            dialect = Embeddings()
        elif "/models/" in path and ":" in path:
            model, _, verb = path.split("/models/", 1)[1].rpartition(":")
            dialect = (
                GeminiEmbeddings(False) if verb == "batchEmbedContents" else Gemini(verb == "streamGenerateContent")
            )
        record.model = model
        try:
            behaviour = parse(self.registered.get(model, "") + ";" + model, base)
        except ValueError as error:
            record.problem = str(error)
            return await self._simple(wire, record, 500, {"error": {"message": str(error), "type": "test"}})
        if behaviour.fails:
            self.failed[model] += 1
            if self.failed[model] > behaviour.fails:
                behaviour = well_behaved(behaviour)
        if dialect is None:
            if record.method == "GET" and path.endswith("/models"):
                names = ["gpt-4o", "gpt-4o-mini", "text-embedding-3-small"]
                data = [{"id": name, "object": "model", "created": 1, "owned_by": "fake"} for name in names]
                return await self._simple(wire, record, behaviour.status, {"object": "list", "data": data})
            return await self._simple(
                wire, record, 404, {"error": {"message": f"no route {path}", "type": "invalid_request_error"}}
            )
        ask = dialect.ask(behaviour, record.id, model, body)
        record.stream = ask.stream
        await Player(wire, record, ask, dialect).play()

    async def _simple(self, wire: Connection, record: Record, status: int, body: Any) -> None:
        data = dumps(body)
        record.status = status
        record.end = "answered" if status == 200 else "refused"
        head = f"HTTP/1.1 {status} Simple\r\nx-request-id: {record.id}\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        await wire.write(head.encode() + data)

    # --- control ----------------------------------------------------------------------------------
    async def _control(self, wire: Connection, record: Record) -> None:
        url = urlsplit(record.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if url.path == "/__control":
            return await self._simple(wire, record, 200, await self._do(json.loads(record.body)))
        if url.path == "/__state":
            state = {
                "calls": len(self.records), "open": sum(s.closed is None for s in self.sockets) - 1, "sockets": len(self.sockets),
                "running": sum(not r.ended for r in self.records), "garbage": [g.decode("latin-1") for g in self.garbage],
                "odd": {port: odd.export() for port, odd in self.odd.items()},
            }  # fmt: skip
            return await self._simple(wire, record, 200, state)
        if record.method == "DELETE":
            self.records = [r for r in self.records if not r.ended]
            self.garbage.clear()
            return await self._simple(wire, record, 200, {})
        tag, since = query.get("tag", ""), int(query.get("since", 0))
        keep = int(query.get("bodies", 65536))
        found = [
            r.export(keep) for r in self.records
            if (not tag or tag in r.model or tag in r.path) and int(r.id[3:]) > since
        ]  # fmt: skip
        await self._simple(wire, record, 200, {"calls": found, "last": self._n})

    async def _do(self, order: dict[str, Any]) -> dict[str, Any]:
        if "model" in order:
            parse(order["spec"])
            self.registered[order["model"]] = order["spec"]
        if "listen" in order:
            kind = order["listen"]
            if kind == "http":
                return {"port": await self.listen("http", None)}
            odd = await OddListener.open(kind)
            self.odd[odd.port] = odd
            return {"port": odd.port}
        if order.get("accept") is False:
            server = self._servers.pop(self.port)
            server.close()
        if order.get("accept") is True and self.port not in self._servers:
            await self.listen("main", self.tls, self.port)
        if "close" in order:
            port = order["close"]
            if port in self.odd:
                self.odd.pop(port).close()
        return {}

    async def listen(self, name: str, tls: ssl.SSLContext | None, port: int = 0) -> int:
        """Open a listener on 127.0.0.1 and return its port."""
        raw = sockets.socket()
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        raw.bind(("127.0.0.1", port))
        found: int = raw.getsockname()[1]
        factory: Callable[[], Connection] = lambda: Connection(self, f"{name}:{found}")  # noqa: E731
        self._servers[found] = await asyncio.get_running_loop().create_server(factory, sock=raw, ssl=tls, backlog=4096)
        return found

    def close(self) -> None:
        for server in self._servers.values():
            server.close()
        for odd in self.odd.values():
            odd.close()


async def run(args: argparse.Namespace) -> None:
    tls = None
    if args.tls_cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(args.tls_cert)
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        if args.tls_max == "1.2":
            tls.maximum_version = ssl.TLSVersion.TLSv1_2
        tls.set_alpn_protocols(["http/1.1"])
    server = FakeServer(tls)
    server.port = await server.listen("main", tls, args.port)
    control = await server.listen("control", None)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    print(json.dumps({"port": server.port, "control": control}), flush=True)
    await stop.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls-cert", help="a PEM file with certificate chain and key")
    parser.add_argument("--tls-max", choices=("1.2", "1.3"), default="1.3")
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        try:
            import uvloop

            uvloop.run(run(args))
        except ImportError:
            asyncio.run(run(args))


if __name__ == "__main__":
    main()
