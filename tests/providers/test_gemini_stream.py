"""Streams from Gemini: translation cases 94 to 111."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import orjson
import pytest

from proxy.errors import ApiError, Truncated, UpstreamError
from proxy.shape import Fold
from tests.providers.gemini_kit import answer, call, calls, candidate, decode, deltas, encode, gemini, result, stream
from tests.providers.recordings import cut, decode_stream


def tool(name: str, **args: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": args}}


def test_094_events_cut_anywhere_are_the_same_chunks() -> None:
    """CRLF, CR and LF, comments, a BOM, multi-line data, cuts inside UTF-8."""
    pieces = [answer(candidate({"text": "grüße 🐙 "}, finish=None)), answer(candidate({"text": "Ende"}))]
    chunks = stream(*pieces)
    for end in ("\r\n", "\n", "\r"):
        data = "\ufeff: hello" + end + end
        for piece in pieces:
            body = orjson.dumps(piece, option=orjson.OPT_INDENT_2).decode()
            data += "".join(f"data: {line}{end}" for line in body.split("\n")) + end
        for seed in range(20):
            made = decode_stream(gemini().decoder(encode(stream=True)), cut(data.encode(), f"{end}{seed}"))
            again = [chunk.data for chunk in made]
            assert [{**c, "id": 0} for c in again] == [{**c, "id": 0} for c in chunks]


def test_095_the_role_is_said_once() -> None:
    """On each choice's first chunk, and on no other."""
    pieces = [answer(candidate({"text": word}, finish=None)) for word in "abc"]
    found = deltas(stream(*pieces, answer(candidate(finish="STOP"))))
    assert [delta.get("role") for delta in found] == ["assistant", None, None, None]


def test_096_097_parallel_calls_in_separate_events_count_up() -> None:
    """Indices are the stream's, ids are unique, name and arguments come whole, once."""
    chunks = stream(
        answer(candidate({"text": "hm"}, finish=None)),
        answer(candidate(tool("f", x=1), finish=None)),
        answer(candidate(tool("f", x=2), tool("g"), finish=None)),
        answer(candidate(tool("f", x=1))),
    )
    made = [call for delta in deltas(chunks) for call in delta.get("tool_calls", ())]
    assert [call["index"] for call in made] == [0, 1, 2, 3]
    assert len({call["id"] for call in made}) == 4
    assert [call["function"] for call in made] == [
        {"name": "f", "arguments": '{"x":1}'},
        {"name": "f", "arguments": '{"x":2}'},
        {"name": "g", "arguments": "{}"},
        {"name": "f", "arguments": '{"x":1}'},
    ]
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_100_the_finish_reason_has_its_own_chunk() -> None:
    """Also where it comes with text, and where STOP follows the calls in a later event."""
    chunks = stream(answer(candidate({"text": "all"})))
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]] == [None, "stop"]
    later = stream(answer(candidate(tool("f"), finish=None)), answer(candidate({"text": ""}, finish="STOP")))
    assert [choice["finish_reason"] for chunk in later for choice in chunk["choices"]] == [None, "tool_calls"]
    assert deltas(later)[-1] == {}


def test_101_usage_is_the_last_chunk() -> None:
    """Once, after the finish, without choices; the others have none."""
    chunks = stream(answer(candidate({"text": "a"}, finish=None)), answer(candidate({"text": "b"})))
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] == 8
    assert all("usage" not in chunk for chunk in chunks[:-1])


def test_102_usage_is_cumulative() -> None:
    """The last number of each kind counts, none is added up."""
    first = {"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 9}
    chunks = stream(
        answer(candidate({"text": "a"}, finish=None), usage=first),
        answer(candidate({"text": "b"}), usage={"promptTokenCount": 5, "candidatesTokenCount": 4}),
    )
    assert chunks[-1]["usage"]["completion_tokens"] == 13


def test_102_usage_after_the_finish_still_counts() -> None:
    """Some servers say it in an event of its own."""
    chunks = stream(
        answer(candidate({"text": "a"}), usage=None),
        {"usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2}},
    )
    assert chunks[-1]["usage"]["total_tokens"] == 3
    assert "usage" not in stream(answer(candidate({"text": "a"}), usage=None))[-1]


def test_103_unknown_parts_are_never_text() -> None:
    """Server-side tools, code and unknown fields are left out."""
    parts = (
        {"executableCode": {"code": "print(1)", "language": "PYTHON"}},
        {"codeExecutionResult": {"output": "1"}},
        {"toolCall": {"id": "x"}, "thoughtSignature": "AAAA"},
        {"novelty": {"text": "no"}},
        {"text": "yes"},
    )
    assert deltas(stream(answer(candidate(*parts, groundingMetadata={"x": 1}))))[0] == {
        "role": "assistant",
        "content": "yes",
    }


@pytest.mark.parametrize("before", [(), (answer(candidate({"text": "half"}, finish=None)),)])
@pytest.mark.parametrize("wrap", [lambda error: {"error": error}, lambda error: [{"error": error}]])
def test_104_106_an_error_in_the_stream_is_the_error(before: tuple[Any, ...], wrap: Any) -> None:
    """Before any content and after it, as an object and as an array, with its own status."""
    error = {"code": 429, "message": "Resource has been exhausted", "status": "RESOURCE_EXHAUSTED"}
    with pytest.raises(UpstreamError) as caught:
        stream(*before, wrap(error))
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (429, "upstream_rate_limited", True)
    with pytest.raises(UpstreamError) as caught:
        stream(*before, wrap({"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}))
    assert (caught.value.status, caught.value.code, caught.value.counts) == (503, "upstream_overloaded", True)


@pytest.mark.parametrize(
    "pieces", [(), ({"usageMetadata": {"promptTokenCount": 5}},), (answer(candidate({"text": "half"}, finish=None)),)]
)
def test_105_an_end_without_a_finish_reason_is_a_truncation(pieces: tuple[Any, ...]) -> None:
    """What came stays, and the end is an error."""
    decoder = gemini().decoder(encode(stream=True))
    for piece in pieces:
        decoder.feed("", orjson.dumps(piece))
    assert not decoder.done
    with pytest.raises(Truncated):
        decoder.close()


def test_105_one_open_candidate_of_two_is_a_truncation() -> None:
    """Every candidate has to end."""
    decoder = gemini().decoder(encode(stream=True, n=2))
    decoder.feed("", orjson.dumps(answer(candidate({"text": "a"}), candidate({"text": "b"}, finish=None, index=1))))
    assert not decoder.done
    with pytest.raises(Truncated):
        decoder.close()


def test_100_a_stop_in_every_event_ends_nothing() -> None:
    """Old models and stand-ins say STOP with each event: one finish, after all of the text."""
    chunks = stream(*(answer(candidate(*parts)) for parts in ((), ({"text": "a"},), ({"text": "b"},), ())))
    assert "".join(delta.get("content") or "" for delta in deltas(chunks)) == "ab"
    finishes = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert finishes[-1] == "stop" and set(finishes[:-1]) == {None}


def test_105_text_after_the_last_stop_was_cut_off() -> None:
    """What follows a STOP shows that it was not the end; grounding and counts behind it show nothing."""
    with pytest.raises(Truncated):
        stream(answer(candidate({"text": "a"})), answer(candidate({"text": "b"}, finish=None)))
    tail = stream(answer(candidate({"text": "a"})), answer(candidate(finish=None, groundingMetadata={})))
    assert tail[-2]["choices"][0]["finish_reason"] == "stop"


def test_070_probabilities_without_text_are_kept() -> None:
    """They may come with the candidate's last event, whose text is empty."""
    found = {"chosenCandidates": [{"token": "a", "logProbability": -0.5}], "topCandidates": []}
    chunks = stream(answer(candidate({"text": "a"}, finish=None)), answer(candidate(logprobsResult=found)))
    tokens = [c["logprobs"]["content"][0]["token"] for k in chunks for c in k["choices"] if c["logprobs"]]
    assert tokens == ["a"]


def test_109_nothing_follows_the_end() -> None:
    """Done with the connection's end; later events are ignored."""
    decoder = gemini().decoder(encode(stream=True))
    decoder.feed("", orjson.dumps(answer(candidate({"text": "a"}))))
    assert not decoder.done and decoder.close()
    assert decoder.done
    assert list(decoder.feed("", b"garbage")) == [] and list(decoder.close()) == []


def test_069_candidates_in_a_stream_keep_their_index() -> None:
    """Two answers side by side, each with role, text and finish of its own."""
    chunks = stream(
        answer(candidate({"text": "a"}, finish=None), candidate({"text": "x"}, finish=None, index=1)),
        answer(candidate({"text": "b"}), usage={"promptTokenCount": 5}),
        answer(candidate({"text": "y"}, index=1)),
        sent=encode(stream=True, n=2),
    )
    for index, words in ((0, ["a", "b"]), (1, ["x", "y"])):
        assert [delta.get("content") for delta in deltas(chunks, index)] == [*words, None]
    assert chunks[-1]["choices"] == []


def test_110_a_block_ends_the_stream_normally() -> None:
    """Before any content and in the middle of it, with and without usage."""
    block = {"promptFeedback": {"blockReason": "SAFETY"}}
    for pieces in (
        [block],
        [answer(candidate({"text": "half"}, finish=None)), block],
        [answer(promptFeedback=block["promptFeedback"])],
    ):
        chunks = stream(*pieces)
        finishes = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
        assert finishes == [None, "content_filter"]
        assert deltas(chunks)[0]["role"] == "assistant"
    filtered = stream(answer(candidate(finish="SAFETY", finishMessage="No.")))
    assert deltas(filtered)[:2] == [{"role": "assistant", "content": ""}, {"refusal": "No."}]


def test_111_a_whole_reply_and_its_stream_say_the_same() -> None:
    """However the parts are spread over events, folding the chunks gives the whole reply."""
    rng = random.Random(5)
    parts = [
        {"text": "think ", "thought": True}, {"text": "more", "thought": True}, {"text": "one "}, {"text": "two"},
        {**tool("f", x=1), "thoughtSignature": "AAAA"}, tool("g"), {"text": " three"},
    ]  # fmt: skip
    whole = decode(answer(candidate(*parts)))
    for _ in range(30):
        points = sorted(rng.sample(range(1, len(parts)), rng.randint(0, len(parts) - 1)))
        groups = [parts[a:b] for a, b in zip([0, *points], [*points, len(parts)], strict=True)]
        pieces = [answer(candidate(*group, finish=None)) for group in groups[:-1]] + [answer(candidate(*groups[-1]))]
        fold = Fold()
        for data in stream(*pieces):
            fold.feed(type("C", (), {"data": data, "choices": data["choices"]}))  # type: ignore[arg-type]
        assert fold.whole().data == whole


_PIECES = [
    answer(candidate({"text": "a"}, finish=None)),
    answer(candidate(tool("f", x=1), {"text": "t", "thought": True}, finish=None)),
    answer(candidate({"text": "z", "thoughtSignature": "AAAA"}, logprobsResult={"chosenCandidates": [{"token": "z"}]})),
    {"promptFeedback": {"blockReason": "SAFETY"}},
]
_JUNK: list[Any] = [None, 5, -1, True, "x", [], {}, [None], {"text": 5}, 1e30, "\ud800"[:0]]


def _mutate(value: Any, rng: random.Random) -> Any:
    """Return ``value`` with one place in it replaced, dropped or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {name: child for name, child in value.items() if name != key}
        return {name: _mutate(child, rng) if name == key else child for name, child in value.items()}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        return [*value[:at], _mutate(value[at], rng), *value[at:][rng.random() < 0.8 :]]
    return rng.choice(_JUNK)


def _survives(seed: int) -> None:
    rng = random.Random(seed)
    pieces = [
        _mutate(piece, rng) if rng.random() < 0.6 else piece for piece in rng.choices(_PIECES, k=rng.randint(1, 4))
    ]
    try:
        for data in stream(*pieces):
            orjson.dumps(data)
    except ApiError as error:
        assert isinstance(error, UpstreamError)
    body = orjson.dumps(pieces[0])
    with contextlib.suppress(UpstreamError):
        decode(body[: rng.randint(0, len(body))] if rng.random() < 0.2 else body)
    gemini().failure(rng.choice([400, 401, 429, 500, 503]), {}, body)


def test_only_upstream_errors_escape() -> None:
    """Mutated events, whole replies and error bodies never raise anything else."""
    for seed in range(600):
        _survives(seed)


@pytest.mark.slow
def test_only_upstream_errors_escape_at_length() -> None:
    """As above, twenty thousand times."""
    for seed in range(20_000):
        _survives(seed)


def test_a_round_trip_in_a_stream_needs_ids_only() -> None:
    """Calls gathered from deltas go back as history."""
    chunks = stream(answer(candidate(tool("f", x=1), tool("g"))))
    made = [c for delta in deltas(chunks) for c in delta.get("tool_calls", ())]
    history = calls(*(call(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in made))
    assert encode([{"role": "user", "content": "x"}, history, *(result(c["id"]) for c in made)])
