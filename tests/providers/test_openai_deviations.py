"""Servers that speak OpenAI's API with an accent: what reaches the client is OpenAI's own form, whole and streamed."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.chunk import Chunk
from proxy.errors import UpstreamError
from proxy.providers.base import Target
from proxy.providers.openai import OpenAI, OpenAISettings
from proxy.reply import frames
from proxy.request import ChatRequest
from proxy.shape import Fold
from proxy.upstream.base import UpstreamRequest

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def server(*, stream: bool = False) -> tuple[OpenAI, UpstreamRequest]:
    """Return a compatible server whose clock stands, and a request to it."""
    made = OpenAI("other", OpenAISettings(base_url="http://127.0.0.1:1/v1"))
    made.now = lambda: 1_700_000_000.0
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    return made, made.encode(ChatRequest(body), Target("other", "m", made))


def whole(message: dict[str, Any], finish: Any = "stop", *, choice: Any = None, **more: Any) -> dict[str, Any]:
    """Return the completion that the client sees."""
    choices = [{"index": 0, "message": message, "finish_reason": finish, **(choice or {})}]
    raw = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": choices,
        "usage": USAGE,
        **more,
    }
    made, sent = server()
    seen: dict[str, Any] = orjson.loads(made.decode(200, {}, orjson.dumps(raw), sent).encode())
    return seen


def piece(delta: dict[str, Any], finish: Any = None, *, choice: Any = None, **more: Any) -> dict[str, Any]:
    """Return one event's chunk."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish, **(choice or {})}]
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **more}


def play(*events: dict[str, Any]) -> list[Chunk]:
    """Return what the client sees of a stream that ends in `[DONE]`."""
    made, sent = server(stream=True)
    decoder = made.decoder(sent)
    chunks = [chunk for event in events for chunk in decoder.feed("", orjson.dumps(event))]
    return [*chunks, *decoder.feed("", b"[DONE]")]


def folded(*events: dict[str, Any]) -> dict[str, Any]:
    """Return the one choice that the stream amounts to."""
    fold = Fold()
    for chunk in play(*events):
        fold.feed(chunk)
    choice: dict[str, Any] = fold.whole().data["choices"][0]
    return choice


def call(**fields: Any) -> dict[str, Any]:
    """Return a piece of a tool call."""
    return {"tool_calls": [fields]}


def function(arguments: Any, name: Any = "f") -> dict[str, Any]:
    """Return the function of a call."""
    return {"name": name, "arguments": arguments}


@pytest.mark.parametrize("id", [{}, {"id": None}, {"id": ""}])
def test_096_calls_without_an_id_get_one(id: dict[str, Any]) -> None:
    """Each its own, or no client could answer them."""
    entry = {**id, "type": "function", "function": function("{}")}
    calls = whole({"role": "assistant", "tool_calls": [entry, dict(entry)]}, "tool_calls")["choices"][0]["message"]
    ids = {made["id"] for made in calls["tool_calls"]}
    assert len(ids) == 2 and all(ids)
    made = folded(piece(call(index=0, function=function("{}"), **id)), piece({}, "tool_calls"))
    assert made["message"]["tool_calls"][0]["id"] and made["message"]["tool_calls"][0]["type"] == "function"


@pytest.mark.parametrize("index", [{}, {"index": None}, {"index": 0}])
def test_097_calls_that_share_an_index_are_kept_apart(index: dict[str, Any]) -> None:
    """Ollama and Gemini's compatible endpoint number every call 0, others not at all."""
    choice = folded(
        piece(call(id="a", type="function", function=function('{"x":1}'), **index)),
        piece(call(id="b", type="function", function=function('{"x":2}'), **index)),
        piece({}, "tool_calls"),
    )
    calls = choice["message"]["tool_calls"]
    assert [(made["id"], made["function"]["arguments"]) for made in calls] == [("a", '{"x":1}'), ("b", '{"x":2}')]


@pytest.mark.parametrize("again", [None, "", "a"])
def test_096_id_and_name_come_once(again: str | None) -> None:
    """Clients join the strings of all pieces: null, empty and repeated ones are left out."""
    name = "f" if again == "a" else again
    chunks = play(
        piece(call(index=0, id="a", type="function", function=function(""))),
        piece(call(index=0, id=again, type=again and "function", function=function("{}", name))),
        piece({}, "tool_calls"),
    )
    assert chunks[1].data["choices"][0]["delta"] == call(index=0, function={"arguments": "{}"})


def test_openais_own_pieces_stay_as_they_came() -> None:
    """Nothing is mended that needs no mending: the bytes pass."""
    chunks = play(
        piece({"role": "assistant", "content": None, **call(index=0, id="a", type="function", function=function(""))}),
        piece(call(index=0, function={"arguments": "{"})),
        piece(call(index=1, id="b", type="function", function=function(""))),
        piece(call(index=0, function={"arguments": "}"})),
        piece({}, "tool_calls"),
    )
    assert all(chunk.raw is not None for chunk in chunks)


def test_098_a_whole_call_without_arguments_has_an_empty_object() -> None:
    """Null, nothing and an object become JSON text."""
    for given, text in ((None, "{}"), ("", "{}"), ({"a": 1}, '{"a":1}')):
        message = {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": function(given)}]}
        made = whole(message, "tool_calls")["choices"][0]["message"]["tool_calls"][0]
        assert made["function"]["arguments"] == text


@pytest.mark.parametrize("error", [{"choices": []}, {"choices": None}, {}])
def test_117_an_error_beside_empty_choices_is_no_success(error: dict[str, Any]) -> None:
    """Neither are no choices at all."""
    made, sent = server()
    with pytest.raises(UpstreamError) as caught:
        made.decode(200, {}, orjson.dumps({"error": {"code": 429, "message": "slow"}, **error}), sent)
    assert caught.value.code == "upstream_rate_limited"
    with pytest.raises(UpstreamError):
        made.decode(200, {}, orjson.dumps({"id": "c", "choices": []}), sent)


def test_117_an_error_inside_a_choice_is_no_success() -> None:
    """OpenRouter and Mistral end a choice that failed with the word `error`."""
    with pytest.raises(UpstreamError) as caught:
        whole({"role": "assistant", "content": ""}, "error", choice={"error": {"code": 502, "message": "up"}})
    assert caught.value.code == "upstream_error"
    with pytest.raises(UpstreamError):
        play(piece({"content": "x"}), piece({"content": ""}, "error"))


def test_104_an_error_object_in_a_stream_is_an_error() -> None:
    """vLLM's old form has no `error` key."""
    with pytest.raises(UpstreamError) as caught:
        play(piece({"content": "x"}), {"object": "error", "message": "bad", "type": "BadRequestError", "code": 400})
    assert caught.value.code == "upstream_invalid_request"
    with pytest.raises(UpstreamError):
        play()


def test_100_the_finish_comes_once_and_last() -> None:
    """An empty word is none, a chunk behind the finish that says nothing is left out, `[DONE]` alone finishes."""
    chunks = play(
        piece({"content": "x"}, ""), piece({}, "stop"),
        piece({"role": "assistant", "content": ""}, usage=USAGE),
    )  # fmt: skip
    words = [choice["finish_reason"] for chunk in chunks for choice in chunk.choices]
    assert words == [None, "stop"] and chunks[-1].data["usage"] == USAGE
    assert folded(piece({"content": "x"}))["finish_reason"] == "stop"


def test_092_usage_is_found_and_whole_or_it_is_none() -> None:
    """Moonshot puts it into the choice, Groq into a field of its own; half of it is estimated anew."""
    for last in (
        piece({}, "stop", choice={"usage": USAGE}), piece({}, "stop", x_groq={"id": "r", "usage": USAGE}),
    ):  # fmt: skip
        assert play(piece({"content": "x"}), last)[-1].data["usage"] == USAGE
    message = {"role": "assistant", "content": "x"}
    assert whole(message, usage={"prompt_tokens": 1, "completion_tokens": 2})["usage"] == USAGE
    assert "usage" not in whole(message, usage={**USAGE, "completion_tokens": None})


@pytest.mark.parametrize("empty", [{}, False, 0, ""])
def test_092_empty_usage_on_every_chunk_is_none(empty: Any) -> None:
    """A server that writes an empty usage before it knows the numbers: the client sees usage as it asked, or not at all."""
    chunks = play(
        piece({"content": "x"}, usage=empty), piece({"content": "y"}, usage=empty), piece({}, "stop", usage=USAGE)
    )
    seen = [orjson.loads(line[6:]) for line in frames(chunks, False).split(b"\n\n") if line]
    assert not any("usage" in one for one in seen)
    seen = [orjson.loads(line[6:]) for line in frames(chunks, True).split(b"\n\n") if line]
    assert [one["usage"] for one in seen] == [None, None, None, USAGE]


def test_093_the_envelope_has_openais_types() -> None:
    """Times, ids and probabilities of other types are turned or left out."""
    message = {"role": "assistant", "content": {"type": "text", "text": "x"}, "refusal": False, "function_call": {}}
    made = whole(message, "eos", choice={"logprobs": {"tokens": ["x"]}}, id=5, created=1.5, model=None)
    assert (made["id"], made["created"], made["model"]) == ("5", 1, "m")
    assert made["choices"][0]["logprobs"] is None
    assert made["choices"][0]["message"] == {"role": "assistant", "content": "x"}
