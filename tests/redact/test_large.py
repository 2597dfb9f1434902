"""Large bodies of odd shapes leave the loop to others, and cost what their size costs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.chunk import Chunk
from tests.redact.helpers import call, chat, policy, stalls
from tests.timing import least, slowness


async def stall(body: dict[str, Any], mode: str) -> tuple[float, float]:
    """Return the longest time in which nothing else ran, and the whole time, in seconds of CPU."""
    made = policy(mode=mode)
    await made.on_request(call(chat("a@b.io")))
    return await stalls(made, call(body))


@pytest.mark.parametrize("mode", ["mask", "restore"])
async def test_many_small_texts_yield(mode: str) -> None:
    """A body of a hundred thousand short strings stalls nobody: they are found as they are looked at."""
    body = {**chat("x"), "x_rows": [{"a": "hello", "b": "world"} for _ in range(50_000)]}
    most = 0.05 * slowness()
    worst = (await stall(body, mode))[0]
    if worst >= most:  # a shared machine is slower at times
        worst = (await stall(body, mode))[0]
    assert worst < most, worst


async def test_arguments_dense_with_findings_cost_what_their_size_costs() -> None:
    """A tool's arguments with a finding in each of many short members take as long as their length says."""

    def body(rows: int) -> dict[str, Any]:
        text = json.dumps([{"name": "x\n", "mail": f"u{i}@example.com"} for i in range(rows)])
        made = chat("x")
        made["messages"].append(
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": text}}]}
        )
        return made

    whole = min([(await stall(body(2_000), "mask"))[1] for _ in range(2)])
    assert whole < 0.2 * slowness(), whole  # some 40 microseconds for each; it was 200


async def test_many_names_that_are_masked_cost_what_their_number_costs() -> None:
    """An object of ten thousand members named by mail addresses: none is renamed by writing all of them anew."""

    def body(members: int) -> dict[str, Any]:
        return {**chat("x"), "x_people": {f"u{i}@example.com": 1 for i in range(members)}}

    worst, whole = min([await stall(body(10_000), "mask") for _ in range(2)], key=lambda pair: pair[1])
    # Some 12 microseconds for each; of 2,000 it was 310.
    assert whole < slowness() and worst < 0.05 * slowness(), (worst, whole)


def test_a_whole_answer_dense_with_findings_costs_what_its_size_costs() -> None:
    """Half a mebibyte of addresses in one string of a tool's arguments: no finding looks through all of it."""

    def answer(size: int) -> None:
        text = json.dumps({"list": "mail ann@example.com now " * (size // 25)})
        tool = {"id": "1", "type": "function", "function": {"name": "f", "arguments": text}}
        message = {"role": "assistant", "content": None, "tool_calls": [tool]}
        chunk = Chunk({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}, b"", whole=True)
        for out in policy().on_reply(call(chat("x"))).feed(chunk):
            assert b"ann@" not in out.encode()

    once = least(lambda: answer(1 << 16))
    assert least(lambda: answer(1 << 19), 12 * once) < 16 * once  # eight times the text; it was fifty times the time
