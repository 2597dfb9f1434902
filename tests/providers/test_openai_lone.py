"""An event that says nothing but text goes to the client as it came: what that spares must change nothing."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.openai import OpenAI, OpenAISettings
from proxy.providers.openai_stream import OpenAIDecoder
from proxy.reply import frames
from proxy.upstream.sse import SseParser

ENVELOPES = {
    "absent": b'{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{%b},"finish_reason":null}]}',
    "last": b'{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{%b},"finish_reason":null}],"usage":null}',
    "inside": b'{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","usage":null,"choices":[{"index":0,"delta":{%b},"finish_reason":null}]}',
    "spaced": b'{"id": "c1", "object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{%b},"finish_reason":null}] }',
}  # fmt: skip


def decoder() -> OpenAIDecoder:
    """Return a decoder that expects a chat's stream."""
    return OpenAIDecoder(OpenAI("openai", OpenAISettings()), "chat", "m")


def event(envelope: str, raw: bytes) -> bytes:
    """Return the event whose delta's content is ``raw``, a JSON string."""
    return ENVELOPES[envelope] % (b'"content":' + raw)


def learnt(envelope: str) -> OpenAIDecoder:
    """Return a decoder that has seen the stream's first two events."""
    one = decoder()
    one.feed("", ENVELOPES[envelope] % b'"role":"assistant","content":""')
    one.feed("", event(envelope, b'"Hello"'))
    return one


def said(data: bytes) -> list[Any]:
    """Return what the events in ``data`` say."""
    assert data.endswith(b"\n\n")
    return [orjson.loads(one.removeprefix(b"data: ")) for one in data[:-2].split(b"\n\n")]


@pytest.mark.parametrize(
    ("envelope", "usage"),
    [("absent", False), ("absent", True), ("last", False), ("last", True), ("inside", True), ("spaced", False)],
)
def test_plain_text_needs_no_parser(envelope: str, usage: bool) -> None:
    """Text without anything that JSON escapes is passed on, with or without `usage` as the client wants it."""
    data = b"data: %b\n\n" % event(envelope, b'" caf\xc3\xa9, 100 {ok}"')
    text, sent = learnt(envelope).lone(data, usage) or ("", b"")
    assert text == " café, 100 {ok}"
    assert ("usage" in orjson.loads(sent[6:])) is usage


@pytest.mark.parametrize("envelope", sorted(ENVELOPES))
@pytest.mark.parametrize("usage", [False, True])
def test_an_event_is_made_like_those_passed_on(envelope: str, usage: bool) -> None:
    """What a filter holds back or changes goes out in an event like its neighbours."""
    one = learnt(envelope)
    known = one.lone(b"data: %b\n\n" % event(envelope, b'"x"'), usage)
    if known is not None:
        before, behind = one.around(usage)
        assert before + b'"x"' + behind == known[1]
        assert said(before + b'"a \\"b"' + behind)[0]["choices"][0]["delta"] == {"content": 'a "b'}


@given(
    envelope=st.sampled_from(sorted(ENVELOPES)),
    usage=st.booleans(),
    text=st.text(st.sampled_from('ab {}[],:"\\\n\u2028é😀\x7f\x00') | st.characters(), max_size=12),
    escaped=st.booleans(),
    times=st.integers(1, 3),
    junk=st.sampled_from([b"", b'","x":"', b'"},"x":{"y":"', b"\xff", b"\\u0041", b"\n\ndata: "]),
)
def test_what_is_passed_on_is_what_the_parser_would_have_made_of_it(
    envelope: str, usage: bool, text: str, escaped: bool, times: int, junk: bytes
) -> None:
    """Whatever the text, passing an event on and decoding it give the client the same JSON and the meter the same text."""
    string = (json.dumps(text, ensure_ascii=False) if escaped else f'"{text}"').encode("utf-8", "surrogatepass")
    data = b"data: %b\n\n" % event(envelope, string[:-1] + junk + b'"') * times
    known = learnt(envelope).lone(data, usage)
    if known is None:
        return
    parser, one = SseParser(), learnt(envelope)
    parser.feed(b": hello\n\n")
    chunks = [chunk for name, payload in parser.feed(data) for chunk in one.feed(name, payload)]
    assert "".join(chunk.choices[0]["delta"]["content"] for chunk in chunks) == known[0]
    assert said(known[1]) == said(frames(chunks, usage)) and len(chunks) == times


def test_nothing_is_passed_on_before_the_stream_is_known_or_after_its_end() -> None:
    """The first events, and what follows `[DONE]`, are read like any other."""
    data = b"data: %b\n\n" % event("absent", b'"x"')
    assert decoder().lone(data, False) is None
    one = learnt("absent")
    assert one.lone(data, False) is not None
    one.feed("", event("absent", b'"x"').replace(b'"finish_reason":null', b'"finish_reason":"stop"'))
    one.feed("", b"[DONE]")
    assert one.lone(data, False) is None


def test_several_events_in_one_read_are_passed_on_together() -> None:
    """Under load a read brings several events: their texts are joined for the meter, their bytes stay."""
    for envelope in ("absent", "last"):
        one = learnt(envelope)
        data = b"".join(b"data: %b\n\n" % event(envelope, b'"%b"' % word) for word in (b"a ", b"b} ", b"c"))
        text, sent = one.lone(data, False) or ("", b"")
        assert text == "a b} c" and sent == data.replace(b',"usage":null', b"") and sent.count(b"\n\n") == 3
        assert one.lone(data.replace(b"b} ", b"b\\n"), False) is None
        assert one.lone(data.replace(b"b} ", b""), False) is None


def test_tokens_of_one_chunk_go_out_with_no_other_text() -> None:
    """A chunk with logprobs is not what others are made like: a masked text would go out beside the tokens that spell it."""
    token = {"token": "Hello", "logprob": -0.1, "bytes": None, "top_logprobs": []}
    logprobs = orjson.dumps({"content": [token], "refusal": None})
    spoken = event("absent", b'"Hello"').replace(b',"finish_reason"', b',"logprobs":%b,"finish_reason"' % logprobs)
    one = decoder()
    one.feed("", ENVELOPES["absent"] % b'"role":"assistant","content":""')
    (chunk,) = one.feed("", spoken)
    assert chunk.raw == spoken
    assert one.lone(b"data: %b\n\n" % spoken, False) is None
    one.feed("", event("absent", b'"Hello"'))
    assert one.lone(b"data: %b\n\n" % event("absent", b'"Hello"'), False) is not None
