"""The aliasing trap: what is kept and shared is what passed the cache's place, whatever filters above do to it."""

from __future__ import annotations

import asyncio
import gc

import pytest

from policies.base import Chunk
from policies.cache.entry import pack, unpack
from policies.cache.flight import Flight
from tests.cache.conftest import STAMP, policies, said
from tests.policies.build import call, runtime_of, target


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
async def test_a_filters_change_never_reaches_the_entry(serve, behind, first, second):
    """Each caller's filter writes its own name into the answer; nobody ever sees another's, in either form."""
    async with serve(policies(STAMP, "cache")) as side:
        model = behind.model("text=hello;chunks=1")
        answers = [
            await side.chat("x", model=model, user=user, stream=stream)
            for user, stream in (("ann", first), ("bob", second), ("", second), ("cat", first))
        ]
        assert [said(answer) for answer in answers] == ["hello<ann>", "hello<bob>", "hello", "hello<cat>"]
        assert [answer.headers["x-llm-cache"] for answer in answers] == ["miss", "hit", "hit", "hit"]
        assert behind.count() == 1


async def test_a_filters_change_never_reaches_followers(serve, behind):
    """The same for those who read along while the leader's filter writes into the very chunks."""
    async with serve(policies(STAMP, "cache")) as side:
        model = behind.model("text=helloworld;chunks=2;first=0.4;interval=0.02")
        users = ["ann", "bob", "", "cat", "dan", "eve"]
        answers = await asyncio.gather(
            *[side.chat("x", model=model, user=user, stream=bool(i % 2)) for i, user in enumerate(users)]
        )
        for i, (user, answer) in enumerate(zip(users, answers, strict=True)):
            # The leader asked for a whole answer: one piece, one mark. A stream made of it is one piece too.
            assert said(answer) == ("helloworld" + (f"<{user}>" if user else "")), i
        assert behind.count() == 1


def test_the_record_is_bytes_before_anybody_sees_the_chunk():
    """What is fed on may be changed in any way, at any depth, and the usage taken out: the record stays."""
    flight = Flight("k", call(), target(), 1 << 20, lambda flight: None)
    data = {
        "object": "chat.completion.chunk", "id": "c", "usage": {"total_tokens": 1},
        "choices": [{"index": 0, "delta": {"content": "a", "thinking_blocks": [{"thinking": "b"}]}, "finish_reason": "stop"}],
    }  # fmt: skip
    (passed,) = flight.feed(Chunk(data))
    before = list(flight.record)
    for slot in passed.texts():
        slot.text = "secret"
    del passed.data["usage"]
    passed.data["choices"][0]["finish_reason"] = None
    assert flight.record == before
    assert b"secret" not in b"".join(flight.record)
    entry = unpack(pack(flight.record, whole=False, at=1.0))
    assert entry[1].choices[0]["message"]["thinking_blocks"] == [{"thinking": "b"}]


async def test_no_two_readers_hold_the_same_chunk():
    """Readers parse copies of their own: one that writes into its chunk changes nothing for the next."""
    flight = Flight("k", call(), target(), 1 << 20, lambda flight: None)
    one, two = flight.join(), flight.join()
    flight.feed(Chunk({"choices": [{"index": 0, "delta": {"content": "a"}}]}))
    (mine,), (theirs,) = await anext(one), await anext(two)
    for slot in mine.texts():
        slot.text = "mine"
    assert theirs.choices[0]["delta"]["content"] == "a"
    assert mine.raw is None
    assert theirs.raw == flight.record[0]


async def test_a_call_and_its_flight_let_go_of_each_other():
    """Nothing of a miss or a hit is left to the garbage collector: its pauses would be every caller's."""
    from proxy.dryrun import dry_run

    runtime = await runtime_of(policies("cache"))
    ask = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    await dry_run(runtime, {**ask}, reply="warm up")
    gc.collect()
    gc.disable()
    try:
        for n in range(20):
            for _ in range(2):
                await dry_run(runtime, {**ask, "seed": n}, reply="y")
        assert runtime.metrics.cache_requests.values["hit",] == 20
        assert gc.collect() < 20
    finally:
        gc.enable()
    await runtime.aclose()
    await runtime.store.aclose()
