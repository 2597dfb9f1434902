"""The rules for an answer's text: whole and streamed alike, for every way to cut a stream."""

from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import Chunk
from policies.template.config import Post
from policies.template.post import Cut, PostFilter

TITLE = Post(strip=True, max_chars=100, ellipsis="...")


def by_the_rule(post, text):
    """Return what the design document's `_process_title_response` returns."""
    if post.strip:
        text = text.strip()
    if post.max_chars is not None and len(text) > post.max_chars:
        text = text[: post.max_chars - len(post.ellipsis)] + post.ellipsis
    return text


def through(post, pieces):
    cut = Cut(post)
    return "".join([*map(cut.feed, pieces), cut.end()])


posts = st.builds(
    Post,
    strip=st.booleans(),
    max_chars=st.one_of(st.none(), st.integers(4, 30)),
    ellipsis=st.sampled_from(["...", "", "…"]),
)


@given(posts, st.lists(st.text(st.sampled_from("ab \n\t\u3000é🙂"), max_size=12), max_size=8))
def test_streamed_is_whole_for_every_chunking(post, pieces):
    """However a text is cut into pieces, what comes out is the rule applied to the whole."""
    assert through(post, pieces) == by_the_rule(post, "".join(pieces))


@pytest.mark.parametrize("text", ["", "  ", "ab", " ab cd ", "abcdefgh", "abcdefghi", " a  bcdefghij ", "abcde    "])
def test_every_split_of_short_texts(text):
    """All ways to split eight or so characters, at the very limits."""
    post = Post(strip=True, max_chars=8, ellipsis="...")
    for cuts in itertools.product([False, True], repeat=max(0, len(text) - 1)):
        pieces, last = [], 0
        for i, here in enumerate(cuts, 1):
            if here:
                pieces.append(text[last:i])
                last = i
        assert through(post, [*pieces, text[last:]]) == by_the_rule(post, text)


def test_only_what_may_still_change_is_held_back():
    """Up to the last characters that an ellipsis may replace, a stream goes out as it comes."""
    cut = Cut(TITLE)
    assert cut.feed("Add two-factor login") == "Add two-factor login"
    assert cut.feed(" to the ") == " to the"
    assert cut.feed("x" * 70) == " " + "x" * 69
    assert cut.feed("yy") == ""
    assert cut.feed("") == ""
    assert cut.feed("y") == "..."
    assert cut.feed("z" * 1000) + cut.end() == ""


def test_the_design_documents_title_rules():
    """97 characters and three dots beyond a hundred; a hundred stay; white space around goes."""
    assert through(TITLE, ["  " + "t" * 100 + "\n"]) == "t" * 100
    assert through(TITLE, ["t" * 101]) == "t" * 97 + "..."


def stream(*texts, index=0, finish="stop", last=None):
    """Return a stream's chunks."""
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    rows = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts)]
    chunks = [Chunk({**base, "choices": [{"index": index, "delta": row, "finish_reason": None}]}) for row in rows]
    delta = {} if last is None else {"content": last}
    chunks.append(Chunk({**base, "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}))
    return [*chunks, Chunk({**base, "choices": [], "usage": {"total_tokens": 3}})]


def run(post, chunks):
    one = PostFilter(post)
    return [*itertools.chain.from_iterable(one.feed(chunk) for chunk in chunks), *one.flush()]


def content(chunks, index=0):
    return "".join(
        (choice.get("delta") or choice.get("message") or {}).get("content") or ""
        for chunk in chunks for choice in chunk.choices if choice["index"] == index
    )  # fmt: skip


@pytest.mark.parametrize("last", [None, "end  ", ""])
def test_the_rest_comes_before_the_finish(last):
    """A valid stream: role first, the held-back rest before (or on) the finish chunk, usage last, no empty deltas."""
    out = run(Post(strip=True, max_chars=10), stream(" one ", "two", "  ", last=last))
    assert content(out) == by_the_rule(Post(strip=True, max_chars=10), " one two  " + (last or ""))
    finish = next(i for i, chunk in enumerate(out) if chunk.choices and chunk.choices[0]["finish_reason"])
    assert content(out[finish + 1 :]) == ""
    assert out[0].choices[0]["delta"]["role"] == "assistant"
    assert out[-1].data["usage"]
    assert not [c for c in out[1:finish] if not c.choices[0]["delta"].get("content")]


def test_each_choice_has_a_text_of_its_own():
    """With n > 1 the choices are cut apart, interleaved as they come."""
    post = Post(max_chars=5, ellipsis="..")
    chunks = [c for pair in zip(stream("abc", "def"), stream("xy", "z", index=1), strict=True) for c in pair]
    out = run(post, chunks)
    assert (content(out), content(out, 1)) == ("abc..", "xyz")


def test_whole_answers_and_other_fields():
    """Content only: refusals, reasoning and tool arguments stay; a chunk that does not change keeps its bytes."""
    message = {"role": "assistant", "content": " abcdef ", "refusal": None, "reasoning_content": " why "}
    data = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    (out,) = run(Post(strip=True, max_chars=5, ellipsis="."), [Chunk(data, orjson.dumps(data), whole=True)])
    assert message["content"] == "abcd."
    assert message["reasoning_content"] == " why "
    assert out.raw is None
    plain = Chunk({"choices": [{"index": 0, "message": {"content": "abc"}}]}, b"exact", whole=True)
    assert next(iter(PostFilter(TITLE).feed(plain))).raw == b"exact"


def test_a_stream_that_ends_without_a_finish_gives_its_rest():
    """What was held back is never lost."""
    chunks = stream("abc", "de")[:3]
    assert content(run(Post(max_chars=5, ellipsis="."), chunks)) == "abcde"
