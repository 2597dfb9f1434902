"""Replies: every slot, whole and streamed, held back and let go in the right order."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chunk import Chunk
from proxy.errors import ApiError
from tests.redact.helpers import Log, arguments, call, chat, cut, delta, policy, said
from tests.timing import least, slowness


def run(chunks: list[Chunk], made: Any = None, originals: dict[str, str] | None = None) -> list[Chunk]:
    """Return what the client gets for a stream of these chunks."""
    made = made or policy()
    asked = call(chat("hi"))
    if originals:
        asked.notes["redact"] = originals
    chosen = made.on_reply(asked)
    out = list(itertools.chain.from_iterable(chosen.feed(chunk) for chunk in chunks))
    out += chosen.flush()
    return out


SECRET = "write to ann@example.com now"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("kind", ["content", "refusal", "reasoning_content", "reasoning"])
def test_every_kind_of_text_is_masked_in_a_stream(kind: str, size: int) -> None:
    """A secret cut anywhere, in any of a reply's texts, is masked as it is in a whole reply."""
    pieces = [SECRET[i : i + size] for i in range(0, len(SECRET), size)]
    out = run([delta(role="assistant", content=""), *(delta(**{kind: p}) for p in pieces), delta(finish="stop")])
    slot = "reasoning" if kind.startswith("reasoning") else kind
    assert said(out, slot) == "write to [EMAIL] now"
    assert out[-1].choices[0]["finish_reason"] == "stop"
    assert all(c.data["id"] == "c1" and c.data["model"] == "m" for c in out)


def test_what_was_held_goes_out_before_the_finish_reason() -> None:
    """Nothing follows the chunk that ends a choice; the held text makes a chunk of its own before it."""
    out = run([delta(content="all is wel"), delta(content="l"), delta(finish="stop")])
    assert said(out) == "all is well"
    assert [bool(c.choices[0]["finish_reason"]) for c in out][-1] and not any(
        c.choices[0]["finish_reason"] for c in out[:-1]
    )
    assert out[-1].raw == b"raw"


def test_text_in_the_chunk_that_finishes() -> None:
    """Text beside the finish reason is decided there and then."""
    out = run([delta(content="ann@exam"), delta(content="ple.com", finish="stop")])
    assert said(out) == "[EMAIL]"


def test_a_stream_that_ends_without_a_finish_reason() -> None:
    """What is held back at the end still goes out."""
    assert said(run([delta(content="hello worl"), delta(content="d")])) == "hello world"


def test_reasoning_goes_out_before_content() -> None:
    """What was held of the reasoning is said before the answer begins."""
    out = run(
        [
            delta(reasoning_content="let me thin"),
            delta(reasoning_content="k"),
            delta(content="Yes "),
            delta(finish="stop"),
        ]
    )
    order = [(s.kind, s.text) for c in out for s in c.texts() if s.text]
    assert [kind for kind, _ in order] == sorted((kind for kind, _ in order), key=["reasoning", "content"].index)
    assert said(out, "reasoning") == "let me think" and said(out) == "Yes "


def test_content_goes_out_before_a_tool_call() -> None:
    """What was held of the text is said before the tool call begins, even while its arguments are empty."""
    first = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": ""}}
    out = run(
        [
            delta(content="Calling it"),
            delta(tool_calls=[first]),
            delta(tool_calls=arguments('{"a":1}')),
            delta(finish="tool_calls"),
        ]
    )
    kinds = ["tool" if c.choices[0]["delta"].get("tool_calls") else "text" for c in out if c.choices[0]["delta"]]
    assert kinds == sorted(kinds) and {"text", "tool"} == set(kinds)
    assert said(out) == "Calling it"


def test_choices_do_not_mix() -> None:
    """Two choices, interleaved, are two texts."""
    chunks = []
    for a, b in zip(cut("ann@example.com", 0x2A5), cut("bob@example.org", 0x2A5), strict=True):
        chunks += [delta(0, content=a), delta(1, content=b)]
    out = run([*chunks, delta(0, "stop"), delta(1, "stop")])
    assert said(out, index=0) == said(out, index=1) == "[EMAIL]"


def test_interleaved_tool_calls_are_texts_of_their_own() -> None:
    """The arguments of two calls, interleaved, are masked each by itself and stay JSON."""
    texts = ['{"to":"ann@example.com"}', '{"to":"bob@example.org","x":"\\u00e9"}']
    chunks = [
        delta(tool_calls=arguments(t[i : i + 3], n))
        for i in range(0, 39, 3)
        for n, t in enumerate(texts)
        if t[i : i + 3]
    ]
    out = run([*chunks, delta(finish="tool_calls")])
    by_call: dict[int, str] = {0: "", 1: ""}
    for chunk in out:
        for piece in chunk.choices[0]["delta"].get("tool_calls", ()):
            by_call[piece["index"]] += piece["function"]["arguments"]
    assert by_call == {0: '{"to":"[EMAIL]"}', 1: '{"to":"[EMAIL]","x":"\\u00e9"}'}


@pytest.mark.parametrize("step", [1, 2, 3, 5, 60])
def test_placeholders_are_restored_in_text_and_arguments(step: int) -> None:
    """A placeholder cut anywhere becomes the original again, escaped where it stands in JSON; unknown ones stay."""
    originals = {"[EMAIL_1]": "ann@example.com", "[PASSWORD_2]": 'p"a\\ss\n'}
    text = "To [EMAIL_1], not [EMAIL_2]: [PASSWORD_2]! [EMAIL_"
    body = '{"to":"[EMAIL_1]","pw":"[PASSWORD_2]","o":"[EMAIL_7]"}'
    made = policy(mode="restore")
    chunks = [delta(content=text[i : i + step]) for i in range(0, len(text), step)]
    chunks += [delta(tool_calls=arguments(body[i : i + step])) for i in range(0, len(body), step)]
    out = run([*chunks, delta(finish="tool_calls")], made, originals)
    assert said(out) == 'To ann@example.com, not [EMAIL_2]: p"a\\ss\n! [EMAIL_'
    assert json.loads(said(out, "arguments")) == {"to": "ann@example.com", "pw": 'p"a\\ss\n', "o": "[EMAIL_7]"}
    assert made.kit.metrics.seen == []  # what was restored is not a finding


def test_upstream_is_masked_before_originals_come_in() -> None:
    """A new address from upstream is masked although the caller's own is restored beside it."""
    originals = {"[EMAIL_1]": "ann@example.com"}
    made = policy(mode="restore")
    out = run([delta(content="[EMAIL_1] and eve@example.net "), delta(finish="stop")], made, originals)
    assert said(out) == "ann@example.com and [EMAIL] "
    assert made.kit.metrics.seen == [("email", "reply")]


def test_what_does_not_change_passes_as_it_came() -> None:
    """Chunks that nothing was found in keep upstream's bytes where no text had to wait."""
    chunks = [delta(role="assistant", content=""), delta(content="ok. "), delta(finish="stop")]
    usage = Chunk({"id": "c1", "choices": [], "usage": {"total_tokens": 3}}, b"usage")
    out = run([*chunks, usage])
    assert [c.raw for c in out] == [b"raw", b"raw", b"raw", b"usage"]


def test_counting_does_not_hold_back() -> None:
    """Where replies are only counted, every piece passes at once, unchanged, and is counted all the same."""
    made = policy(replies="count")
    chosen = made.on_reply(call(chat("hi")))
    for piece in cut(SECRET, 0x5555555):
        (chunk,) = chosen.feed(delta(content=piece))
        assert chunk.raw == b"raw" and said([chunk]) == piece
    assert list(chosen.flush()) == []
    assert made.kit.metrics.seen == [("email", "reply")]


def test_blocking_ends_the_stream() -> None:
    """A finding ends the answer with the policy's own error; nothing of it was passed on."""
    made = policy(replies="block")
    chosen = made.on_reply(call(chat("hi")))
    seen = []
    with pytest.raises(ApiError) as caught:
        for piece in [*cut(SECRET, 0x5555555), "."]:
            seen += chosen.feed(delta(content=piece))
    assert caught.value.code == "content_policy_violation" and "email" in caught.value.message
    assert "ann" not in said(seen) and "example" not in caught.value.message


def test_whole_replies_and_completions() -> None:
    """A whole reply is a stream of one chunk; its tokens' probabilities would spell what was masked."""
    message = {"role": "assistant", "content": [{"type": "text", "text": SECRET}], "refusal": None,
               "reasoning_content": SECRET, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a":"a@b.io"}'}},
               {"id": "2", "type": "custom", "custom": {"name": "g", "input": '{"a@b.io'}}]}  # fmt: skip
    whole = Chunk(
        {
            "choices": [
                {"index": 0, "message": message, "logprobs": {"content": [{"token": SECRET}]}, "finish_reason": "stop"}
            ]
        },
        b"",
        whole=True,
    )
    (out,) = run([whole])
    assert b"@" not in out.encode() and out.choices[0]["logprobs"] is None
    text = Chunk({"choices": [{"index": 0, "text": SECRET, "finish_reason": "stop"}]}, b"", whole=True)
    assert run([text])[0].choices[0]["text"] == "write to [EMAIL] now"
    pieces = [
        Chunk({"id": "x", "choices": [{"index": 0, "text": p, "finish_reason": None}]}) for p in cut(SECRET, 0x1111)
    ]
    out = "".join(c.choices[0]["text"] for c in run(pieces))
    assert out == "write to [EMAIL] now"


def test_a_changed_thought_loses_its_signature() -> None:
    """A signed thought that was masked no longer fits its signature, which upstream would refuse."""
    block = {"type": "thinking", "thinking": SECRET, "signature": "sig"}
    out = run([delta(reasoning_content=SECRET), delta(thinking_blocks=[dict(block)]), delta(finish="stop")])
    found = [b for c in out for b in c.choices[0]["delta"].get("thinking_blocks", ())]
    assert found == [{"type": "thinking", "thinking": "write to [EMAIL] now"}]
    kept = run([delta(thinking_blocks=[{**block, "thinking": "fine"}]), delta(finish="stop")])
    assert kept[0].choices[0]["delta"]["thinking_blocks"][0]["signature"] == "sig"


def test_findings_forbid_keeping_and_are_named_once() -> None:
    """A reply with findings is not cached; the call's log line and the warning hold names and counts only."""
    made = policy()
    asked = call(chat("hi"))
    chosen = made.on_reply(asked)
    list(chosen.feed(delta(content="ann@example.com and bob@example.com, 4111 1111 1111 1111 ")))
    list(chosen.flush())
    assert asked.store_refused == "findings"
    assert asked.detectors == {"email": 2, "credit_card": 1}
    asked.finish(None)  # type: ignore[arg-type]
    log: Log = made.kit.log  # type: ignore[assignment]
    assert len(log.lines) == 1 and "example" not in str(log.lines) and log.lines[0][1]["detectors"]["email"] == 2


def test_a_detector_that_fails_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be looked at is not passed on: promise T16."""
    made = policy()
    broken = next(d for d in made._engine.detectors if d.name == "email")
    monkeypatch.setattr(broken, "check", lambda hit: 1 // 0)
    asked = call(chat("hi"))
    chosen = made.on_reply(asked)
    with pytest.raises(ApiError) as caught:
        list(chosen.feed(delta(content="ann@example.com said ")))
    assert (caught.value.code, caught.value.status) == ("policy_unavailable", 503)
    log: Log = made.kit.log  # type: ignore[assignment]
    assert [(event, fields["detector"]) for event, fields in log.lines] == [("detector_failed", "email")]
    assert asked.store_refused == "findings"


PIECES = st.sampled_from(
    [" token", " key", " and", " the", " be", "liev", "able", ".", ",", "\n", " 4111", " 1111", " ann@", "example", ".com",
     " password", ":", " hunter22", " é", "😀", "  ", "x", " AKIAIOSFODNN7", "EXAMPLE", " [EMAIL_1]", "[EMA", "IL_1]"]
)  # fmt: skip


@given(pieces=st.lists(st.tuples(PIECES, st.booleans()), max_size=24), restored=st.booleans(), counted=st.booleans())
def test_events_without_a_chunk_are_filtered_alike(
    pieces: list[tuple[str, bool]], restored: bool, counted: bool
) -> None:
    """Whichever way a stream's events take, in whatever order, the client reads the same text, once."""
    made = policy(replies="count" if counted else "mask")
    originals = {"[EMAIL_1]": "bob@example.org"} if restored else None
    asked = call(chat("hi"))
    if originals:
        asked.notes["redact"] = originals
    chosen, out = made.on_reply(asked), ""
    for text, short in pieces:
        event = b'data: {"content":%b}\n\n' % orjson.dumps(text)
        heard = chosen.hear(text, event, 0) if short else None
        if heard is None:
            out += said(list(chosen.feed(delta(content=text))))
        else:
            out += heard if isinstance(heard, str) else orjson.loads(heard[6:])["content"]
    out += said(list(chosen.flush()))
    assert out == said(run([delta(content="".join(text for text, _ in pieces))], made, originals))


def test_words_that_pass_keep_their_event() -> None:
    """An event that waits for the next one goes on as it came; only a changed or cut text makes a new one."""
    chosen = policy().on_reply(call(chat("hi")))
    list(chosen.feed(delta(content="Well")))
    events = [(word, b"data: %d\n\n" % n) for n, word in enumerate((" all", " things", " are", " well"))]
    heard = [chosen.hear(word, event, 0) for word, event in events]
    assert heard == ["Well", *(event for _, event in events[:-1])]
    assert chosen.hear("x", b"", 1) is None  # another choice's text is not this one's
    assert said(list(chosen.flush())) == " well"


@pytest.mark.parametrize("form", ["json_object", "json_schema"])
@pytest.mark.parametrize("step", [1, 3, 200])
def test_originals_fit_into_json_that_was_asked_for(form: str, step: int) -> None:
    """Where the caller asked for JSON, what is given back in content is escaped: the answer still is JSON."""
    original = '-----BEGIN PRIVATE KEY-----\nMII"E\\\n'
    asked = call(chat("hi") | {"response_format": {"type": form, "json_schema": {"name": "o", "schema": {}}}})
    asked.notes["redact"] = {"[PRIVATE_KEY_1]": original}
    chosen = policy(mode="restore").on_reply(asked)
    text = '{"key": "[PRIVATE_KEY_1]", "n": 1}'
    chunks = [delta(content=text[i : i + step]) for i in range(0, len(text), step)]
    out = [c for chunk in [*chunks, delta(finish="stop")] for c in chosen.feed(chunk)]
    assert json.loads(said(out)) == {"key": original, "n": 1}


def test_many_originals_cost_what_is_given_back() -> None:
    """Ten thousand originals and a hundred texts: neither a text nor a placeholder looks through all of them."""
    originals = {f"[EMAIL_{i}]": f"user{i}@example.com" for i in range(10_000)}
    message = {"role": "assistant", "content": "[EMAIL_9999] [EMAIL_99999] [EMAIL_1", "tool_calls": [
        {"id": str(i), "function": {"name": "f", "arguments": f'{{"a":"[EMAIL_{i}]"}}'}} for i in range(100)
    ]}  # fmt: skip
    whole = Chunk({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}, b"", whole=True)
    outs: list[Any] = []
    took = least(lambda: outs.append(run([whole], policy(mode="restore"), originals)), 0.1)
    assert took < 0.1 * slowness()
    (out,) = outs[0]
    assert said([out]) == "user9999@example.com [EMAIL_99999] [EMAIL_1"
    assert said([out], "arguments").count("@example.com") == 100


def test_a_word_of_the_house_with_brackets_in_it() -> None:
    """A replacement that holds brackets makes a placeholder that is found again, cut anywhere."""
    own = [{"name": "badge", "regex": r"EMP-\d{4}", "replacement": "[STAFF] [BADGE]"}]
    made = policy(mode="restore", patterns=own)
    asked = call(chat("EMP-1234"))
    asyncio.run(made.on_request(asked))
    sent = asked.request.body["messages"][0]["content"]
    chosen = made.on_reply(asked)
    out = [c for char in f"so {sent}!" for c in chosen.feed(delta(content=char))]
    assert sent == "[STAFF BADGE_1]" and said([*out, *chosen.flush()]) == "so EMP-1234!"


@pytest.mark.parametrize("replacement", ['<"b\\adge">', "a\nb", "[ÉTÉ]", "[项目]"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_word_that_json_escapes_comes_back(replacement: str, ascii_only: bool) -> None:
    """Upstream escapes quotes, and often what is beyond ASCII, in a tool's arguments: no placeholder holds any."""
    own = [{"name": "badge", "regex": r"EMP-\d{4}", "replacement": replacement}]
    made = policy(mode="restore", patterns=own)
    asked = call(chat("EMP-1234 and EMP-5678"))
    asyncio.run(made.on_request(asked))
    raw = json.dumps({"to": asked.request.body["messages"][0]["content"]}, ensure_ascii=ascii_only)
    chosen = made.on_reply(asked)
    out = [c for char in raw for c in chosen.feed(delta(tool_calls=arguments(char)))]
    assert json.loads(said([*out, *chosen.flush()], "arguments")) == {"to": "EMP-1234 and EMP-5678"}


def test_a_chunk_of_many_calls_costs_what_its_size_costs() -> None:
    """Two thousand tool calls in each of two chunks: no text is compared with each other one."""
    chosen = policy().on_reply(call(chat("hi")))
    calls = [delta(tool_calls=[{"index": i, "function": {"arguments": '"x'}} for i in range(2_000)]) for _ in "ab"]
    list(chosen.feed(calls[0]))
    # Some 15 microseconds for each; it was 230.
    assert least(lambda: list(chosen.feed(calls[1])), 0.2) < 0.2 * slowness()
