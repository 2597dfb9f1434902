"""R6, R14, T25 per vendor through a whole sidecar: whatever comes from upstream, the caller gets an answer or an error."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.fakes.httpwire import sse
from tests.fakes.scripted import VENDORS, Answer, Seen, events, say, stream_of
from tests.routing.conftest import Serve

#: Bytes that mean something to somebody on the way.
_SPICE = [
    b"data: ", b"\n\n", b"\r\n\r\n", b"\r", b"event: error\n", b"[DONE]", b"null", b"{}", b"[]", b'"', b"\\u0000", b"\\ud800",
    b"\xff\xfe", b"\xed\xa0\x80", b"\x00", b"1e999", b"-1", b"NaN", b'{"error":', b'"index":99999999999999999999', b": x\n",
    b"id: 7\n", b"\xef\xbb\xbf", b'"delta":null', b'"choices":{}', b'"candidates":[{}]', b'"usage":{"prompt_tokens":-1}',
]  # fmt: skip


def mutated(rng: random.Random, raw: bytes) -> bytes:
    """Return ``raw`` with a few bytes changed, cut out, said twice or put in."""
    data = bytearray(raw)
    for _ in range(rng.randrange(1, 5)):
        if not data:
            break
        at = rng.randrange(len(data))
        match rng.randrange(5):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randrange(1, 40)]
            case 2:
                data[at:at] = data[at : at + rng.randrange(1, 200)]
            case 3:
                data[at:at] = rng.choice(_SPICE)
            case 4:
                del data[at:]
    return bytes(data)


def pieces(rng: random.Random, raw: bytes) -> list[bytes | float]:
    cuts = sorted(rng.randrange(len(raw) + 1) for _ in range(rng.randrange(4)))
    return [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]


async def storm(serve: Serve, vendor: str, count: int, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    tools = [{"type": "function", "function": {"name": "f"}}]

    def play(seen: Seen) -> Answer:
        behaviour: dict[str, Any] = {"tools": 2} if rng.random() < 0.3 else {"chunks": 3}
        ask = seen.ask(**behaviour)
        if ask.stream:
            raw = b"".join(event.data for event in events(seen, **behaviour))
            return stream_of(seen, pieces(rng, mutated(rng, raw)), cut=rng.random() < 0.2)
        return Answer(pieces(rng, mutated(rng, seen.dialect.whole(ask))), cut=rng.random() < 0.1)

    sidecar, provider = await serve(play, vendor)
    ends: dict[str, int] = {}
    gate = asyncio.Semaphore(8)

    async def one(i: int) -> None:
        as_stream = i % 3 > 0
        async with gate:
            reply = await sidecar.chat(f"no {i}", model=f"{vendor}/m", stream=as_stream, tools=tools)
        if reply.status_code == 200 and as_stream:
            data = [data for _, data in sse(reply.content)]
            done, errors = data.count("[DONE]"), sum(piece.startswith('{"error"') for piece in data)
            assert done + errors == 1, data
            assert data[-1] == "[DONE]" or data[-1].startswith('{"error"'), "nothing after the end"
            end = "done" if done else "frame"
        elif reply.status_code == 200:
            assert reply.json()["object"] == "chat.completion"
            end = "whole"
        else:
            assert reply.status_code in (400, 404, 413, 429, 502, 503, 504), reply.text
            assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
            end = str(reply.status_code)
        ends[end] = ends.get(end, 0) + 1

    await asyncio.gather(*(one(i) for i in range(count)))
    for event in ("internal_error", "finisher_failed", "translator_failed"):
        assert await sidecar.lines(event) == []
    provider.play = say
    assert (await sidecar.chat("still there?", model=f"{vendor}/m")).status_code == 200
    assert sidecar.side.in_flight == 0
    return ends


@pytest.mark.parametrize("vendor", VENDORS)
async def test_r14_mutated_answers(serve: Serve, vendor: str) -> None:
    """R14: mutated and re-chunked, whole and streamed: an answer, an error of the contract or one error frame."""
    ends = await storm(serve, vendor, 90, 14)
    assert sum(ends.values()) == 90 and {"done", "frame", "whole", "502"} <= ends.keys(), ends


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("vendor", VENDORS)
async def test_r14_many_mutated_answers(serve: Serve, vendor: str) -> None:
    """R14 at size, through the whole sidecar."""
    for seed in range(10):
        await storm(serve, vendor, 500, seed)


@pytest.mark.parametrize("vendor", VENDORS)
async def test_r6_t25_floods(serve: Serve, vendor: str) -> None:
    """R6, T25: an event without end, a reply without end, a head without end: refused at the cap, never gathered."""
    sent = [0]

    async def endless(start: bytes):  # type: ignore[no-untyped-def]
        yield start
        while True:
            sent[0] += 1 << 20
            yield b"a" * (1 << 20)

    def play(seen: Seen) -> Answer:
        kind = len(provider.calls)
        if kind == 1:
            return stream_of(seen, endless(b"data: "))  # type: ignore[arg-type]
        if kind == 2:
            return Answer(b"{}", headers={f"x-{i}": "h" * 1000 for i in range(200)})
        return Answer(endless(b'{"a":"'))

    sidecar, provider = await serve(play, vendor)
    for as_stream, most in ((True, 24 << 20), (False, 0), (False, 96 << 20)):
        sent[0] = 0
        reply = await sidecar.chat("hi", model=f"{vendor}/m", stream=as_stream)
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_invalid_response"), reply.text
        assert sent[0] <= most
    provider.play = say
    assert (await sidecar.chat("hi", model=f"{vendor}/m")).status_code == 200


async def test_t25_compressed_answers_are_not_unpacked(serve: Serve) -> None:
    """T25: we ask for identity; what comes packed all the same is refused unread, bomb or not."""
    import gzip

    bomb = gzip.compress(b" " * (32 << 20))

    def play(seen: Seen) -> Answer:
        return Answer(bomb, headers={"content-encoding": "gzip"})

    for vendor in VENDORS:
        sidecar, provider = await serve(play, vendor)
        reply = await sidecar.chat("hi", model=f"{vendor}/m")
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_invalid_response")
        assert provider.calls[0].headers["accept-encoding"] == "identity"
