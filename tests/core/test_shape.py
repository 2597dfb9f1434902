"""The two forms of a reply say the same: whole → stream → whole, however the stream is cut up."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.chunk import Chunk
from proxy.shape import Fold, unfold

TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)
WORD = st.text(alphabet="abcdefgh_", min_size=1, max_size=8)
ROWS = st.lists(st.fixed_dictionaries({"token": TEXT, "logprob": st.floats(-9, 0)}), min_size=1, max_size=3)
FUNCTION = st.fixed_dictionaries({"name": WORD, "arguments": st.sampled_from(["", "{}", '{"a": 1}'])})
CUSTOM = st.fixed_dictionaries({"name": WORD, "input": TEXT})
CALL = st.one_of(
    st.fixed_dictionaries(
        {"id": WORD, "type": st.just("function"), "function": FUNCTION},
        optional={"extra_content": st.just({"google": {"thought_signature": "s"}})},
    ),
    st.fixed_dictionaries({"id": WORD, "type": st.just("custom"), "custom": CUSTOM}),
)
IMAGE = st.fixed_dictionaries({"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": TEXT})})
AUDIO = st.fixed_dictionaries(
    {
        "id": WORD,
        "data": st.binary(max_size=9).map(lambda b: base64.b64encode(b).decode()),
        "transcript": TEXT,
        "expires_at": st.integers(0, 9),
    }
)
CITATION = st.fixed_dictionaries(
    {"type": st.just("url_citation"), "url_citation": st.fixed_dictionaries({"url": TEXT})}
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | TEXT, "refusal": st.none() | TEXT.filter(bool)},
    optional={
        "tool_calls": st.lists(CALL, min_size=1, max_size=3),
        "reasoning_content": TEXT.filter(bool),
        "reasoning": TEXT.filter(bool),
        "thinking_blocks": st.lists(st.fixed_dictionaries({"type": st.just("thinking"), "thinking": TEXT, "signature": WORD}), min_size=1, max_size=2),
        "annotations": st.lists(CITATION, min_size=1, max_size=2),
        "audio": AUDIO,
        "images": st.lists(IMAGE, min_size=1, max_size=2),
        "extra_content": st.just({"google": {"thought_signature": "t"}}),
        "function_call": FUNCTION,
    },
)  # fmt: skip
LOGPROBS = st.none() | st.fixed_dictionaries({"content": ROWS}, optional={"refusal": ROWS})
FINISH = st.sampled_from(["stop", "length", "tool_calls", "content_filter", "function_call"])
CHOICE = st.fixed_dictionaries(
    {"message": MESSAGE, "logprobs": LOGPROBS, "finish_reason": FINISH},
    optional={"x_llm_native_finish_reason": WORD, "content_filter_results": st.just({"hate": {"filtered": False}})},
)
USAGE = st.fixed_dictionaries(
    {"prompt_tokens": st.integers(0, 9), "completion_tokens": st.integers(0, 9), "total_tokens": st.integers(0, 18)}
)


@st.composite
def completions(draw: Any) -> dict[str, Any]:
    choices = [{"index": i, **draw(CHOICE)} for i in range(draw(st.integers(1, 3)))]
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
    for name, values in (("usage", USAGE), ("system_fingerprint", WORD), ("service_tier", st.just("default"))):
        if draw(st.booleans()):
            body[name] = draw(values)
    return body


def expected(body: dict[str, Any]) -> dict[str, Any]:
    """Return what must come back: an empty text beside tool calls is none."""
    for choice in body["choices"]:
        message = choice["message"]
        if message.get("tool_calls") and not message["content"]:
            message["content"] = None
    return body


def folded(chunks: list[Chunk]) -> dict[str, Any]:
    fold = Fold()
    for chunk in chunks:
        fold.feed(chunk)
    return fold.whole().data


@settings(max_examples=80, deadline=None)
@given(completions(), st.booleans())
def test_a_stream_of_a_whole_reply_says_the_same(body: dict[str, Any], words: bool) -> None:
    """fold(unfold(x)) = x: text, refusal, reasoning, calls of both kinds, images, audio, logprobs, extras, n > 1."""
    assert folded(list(unfold(Chunk(body, whole=True), words=words))) == expected(body)


def cut(chunk: Chunk) -> list[Chunk]:
    """Return the chunk in pieces, as a provider that streams finely would send it."""
    data = chunk.data
    if not data["choices"]:
        return [chunk]
    choice = data["choices"][0]
    out = []

    def add(delta: dict[str, Any]) -> None:
        out.append(Chunk({**data, "choices": [{**choice, "delta": delta, "logprobs": None}]}))

    for name, value in choice["delta"].items():
        if name in ("content", "refusal", "reasoning_content", "reasoning") and value:
            for letter in value:
                add({name: letter})
        elif name == "tool_calls":
            for call in value:
                kind = call["type"]
                field = "arguments" if kind == "function" else "input"
                add({name: [{**call, kind: {"name": call[kind]["name"], field: ""}}]})
                for letter in call[kind][field]:
                    add({name: [{"index": call["index"], kind: {field: letter}}]})
        elif name == "audio":
            add({name: {"id": value["id"]}})
            add(
                {
                    name: {
                        "data": base64.b64encode(base64.b64decode(value["data"])[:1]).decode(),
                        "transcript": value["transcript"][:1],
                    }
                }
            )
            add(
                {
                    name: {
                        "data": base64.b64encode(base64.b64decode(value["data"])[1:]).decode(),
                        "transcript": value["transcript"][1:],
                    }
                }
            )
            add({name: {"expires_at": value["expires_at"]}})
        elif isinstance(value, list):
            for one in value:
                add({name: [one]})
        else:
            add({name: value})
    if not out:
        add({})
    out[0].data["choices"][0]["logprobs"] = choice["logprobs"]
    return out


@settings(max_examples=80, deadline=None)
@given(completions())
def test_however_finely_it_is_streamed(body: dict[str, Any]) -> None:
    """The same, each text a letter at a time, arguments and audio in pieces."""
    pieces = [piece for chunk in unfold(Chunk(body, whole=True)) for piece in cut(chunk)]
    assert folded(pieces) == expected(body)


@settings(max_examples=40, deadline=None)
@given(completions(), st.booleans())
def test_112_a_replayed_stream_keeps_the_order(body: dict[str, Any], words: bool) -> None:
    """95–101, 111, 112: role first and once, thoughts, text, calls numbered from 0, one finish a choice, usage last."""
    chunks = [chunk.data for chunk in unfold(Chunk(body, whole=True), words=words)]
    assert {(c["id"], c["model"], c["object"]) for c in chunks} == {("chatcmpl-1", "m", "chat.completion.chunk")}
    if "usage" in body:
        assert chunks[-1]["choices"] == [] and chunks.pop()["usage"] == body["usage"]
    assert all("usage" not in chunk for chunk in chunks)
    for asked in body["choices"]:
        mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == asked["index"]]
        assert [i for i, c in enumerate(mine) if "role" in c["delta"]] == [0]
        assert [i for i, c in enumerate(mine) if c["finish_reason"]] == [len(mine) - 1]
        assert not mine[-1]["delta"]
        places = [_ORDER[name] for c in mine[1:-1] for name in c["delta"]]
        assert places == sorted(places)
        calls = [call["index"] for c in mine for call in c["delta"].get("tool_calls", ())]
        assert calls == list(range(len(calls)))


_ORDER = {
    "reasoning_content": 0, "reasoning": 0, "thinking_blocks": 1, "annotations": 1, "audio": 1, "images": 1, "extra_content": 1,
    "refusal": 2, "content": 3, "tool_calls": 4, "function_call": 5,
}  # fmt: skip


def test_completions_come_back_too() -> None:
    """/v1/completions: text, logprobs and n > 1."""
    choices = [
        {
            "index": i,
            "text": f"answer {i} here",
            "logprobs": {"tokens": ["a"], "token_logprobs": [-1.0]},
            "finish_reason": "length",
        }
        for i in range(2)
    ]
    body = {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": choices}
    assert folded(list(unfold(Chunk(body, whole=True), words=True))) == body


@pytest.mark.parametrize("names", [["get_", "weather"], ["get_weather", "get_weather"]])
def test_names_in_pieces_or_said_again(names: list[str]) -> None:
    """A call's name may come in pieces, or be repeated with each: it is the same name."""
    fold = Fold()
    for name in names:
        call = {"index": 0, "id": "c1", "function": {"name": name, "arguments": "{"[: name == names[0]]}}
        fold.feed(Chunk({"id": "x", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))
    assert fold.whole().data["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "get_weather"
