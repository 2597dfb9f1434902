"""Too many connections: told so, dropped, survived (T20, R26)."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from tests.server.harness import Raw, on_uvloop, request, serving
from tests.server.test_drain import child


@on_uvloop
async def test_above_the_cap_a_connection_is_told_and_closed() -> None:
    """Connections above the cap get 503 overloaded with retry-after; room comes back when others leave."""
    async with serving(max_connections=3, linger_timeout=0.2) as site:
        held = [await site.raw() for _ in range(3)]
        for client in held:
            assert (await client.ask(request("/echo", b"{}"))).status == 200
        async with await site.raw() as extra:
            reply = await extra.ask(request("/echo", b"{}"))
            reply.check_error(503, "overloaded")
            assert reply.headers["retry-after"] == "1"
            await extra.closed()
        assert (await held[0].ask(request("/echo", b"{}"))).status == 200
        for client in held:
            client.writer.transport.abort()
        await site.until(lambda: not site.hub.connections)
        await site.probe()
        assert len(site.app.seen) == 5


@on_uvloop
async def test_a_flood_above_the_cap_is_dropped() -> None:
    """Beyond those that are told, connections are dropped at once: the number held stays bounded."""
    async with serving(max_connections=5, linger_timeout=1) as site:
        clients = [await site.raw() for _ in range(200)]
        await asyncio.sleep(0.05)
        assert len(site.hub.connections) <= 5 + 64
        for client in clients:
            client.writer.transport.abort()
        await site.until(lambda: not site.hub.connections)
        await site.probe()


def cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


@on_uvloop
async def test_running_out_of_file_descriptors_neither_kills_nor_spins() -> None:
    """At the descriptor limit new connections are shed, the process idles, and serves again afterwards."""
    async with child(files=48, max_connections=1000, drain_delay=0) as server:
        clients: list[Raw] = []
        for _ in range(120):
            with contextlib.suppress(OSError):
                clients.append(await server.raw())
        assert (await clients[0].ask(request("/echo", b"{}"))).status == 200
        used = cpu(server.process.pid)
        await asyncio.sleep(0.5)
        assert cpu(server.process.pid) - used < 0.1
        for client in clients:
            client.writer.transport.abort()
        await asyncio.sleep(0.1)
        async with await server.raw() as client:
            assert (await client.ask(request("/echo", b"{}"))).status == 200


@on_uvloop
async def test_the_cap_leaves_room_under_the_descriptor_limit() -> None:
    """With ulimit -n 256 the derived cap keeps half of the room for upstream connections."""
    async with child(files=256, drain_delay=0) as server:
        clients = [await server.raw() for _ in range(130)]
        served = 0
        for client in clients:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                served += (await client.ask(request("/echo", b"{}"))).status == 200
        assert served == (256 - 64) // 2
        for client in clients:
            client.writer.transport.abort()
