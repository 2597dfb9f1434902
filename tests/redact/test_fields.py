"""What a reply holds beside its text: citations, details, whatever a vendor adds. None of it carries a value out."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import pytest

from policies.redact.reply import ReplyFilter
from proxy.chunk import Chunk
from proxy.errors import ApiError
from proxy.request import ChatRequest
from proxy.slots import _TOP, _WORDLESS, _leaves
from tests.redact.helpers import call, chat, delta, policy, said

SECRET = "ann@example.com"
CITATION = {
    "type": "url_citation",
    "url_citation": {"title": f"On {SECRET} here", "url": f"https://x.io/ {SECRET}", "start_index": 0, "end_index": 1},
}
#: Where a whole message, a choice or the envelope has been seen to hold text: (place, field, value).
FIELDS: list[tuple[str, str, Any]] = [
    ("part", "annotations", [CITATION]),
    ("part", "reasoning_details", [{"type": "reasoning.text", "text": SECRET}]),
    ("part", "reasoning_details", [{"type": "reasoning.summary", "summary": SECRET}]),
    ("part", "x_note", {"a": [{"b": SECRET}]}),
    ("part", "tool_calls", [{"id": "1", "index": 0, "x": SECRET, "function": {"name": "f", "arguments": "{}", "parsed": [SECRET]}}]),
    ("part", "x_search", {"data": [{"title": SECRET}], "object": {"note": SECRET}}),
    ("part", "x_note", f"data: {SECRET}"),
    ("choice", "x_note", SECRET),
    ("top", "citations", [f"https://x.io/ {SECRET}"]),
    ("top", "search_results", [{"title": SECRET, "url": SECRET}]),
]  # fmt: skip


def replies() -> ReplyFilter:
    return policy().on_reply(call(chat("hi")))


def reply(place: str, field: str, value: Any, *, whole: bool) -> Chunk:
    """Return a reply, or a stream's chunk, with ``value`` in it."""
    value = json.loads(json.dumps(value))
    part: dict[str, Any] = {"content": "ok. "}
    choice: dict[str, Any] = {"index": 0, "message" if whole else "delta": part, "finish_reason": None}
    data: dict[str, Any] = {"id": "c", "object": "o", "created": 1, "model": "m", "choices": [choice]}
    {"part": part, "choice": choice, "top": data}[place][field] = value
    return Chunk(data, b"raw", whole=whole)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("place", "field", "value"), FIELDS)
def test_no_field_of_a_reply_carries_a_value(place: str, field: str, value: Any, whole: bool) -> None:
    """A secret in a citation, in details or in a field that we never heard of is masked, in each chunk that holds one."""
    chosen = replies()
    first = [*chosen.feed(delta(role="assistant", content="")), *chosen.feed(delta(content="so "))] if not whole else []
    chunks = [reply(place, field, value, whole=whole) for _ in range(1 if whole else 3)]
    out = [c for chunk in chunks for c in chosen.feed(chunk)]
    out += chosen.feed(delta(finish="stop"))
    raw = b"".join(c.encode() for c in (*first, *out, *chosen.flush()))
    assert SECRET.encode() not in raw and b"[EMAIL]" in raw
    assert b"ok" in raw


def test_details_are_masked_where_they_come_in_pieces() -> None:
    """Thoughts in `reasoning_details` that come piece by piece are one text, as content is."""
    chosen = replies()
    pieces = [{"type": "reasoning.text", "text": SECRET[i : i + 3], "index": 0} for i in range(0, len(SECRET), 3)]
    out = [c for piece in pieces for c in chosen.feed(delta(reasoning_details=[piece]))]
    out += [*chosen.feed(delta(finish="stop"))]
    assert said(out, "reasoning") == "[EMAIL]"


def test_one_text_twice_in_a_chunk() -> None:
    """Two choices or tool calls under one index are one text, and none of it passes unseen."""
    chosen = replies()
    twice = delta(content=f"{SECRET} ")
    twice.choices.append({"index": 0, "delta": {"content": "and so "}, "finish_reason": None})
    arguments = json.dumps({"to": SECRET})
    tool = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": arguments}}
    out = [*chosen.feed(twice), *chosen.feed(delta(tool_calls=[tool, json.loads(json.dumps(tool))]))]
    out += [*chosen.feed(delta(finish="tool_calls"))]
    assert said(out) == "[EMAIL] and so "
    assert said(out, "arguments") == '{"to": "[EMAIL]"}' * 2


def test_tokens_without_their_text() -> None:
    """Tokens' probabilities that come on a chunk of their own go: they would spell what was masked before."""
    chosen = replies()
    tokens = {"content": [{"token": SECRET, "logprob": -1.0}]}
    alone = delta()
    alone.choices[0]["logprobs"] = tokens
    beside = delta(content="fine. ")
    beside.choices[0]["logprobs"] = {"content": [{"token": "fine. ", "logprob": -1.0}]}
    out = [*chosen.feed(delta(content=SECRET)), *chosen.feed(alone), *chosen.feed(delta(content=" is. "))]
    out += chosen.feed(beside)
    assert SECRET.encode() not in b"".join(c.encode() for c in out)
    kept = [*replies().feed(beside)]
    assert kept[-1].choices[0]["logprobs"]
    empty = delta(finish="stop")
    empty.choices[0]["logprobs"] = {"content": [], "refusal": None}
    (last,) = replies().feed(empty)
    assert last.choices[0]["logprobs"] == {"content": [], "refusal": None}, "nothing is spelled"


def test_a_thought_of_a_whole_reply_loses_its_signature_too() -> None:
    """A signed thought that was masked no longer fits its signature, however it came."""
    block = {"type": "thinking", "thinking": f"ask {SECRET}", "signature": "sig"}
    message = {"role": "assistant", "content": "ok", "thinking_blocks": [{**block}, {**block, "thinking": "fine"}]}
    whole = Chunk({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}, b"", whole=True)
    (out,) = replies().feed(whole)
    assert out.choices[0]["message"]["thinking_blocks"] == [
        {"type": "thinking", "thinking": "ask [EMAIL]"},
        {**block, "thinking": "fine"},
    ]


def test_what_is_not_text_stays() -> None:
    """Pictures, signatures and identifiers are structure: nobody reads them, and a mask would break them."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AKIAIOSFODNN7EXAMPLE"}}
    extra = {"google": {"thought_signature": "AKIAIOSFODNN7EXAMPLE"}}
    tool = {"id": "t", "index": 0, "function": {"name": "f", "arguments": "{}"}, "extra_content": extra}
    chunk = delta(images=[image], tool_calls=[tool])
    before = json.loads(json.dumps(chunk.data))
    (out,) = replies().feed(chunk)
    assert out.data["choices"][0]["delta"]["images"] == before["choices"][0]["delta"]["images"]
    assert out.data["choices"][0]["delta"]["tool_calls"][0]["extra_content"] == extra


def test_embeddings_stay() -> None:
    """Embeddings, numbers or base 64 of them (what the openai client asks for), pass as they came; what stands beside does not."""
    rows = [struct.pack("<1536f", *(math.sin(n * i) / 30 for i in range(1536))) for n in range(1, 41)]
    data = [
        {"object": "embedding", "index": i, "embedding": base64.b64encode(row).decode()} for i, row in enumerate(rows)
    ]
    data.append({"object": "embedding", "index": 40, "embedding": [0.5, -0.25], "x_text": SECRET})
    given = {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    chunk = Chunk(json.loads(json.dumps(given)), b"raw", whole=True)
    (out,) = replies().feed(chunk)
    data[40]["x_text"] = "[EMAIL]"
    assert out.data == given


async def test_names_of_members_are_masked_where_nothing_is_structure() -> None:
    """A caller's own names (metadata, biases, fields we do not know) are text: masked, in place, none lost."""
    body = {
        **chat("hi"),
        "metadata": {"a": "1", SECRET: SECRET, "7": "7", "bob@example.com": "2", "z": "3", "4111111111111111": "4"},
        "logit_bias": {"50256": -100, SECRET: 1},
        "x_rows": [{"deep": {SECRET: {SECRET: 1}}}],
        SECRET: True,
    }
    asked = call(body)
    made = policy(patterns=[{"name": "badge", "regex": r"\d{5}"}])
    await made.on_request(asked)
    sent = asked.request.body
    assert list(sent["metadata"].items()) == [
        ("a", "1"), ("[EMAIL]", "[EMAIL]"), ("7", "7"), ("[EMAIL] 2", "2"), ("z", "3"), ("[CREDIT_CARD]", "4"),
    ]  # fmt: skip
    assert sent["logit_bias"] == {"50256": -100, "[EMAIL]": 1}  # a token's number is no text
    assert sent["x_rows"] == [{"deep": {"[EMAIL]": {"[EMAIL]": 1}}}] and sent["[EMAIL]"] is True
    assert SECRET not in json.dumps(sent)


async def test_words_are_structure_objects_are_not() -> None:
    """Where the API takes a word or a tool's name, an object or a pattern in its place is looked through."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"pattern": SECRET}}}}}
    choice = {"type": "function", "function": {"name": "f"}, "note": SECRET}
    body = {**chat("hi"), "tools": [tool], "tool_choice": choice, "truncation": {"a": SECRET}, "voice": {"b": [SECRET]}}
    asked = call(body)
    await policy().on_request(asked)
    assert SECRET not in json.dumps(asked.request.body) and asked.request.body["tool_choice"]["function"] == {
        "name": "f"
    }


@pytest.mark.parametrize("name", sorted(_WORDLESS - {"messages", "model"}))
def test_a_simple_request_holds_no_words_but_its_messages(name: str) -> None:
    """Fields that are passed over without a look take no words, or none that are text."""
    plain: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "to ann@example.com"}]}
    values: list[Any] = ["ann@example.com", 1, True, ["ann@example.com"], {"ann@example.com": "ann@example.com"}]
    for value in values:
        body = {**plain, name: value}
        try:
            request = ChatRequest(body)
        except ApiError:
            continue
        short = [(slot.kind, slot.key, slot.text) for slot in request.texts()]
        assert request.simple
        assert short == [(s.kind, s.key, s.text) for s in _leaves(request, body, (), _TOP)], value


def test_a_message_that_a_policy_added_unsaid_is_looked_into() -> None:
    """A policy may change the body without a word of it: its messages' other fields are texts all the same."""
    request = ChatRequest({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    request.body["messages"] += [
        {"role": "user", "name": "ann@example.com", "content": [{"type": "text", "text": "bob@example.org"}]},
        {"role": "tool", "tool_call_id": "1", "content": "eve@example.net"},
    ]
    assert request.simple
    assert [s.text for s in request.texts()] == ["hi", "ann@example.com", "bob@example.org", "eve@example.net"]


async def test_a_free_member_is_told_by_its_name() -> None:
    """What `metadata` and fields of the caller's own call a password is one, as it would be in a text; other members stay."""
    fine = {
        "note": "just a note",
        "customer": "42",
        "version": "1.2.3",
        "commit": "0a4d55a8d778e5022fab701977c5d840bbc486d0",
    }
    keys = {
        "password": "hunter2x9",
        "api_key": "zx81-spectrum-48k",
        "db": {"passwd": 'ab"c1x9'},
        "said": 'to "ann@example.com"',
    }
    asked = call(
        {**chat("hi"), "metadata": {**fine, **keys}, "x_login": {"auth_token": "t-998877"}, "x_api_key": "zx81zx82"}
    )
    await policy().on_request(asked)
    assert asked.request.body["metadata"] == {
        **fine, "password": "[PASSWORD]", "api_key": "[API_KEY]", "db": {"passwd": "[PASSWORD]"}, "said": 'to "[EMAIL]"'
    }  # fmt: skip
    assert (
        asked.request.body["x_login"] == {"auth_token": "[AUTH_TOKEN]"}
        and asked.request.body["x_api_key"] == "[API_KEY]"
    )
