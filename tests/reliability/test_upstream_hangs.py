"""R5, R6: an upstream that hangs or floods harms its own call only, in time and in bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import LIMIT
from tests.fakes.httpwire import openai_error, stream
from tests.fakes.ledger import Ledger
from tests.fakes.process import Upstream
from tests.fakes.sidecar import Sidecar
from tests.reliability.load import Memory, Pulse, Strain, call, percentile, timed, together

HANGS = ["hang=headers", "hang=first", "hang=chunk1", "hang=half@2", "hang=finish"]


async def hang(hasty: Sidecar, books: Ledger, strain: Strain, others: int, each: int) -> None:
    # 2,000 chunks a second at most: this process shares the cores with those that it watches.
    interval = max(0.06, others / 2_000)
    steps = int(1.2 / interval) if others < 100 else 12
    calm = asyncio.gather(
        *(
            call(hasty, f"openai/m;{books.tag};chunks={steps};interval={interval};calm{i}", stream=True)
            for i in range(others)
        )
    )
    await asyncio.sleep(0.2)
    models = [
        f"{provider}/m;{books.tag};chunks=4;{how};hold=30;no{i}"
        for i in range(each)
        for provider in ("openai", "anthropic", "gemini")
        for how in HANGS
    ]
    seen = await together([lambda name=name: timed(call(hasty, name, stream=True)) for name in models], 100)
    for name, (took, reply) in zip(models, seen, strict=True):
        assert LIMIT - 0.05 <= took <= LIMIT + 0.25 + strain.slack, (name, took, strain.slack)
        if reply.status != 200:
            assert (reply.status, openai_error(reply)["code"]) == (504, "upstream_timeout"), name
            assert "headers" in name or "first" in name, "content had come: it must be delivered"
        else:
            got = stream(reply.body)
            assert [error["code"] for error in got.errors] == ["upstream_timeout"] and not got.done, name
            assert got.numbers[:1] == [1], name
    for reply in await calm:
        got = stream(reply.body)
        assert (got.numbers, got.done, got.errors) == ([*range(1, steps + 1)], 1, [])
    rows = books.check(others + len(models), upstream=others + len(models), unread=6)
    assert sum(row.line["outcome"] == "completed" for row in rows) == others
    assert all(row.call is None or row.call["end"] in ("answered", "gone") for row in rows)


async def test_hangs(hasty: Sidecar, hasty_books: Ledger, strain: Strain) -> None:
    """R5: 504, or an error frame after the first byte, within the limit + 250 ms; other streams unharmed."""
    await hang(hasty, hasty_books, strain, others=20, each=1)


@pytest.mark.slow
@pytest.mark.alone
async def test_hangs_beside_five_hundred_streams(hasty: Sidecar, hasty_books: Ledger, strain: Strain) -> None:
    """R5 in full: 500 other streams keep every chunk."""
    await hang(hasty, hasty_books, strain, others=500, each=3)


async def test_whole_replies_hang_too(hasty: Sidecar, hasty_books: Ledger, strain: Strain) -> None:
    """R5 for calls that do not stream: 504 in time."""
    models = [
        f"{provider}/m;{hasty_books.tag};{how}" for provider in ("openai", "anthropic", "gemini") for how in HANGS[:2]
    ]
    for took, reply in await together([lambda name=name: timed(call(hasty, name)) for name in models]):
        assert (reply.status, openai_error(reply)["code"]) == (504, "upstream_timeout")
        assert took <= LIMIT + 0.25 + strain.slack
    hasty_books.check(len(models), upstream=len(models), outcome="upstream_error")


async def test_a_total_limit_ends_a_stream_that_never_ends(hasty: Sidecar, hasty_books: Ledger, strain: Strain) -> None:
    """`timeout.total` holds though the stream is never silent."""
    took, reply = await timed(call(hasty, f"brief/m;{hasty_books.tag};chunks=1000;interval=0.05", stream=True))
    assert 0.5 <= took <= 0.6 + 0.25 + strain.slack
    assert [error["code"] for error in stream(reply.body).errors] == ["upstream_timeout"]
    hasty_books.check(1, upstream=1, outcome="upstream_error", unread=6)


@pytest.mark.slow
@pytest.mark.alone
async def test_keep_alive_comments(sidecars: Any, upstream: Upstream, tag: str) -> None:
    """A silent stream gets an SSE comment after `keep_alive`, and its answer afterwards."""
    lively = sidecars(server={"keep_alive": "1s"})
    books = Ledger(lively, upstream, tag)
    reply = await call(lively, f"m;{tag};first=3.5", stream=True)
    assert reply.body.count(b": keep-alive\n\n") == 3
    assert stream(reply.body).numbers == [1, 2, 3]
    books.check(1, outcome="completed")


# --- R6 ---------------------------------------------------------------------------------------------------

MIB = 1 << 20
#: What is sent, whether streamed, and what the caller gets: (spec, size reduced, size in full, stream, codes).
FLOODS: list[tuple[str, int, int, bool, set[str | None]]] = [
    ("bomb=line", 24 * MIB, 100 * MIB, True, {"upstream_invalid_response"}),
    ("bomb=events", 20_000, 1_000_000, True, {None}),
    ("bomb=header", 128 * 1024, 8 * MIB, True, {"upstream_invalid_response"}),
    ("bomb=headers", 5_000, 100_000, True, {"upstream_invalid_response"}),
    ("bomb=status", 128 * 1024, 8 * MIB, True, {"upstream_invalid_response"}),
    ("bomb=informational", 200, 10_000, True, {"upstream_invalid_response"}),
    ("bomb=gzip", 64 * MIB, 1024 * MIB, False, {"upstream_invalid_response"}),
    ("bomb=gzip", 64 * MIB, 1024 * MIB, True, {"upstream_invalid_response"}),
    ("bomb=trailers", 5_000, 100_000, False, {"upstream_invalid_response", None}),
]  # fmt: skip


async def flood(
    strain: Strain,
    steady: Sidecar,
    books: Ledger,
    upstream: Upstream,
    full: bool,
    spec: str,
    sizes: tuple[int, int],
    as_stream: bool,
    codes: set[str | None],
) -> None:
    await call(steady, f"openai/m;{books.tag};warm", stream=True)
    async with Memory(steady, 0.01) as memory:
        with Pulse(steady) as pulse:
            reply = await call(
                steady, f"openai/m;{books.tag};{spec};bombsize={sizes[full]}", stream=as_stream, timeout=300
            )
    code = None
    if reply.status != 200:
        assert reply.status == 502
        code = openai_error(reply)["code"]
    elif as_stream:
        seen = stream(reply.body)
        code = seen.errors[0]["code"] if seen.errors else None
        if code is None:
            assert seen.done == 1 and seen.text == "a" * sizes[full]
    assert code in codes, (code, reply.status)
    assert memory.peak <= 16 * MIB, f"{memory.peak / MIB:.1f} MiB more"
    lags = pulse.lags or [0.0]  # some are over before the first beat
    assert percentile(lags, 0.99) <= 0.05 + 0.01 + strain.slack, (max(lags), strain.slack)
    books.check(2, upstream=2, unread=10**7)


@pytest.mark.parametrize(("spec", "small", "large", "as_stream", "codes"), FLOODS)
async def test_floods(
    strain: Strain,
    steady: Sidecar,
    books: Ledger,
    upstream: Upstream,
    spec: str,
    small: int,
    large: int,
    as_stream: bool,
    codes: set[str | None],
) -> None:
    """R6: a line without end, tiny events, header bombs, gzip: refused at the cap or passed, memory bounded."""
    await flood(strain, steady, books, upstream, False, spec, (small, large), as_stream, codes)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize(("spec", "small", "large", "as_stream", "codes"), FLOODS)
async def test_floods_in_full(
    strain: Strain,
    steady: Sidecar,
    books: Ledger,
    upstream: Upstream,
    spec: str,
    small: int,
    large: int,
    as_stream: bool,
    codes: set[str | None],
) -> None:
    """R6 in full."""
    await flood(strain, steady, books, upstream, True, spec, (small, large), as_stream, codes)


@pytest.mark.slow
@pytest.mark.alone
async def test_a_long_answer_is_not_kept(steady: Sidecar, books: Ledger) -> None:
    """R6: 50 MiB of text at full speed pass through without being held: what is counted is not kept."""
    await call(steady, f"openai/m;{books.tag};warm", stream=True)
    async with Memory(steady, 0.01) as memory:
        reply = await call(steady, f"openai/m;{books.tag};chunks=6400;size=8192", stream=True, timeout=120)
    assert len(stream(reply.body).numbers) == 6400
    books.check(2, upstream=2, outcome="completed")
    assert memory.peak <= 16 * MIB, f"{memory.peak / MIB:.0f} MiB more"


def test_other_people_s_framing(steady: Sidecar, books: Ledger) -> None:
    """Length and chunked together, two lengths, a length too short or too long, and gzip: never taken for an answer."""
    for framing in ("both", "double", "short"):
        for as_stream in (False, True):
            reply = steady.chat(f"openai/m;{books.tag};framing={framing}", stream=as_stream)
            if reply.status == 200:
                assert stream(reply.body).errors, framing
            else:
                assert reply.status == 502 and reply.code in ("upstream_invalid_response", "upstream_error"), framing
    reply = steady.chat(f"openai/m;{books.tag};gzip")
    assert (reply.status, reply.code) == (502, "upstream_invalid_response")
    books.check(7, upstream=7, outcome="upstream_error", unread=9)


def test_a_length_too_small_poisons_nobody(steady: Sidecar, books: Ledger) -> None:
    """Bytes beyond a reply's length are never the beginning of another call's answer."""
    steady.chat(f"openai/m;{books.tag};framing=long")
    for i in range(5):
        reply = steady.chat(f"openai/m;{books.tag};text=mine{i};chunks=1")
        assert reply.json()["choices"][0]["message"]["content"] == f"mine{i}"
    books.check(6, upstream=6)


def test_answers_in_the_other_form(steady: Sidecar, books: Ledger) -> None:
    """JSON where a stream was asked for becomes a stream; a stream where JSON was asked for becomes JSON."""
    seen = stream(steady.chat(f"openai/m;{books.tag};answer=json", stream=True).body)
    assert (seen.numbers, seen.done, seen.finish, seen.errors) == ([1, 2, 3], 1, "stop", [])
    reply = steady.chat(f"openai/m;{books.tag};answer=sse")
    assert reply.json()["choices"][0]["message"]["content"] == " 000001 000002 000003"
    assert reply.json()["object"] == "chat.completion"
    books.check(2, upstream=2, outcome="completed")


def test_absurd_usage_is_not_believed(steady: Sidecar, books: Ledger) -> None:
    """Negative, astronomic or worded usage is counted instead; early, late and zero usage is taken as said."""
    for usage in ("negative", "huge", "words", "null", "absent"):
        for as_stream in (False, True):
            steady.chat(f"openai/m;{books.tag};usage={usage}", stream=as_stream)
    rows = books.check(10, upstream=10, outcome="completed")
    assert all(row.line["estimated"] and 3 <= row.booked[1] <= 12 and 3 <= row.booked[0] <= 20 for row in rows), [
        row.booked for row in rows
    ]


def test_usage_wherever_it_stands(steady: Sidecar, upstream: Upstream, tag: str) -> None:
    """On every chunk, on the finish chunk, late, or zero: booked as said, shown once if asked for, else not at all."""
    books = Ledger(steady, upstream, tag)
    for usage in ("early", "finish", "late", "always", "zero", "70+90"):
        for options in ({}, {"stream_options": {"include_usage": True}}):
            reply = steady.chat(f"openai/m;{tag};usage={usage}", stream=True, **options)
            seen = stream(reply.body)
            assert seen.done == 1
            assert len(seen.usage) == bool(options), (usage, seen.usage)
            assert all(not chunk["choices"] for chunk in seen.chunks if chunk.get("usage"))
    rows = books.check(12, upstream=12, outcome="completed")
    assert not any(row.line["estimated"] for row in rows)
    assert [row.booked for row in rows[-2:]] == [(70, 90)] * 2
