"""A provider whose address leads back to the sidecar itself, over a relay that nobody sees through: 508 at the second look."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.core.inline import inline
from tests.fakes.ports import free_port
from tests.fakes.scripted import llm_yml, providers


class Relay:
    """A port that leads to another, as a load balancer or a Kubernetes service does."""

    def __init__(self) -> None:
        self.to = 0
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self.to)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        try:
            await asyncio.gather(pump(reader, back), pump(there, writer))
        finally:
            self._tasks.discard(task)

    async def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def relay() -> AsyncIterator[Relay]:
    found = Relay()
    server = await asyncio.start_server(found.carry, "127.0.0.1", free_port())
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()
        await found.end()


def settings(url: str, vendor: str) -> str:
    return llm_yml(providers(url, vendor, max_retries=3, breaker={"failures": 1}))


def port(sidecar: Any) -> int:
    found: int = sidecar.client.base_url.port
    return found


@pytest.mark.parametrize("as_stream", [False, True])
@pytest.mark.parametrize("vendor", ["openai", "azure_openai"])
async def test_508_a_sidecar_that_asks_itself(vendor: str, as_stream: bool) -> None:
    """The caller gets 508 `loop_detected` after one round, without retries, and no breaker opens."""
    async with relay() as way, inline(settings(way.url, vendor)) as sidecar:
        way.to = port(sidecar)
        for _ in range(2):
            reply = await sidecar.chat("hi", model="m", stream=as_stream)
            assert (reply.status_code, reply.json()["error"]["code"]) == (508, "loop_detected"), reply.text
        lines = await sidecar.lines()
        assert [line["status"] for line in lines] == [508] * 4 and not any(line.get("retries") for line in lines)


async def test_508_two_sidecars_that_ask_each_other() -> None:
    """A longer way round is found too, after one visit to each."""
    async with (
        relay() as way,
        inline(settings(way.url, "openai")) as one,
        inline(settings(str(one.client.base_url).rstrip("/"), "openai")) as two,
    ):
        way.to = port(two)
        reply = await one.chat("hi", model="m")
        assert (reply.status_code, reply.json()["error"]["code"]) == (508, "loop_detected")
        assert len(await one.lines()) == 2 and len(await two.lines()) == 1
