"""An event that says nothing but text goes to the client as it came: what that spares must change nothing."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.openai import OpenAI, OpenAISettings
from proxy.providers.openai_stream import OpenAIDecoder
from proxy.reply import frames

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


@given(
    envelope=st.sampled_from(sorted(ENVELOPES)),
    usage=st.booleans(),
    text=st.text(st.sampled_from('ab {}[],:"\\\n\u2028é😀\x7f\x00') | st.characters(), max_size=12),
    escaped=st.booleans(),
    junk=st.sampled_from([b"", b'","x":"', b'"},"x":{"y":"', b"\xff", b"\\u0041", b"\n\ndata: "]),
)
def test_what_is_passed_on_is_what_the_parser_would_have_made_of_it(
    envelope: str, usage: bool, text: str, escaped: bool, junk: bytes
) -> None:
    """Whatever the text, passing an event on and decoding it give the client the same JSON and the meter the same text."""
    string = orjson.dumps(text) if escaped else b'"%b"' % text.encode("utf-8", "surrogatepass")
    data = b"data: %b\n\n" % event(envelope, string[:-1] + junk + b'"')
    one = learnt(envelope)
    known = one.lone(data, usage)
    if known is None:
        return
    chunks = learnt(envelope).feed("", data[6:-2])
    assert [choice["delta"] for chunk in chunks for choice in chunk.choices] == [{"content": known[0]}]
    sent: Any = orjson.loads(known[1].removeprefix(b"data: "))
    assert known[1].endswith(b"\n\n") and sent == orjson.loads(frames(chunks, usage).removeprefix(b"data: "))


def test_nothing_is_passed_on_before_the_stream_is_known_or_after_its_end() -> None:
    """The first events, and what follows `[DONE]`, are read like any other."""
    data = b"data: %b\n\n" % event("absent", b'"x"')
    assert decoder().lone(data, False) is None
    one = learnt("absent")
    assert one.lone(data, False) is not None
    one.feed("", event("absent", b'"x"').replace(b'"finish_reason":null', b'"finish_reason":"stop"'))
    one.feed("", b"[DONE]")
    assert one.lone(data, False) is None
    assert one.lone(data + data, False) is None
