"""R3, R4: an upstream that stops in the middle is never a success, and what it had said is delivered and paid."""

from __future__ import annotations

import pytest

from tests.fakes.httpwire import Reply, openai_error, stream
from tests.fakes.ledger import Joined, Ledger
from tests.fakes.process import Upstream
from tests.fakes.sidecar import Sidecar
from tests.reliability.load import call, together

#: The station after which a vendor's answer is complete.
COMPLETE = {"openai": ("finish", "usage", "done"), "anthropic": ("done",), "gemini": ("finish",)}
TEXT = "Zürich 🏔️ 日本語 ok "


def judge(reply: Reply, row: Joined, provider: str) -> str:
    """Assert that the client saw what the upstream's record entitles it to; return the outcome."""
    record = row.call
    line = row.line
    assert record is not None, line
    complete = record["reached"] in COMPLETE[provider]
    # The event whose closing empty line alone is missing may be taken either way.
    nearly = 0 < record["missing"] <= 4
    if not complete and not (nearly and line["outcome"] == "completed"):
        assert line["outcome"] == "upstream_error", (line, record)
        assert line["code"] in ("upstream_error", "upstream_unreachable", "upstream_invalid_response"), line
        if reply.status != 200:
            assert (reply.status, openai_error(reply)["code"]) == (502, line["code"])
            assert record["chunks"] <= 0 or nearly, "content had come: it must be delivered"
            return str(line["outcome"])
    else:
        assert line["outcome"] == "completed", (line, record)
        assert reply.status == 200
    seen = stream(reply.body)
    assert reply.complete, "the stream's framing must end properly"
    assert seen.after_end == 0
    if line["outcome"] == "completed":
        assert (len(seen.errors), seen.done) == (0, 1), (seen, record)
    else:
        assert (len(seen.errors), seen.done) == (1, 0), (seen, record)
        assert seen.errors[0]["code"] == line["code"]
    sent = record["chunks"]
    if "text=" in record["model"]:
        step = -(-len(TEXT) // 6)
        assert seen.text in (TEXT[: sent * step], TEXT[: (sent + 1) * step] if nearly else None), (seen.text, record)
    else:
        assert seen.numbers in ([*range(1, sent + 1)], [*range(1, sent + 2)] if nearly else None), (
            seen.numbers,
            record,
        )
    return str(line["outcome"])


async def cut_everywhere(
    steady: Sidecar, books: Ledger, provider: str, kinds: list[str], count: int, spec: str
) -> None:
    """Cut the same stream at ``count`` bytes spread over it and a little beyond."""
    options = {"stream": True, "stream_options": {"include_usage": True}}

    def model(i: int, kind: str, offset: int) -> str:
        # Names of one length, for they stand in every event: so all answers have the same bytes.
        return f"{provider}/m;{books.tag};{spec};cut={kind}@{offset:06d};no{i:03d}"

    assert stream((await call(steady, model(0, "fin", 999_999), **options)).body).done == 1
    total = books.upstream.wait_calls(books.tag, 1)[0]["sent"]
    models = [model(i, kinds[i % len(kinds)], i * (total + 20) // (count - 1)) for i in range(1, count)]
    replies = await together([lambda name=name: call(steady, name, **options) for name in models], 16)
    rows = {row.line["model"]: row for row in books.check(count, upstream=count)}
    ends = [judge(reply, rows[name], provider) for name, reply in zip(models, replies, strict=True)]
    assert ends.count("upstream_error") > count * 0.6, "most cuts lie inside the answer"
    assert "completed" in ends, "a cut after the end of the answer takes nothing away"


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
async def test_a_cut_at_any_byte(steady: Sidecar, books: Ledger, provider: str) -> None:
    """R3: RST or FIN at bytes all over the stream: earlier chunks delivered, one error frame, no [DONE], settled."""
    await cut_everywhere(steady, books, provider, ["rst", "fin"], 40, "chunks=6")


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
async def test_a_cut_inside_characters(steady: Sidecar, books: Ledger, provider: str) -> None:
    """R3: the same with text of many bytes a character, in small segments."""
    await cut_everywhere(steady, books, provider, ["rst"], 24, f"chunks=6;text={TEXT};split=7")


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
@pytest.mark.parametrize("kind", ["rst", "fin"])
async def test_a_cut_at_two_hundred_bytes(steady: Sidecar, books: Ledger, provider: str, kind: str) -> None:
    """R3 in full."""
    await cut_everywhere(steady, books, provider, [kind], 200, "chunks=6")


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
async def test_a_cut_inside_characters_at_two_hundred_bytes(steady: Sidecar, books: Ledger, provider: str) -> None:
    """R3 in full, with text of many bytes a character."""
    await cut_everywhere(steady, books, provider, ["rst", "fin"], 200, f"chunks=6;text={TEXT};split=7")


ENDS: list[tuple[str, str, str]] = [
    ("openai", "omit=done", "completed"),
    ("openai", "omit=done;framing=close", "completed"),
    ("openai", "omit=usage+done", "completed"),
    ("openai", "omit=finish+usage+done", "upstream_error"),
    ("openai", "omit=finish+usage+done;framing=close", "upstream_error"),
    ("openai", "chunks=0;omit=finish+usage+done", "upstream_error"),
    ("anthropic", "omit=done", "upstream_error"),
    ("anthropic", "omit=finish+done", "upstream_error"),
    ("gemini", "omit=finish", "upstream_error"),
    ("openai", "error=2", "upstream_error"),
    ("openai", "error=0", "upstream_error"),
    ("anthropic", "error=2:overloaded_error", "upstream_error"),
    ("anthropic", "error=0:overloaded_error", "upstream_error"),
    ("gemini", "error=2", "upstream_error"),
    ("openai", "bad=json@2", "upstream_error"),
    ("openai", "bad=event@2", "upstream_error"),
    ("openai", "bad=shape@2", "upstream_error"),
    ("openai", "bad=nul@2", "upstream_error"),
    ("openai", "bad=utf8@2", "upstream_error"),
    ("openai", "bad=comment@2", "completed"),
    ("openai", "bad=unknown@2", "completed"),
    ("anthropic", "bad=json@2", "upstream_error"),
    ("anthropic", "bad=unknown@2", "completed"),
    ("anthropic", "bad=shape@2", "upstream_error"),
    ("gemini", "bad=json@2", "upstream_error"),
    ("gemini", "bad=shape@2", "upstream_error"),
    ("gemini", "bad=unknown@2", "completed"),
    ("openai", "framing=badchunk", "upstream_error"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "spec", "outcome"), ENDS, ids=lambda value: str(value).replace("upstream_error", "err")
)
async def test_ends_that_look_clean(steady: Sidecar, books: Ledger, provider: str, spec: str, outcome: str) -> None:
    """R4: an end without the vendor's terminal event, or with an error in it, is an error; without [DONE] it is none."""
    reply = await call(steady, f"{provider}/m;{books.tag};chunks=4;{spec}", stream=True)
    # What comes after an event that cannot be understood is not read, and so not paid by count.
    unread = 6 if spec.startswith("bad=") else 9 if "badchunk" in spec else 0
    (row,) = books.check(1, upstream=1, outcome=outcome, unread=unread)
    if reply.status != 200:
        assert openai_error(reply)["code"] == row.line["code"]
        assert reply.status == row.line["status"] >= 500
        return
    seen = stream(reply.body)
    assert reply.complete and seen.after_end == 0
    assert (len(seen.errors), seen.done) == ((0, 1) if outcome == "completed" else (1, 0)), seen
    assert row.call is not None
    assert seen.numbers == [*range(1, len(seen.numbers) + 1)]
    if not unread or outcome == "completed":
        assert len(seen.numbers) == row.call["chunks"]
    if outcome == "completed":
        assert seen.numbers == [1, 2, 3, 4] and seen.finish == "stop"


async def test_a_cut_before_any_content_is_tried_again(eager: Sidecar, upstream: Upstream, tag: str) -> None:
    """Until the first content has gone to the client, a broken stream is retried and nobody sees it."""
    books = Ledger(eager, upstream, tag)
    # Three, for that is the retry budget of a provider without traffic.
    for i, cut in enumerate(("rst@headers", "fin@first", "rst@100")):
        reply = await call(eager, f"r1/m;{tag};cut={cut};fails=1;no{i}", stream=True)
        seen = stream(reply.body)
        assert (reply.status, seen.numbers, seen.done, seen.errors) == (200, [1, 2, 3], 1, []), cut
    rows = books.check(3, upstream=6, outcome="completed")
    assert [row.line["retries"] for row in rows] == [1] * 3
