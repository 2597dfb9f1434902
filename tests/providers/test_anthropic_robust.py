"""Whatever a caller or the vendor sends: a request, an answer, or one of the contract's errors."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import httpx2
import openai
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.chunk import Chunk
from proxy.errors import ApiError, UpstreamError
from proxy.providers.anthropic_reply import FINISH
from proxy.providers.base import Target
from proxy.providers.common import dumps
from proxy.request import ChatRequest
from tests.providers.anthropic_case import TOOL, block, decoder, events, provider, reply, text, texts, tool

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(["f", "g.h", "é", "x" * 140])
PART = st.one_of(
    st.builds(text, st.sampled_from(["", " ", "hi"]), cache_control=JUNK),
    st.builds(lambda url: {"type": "image_url", "image_url": {"url": url}},
              st.sampled_from(["data:,x", "data:image/png;base64,aGk", "data:image/png;base64", "http://x", "ftp://y", ""])),
    st.builds(lambda data, name: {"type": "file", "file": {"file_data": data, "filename": name}},
              st.sampled_from(["aGk=", "data:application/pdf;base64,aGk=", "data:text/plain,%FF", None]), st.text(max_size=3)),
    st.builds(lambda kind, junk: {"type": kind, kind: junk}, st.sampled_from(["video", "input", "document"]), JUNK),
)  # fmt: skip
CALL = st.builds(
    lambda ident, name, arguments: {"id": ident, "type": "function", "function": {"name": name, "arguments": arguments}},
    st.sampled_from(["", "a", "a.b", "c"]), NAMES, st.sampled_from([None, "", "{}", "[", '{"a":1}', "7", "{\"a\":1e999}"]),
)  # fmt: skip
CONTENT = st.one_of(st.none(), st.text(max_size=4), st.lists(PART, max_size=2))
MESSAGE = st.one_of(
    st.builds(lambda role, content: {"role": role, "content": content}, st.sampled_from(["user", "system", "developer"]), CONTENT),
    st.builds(lambda content, calls, junk: {"role": "assistant", "content": content, "tool_calls": calls, "thinking_blocks": junk},
              CONTENT, st.lists(CALL, max_size=2), st.one_of(JUNK, st.just([{"type": "thinking", "thinking": "t", "signature": "s"}]))),
    st.builds(lambda ident, content: {"role": "tool", "tool_call_id": ident, "content": content},
              st.sampled_from(["", "a", "a.b"]), CONTENT),
    st.builds(lambda name: {"role": "function", "name": name, "content": "x"}, NAMES),
)  # fmt: skip
FIELDS = st.dictionaries(
    st.sampled_from(["tools", "tool_choice", "response_format", "thinking", "reasoning_effort", "stop", "function_call",
                     "functions", "user", "service_tier", "temperature", "top_k", "max_tokens", "cache_control", "odd"]),
    st.one_of(JUNK, st.just([TOOL]), st.just("required"), st.just({"type": "json_object"}), st.just({"type": "enabled", "budget_tokens": 5}),
              st.just({"type": "json_schema", "json_schema": {"schema": {"properties": [], "items": 3, "oneOf": [1]}}})),
    max_size=4,
)  # fmt: skip
MODELS = st.sampled_from(["claude-3-haiku-20240307", "claude-sonnet-4-5", "claude-opus-4-8", "claude-sonnet-5-5", "x"])


@settings(max_examples=150, deadline=None)
@given(
    messages=st.lists(MESSAGE, min_size=1, max_size=6),
    fields=FIELDS,
    model=MODELS,
    mode=st.sampled_from(["error", "drop"]),
)
def test_any_request_is_encoded_or_refused(messages: list[Any], fields: dict[str, Any], model: str, mode: str) -> None:
    """Bad input gets the contract's 4xx, never a crash; what is sent keeps the vendor's first rules."""
    made = provider(unsupported=mode)
    try:
        request = ChatRequest({"messages": messages, **fields})
        sent = made.encode(request, Target("anthropic", model, made))
    except ApiError as refused:
        assert 400 <= refused.status < 500
        return
    body = orjson.loads(sent.body)
    roles = [message["role"] for message in body["messages"]]
    assert roles[0] == "user" and all(a != b for a, b in pairwise(roles))
    assert all(message["content"] for message in body["messages"])
    assert all(
        part["text"].strip() for message in body["messages"] for part in message["content"] if part["type"] == "text"
    )


PIECES = st.sampled_from([*events(*texts(0, "a"), *tool(1, "f", "{}"), *block(2, {"type": "redacted_thinking", "data": "x"})),
                          {"type": "ping"}, {"type": "news"}, {"type": "error", "error": {"type": "api_error"}}])  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(stream=st.lists(st.one_of(PIECES, JUNK, st.builds(lambda kind, junk: {"type": kind, "index": 0, "delta": junk, "message": junk},
       st.sampled_from(["message_start", "content_block_delta", "message_delta"]), JUNK)), max_size=12))  # fmt: skip
def test_any_stream_is_decoded_or_an_upstream_error(stream: list[Any]) -> None:
    """Events in any order, of any shape: chunks, or the contract's 5xx."""
    made = decoder()
    chunks: list[Chunk] = []
    try:
        for event in stream:
            chunks += made.feed("", dumps(event))
        made.close()
    except UpstreamError as error:
        assert error.status >= 400
    for chunk in chunks:
        assert {type(chunk.data[name]) for name in ("id", "model")} == {str}
        assert chunk.encode()


@settings(max_examples=100, deadline=None)
@given(
    content=st.lists(
        JUNK | st.just({"type": "tool_use"}) | st.just({"type": "text"}) | st.just({"type": "thinking"}), max_size=4
    ),
    junk=JUNK,
)
def test_any_reply_is_decoded_or_an_upstream_error(content: list[Any], junk: Any) -> None:
    """A 200 of any shape: a completion, or the contract's 502."""
    made = provider()
    request = made.encode(ChatRequest({"messages": [{"role": "user", "content": "x"}]}), Target("a", "m", made))
    for answer in (reply(*content), {"content": content, "usage": junk, "stop_reason": junk, "id": junk}, junk):
        try:
            data = made.decode(200, {}, dumps(answer), request).data
            assert {type(data[name]) for name in ("id", "model")} == {str}
            assert data["choices"][0]["finish_reason"] in FINISH.values()
        except UpstreamError as error:
            assert error.status >= 400


@pytest.mark.parametrize("dumped", [False, True])
def test_060_thinking_survives_a_stock_openai_clients_round_trip(dumped: bool) -> None:
    """The client appends the reply's message to its history, as object or as dict; the signature comes back."""
    thought = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    first = reply(thought, text("so"), {"type": "tool_use", "id": "t1", "name": "f", "input": {}}, stop="tool_use")
    made = provider()
    sent: list[dict[str, Any]] = []

    def sidecar(request: httpx2.Request) -> httpx2.Response:
        upstream = made.encode(ChatRequest(orjson.loads(request.content)), Target("a", "claude-sonnet-4-5", made))
        sent.append(orjson.loads(upstream.body))
        answer = first if len(sent) == 1 else reply(text("done"))
        return httpx2.Response(200, json=made.decode(200, {}, orjson.dumps(answer), upstream).data)

    with openai.OpenAI(api_key="x", http_client=httpx2.Client(transport=httpx2.MockTransport(sidecar))) as client:
        asked: dict[str, Any] = {"model": "m", "tools": [TOOL], "reasoning_effort": "low"}
        history: list[Any] = [{"role": "user", "content": "hi"}]
        message = client.chat.completions.create(messages=history, **asked).choices[0].message
        history += [
            message.model_dump(exclude_none=True) if dumped else message,
            {"role": "tool", "tool_call_id": "t1", "content": "4"},
        ]
        client.chat.completions.create(messages=history, **asked)
    assert sent[1]["messages"][1]["content"][0] == thought
    assert sent[1]["thinking"]["type"] == "enabled"
