"""A text that held nothing is recognised when it comes again: the answer is the same, only sooner."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import pytest

from policies.redact import Redact, search
from policies.redact import known as known_texts
from policies.redact.checks import card
from policies.redact.engine import Engine
from policies.redact.lanes import PlainLane
from proxy.call import Call
from tests.redact.helpers import call, engine, policy, word

CLEAN = "The report says what changed since spring, and names the two largest risks of the plan. " * 12
SECRET = CLEAN + "Write to ann@example.com."


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Record what the engine looks at."""
    seen: list[bytes] = []
    decide = Engine.decide

    def watched(self: Engine, text: bytes, start: int, final: bool, trail: Any = None) -> Any:
        seen.append(text[start:])
        return decide(self, text, start, final, trail)

    monkeypatch.setattr(Engine, "decide", watched)
    return seen


async def masked(made: Redact, *texts: str) -> list[str]:
    """Return what goes upstream of a chat of these messages."""
    asked: Call = call({"model": "m", "messages": [{"role": "user", "content": text} for text in texts]})
    await made.on_request(asked)
    return [message["content"] for message in asked.request.body["messages"]]


async def test_what_held_nothing_is_not_looked_at_again(looks: list[bytes]) -> None:
    """The turns of a chat come again with each new one: only the new one is looked at. A finding is found each time."""
    made = policy()
    long = "".join(random.Random(1).choices("abcdefgh ,.\n", k=30_000))  # looked at in slices
    assert await masked(made, CLEAN, SECRET, long) == [CLEAN, CLEAN + "Write to [EMAIL].", long]
    looks.clear()
    assert await masked(made, CLEAN, SECRET, long, "and now?") == [CLEAN, CLEAN + "Write to [EMAIL].", long, "and now?"]
    assert looks == [SECRET.encode(), b"and now?"]
    assert made.kit.metrics.seen == [("email", "request")] * 2


async def test_another_policy_looks_for_itself(looks: list[bytes]) -> None:
    """What holds nothing for one set of detectors may hold something for another, and after a reload."""
    await masked(policy(builtin=["network"]), SECRET)
    assert await masked(policy(), SECRET) == [CLEAN + "Write to [EMAIL]."]


def test_the_same_text_in_another_place_is_another_text() -> None:
    """A tool's arguments are read as JSON and a message is not: what is known as one is not known as the other."""
    known = known_texts.Known()
    mark = known.mark(CLEAN.encode(), "content")
    assert mark is not None
    known.keep(mark, {}, {}, [], 0)
    assert known.recall(mark, {}, 0)
    other = known.mark(CLEAN.encode(), "arguments")
    assert other is not None and not known.recall(other, {}, 0)


def nearly(rng: random.Random, count: int) -> str:
    """Return numbers of cards whose check digit is wrong: the budget pays for each."""
    numbers = (f"4{rng.randrange(10**15):015}" for _ in range(20 * count))
    return " ".join([n for n in numbers if not card(n)][:count])


class Forgetful(known_texts.Known):
    def recall(self, *_: Any) -> bool:
        return False


async def test_what_is_known_is_paid_for_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request's budget is spent by texts that are known as by those that are not: both ways, the same is masked."""
    for module in (search, known_texts):
        monkeypatch.setattr(module, "FULL", 24_000)
    rng = random.Random(4)
    texts = [nearly(rng, rng.randrange(16, 32)) for _ in range(12)] + [CLEAN, SECRET, "ä" * 200 + nearly(rng, 20)]
    texts += [nearly(rng, 20) + "\\/" + nearly(rng, 5), nearly(rng, 300) + " end", f"{nearly(rng, 600)} {CLEAN}"]
    learned, forgetful = policy(builtin=["pii"]), policy(builtin=["pii"])
    forgetful._known = Forgetful()
    for text in texts:
        await masked(learned, text)
    assert len(learned._known._texts) > 12
    spent = 0
    for _ in range(60):
        chat = rng.choices(texts, k=rng.randrange(1, 14))
        wanted = await masked(forgetful, *chat)
        assert await masked(learned, *chat) == wanted
        spent += any("[CREDIT_CARD]" in text for text in wanted)
    assert 5 < spent < 60, "the budget was spent in some of them"


async def test_of_what_is_known_little_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are at most so many marks, none holds a word of its text, and two sidecars' marks differ."""
    monkeypatch.setattr(known_texts, "_MOST", 40)
    made, other = policy(), policy()
    for n in range(100):
        await masked(made, f"{n} {CLEAN}")
    texts = made._known._texts
    assert len(texts) <= 40
    assert all(len(mark) == 16 for mark in texts) and set(texts.values()) == {()}
    assert made._known.mark(CLEAN.encode(), "content") != other._known.mark(CLEAN.encode(), "content")


def test_a_stream_takes_note_of_nothing() -> None:
    """What is turned down in an answer that goes on and on is not kept: there is nobody to ask for it."""
    lane = PlainLane(engine(("pii",)), word)
    rng = random.Random(2)
    rows = [f"{number} {'word ' * 60}" for number in nearly(rng, 500).split()]  # few enough that no budget is spent
    for row in rows:
        lane.feed(row)
    tracemalloc.start()
    for row in rows * 5:
        lane.feed(row)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 50_000, kept  # a note of each of these 2,500 was 200,000
