"""Every recorded exchange with Anthropic, through our translator and through the vendor's own SDK."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from pydantic import TypeAdapter

from proxy.errors import TABLE
from proxy.providers.anthropic import Anthropic, AnthropicSettings
from proxy.providers.anthropic_reply import FINISH
from proxy.providers.base import Target
from proxy.request import ChatRequest
from proxy.shape import Fold
from proxy.upstream.base import UpstreamRequest
from tests.providers.recordings import Answer, Recordings, cut, decode_stream, reply_bytes, validator

#: What the newest SDK's types no longer have, though API version 2023-06-01 takes it.
_SAMPLING = ("temperature", "top_p", "top_k")
_STATUS = {400: 400, 401: 502, 403: 502, 404: 404, 413: 413, 429: 429, 500: 502, 529: 503}


@pytest.fixture(scope="module")
def provider() -> Anthropic:
    """The provider under test, with a clock that stands."""
    made = Anthropic("anthropic", AnthropicSettings())
    made.now = lambda: 1_700_000_000.0
    return made


@pytest.fixture(scope="module")
def validators(schemas: Path) -> tuple[Any, Any]:
    """Validators of a whole reply and of a chunk."""
    return (
        validator(schemas, "CreateChatCompletionResponse"),
        validator(schemas, "CreateChatCompletionStreamResponse"),
    )


@lru_cache
def adapter(stream: bool) -> TypeAdapter[Any]:
    """The SDK's own type of a request. (Importing the SDK takes long: not before it is needed.)"""
    from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming

    return TypeAdapter(MessageCreateParamsStreaming if stream else MessageCreateParamsNonStreaming)


def force(value: Any) -> Any:
    """Walk through lazily validated iterables, so that what is wrong inside raises."""
    if isinstance(value, dict):
        return {name: force(child) for name, child in value.items()}
    if isinstance(value, list | tuple) or (isinstance(value, Iterator) and not isinstance(value, str)):
        return [force(child) for child in value]
    return value


def sdk_says(exchange: dict[str, Any], data: bytes) -> Any:
    """Return the message that Anthropic's own SDK makes of the reply's bytes."""
    import anthropic

    streamed = "sse" in exchange["response"]
    kind = "text/event-stream" if streamed else "application/json"
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=data, headers={"content-type": kind}))
    with anthropic.Anthropic(api_key="x", http_client=httpx2.Client(transport=transport)) as client:
        asked: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
        if not streamed:
            return client.beta.messages.create(**asked)
        with client.beta.messages.stream(**asked) as stream:
            return stream.get_final_message()


def sent_for(provider: Anthropic, exchange: dict[str, Any]) -> UpstreamRequest:
    body = exchange["request"]["body"]
    request = {
        "model": body["model"],
        "messages": [{"role": "user", "content": "x"}],
        "stream": bool(body.get("stream")),
    }
    return provider.encode(ChatRequest(request), Target("anthropic", body["model"], provider))


def check_request(provider: Anthropic, row: dict[str, Any]) -> None:
    """Our encoding of the equivalent OpenAI request is one that the SDK's types know, whole and untouched."""
    asked = row["openai_request"]
    before = orjson.dumps(asked)
    sent = provider.encode(ChatRequest(asked), Target("anthropic", asked["model"], provider))
    assert orjson.dumps(asked) == before
    body = orjson.loads(sent.body)
    plain = {name: value for name, value in body.items() if name not in _SAMPLING}
    accepted = force(adapter(bool(plain.get("stream"))).validate_python(plain))
    assert accepted == plain, "the SDK's types do not know a field that we send"
    assert all(body.get(name) == asked.get(name) for name in _SAMPLING), row["id"]


def check_reply(provider: Anthropic, exchange: dict[str, Any], row: dict[str, Any] | None, validators: Any) -> None:
    """Our reading of a 200 agrees with the vendor's SDK, with the oracle, and with OpenAI's schema."""
    whole_validator, chunk_validator = validators
    data = reply_bytes(exchange)
    sent = sent_for(provider, exchange)
    if "sse" in exchange["response"]:
        chunks = decode_stream(provider.decoder(sent), [data])
        again = decode_stream(provider.decoder(sent), cut(data, exchange["id"]))
        assert [chunk.data for chunk in chunks] == [chunk.data for chunk in again]
        for chunk in chunks:
            chunk_validator.validate(chunk.data)
        answer = Answer.stream([chunk.data for chunk in chunks])
        assert len({(chunk.data["id"], chunk.data["created"], chunk.data["model"]) for chunk in chunks}) == 1
        assert [c.data for c in chunks if not c.choices] == [chunks[-1].data]
        fold = Fold()
        for chunk in chunks:
            fold.feed(chunk)
        whole_validator.validate(fold.whole().data)
    else:
        completion = provider.decode(200, {}, data, sent)
        whole_validator.validate(completion.data)
        answer = Answer.whole(completion.data)

    message = sdk_says(exchange, data)
    assert answer.text == "".join(block.text for block in message.content if block.type == "text")
    calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
    assert answer.calls == calls
    assert answer.ids == [block.id for block in message.content if block.type == "tool_use"]
    assert answer.finish == FINISH.get(message.stop_reason, "stop")
    counts = message.usage
    cached = (counts.cache_read_input_tokens or 0) + (counts.cache_creation_input_tokens or 0)
    assert answer.usage is not None
    assert answer.usage["completion_tokens"] == counts.output_tokens
    assert answer.usage["prompt_tokens"] == counts.input_tokens + cached
    assert answer.usage["total_tokens"] == answer.usage["prompt_tokens"] + answer.usage["completion_tokens"]
    if row is None or row["expect"] is None:
        return
    expect = row["expect"]
    assert answer.text == expect["text"]
    assert answer.calls == [(call["name"], call["arguments"] or {}) for call in expect["tool_calls"]]
    assert answer.finish == (expect["finish"] or answer.finish)
    assert answer.usage["completion_tokens"] == expect["usage"]["completion_tokens"]
    assert answer.usage["prompt_tokens"] == expect["usage"]["prompt_tokens"]


def check_failure(provider: Anthropic, exchange: dict[str, Any]) -> None:
    reply = exchange["response"]
    error = provider.failure(reply["status"], reply["headers"], reply_bytes(exchange))
    assert error.status == _STATUS[reply["status"]]
    assert error.code in TABLE
    assert set(orjson.loads(error.body())["error"]) == {"message", "type", "param", "code"}


def run(provider: Anthropic, recordings: Recordings, validators: Any, *, one_in: int) -> None:
    oracle = recordings.expected("anthropic")
    done: collections.Counter[str] = collections.Counter()
    left_out: collections.Counter[str] = collections.Counter()
    for exchange in recordings.exchanges("anthropic", one_in=one_in):
        if exchange["kind"] != "messages":
            left_out[f"{exchange['kind']}: not a chat"] += 1
            continue
        row = oracle.get(exchange["id"])
        if row and row["openai_request"]:
            check_request(provider, row)
            done["requests"] += 1
        if exchange["response"]["status"] >= 400:
            check_failure(provider, exchange)
            done["errors"] += 1
        else:
            check_reply(provider, exchange, row, validators)
            done["streams" if "sse" in exchange["response"] else "wholes"] += 1
    print(f"\nAnthropic recordings, one in {one_in}: {dict(done)}; left out: {dict(left_out)}")
    for kind, all_of_them in (("wholes", 300), ("streams", 50), ("requests", 170)):
        assert done[kind] >= all_of_them // one_in // 2 if one_in > 1 else done[kind] >= all_of_them


@pytest.mark.parametrize("one_in", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_recorded_exchanges_agree_with_the_vendors_sdk(
    provider: Anthropic, recordings: Recordings, validators: Any, one_in: int
) -> None:
    """Every recorded exchange, a fixed sample of them in the fast suite, is read as Anthropic's own SDK reads it."""
    run(provider, recordings, validators, one_in=one_in)


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
def test_recorded_requests_hold_no_sampling_under_the_new_version(recordings: Recordings, version: str) -> None:
    """Sampling parameters reach the old API version and are named as dropped under the new one."""
    provider = Anthropic("anthropic", AnthropicSettings(version=version, unsupported="drop"))
    seen = 0
    for row in recordings.expected("anthropic").values():
        asked = row["openai_request"]
        if asked and asked.get("temperature") not in (None, 1):
            sent = provider.encode(ChatRequest(asked), Target("anthropic", asked["model"], provider))
            seen += 1
            assert ("temperature" in orjson.loads(sent.body)) == (version == "2023-06-01")
            assert ("temperature" in sent.dropped) == (version == "2026-10-21")
    assert seen
