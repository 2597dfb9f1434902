"""Entries in both forms: what was recorded comes back whole, as a valid stream, and as the same answer (case 112)."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import ApiError, Chunk
from policies.cache.entry import complete, pack, unpack
from proxy.providers.anthropic import Anthropic
from proxy.providers.base import Target
from proxy.providers.gemini import Gemini
from proxy.providers.openai import OpenAI, OpenAISettings
from proxy.request import ChatRequest
from proxy.shape import Fold, unfold
from tests.providers.recordings import Answer, decode_stream, reply_bytes, validator


@pytest.fixture(scope="module")
def validators(schemas):
    return (
        validator(schemas, "CreateChatCompletionResponse"),
        validator(schemas, "CreateChatCompletionStreamResponse"),
    )


def valid_stream(chunks):
    """Assert cases 95 to 101 and 111: role once and first, calls by index with id and name first, finish, usage."""
    roles, finished, usage, opened = set(), {}, 0, {}
    for chunk in chunks:
        if not chunk["choices"]:
            usage += bool(chunk.get("usage"))
            assert finished and chunk is chunks[-1]
            continue
        assert not chunk.get("usage")
        assert chunk["object"] == "chat.completion.chunk"
        for choice in chunk["choices"]:
            index, delta = choice["index"], choice["delta"]
            assert index not in finished
            assert ("role" in delta) == (index not in roles)
            roles.add(index)
            if delta.get("reasoning_content"):
                assert (index, "text") not in opened
            if delta.get("content") or delta.get("tool_calls"):
                opened[index, "text"] = True
            for call in delta.get("tool_calls") or ():
                place = (index, call["index"])
                if place not in opened:
                    assert call["index"] == sum(1 for i, n in opened if i == index and n != "text")
                    assert call["id"] and (call.get("function") or call.get("custom"))["name"]
                    opened[place] = True
                if "function" in call:
                    assert call["function"]["arguments"] != ""
            if choice["finish_reason"]:
                assert not any(delta.get(name) for name in ("content", "tool_calls", "role"))
                finished[index] = choice["finish_reason"]
    assert set(finished) == roles
    assert usage <= 1


def same(one, two):
    assert (one.text, one.calls, one.finish, one.usage) == (two.text, two.calls, two.finish, two.usage)


def kept(chunks, whole):
    """Return the chunks' entry's completion, None if it is not to be kept."""
    value = pack([chunk.encode() for chunk in chunks], whole=whole, at=7.0)
    return None if value is None else unpack(value)[1]


PROVIDERS = {
    "openai": lambda: OpenAI("openai", OpenAISettings()),
    "anthropic": lambda: Anthropic("anthropic", Anthropic.Settings()),
    "gemini": lambda: Gemini("gemini", Gemini.Settings()),
}


@pytest.mark.parametrize("one_in", [12, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("vendor", PROVIDERS)
def test_112_recorded_answers_replay_as_valid_streams(recordings, validators, vendor, one_in):
    """Each vendor's recorded answers (a fixed sample in the fast suite), kept and replayed: the same answer, a valid stream, OpenAI's schemas."""
    provider = PROVIDERS[vendor]()
    whole_validator, chunk_validator = validators
    replayed = 0
    for exchange in recordings.exchanges(vendor, one_in=one_in):
        if exchange["response"].get("status", 200) != 200 or "/embed" in exchange["request"]["path"]:
            continue
        body = exchange["request"].get("body") or {}
        streamed = "sse" in exchange["response"]
        request = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": streamed}
        sent = provider.encode(ChatRequest(request), Target(vendor, body.get("model") or "m", provider))
        data = reply_bytes(exchange)
        try:
            chunks = (
                decode_stream(provider.decoder(sent), [data]) if streamed else [provider.decode(200, {}, data, sent)]
            )
        except ApiError:
            continue  # what is no answer never comes as far as the cache
        said = Answer.stream([c.data for c in chunks]) if streamed else Answer.whole(chunks[0].data)
        entry = kept(chunks, not streamed)
        if entry is None:
            assert said.finish not in ("stop", "tool_calls")
            continue
        whole_validator.validate({"created": 0, "id": "i", **entry.data})
        same(Answer.whole(entry.data), said)
        stream = [chunk.data for chunk in unfold(entry)]
        valid_stream(stream)
        for chunk in stream:
            calls = [call for choice in chunk["choices"] for call in choice["delta"].get("tool_calls") or ()]
            if all(
                "custom" not in call for call in calls
            ):  # which OpenAI streams, though its schema has no word for it
                chunk_validator.validate(chunk)
        same(Answer.stream(stream), said)
        replayed += 1
    assert replayed > 10


def completion(**message):
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "refusal": None, **message},
        "logprobs": None,
    }
    return {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": "f",
        "choices": [{**choice, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }  # fmt: skip


CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "free text"}},
]
ANSWERS = {
    "text": completion(content="hello"),
    "empty": completion(content=""),
    "refusal": completion(refusal="no"),
    "tools": completion(tool_calls=CALLS),
    "text and tools": completion(content="wait", tool_calls=CALLS),
    "reasoning": completion(content="x", reasoning_content="why", thinking_blocks=[{"type": "thinking", "thinking": "why", "signature": "s"}]),
    "annotations": completion(content="x", annotations=[{"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1}}]),
    "a vendor's own": {**completion(content="x", images=[{"n": 1}]), "citations": ["a"], "service_tier": "default"},
    "n = 2": {**completion(), "choices": [{**completion(content=t)["choices"][0], "index": i} for i, t in enumerate("ab")]},
    "a native word": {**completion(), "choices": [{**completion(content="x")["choices"][0], "x_llm_native_finish_reason": "end_turn"}]},
    "logprobs": {**completion(), "choices": [{**completion(content="x")["choices"][0], "logprobs": {"content": [{"token": "x", "logprob": -1}], "refusal": None}}]},
    "filter results": {**completion(), "choices": [{**completion(content="x")["choices"][0], "content_filter_results": {"hate": {"filtered": False}}}]},
    "names of ours": {**completion(), "choices": [{**completion(content="x")["choices"][0], "finish": 1, "part": 2, "extra": 3}]},
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_whole_to_stream_and_back_loses_nothing(name):
    """Every field of a completion survives being told as a stream."""
    data = ANSWERS[name]
    stream = list(unfold(Chunk(data, whole=True)))
    valid_stream([chunk.data for chunk in stream])
    fold = Fold()
    for chunk in stream:
        fold.feed(chunk)
    back = fold.whole().data
    strip = lambda message: {k: v for k, v in message.items() if v is not None}  # noqa: E731
    assert {k: v for k, v in back.items() if k != "choices"} == {k: v for k, v in data.items() if k != "choices"}
    for one, two in zip(back["choices"], data["choices"], strict=True):
        assert strip(one["message"]) == strip(two["message"])
        assert {k: v for k, v in one.items() if k != "message" and v is not None} == {
            k: v for k, v in two.items() if k != "message" and v is not None
        }


@pytest.mark.parametrize(("finish", "wanted"), [
    ("stop", True), ("tool_calls", True), ("length", False), ("content_filter", False), ("function_call", False), (None, False),
])  # fmt: skip
@pytest.mark.parametrize("whole", [True, False])
def test_only_answers_that_came_to_their_end(finish, wanted, whole):
    """Cut, filtered and unfinished answers are never kept, in either form, nor if one choice of several is."""
    data = completion(content="x")
    data["choices"][0]["finish_reason"] = finish
    chunk = Chunk(data, whole=True)
    chunks = [chunk] if whole else list(unfold(chunk))
    if not whole:
        chunks = [
            Chunk({**c.data, "choices": [{**x, "finish_reason": x["finish_reason"] and finish} for x in c.choices]})
            for c in chunks
        ]
    assert (kept(chunks, whole) is not None) == wanted
    two = {**data, "choices": [data["choices"][0], {**completion(content="y")["choices"][0], "index": 1}]}
    assert complete(two) == wanted


def test_embeddings_are_kept_as_they_are():
    """Vectors have no finish; their bytes come back untouched."""
    raw = b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,0.2]}],"model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}'
    assert unpack(pack([raw], whole=True, at=1.0))[1].encode() == raw
    assert pack([b'{"object":"list","data":[]}'], whole=True, at=1.0) is None


HEAD = b"a2" + b"\0" * 8


@given(st.binary(max_size=60))
def test_what_is_no_entry_is_a_miss(value):
    """A shared store may hold anything: nothing raises, nothing unfinished is served."""
    for text in (
        value,
        HEAD + value,
        HEAD + b"\0" * 4 + value,
        pack([orjson.dumps(completion(content="x"))], whole=True, at=1.0)[:-1] + value,
    ):
        entry = unpack(text)
        assert entry is None or complete(entry[1].data)
