"""What translating for Gemini costs over OpenAI's own path."""

from __future__ import annotations

import timeit
from collections.abc import Callable

import orjson
import pytest

from proxy.providers.base import Target
from proxy.providers.openai import OpenAI, OpenAISettings
from proxy.request import ChatRequest
from tests.providers.gemini_kit import HI, MODEL, answer, candidate, encode, gemini


def micros(work: Callable[[], object], number: int = 5_000) -> float:
    """Return the best of several runs, in µs."""
    return min(timeit.repeat(work, number=number, repeat=7)) / number * 1e6


@pytest.mark.bench
def test_translation_stays_in_its_budget() -> None:
    """At most 60 µs more for a 1 KB whole reply, request included, and 6 µs more for a stream's chunk."""
    ours, theirs = gemini(), OpenAI("openai", OpenAISettings())
    request = ChatRequest({"model": MODEL, "messages": [{"role": "system", "content": "Be kind. " * 20}, HI]})
    here, there = Target("gemini", MODEL, ours), Target("openai", "gpt-4o", theirs)
    sent, plain = ours.encode(request, here), theirs.encode(request, there)
    body = orjson.dumps(answer(candidate({"text": "word " * 150})))
    same = ours.decode(200, {}, body, sent).encode()
    whole = micros(lambda: (ours.encode(request, here), ours.decode(200, {}, body, sent).encode()))
    whole -= micros(lambda: (theirs.encode(request, there), theirs.decode(200, {}, same, plain).encode()))

    event = orjson.dumps(answer(candidate({"text": " some words"}, finish=None)))
    decoder, passing = ours.decoder(encode(stream=True)), theirs.decoder(plain)
    chunk = decoder.feed("", event)[0].encode()
    passing.feed("", chunk)
    piece = micros(lambda: decoder.feed("", event)[0].encode()) - micros(lambda: passing.feed("", chunk)[0].encode())
    print(f"\nGemini over OpenAI: {whole:.1f} µs a whole reply, {piece:.1f} µs a chunk")
    assert whole <= 60 and piece <= 6
