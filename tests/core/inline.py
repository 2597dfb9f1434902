"""A whole sidecar in this process, answering on a real socket: for tests that look inside."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from proxy.app import Sidecar
from proxy.config.load import load_text
from proxy.runtime import Runtime
from proxy.server.options import ServerOptions
from proxy.server.serve import Server
from proxy.telemetry.log import LineWriter
from tests.fakes.clients import BARE
from tests.fakes.ports import free_port
from tests.policies.build import ECHO


class Inline:
    """The running sidecar: ``client`` speaks to it, ``lines()`` are its log lines so far."""

    def __init__(self, side: Sidecar, client: httpx2.AsyncClient, read: int) -> None:
        self.side = side
        self.client = client
        self._read = read
        self._text = b""

    async def chat(self, text: str = "hi", **more: Any) -> httpx2.Response:
        """Send one chat request."""
        body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
        return await self.client.post("/v1/chat/completions", json=body)

    async def lines(self, event: str = "llm_request_completed") -> list[dict[str, Any]]:
        """Return the log lines of one kind."""
        await asyncio.sleep(0.02)
        while True:
            self.side.writer.flush()
            try:
                self._text += os.read(self._read, 1 << 20)
            except BlockingIOError:
                break
        rows = [json.loads(line) for line in self._text.splitlines()]
        return [row for row in rows if row["event"] == event]


@asynccontextmanager
async def inline(config: str, folder: str | None = None, environ: dict[str, str] | None = None):
    """Serve ``config`` on a free port of loopback; the echo provider is added where it names none."""
    import logging

    from proxy.clock import Clock
    from proxy.runtime import Background, Shared
    from proxy.store.factory import open_store
    from proxy.telemetry.log import JsonHandler
    from proxy.telemetry.metrics import Metrics

    if "providers:" not in config:
        config = ECHO + config
    loaded = load_text(config, environ, folder)
    metrics, clock = Metrics(), Clock()
    read, write = os.pipe()
    os.set_blocking(read, False)
    with contextlib.suppress(OSError):
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)  # room for a thousand lines that nobody reads yet
    writer = LineWriter(write, metrics.log_lines_dropped)
    # Known to nobody else: pytest hangs a handler on every registered logger that propagates nothing, test by test.
    log = logging.Logger("test", loaded.telemetry.log_level)
    log.addHandler(JsonHandler(writer))
    store = open_store("memory", clock=clock, log=log, metrics=metrics)
    await store.start()
    shared = Shared(store, metrics, log, clock, b"s" * 32, Background(log))
    side = Sidecar(Runtime(loaded, shared), writer)
    urls: list[str] = []
    ready = asyncio.Event()

    def started(api: list[str], ops: list[str]) -> None:
        urls.extend(api)
        ready.set()

    options = ServerOptions(listen=f"127.0.0.1:{free_port()}", drain_delay=0, shutdown_grace=1)
    server = Server(side, options, on_started=started, on_refused=side.refused)
    task = asyncio.create_task(server.serve())
    await asyncio.wait_for(ready.wait(), 5)
    async with httpx2.AsyncClient(base_url=urls[0], timeout=10, verify=BARE) as client:
        try:
            yield Inline(side, client, read)
        finally:
            server.stop(delay=False)
            await asyncio.wait_for(task, 5)
            await store.aclose()
            await side.runtime.aclose()
            writer.close()
            os.close(read)
            os.close(write)
