"""The meter believes the provider within reason, and counts what was produced where it says nothing."""

import pytest

from proxy import tokens
from proxy.chunk import Chunk
from proxy.request import ChatRequest
from proxy.telemetry.meter import Meter


def meter():
    found = Meter(ChatRequest({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}))
    found.sent = True
    return found


def delta(**fields):
    return Chunk({"choices": [{"index": 0, "delta": fields, "finish_reason": None}]})


def usage(**numbers):
    return Chunk({"choices": [], "usage": numbers})


@pytest.mark.parametrize("wrong", [-5, 10**12, 1.5, "7", None, True, [3], {"a": 1}])
def test_absurd_numbers_are_not_believed(wrong):
    """Usage that no model can have is as if nothing had been said: the answer is counted (T17)."""
    one = meter()
    one.see((delta(content="some words of an answer"),))
    one.see((usage(prompt_tokens=10, completion_tokens=wrong),))
    total = one.total("gpt-4o")
    assert total.estimated
    assert 0 < total.completion < 20


@pytest.mark.parametrize("details", [5, [1], "x", {"cached_tokens": "many"}, {"cached_tokens": -1}, None])
def test_details_of_any_shape_do_no_harm(details):
    """Parts of the tokens that are not numbers count none, and the rest holds."""
    one = meter()
    one.see((usage(prompt_tokens=10, completion_tokens=2, prompt_tokens_details=details),))
    assert (one.total("m").prompt, one.total("m").cached) == (10, 0)


def test_an_explicit_zero_stays_zero_once_the_answer_is_complete():
    """A provider that says 0 is believed at a proper end, not in a stream that was cut after its opening numbers."""
    one = meter()
    one.see((delta(content="text"), usage(prompt_tokens=10, completion_tokens=0)))
    assert one.total("gpt-4o").completion > 0
    one.complete = True
    assert one.total("gpt-4o").completion == 0


def test_a_very_long_answer_takes_no_memory_and_is_still_counted():
    """Of a long answer only the beginning and the end are kept; the count scales to its length."""
    tokens.load("o200k_base")
    one = meter()
    piece = delta(content="the quick brown fox jumps over the lazy dog ")
    for _ in range(20_000):
        one.see((piece,))
    assert sum(map(len, one._parts)) < 100_000
    exact = 20_000 * 9
    assert one.total("gpt-4o").completion == pytest.approx(exact, rel=0.05)


def test_a_whole_reply_with_usage_needs_no_text():
    """Where the provider says its numbers, a whole reply's text is not kept."""
    one = meter()
    reply = {
        "choices": [{"message": {"role": "assistant", "content": "x" * 1000}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    one.see_whole(Chunk(reply, whole=True), "m")
    assert one._parts == []
    assert (one.total("m").prompt, one.total("m").completion) == (3, 4)
