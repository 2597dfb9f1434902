"""R21 through the running sidecar: opens after failures in a row, leaves the provider alone, lets one probe through."""

from __future__ import annotations

import asyncio
import time

import pytest

from proxy.upstream.breaker import HALF_OPEN
from tests.fakes.rawclient import AsyncRawClient, chat, request
from tests.fakes.scripted import Answer, Seen, events, refuse, say, stream_of
from tests.routing.conftest import Serve

OPEN = 0.4
BREAKER = {"failures": 5, "open": OPEN}


class Health:
    """A provider that is well or not, or holds its answers back."""

    def __init__(self, status: int = 500) -> None:
        self.status = status
        self.gate: asyncio.Event | None = None

    async def __call__(self, seen: Seen) -> Answer:
        if self.gate is not None:
            await self.gate.wait()
        return say(seen) if self.status == 200 else refuse(seen, self.status, "ill")


async def test_r21_opens_and_lets_exactly_one_probe_through(serve: Serve) -> None:
    """Opens at the fifth failure; then nothing reaches the provider; half-open, one of a hundred is the probe."""
    ill = Health()
    sidecar, provider = await serve(ill, "openai", breaker=BREAKER)
    for _ in range(5):
        assert (await sidecar.chat("hi", model="m")).status_code == 502
    took = []
    for _ in range(20):
        began = time.monotonic()
        reply = await sidecar.chat("hi", model="m")
        took.append(time.monotonic() - began)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "circuit_open")
        assert 0 < int(reply.headers["retry-after-ms"]) <= OPEN * 1000
    assert len(provider.calls) == 5 and sorted(took)[10] < 0.05
    health = (await sidecar.client.get("/health")).json()["provider_status"]["openai"]
    assert (health["status"], health["circuit"], health["circuits"].keys()) == ("unhealthy", "open", {"m"})
    await asyncio.sleep(OPEN + 0.05)
    ill.status, ill.gate = 200, asyncio.Event()
    waiting = [asyncio.ensure_future(sidecar.chat("hi", model="m")) for _ in range(100)]
    limit = time.monotonic() + 5
    while sum(task.done() for task in waiting) < 99 and time.monotonic() < limit:
        await asyncio.sleep(0.01)
    done, probe = await asyncio.wait(waiting, timeout=0.1)
    assert len(done) == 99 and len(probe) == 1 and len(provider.calls) == 6
    assert {task.result().status_code for task in done} == {503}
    ill.gate.set()
    assert (await probe.pop()).status_code == 200
    ill.gate = None
    replies = await asyncio.gather(*(sidecar.chat("hi", model="m") for _ in range(10)))
    assert {reply.status_code for reply in replies} == {200}, "the probe's success closes it"
    assert (await sidecar.client.get("/health")).json()["provider_status"]["openai"]["circuit"] == "closed"


async def test_r21_a_failed_probe_opens_anew(serve: Serve) -> None:
    """After a failed probe the whole time passes again; other models of the provider have their own breaker."""
    ill = Health()
    sidecar, provider = await serve(ill, "openai", breaker=BREAKER)
    for _ in range(5):
        await sidecar.chat("hi", model="m")
    await asyncio.sleep(OPEN + 0.02)
    assert (await sidecar.chat("hi", model="m")).status_code == 502
    assert (await sidecar.chat("hi", model="m")).json()["error"]["code"] == "circuit_open"
    assert len(provider.calls) == 6
    ill.status = 200
    assert (await sidecar.chat("hi", model="other")).status_code == 200


@pytest.mark.parametrize("status", [400, 404, 422, 429])
async def test_r21_what_is_not_the_providers_fault_never_counts(serve: Serve, status: int) -> None:
    """Refusals and rate limits never open it, nor do clients that leave."""
    ill = Health(status)
    sidecar, provider = await serve(ill, "openai", breaker=BREAKER)
    for _ in range(8):
        assert (await sidecar.chat("hi", model="m")).status_code == status
    ill.status, ill.gate = 200, asyncio.Event()
    for _ in range(6):
        async with await AsyncRawClient.open(sidecar.client.base_url.port) as leaver:
            await leaver.send(request(body=chat("m")))
            await asyncio.sleep(0.02)
    ill.gate.set()
    ill.gate = None
    assert (await sidecar.chat("hi", model="m")).status_code == 200
    assert len(provider.calls) == 15


async def test_r21_a_success_resets_the_count(serve: Serve) -> None:
    """Four failures, a success, four failures: still closed."""
    ill = Health()
    sidecar, provider = await serve(ill, "openai", breaker=BREAKER)
    for status in (500, 500, 500, 500, 200, 500, 500, 500, 500, 200):
        ill.status = status
        await sidecar.chat("hi", model="m")
    assert len(provider.calls) == 10 and (await sidecar.chat("hi", model="m")).status_code == 200


async def test_r21_errors_inside_a_stream_count(serve: Serve) -> None:
    """A 200 that ends in an error event, or does not end, is a failure though its beginning was fine."""

    def play(seen: Seen) -> Answer:
        good = [event.data for event in events(seen, chunks=2)]
        error = seen.dialect.error_event("fell over", "server_error")
        return stream_of(seen, good[:2] + ([error] if len(provider.calls) % 2 else []), cut=True)

    sidecar, provider = await serve(play, "openai", breaker=BREAKER)
    for _ in range(5):
        assert "data: [DONE]" not in (await sidecar.chat("hi", model="m", stream=True)).text
    assert (await sidecar.chat("hi", model="m")).json()["error"]["code"] == "circuit_open"
    assert len(provider.calls) == 5


async def test_what_began_before_says_nothing_about_now(serve: Serve) -> None:
    """A stream that began before the breaker opened neither closes it by ending well nor speaks for its probe."""
    held = asyncio.Event()
    ill = Health()

    async def play(seen: Seen) -> Answer:
        if not (seen.body or {}).get("stream"):
            return await ill(seen)
        good = [event.data for event in events(seen)]

        async def slowly():  # type: ignore[no-untyped-def]
            for piece in good[:2]:
                yield piece
            await held.wait()
            for piece in good[2:]:
                yield piece

        return stream_of(seen, slowly())  # type: ignore[arg-type]

    sidecar, _ = await serve(play, "openai", breaker=BREAKER)
    old = asyncio.ensure_future(sidecar.chat("hi", model="m", stream=True))
    await asyncio.sleep(0.1)
    for _ in range(5):
        await sidecar.chat("hi", model="m")
    held.set()
    assert (await old).text.endswith("data: [DONE]\n\n")
    assert (await sidecar.chat("hi", model="m")).json()["error"]["code"] == "circuit_open"


async def test_a_probe_whose_client_leaves_frees_its_place(serve: Serve) -> None:
    """The next call is the probe then, at once."""
    ill = Health()
    sidecar, provider = await serve(ill, "openai", breaker=BREAKER)
    for _ in range(5):
        await sidecar.chat("hi", model="m")
    await asyncio.sleep(OPEN + 0.02)
    ill.status, ill.gate = 200, asyncio.Event()
    async with await AsyncRawClient.open(sidecar.client.base_url.port) as leaver:
        await leaver.send(request(body=chat("m")))
        await asyncio.sleep(0.1)
        assert len(provider.calls) == 6
        assert sidecar.side.runtime.providers["openai"].state(time.monotonic()) == HALF_OPEN
    await asyncio.sleep(0.1)
    ill.gate = None
    assert (await sidecar.chat("hi", model="m")).status_code == 200


async def test_a_reload_keeps_what_is_known(serve: Serve) -> None:
    """A provider that a reload leaves as it is keeps its breakers."""
    from proxy.runtime import Runtime

    ill = Health()
    sidecar, provider = await serve(ill, "openai", breaker=BREAKER)
    for _ in range(5):
        await sidecar.chat("hi", model="m")
    old = sidecar.side.runtime
    sidecar.side.configure(Runtime(old.config, old.shared, old))
    assert (await sidecar.chat("hi", model="m")).json()["error"]["code"] == "circuit_open"
    assert len(provider.calls) == 5
