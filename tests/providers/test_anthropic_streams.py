"""Cases 94-112 of the translation table, and every form of a broken stream."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.errors import Truncated, UpstreamError
from proxy.shape import Fold
from tests.providers.anthropic_case import block, decoder, events, play, provider, send, text, texts, tool
from tests.providers.recordings import Answer, cut, decode_stream

PING = {"type": "ping"}


def deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]


def wire(stream: list[dict[str, Any]], end: str = "\n") -> bytes:
    return "".join(f"event: {e['type']}{end}data: {orjson.dumps(e).decode()}{end}{end}" for e in stream).encode()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_094_any_cut_and_any_line_end_gives_the_same_chunks(end: str) -> None:
    """Comments, a BOM, and cuts inside UTF-8 and line ends change nothing."""
    stream = events(*texts(0, "grüß ", "dich 🙂"), *tool(1, "f", '{"ä":', '"ö"}'), stop="tool_use")
    plain = [chunk.data for chunk in decode_stream(decoder(), [wire(stream)])]
    dressed = b"\xef\xbb\xbf: hello" + end.encode() * 2 + wire(stream, end)
    for seed in range(20):
        assert [chunk.data for chunk in decode_stream(decoder(), cut(dressed, str(seed)))] == plain
    assert [
        chunk.data for chunk in decode_stream(decoder(), [dressed[i : i + 1] for i in range(len(dressed))])
    ] == plain
    assert Answer.stream(plain).text == "grüß dich 🙂"


def test_095_the_role_comes_first_and_once() -> None:
    """The first chunk announces the assistant."""
    chunks = play([PING, *events(*texts(0, "a", "b"))])
    assert [delta.get("role") for delta in deltas(chunks)] == ["assistant", None, None, None]


def test_096_calls_are_numbered_among_calls() -> None:
    """The index counts calls, not blocks; id and name come once."""
    chunks = play(
        events(*texts(0, "x"), *tool(1, "f", '{"a"', ":1}"), *texts(2, "y"), *tool(3, "g", "{}"), stop="tool_use")
    )
    found = [entry for delta in deltas(chunks) for entry in delta.get("tool_calls", ())]
    assert [entry["index"] for entry in found] == [0, 0, 0, 1, 1]
    assert [entry.get("id") for entry in found] == ["toolu_1", None, None, "toolu_3", None]
    assert [entry["function"].get("name") for entry in found] == ["f", None, None, "g", None]
    assert Answer.stream(chunks).calls == [("f", {"a": 1}), ("g", {})]


@pytest.mark.parametrize("parts", [(), ("",), ("", "")])
def test_098_a_call_without_arguments_gets_an_empty_object(parts: tuple[str, ...]) -> None:
    """Clients parse the joined arguments: they must be JSON."""
    chunks = play(events(*tool(0, "f", *parts), stop="tool_use"))
    joined = "".join(e["function"]["arguments"] for d in deltas(chunks) for e in d.get("tool_calls", ()))
    assert joined == "{}"


def test_098_arguments_given_whole_at_the_start_are_kept() -> None:
    """Some compatible servers send the input at once."""
    start = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}
    assert Answer.stream(play(events(*block(0, start), stop="tool_use"))).calls == [("f", {"a": 1})]


def test_099_interleaved_blocks_are_kept_apart() -> None:
    """Two calls may stream at once."""
    one, two = tool(0, "f", '{"a"', ":1}"), tool(1, "g", '{"b"', ":2}")
    mixed = [event for pair in zip(one, two, strict=True) for event in pair]
    assert Answer.stream(play(events(*mixed, stop="tool_use"))).calls == [("f", {"a": 1}), ("g", {"b": 2})]


def test_100_101_111_finish_stands_alone_then_usage() -> None:
    """Order: role, content, finish, usage with empty choices; nothing after."""
    chunks = play(events(*texts(0, "a"), *tool(1, "f"), stop="tool_use"))
    finish, last = chunks[-2], chunks[-1]
    assert finish["choices"][0]["delta"] == {}
    assert finish["choices"][0]["finish_reason"] == "tool_calls"
    assert finish["choices"][0]["x_llm_native_finish_reason"] == "tool_use"
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 5
    assert all(choice["finish_reason"] is None for chunk in chunks[:-2] for choice in chunk["choices"])
    assert not any("usage" in chunk for chunk in chunks[:-1])


def test_102_usage_is_cumulative_and_the_last_word_holds() -> None:
    """Counters of the turn's events replace earlier ones, and may appear only there."""
    turn = {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 50}}
    last = {"output_tokens": 60, "input_tokens": 9, "cache_read_input_tokens": 4, "cache_creation_input_tokens": None}
    assert play(events(*texts(0, "a"), turn, usage=last))[-1]["usage"] == {
        "prompt_tokens": 13, "completion_tokens": 60, "total_tokens": 73,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
    }  # fmt: skip


def test_103_what_is_no_text_never_becomes_text() -> None:
    """Pings, unknown events and deltas, citations, server tools."""
    citing = {"type": "citations_delta", "citation": {"cited_text": "secret"}}
    novel = {"type": "novel_delta", "text": "secret"}
    server = block(1, {"type": "server_tool_use", "id": "s", "name": "web", "input": {}},
                   {"type": "input_json_delta", "partial_json": '{"query":"secret"}'})  # fmt: skip
    found = block(2, {"type": "web_search_tool_result", "content": [{"title": "secret"}]})
    stream = events(PING, {"type": "news", "text": "secret"}, *block(0, text(""), citing, novel, {"type": "text_delta", "text": "a"}),
                    *server, *found)  # fmt: skip
    chunks = play(stream)
    assert b"secret" not in orjson.dumps(chunks)
    assert Answer.stream(chunks).text == "a" and Answer.stream(chunks).calls == []


def thinking(index: int, *parts: str, signature: str = "sig==") -> list[dict[str, Any]]:
    start = {"type": "thinking", "thinking": "", "signature": ""}
    told = ({"type": "thinking_delta", "thinking": part} for part in parts)
    return block(index, start, *told, {"type": "signature_delta", "signature": signature})


def test_060_061_thinking_streams_and_its_blocks_come_whole() -> None:
    """Reasoning as it comes; each block, signature included, when it is complete; redacted ones never as text."""
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    chunks = play(events(*thinking(0, "h", "m"), *block(1, hidden), *tool(2, "f"), *thinking(3, "ok"), stop="tool_use"))
    assert "".join(delta.get("reasoning_content", "") for delta in deltas(chunks)) == "hmok"
    blocks = [entry for delta in deltas(chunks) for entry in delta.get("thinking_blocks", ())]
    assert blocks == [
        {"type": "thinking", "thinking": "hm", "signature": "sig=="},
        hidden,
        {"type": "thinking", "thinking": "ok", "signature": "sig==", "x_llm_after_calls": 1},
    ]
    assert all("xyz" not in str(delta.get("content", "")) for delta in deltas(chunks))
    fold = Fold()
    made = decoder()
    for event in events(*thinking(0, "hm"), *texts(1, "so")):
        for chunk in made.feed(event["type"], orjson.dumps(event)):
            fold.feed(chunk)
    message = fold.whole().data["choices"][0]["message"]
    assert message["thinking_blocks"] == [blocks[0]] and message["content"] == "so"


@pytest.mark.parametrize(
    ("kind", "status", "code", "counts"),
    [
        ("overloaded_error", 503, "upstream_overloaded", True), ("api_error", 502, "upstream_error", True),
        ("rate_limit_error", 429, "upstream_rate_limited", False), ("novel_error", 502, "upstream_error", True),
        ("invalid_request_error", 400, "upstream_invalid_request", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("after", [0, 3])
def test_104_error_events_raise_what_a_status_would(
    kind: str, status: int, code: str, counts: bool, after: int
) -> None:
    """Before any content and after it."""
    made = decoder()
    for event in events(*texts(0, "a"))[:after]:
        made.feed(event["type"], orjson.dumps(event))
    with pytest.raises(UpstreamError) as caught:
        made.feed("error", orjson.dumps({"type": "error", "error": {"type": kind, "message": "m"}}))
    assert (caught.value.status, caught.value.code, caught.value.counts) == (status, code, counts)
    assert not made.done


@pytest.mark.parametrize("missing", [1, 2, 4])
def test_105_an_end_without_message_stop_is_truncation(missing: int) -> None:
    """Never a success, even right before the last event."""
    made = decoder()
    stream = events(*texts(0, "a", "b"))
    for event in stream[:-missing]:
        made.feed(event["type"], orjson.dumps(event))
    with pytest.raises(Truncated):
        made.close()


def test_110_refusals_end_the_stream_normally() -> None:
    """Finish is content_filter; the vendor's explanation comes as refusal."""
    stream = events(*texts(0, "Well"), stop="refusal")
    stream[-2]["delta"]["stop_details"] = {"type": "refusal", "explanation": "no"}
    chunks = play(stream)
    assert Answer.stream(chunks).finish == "content_filter"
    assert deltas(chunks)[-2] == {"refusal": "no"}
    unexplained = play(events(*texts(0, "I ", "can't."), stop="refusal"))
    assert deltas(unexplained)[-2] == {"refusal": "I can't."}, "as in a whole reply"


def test_111_nothing_follows_the_terminal_event() -> None:
    """What a server sends after its end is ignored."""
    made = decoder()
    for event in events(*texts(0, "a")):
        made.feed(event["type"], orjson.dumps(event))
    assert made.done
    assert list(made.feed("content_block_delta", b"garbage")) == []
    assert list(made.close()) == []


@pytest.mark.parametrize(
    "data",
    [
        b"not json", b"[1]", b'"x"', b"{}", b'{"type":"content_block_delta","index":9,"delta":{"type":"text_delta","text":"x"}}',
        b'{"type":"message_start"}', b'{"type":"message_stop"}', b'{"type":"content_block_start","index":0,"content_block":null}',
        b'{"type":"message_delta","delta":7}',
    ],
)  # fmt: skip
def test_events_that_make_no_sense_are_an_upstream_error(data: bytes) -> None:
    """Garbage is a 502, never a crash or a silent gap."""
    with pytest.raises(UpstreamError) as caught:
        decoder().feed("", data)
    assert (caught.value.status, caught.value.code) == (502, "upstream_invalid_response")


@pytest.mark.parametrize(
    "delta",
    [
        {"type": "text_delta", "text": 5},
        {"type": "text_delta"},
        {"type": "input_json_delta", "partial_json": {"a": 1}},
        {"type": "thinking_delta", "thinking": None},
    ],
)
def test_deltas_that_hold_no_text_are_an_upstream_error(delta: dict[str, Any]) -> None:
    """Nothing but strings becomes content."""
    made = decoder()
    for event in events(*texts(0))[:2]:
        made.feed("", orjson.dumps(event))
    with pytest.raises(UpstreamError) as caught:
        made.feed("", orjson.dumps({"type": "content_block_delta", "index": 0, "delta": delta}))
    assert caught.value.code == "upstream_invalid_response"


def test_error_without_a_type_is_understood() -> None:
    """Compatible servers send OpenAI's form of an error."""
    with pytest.raises(UpstreamError) as caught:
        decoder().feed("", b'{"error":{"type":"overloaded_error","message":"m"}}')
    assert caught.value.code == "upstream_overloaded"


def test_chunks_name_themselves_alike() -> None:
    """One id, model and time for the whole stream; the model is the upstream's own."""
    chunks = play(events(*texts(0, "a", "b")))
    assert {(c["id"], c["model"], c["created"], c["object"]) for c in chunks} == {
        ("msg_1", "claude-x", 1_700_000_000, "chat.completion.chunk")
    }


def test_two_streams_of_one_request_do_not_touch() -> None:
    """Decoders share nothing."""
    made = provider()
    sent = send(stream=True)
    one, two = made.decoder(sent), made.decoder(sent)
    for event in events(*tool(0, "f"), stop="tool_use"):
        one.feed(event["type"], orjson.dumps(event))
    second = []
    for event in events(*tool(0, "f"), stop="tool_use"):
        second += two.feed(event["type"], orjson.dumps(event))
    assert Answer.stream([chunk.data for chunk in second]).calls == [("f", {})]
    assert second[1].data["choices"][0]["delta"]["tool_calls"][0]["index"] == 0


def test_integers_of_a_call_that_comes_whole_keep_their_digits() -> None:
    """A stand-in gives a call's input when its block opens, in one piece: as exact as in a whole reply."""
    opening, *rest = tool(0, "f")
    opening["content_block"]["input"] = {"n": "BIG"}
    data = wire(events(opening, *rest, stop="tool_use")).replace(b'"BIG"', b"123456789012345678901234")
    calls = [
        delta["tool_calls"][0]
        for delta in deltas([c.data for c in decode_stream(decoder(), [data])])
        if "tool_calls" in delta
    ]
    assert "".join(call["function"]["arguments"] for call in calls) == '{"n":123456789012345678901234}'
