"""Prompts over the limit are refused with the numbers, counted only where counting is needed."""

import asyncio
import time

import pytest

from policies.base import ApiError
from policies.prompt_limit import PromptLimit
from proxy import tokens
from tests.policies.build import call, kit


def limit(**config):
    return PromptLimit(PromptLimit.Config(**config), kit())


async def refused(policy, one):
    try:
        await policy.on_request(one)
    except ApiError as error:
        assert (error.status, error.code) == (400, "context_length_exceeded")
        return error
    return None


async def test_exact_at_the_border():
    """A prompt of exactly the limit passes; one token more is refused and the message says how many."""
    text = "hello world " * 50
    one = call(text, model="gpt-4o")
    n = await tokens.count(one.request, "gpt-4o")
    assert await refused(limit(max_tokens=n), one) is None
    error = await refused(limit(max_tokens=n - 1), one)
    assert str(n) in error.message
    assert error.param == "messages"


async def test_nothing_is_counted_where_bytes_prove_it(monkeypatch):
    """Fewer bytes than the limit are fewer tokens than the limit: no tokenizer runs."""

    async def never(*args, **kwargs):
        raise AssertionError("counted")

    monkeypatch.setattr(tokens, "count", never)
    assert await refused(limit(max_tokens=1000), call("short")) is None


@pytest.mark.parametrize("endpoint", ["embeddings", "completions"])
async def test_other_endpoints(endpoint):
    """The limit holds for embeddings' input and completions' prompt too."""
    assert await refused(limit(max_tokens=50), call("many words here " * 50, endpoint=endpoint)) is not None


async def test_tools_and_parts_count():
    """Text in parts, tool definitions and earlier tool calls is prompt too."""
    tool = {"type": "function", "function": {"name": "f", "description": "word " * 300}}
    assert await refused(limit(max_tokens=100), call("hi", tools=[tool])) is not None
    parts = [{"type": "text", "text": "word " * 300}]
    assert await refused(limit(max_tokens=100), call(parts)) is not None


async def test_max_messages():
    """A conversation with too many messages is refused by their number."""
    messages = [{"role": "user", "content": "a"}] * 4
    assert await refused(limit(max_messages=3), call(messages=messages)) is not None
    assert await refused(limit(max_messages=4), call(messages=messages)) is None


async def test_a_large_body_does_not_stall_the_loop():
    """Five megabytes are counted off the event loop, and no longer than the limit needs."""
    tokens.load("o200k_base")
    one = call("lorem ipsum " * 450_000, model="gpt-4o")
    worst = 0.0
    done = False

    async def watch():
        nonlocal worst
        while not done:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - began)

    watcher = asyncio.create_task(watch())
    error = await refused(limit(max_tokens=4096), one)
    done = True
    await watcher
    assert error is not None
    assert worst < 0.2
