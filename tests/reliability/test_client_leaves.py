"""R7, R8: a client that leaves takes its upstream call with it, within 100 ms, and pays for what was produced."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from tests.conftest import NEVER_OPEN, Sidecars
from tests.fakes.ledger import Ledger
from tests.fakes.process import Upstream
from tests.fakes.rawclient import AsyncRawClient, chat, request
from tests.fakes.sidecar import CLIENT_KEY, Sidecar
from tests.reliability.load import Strain, call, percentile, timed, together

#: Where the client leaves: (spec, whether it streams, what it waits for first).
PLACES: dict[str, tuple[str, bool, bytes | None]] = {
    "before the first byte": ("hang=headers", True, None),
    "before the first event": ("hang=first", True, None),
    "in mid-stream": ("chunks=2000;interval=0.01", True, b'" 000003"'),
    "in a silent stream": ("hang=chunk3", True, b'" 000003"'),
    "during a whole reply": ("hang=headers", False, None),
    "while a whole reply's body is slow": ("first=30", False, None),
}
WAYS = ("fin", "rst", "half")


async def begin(sidecar: Sidecar, model: str, place: str, pipelined: bool) -> AsyncRawClient:
    """Begin a call and wait for what is to be seen of it at ``place``."""
    _, as_stream, marker = PLACES[place]
    client = await AsyncRawClient.open(sidecar.port)
    data = request(body=chat(model, stream=as_stream), key=CLIENT_KEY)
    await client.send(data + data[: len(data) // 2] if pipelined else data)
    if marker is not None:
        await client.read_until(marker)
    return client


async def leave(client: AsyncRawClient, how: str) -> float:
    """Leave in the way told; return when."""
    if how == "rst":
        return client.reset()
    if how == "half":
        client.half_close()
        left = time.monotonic()
        await client.closed_within(2)
        client.close()
        return left
    return client.close()


async def leavers(
    steady: Sidecar, books: Ledger, place: str, how: str, count: int, *, pipelined: bool = False
) -> list[float]:
    """Let ``count`` clients leave, 20 at a time; return how long each upstream connection outlived its client."""
    spec = PLACES[place][0]
    models = [f"openai/m;{books.tag};{spec};hold=30;no{i:04d}" for i in range(count)]
    left: dict[str, float] = {}
    for first in range(0, count, 20):
        batch = models[first : first + 20]
        clients = await together([lambda name=name: begin(steady, name, place, pipelined) for name in batch], 20)
        seen = await asyncio.to_thread(
            books.upstream.wait_calls, books.tag, first + len(batch), since=books.since, ended=False
        )
        assert len(seen) == first + len(batch)
        await asyncio.sleep(random.random() * 0.02)
        moments = await together([lambda client=client: leave(client, how) for client in clients], 20)
        left.update(zip(batch, moments, strict=True))
    rows = {row.line["model"]: row for row in books.check(count, upstream=count, outcome="client_gone", unread=3 * 12)}
    records = {record["model"]: record for record in books.upstream.calls(books.tag, bodies=0)}
    late = []
    for name, moment in left.items():
        record = records[name.partition("/")[2]]
        assert record["end"] == "gone", record
        late.append(record["gone"] - moment)
        if record["status"] == 200 and record["tokens"]:
            assert rows[name].line["completion_tokens"] > 0, "what was produced is booked"
        assert rows[name].line["prompt_tokens"] > 0, "the prompt went upstream: it is booked"
    return late


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("place", PLACES)
async def test_the_upstream_is_left_too(steady: Sidecar, books: Ledger, strain: Strain, place: str, how: str) -> None:
    """R7 with 12 clients each: the upstream's socket closes within 100 ms of the client's FIN or RST."""
    late = await leavers(steady, books, place, how, 12)
    assert percentile(late, 0.9) <= 0.1 + strain.slack, (late, strain.slack)


async def test_pipelining_hides_nobody(steady: Sidecar, books: Ledger, strain: Strain) -> None:
    """A second request waiting behind the stream does not keep a paid stream alive."""
    for how in WAYS:
        late = await leavers(steady, books_of(steady, books, how), "in mid-stream", how, 8, pipelined=True)
        assert percentile(late, 0.9) <= 0.1 + strain.slack, (how, late)


def books_of(steady: Sidecar, books: Ledger, word: str) -> Ledger:
    return Ledger(steady, books.upstream, f"{books.tag}{word}")


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("place", ["before the first byte", "in mid-stream", "during a whole reply"])
async def test_a_thousand_leave(steady: Sidecar, books: Ledger, strain: Strain, place: str, how: str) -> None:
    """R7 in full: p99 ≤ 100 ms, 1,000 of 1,000 booked, nothing left over."""
    late = await leavers(steady, books, place, how, 1000)
    assert percentile(late, 0.99) <= 0.1 + strain.slack, (
        strain.slack,
        percentile(late, 0.5),
        percentile(late, 0.99),
        max(late),
    )


async def test_a_client_that_read_everything_has_not_left(steady: Sidecar, books: Ledger) -> None:
    """Closing at once after the last byte is no leaving: completed, and booked as said."""
    for how in ("fin", "rst"):
        for as_stream in (True, False):
            for _ in range(5):
                client = await AsyncRawClient.open(steady.port)
                await client.send(request(body=chat(f"openai/m;{books.tag}", stream=as_stream), key=CLIENT_KEY))
                assert (await client.reply()).status == 200
                client.reset() if how == "rst" else client.close()
    rows = books.check(20, upstream=20, outcome="completed")
    assert all(row.booked[1] == 9 for row in rows)


@pytest.mark.parametrize("how", ["fin", "rst", "half", "reads it all", "reads it all and asked to close"])
async def test_a_large_whole_reply_takes_no_place_for_ever(steady: Sidecar, books: Ledger, how: str) -> None:
    """A whole reply is complete once written: whoever leaves, stops or closes before reading it frees the call's place."""
    clients = []
    for _ in range(4):
        client = await AsyncRawClient.open(steady.port, receive_buffer=4096)
        close = [("connection", "close")] if how.endswith("close") else ()
        body = chat(f"openai/m;{books.tag};chunks=1;size=2000000")
        await client.send(request(body=body, key=CLIENT_KEY, headers=close))
        clients.append(client)
    for client in clients:
        assert (await client.head()).status == 200
    for client in clients:
        if how.startswith("reads"):
            assert len((await client.reply()).body) > 2_000_000
        else:
            await leave(client, how)
    books.check(4, upstream=4, outcome="completed")
    for client in clients:
        client.close()


async def cancels(
    steady: Sidecar, books: Ledger, strain: Strain, cap: int, count: int, seconds: float, then: int
) -> None:
    """Cancel ``count`` calls at twice the cap's concurrency, at random points, then make ``then`` calls as usual."""
    baseline = [(await timed(call(steady, f"openai/m;{books.tag};base")))[0] for _ in range(then)]
    gate = asyncio.Semaphore(2 * cap)
    outcomes: list[str] = []

    async def one(i: int) -> None:
        async with gate:
            try:
                client = await AsyncRawClient.open(steady.port)
            except OSError:
                outcomes.append("no connect")
                return
            try:
                spec = random.choice(
                    ("headers=0.05", "first=0.05", "chunks=50;interval=0.005", "cut=rst@200;headers=0.02")
                )
                await client.send(request(body=chat(f"openai/m;{books.tag};{spec};no{i}", stream=True), key=CLIENT_KEY))
                await asyncio.sleep(random.random() * 0.1)
            finally:
                random.choice((client.reset, client.close))()
            outcomes.append("left")

    began = time.monotonic()
    tasks = []
    for i in range(count):
        tasks.append(asyncio.create_task(one(i)))
        pause = began + seconds * i / count - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
    await asyncio.gather(*tasks)
    assert outcomes == ["left"] * count
    books.idle()
    after = []
    for _ in range(then):
        took, reply = await timed(call(steady, f"openai/m;{books.tag};base"))
        assert reply.status == 200
        after.append(took)
    assert percentile(after, 0.5) <= 2 * percentile(baseline, 0.5) + 0.002 + strain.slack, (
        percentile(baseline, 0.5),
        percentile(after, 0.5),
    )
    await asyncio.sleep(0.05)  # the last lines are written within milliseconds
    lines = books.lines()
    ends = {line["outcome"] for line in lines}
    assert ends <= {"client_gone", "completed", "refused", "upstream_error"}, ends
    books.check(len(lines), unread=10**4)
    assert steady.fds <= 2 * cap + 60, "connections are given back"


async def test_cancels_leave_no_slot_behind(capped: Sidecar, upstream: Upstream, strain: Strain, tag: str) -> None:
    """R8: cancels at twice the in-flight cap, then calls as fast as before (httpcore#1093 leaks slots here)."""
    await cancels(capped, Ledger(capped, upstream, tag), strain, 10, 200, 0.8, 10)


@pytest.mark.slow
@pytest.mark.alone
async def test_ten_thousand_cancels(sidecars: Sidecars, upstream: Upstream, strain: Strain, tag: str) -> None:
    """R8 in full: 10,000 cancels in 60 s, then 200 of 200."""
    hundred = sidecars(server={"max_in_flight": 100}, providers={"openai": {"breaker": NEVER_OPEN}})
    await cancels(hundred, Ledger(hundred, upstream, tag), strain, 100, 10_000, 60.0, 200)
