"""R9, R10, R11: slow readers, slow writers, and bodies that are too large or lie about their size."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import wires
from tests.fakes.httpwire import openai_error
from tests.fakes.ledger import Ledger
from tests.fakes.process import Upstream
from tests.fakes.rawclient import AsyncRawClient, chat, request
from tests.fakes.sidecar import CLIENT_KEY, Sidecar
from tests.reliability.load import Memory, Strain, call, percentile, timed

Start = Callable[..., Sidecar]
MIB = 1 << 20
KIB = 1 << 10


# --- R9 ---------------------------------------------------------------------------------------------------


async def slow_readers(
    steady: Sidecar, books: Ledger, strain: Strain, readers: int, stalled: int, seconds: float, spare: int = 8 * MIB
) -> None:
    """Open streams of 50 MiB, read 1 KiB/s of some and nothing of others; watch memory and the upstream."""
    size = 8 * KIB
    models = [f"openai/m;{books.tag};chunks=6400;size={size};no{i}" for i in range(readers + stalled)]
    async with contextlib.AsyncExitStack() as stack, Memory(steady) as memory:
        clients = []
        for name in models:
            client = await stack.enter_async_context(await AsyncRawClient.open(steady.port, receive_buffer=4 * KIB))
            await client.send(request(body=chat(name, stream=True), key=CLIENT_KEY))
            clients.append(client)
        # An upstream that floods at the same time as it accepts takes a while to accept all.
        assert len(
            await asyncio.to_thread(books.upstream.wait_calls, books.tag, len(models), timeout=60, ended=False)
        ) == len(models)
        loop = asyncio.get_running_loop()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for client in clients[:readers]:
                await loop.sock_recv(client.sock, KIB)
            await asyncio.sleep(1.0)
        sent = [call["sent"] for call in books.upstream.calls(books.tag, bodies=0)]
        # The kernel's buffers on both legs (a few MiB) and 256 KiB of ours; the other 45 MiB stay where they are.
        assert max(sent) <= 12 * MIB, f"the upstream is not throttled: {max(sent) / MIB:.1f} MiB sent"
        healthy, reply = await timed(call(steady, f"openai/m;{books.tag};ok"))
        assert reply.status == 200 and healthy < 0.5 + strain.slack
    assert memory.peak <= len(models) * 256 * KIB + spare, f"{memory.peak / len(models) / KIB:.0f} KiB a connection"
    books.check(len(models) + 1, upstream=len(models) + 1, unread=10**7)


async def test_slow_readers_hold_the_upstream_back(steady: Sidecar, books: Ledger, strain: Strain) -> None:
    """R9 with 8 slow readers and 4 that read nothing: bounded memory, a throttled upstream, nobody else slower."""
    await slow_readers(steady, books, strain, 8, 4, 1.0)


@pytest.mark.slow
@pytest.mark.alone
async def test_a_hundred_slow_readers(own_sidecar: Start, upstream: Upstream, strain: Strain, tag: str) -> None:
    """R9 in full, with a fresh sidecar that no earlier call gave memory to: 100 at 1 KiB/s and 20 that never read."""
    fresh = own_sidecar(providers=wires(upstream))
    await slow_readers(fresh, Ledger(fresh, upstream, tag), strain, 100, 20, 20.0, spare=0)


@pytest.mark.slow
@pytest.mark.alone
async def test_stalled_readers_are_cut_at_the_write_deadline(steady: Sidecar, books: Ledger) -> None:
    """R9: who takes nothing for 30 s is cut, and what was produced is booked."""
    clients = []
    for i in range(5):
        client = await AsyncRawClient.open(steady.port, receive_buffer=4 * KIB)
        await client.send(
            request(body=chat(f"openai/m;{books.tag};chunks=6400;size=8192;no{i}", stream=True), key=CLIENT_KEY)
        )
        clients.append(client)
    rows = books.check(5, upstream=5, outcome="client_gone", unread=10**7, timeout=75)
    assert all(25 <= row.line["duration_ms"] / 1000 <= 70 for row in rows)
    for client in clients:
        client.close()


# --- R10 --------------------------------------------------------------------------------------------------


async def slow_loris(
    short: Sidecar, books: Ledger, strain: Strain, prefix: str, each: int, deadline: float, interval: float
) -> None:
    """Trickle headers, trickle bodies, connect and say nothing; all are closed in time, others are served."""
    head = request(body=chat("m"), key=CLIENT_KEY)
    body = head.index(b"\r\n\r\n") + 4
    long_head = head[:-1].replace(b"\r\n\r\n", b"\r\nx-slow: " + b"a" * 2000)
    closed: list[tuple[str, float | None, str]] = []

    async def trickle(kind: str, start: bytes, rest: bytes) -> None:
        async with await AsyncRawClient.open(short.port) as client:
            began = time.monotonic()

            async def drip() -> None:
                for i in range(len(rest)):
                    await client.send(rest[i : i + 1])
                    await asyncio.sleep(interval)

            await client.send(start)
            dripping = asyncio.create_task(drip())
            said = ""
            try:
                reply = await client.reply(timeout=deadline + 5)
                said = f"{reply.status} {openai_error(reply)['code']}"
                await client.closed_within(3)
            except ConnectionError:
                said = "closed"
            except TimeoutError:
                said = "open"
            took = time.monotonic() - began
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)
            closed.append((kind, took, said))

    baseline = [(await timed(call(short, f"{prefix}m;{books.tag}")))[0] for _ in range(20)]
    slow = [
        *(trickle("header", b"", long_head) for _ in range(each)),
        *(
            trickle("body", head[:body].replace(b"content-length: ", b"content-length: 9"), head[body:] * 50)
            for _ in range(each)
        ),
        *(trickle("idle", b"", b"") for _ in range(each)),
    ]
    running = asyncio.gather(*slow)
    during = []
    while not running.done():
        took, reply = await timed(call(short, f"{prefix}m;{books.tag}"))
        assert reply.status == 200
        during.append(took)
        await asyncio.sleep(0.02)
    await running
    for kind, took, said in closed:
        assert took is not None and took <= deadline + 1.0 + strain.slack, (kind, took, said)
        assert (
            said
            in (
                {
                    "header": ("408 request_timeout",),
                    "body": ("408 request_timeout",),
                    "idle": ("closed", "408 request_timeout"),
                }[kind]
            )
        ), (kind, said)
    assert percentile(during, 0.9) <= 2 * percentile(baseline, 0.9) + 0.02 + strain.slack, (baseline, during)
    books.check(len(baseline) + len(during), outcome="completed")


async def test_slow_loris(tight: Sidecar, tight_books: Ledger, strain: Strain) -> None:
    """R10 with 15 of each and a deadline of 0.6 s: all closed within it + 1 s, with 408 where a request had begun."""
    await slow_loris(tight, tight_books, strain, "free/", 15, 0.6, 0.1)


@pytest.mark.slow
@pytest.mark.alone
async def test_five_hundred_slow_loris(sidecar: Sidecar, upstream: Upstream, strain: Strain, tag: str) -> None:
    """R10 in full: 500 of each at one byte a second, the deadline 10 s."""
    await slow_loris(sidecar, Ledger(sidecar, upstream, tag), strain, "", 500, 10.0, 1.0)


async def test_a_body_above_the_minimum_rate_is_waited_for(tight: Sidecar, tight_books: Ledger) -> None:
    """A body longer than the deadline, but faster than 1 KiB/s, is received whole."""
    data = request(body=chat(f"free/m;{tight_books.tag}", text="x" * 8000), key=CLIENT_KEY)
    async with await AsyncRawClient.open(tight.port) as client:
        for i in range(0, len(data), 1200):
            await client.send(data[i : i + 1200])
            await asyncio.sleep(0.12)
        assert (await client.reply()).status == 200
    tight_books.check(1, outcome="completed")


# --- R11 --------------------------------------------------------------------------------------------------

LIMIT = 256 * KIB


def body_of(size: int, model: str) -> bytes:
    """Return a chat request of exactly ``size`` bytes."""
    empty = len(json.dumps(chat(model, text="")))
    return json.dumps(chat(model, text="x" * (size - empty))).encode()


def around(side: Sidecar, model: str, sizes: list[tuple[int, int]]) -> None:
    """Send bodies of these sizes, by length and chunked; each must get its status."""
    for size, status in sizes:
        data = body_of(size, model)
        reply = side.ask("POST", "/v1/chat/completions", data, key=CLIENT_KEY)
        assert reply.status == status, (size, reply.status)
        with side.raw() as client:
            head = request(key=CLIENT_KEY, headers={"transfer-encoding": "chunked", "content-type": "application/json"})
            pieces = b"".join(
                b"%x\r\n%b\r\n" % (len(data[i : i + 9999]), data[i : i + 9999]) for i in range(0, len(data), 9999)
            )
            client.try_send(head + pieces + b"0\r\n\r\n")
            reply = client.reply()
            assert reply.status == status, (size, "chunked", reply.status)
            if status == 413:
                assert openai_error(reply)["code"] == "request_too_large"


def test_the_body_s_limit_is_exact(tight: Sidecar, tight_books: Ledger) -> None:
    """One byte under and just at the limit pass, one byte over is 413, by length or chunked alike."""
    around(tight, f"free/m;{tight_books.tag}", [(LIMIT - 1, 200), (LIMIT, 200), (LIMIT + 1, 413)])
    tight_books.check(4, upstream=4, outcome="completed")


@pytest.mark.slow
async def test_the_body_s_limit_of_20_mib(own_sidecar: Start, upstream: Upstream, tag: str) -> None:
    """R11 in full: what is refused takes no more than twice the limit; what passes, as received and as parsed, three times."""
    fresh = own_sidecar()
    limit = 20 * MIB
    async with Memory(fresh, 0.01) as memory:
        await asyncio.to_thread(around, fresh, "m;refused", [(limit + 1, 413)])
    assert memory.peak <= 2 * limit + 4 * MIB, f"{memory.peak / MIB:.1f} MiB for bodies that were refused"
    books = Ledger(fresh, upstream, tag)
    async with Memory(fresh, 0.01) as memory:
        await asyncio.to_thread(around, fresh, f"m;{tag}", [(limit - 1, 200), (limit, 200)])
    assert memory.peak <= 3 * limit, f"{memory.peak / MIB:.1f} MiB for bodies that passed"
    books.check(4, upstream=4, outcome="completed")


async def test_bodies_that_lie(tight: Sidecar, tight_books: Ledger) -> None:
    """Too short is 400, endless is 413, compressed is 415; memory stays within twice the limit."""
    data = body_of(1000, f"free/m;{tight_books.tag}")
    async with Memory(tight) as memory:
        async with await AsyncRawClient.open(tight.port) as client:
            await client.send(
                request(body=data, key=CLIENT_KEY).replace(b"content-length: 1000", b"content-length: 1001")
            )
            client.half_close()
            reply = await client.reply()
            assert (reply.status, openai_error(reply)["code"]) == (400, "invalid_request")
        async with await AsyncRawClient.open(tight.port) as client:
            await client.send(request(key=CLIENT_KEY, headers={"transfer-encoding": "chunked"}))
            with contextlib.suppress(ConnectionError):
                for _ in range(1000):
                    await client.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            reply = await client.reply()
            assert (reply.status, openai_error(reply)["code"]) == (413, "request_too_large")
            assert await client.closed_within(6) is not None
        for coding in ("gzip", "deflate", "br", "gzip, identity", "zstd"):
            async with await AsyncRawClient.open(tight.port) as client:
                reply = await client.ask(request(body=data, key=CLIENT_KEY, headers={"content-encoding": coding}))
                assert (reply.status, openai_error(reply)["code"]) == (415, "unsupported_media_type"), coding
        huge = b"999999999999"
        async with await AsyncRawClient.open(tight.port) as client:
            await client.send(
                request(body=data, key=CLIENT_KEY).replace(b"content-length: 1000", b"content-length: " + huge)
            )
            reply = await client.reply()
            assert (reply.status, openai_error(reply)["code"]) == (413, "request_too_large")
    assert memory.peak <= 2 * LIMIT + 4 * MIB
    tight_books.check(0, upstream=0)


async def test_nothing_is_read_before_the_key_is_known(tight: Sidecar) -> None:
    """Without a good key no body is asked for: `Expect: 100-continue` is answered by 401, never by 100."""
    for key, status in ((None, 401), ("sk-wrong", 401)):
        async with await AsyncRawClient.open(tight.port) as client:
            head = request(body=b"x" * 1000, key=key, headers={"expect": "100-continue"})
            await client.send(head[: head.index(b"\r\n\r\n") + 4])
            reply = await client.reply()
            assert reply.status == status
            assert reply.header("connection") == "close"
    async with await AsyncRawClient.open(tight.port) as client:
        head = request(body=body_of(500, "gpt-4o"), key=CLIENT_KEY, headers={"expect": "100-continue"})
        cut = head.index(b"\r\n\r\n") + 4
        await client.send(head[:cut])
        assert (await client.reply()).status == 100
        await client.send(head[cut:])
        assert (await client.reply()).status == 200


@pytest.mark.slow
@pytest.mark.alone
async def test_large_bodies_together(sidecar: Sidecar, upstream: Upstream, tag: str) -> None:
    """Twenty-four bodies of 20 MiB at once: those beyond 256 MiB in all get 503 `overloaded`, none a crash."""
    plain = sidecar
    books = Ledger(plain, upstream, tag)
    data = body_of(20 * MIB - 1, f"m;{tag}")
    async with Memory(plain) as memory:
        gate = asyncio.Event()

        async def one() -> tuple[int, str | None]:
            async with await AsyncRawClient.open(plain.port) as client:
                await client.send(request(body=data, key=CLIENT_KEY)[: 12 * MIB])
                await gate.wait()
                with contextlib.suppress(ConnectionError):
                    await client.send(request(body=data, key=CLIENT_KEY)[12 * MIB :])
                reply = await client.reply(timeout=60)
                return reply.status, None if reply.status == 200 else openai_error(reply)["code"]

        works: list[Any] = [asyncio.create_task(one()) for _ in range(24)]
        await asyncio.sleep(3)
        gate.set()
        replies = await asyncio.gather(*works)
    assert set(replies) <= {(200, None), (503, "overloaded")}, replies
    assert (await call(plain, f"m;{tag}")).status == 200, "what the bodies held is given back"
    assert memory.peak <= 5 * 256 * MIB
    books.check(1 + sum(status == 200 for status, _ in replies))


async def test_many_small_calls_on_one_connection(steady: Sidecar, books: Ledger) -> None:
    """Pipelined requests are answered in order, one after the other."""
    data = b"".join(
        request(body=chat(f"openai/m;{books.tag};text=answer{i};chunks=1"), key=CLIENT_KEY) for i in range(20)
    )
    async with await AsyncRawClient.open(steady.port) as client:
        await client.send(data)
        for i in range(20):
            reply = await client.reply()
            assert reply.json()["choices"][0]["message"]["content"] == f"answer{i}"
    books.check(20, upstream=20, outcome="completed")
