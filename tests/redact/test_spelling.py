"""What says a reply's text once more, as numbers, tokens or sound, goes where the text was masked."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.chunk import Chunk
from tests.redact.helpers import call, chat, delta, policy

SECRET = "ann@example.com"
SPELLED = {"logprobs": {"content": [{"token": "ann", "logprob": 0.0}]}, "token_ids": [979, 31, 8858], "tokens": ["ann", "@"],
           "completion_probabilities": [{"content": "ann"}]}  # fmt: skip


def reply(text: str, place: str, name: str, *, whole: bool) -> Chunk:
    chunk = delta(content=text)
    choice = chunk.choices[0]
    chunk.whole = whole
    if whole:
        choice["message"] = choice.pop("delta")
    holder = {"choice": choice, "part": choice.get("delta") or choice.get("message"), "top": chunk.data}[place]
    holder[name] = SPELLED[name]
    return chunk


def passed(*chunks: Chunk) -> str:
    chosen = policy().on_reply(call(chat("hi")))
    for chunk in chunks:
        chunk.raw = orjson.dumps(chunk.data)
    out = [c for chunk in chunks for c in chosen.feed(chunk)]
    return b"".join(c.encode() for c in [*out, *chosen.feed(delta(finish="stop")), *chosen.flush()]).decode()


@pytest.mark.parametrize("name", sorted(SPELLED))
@pytest.mark.parametrize("place", ["choice", "part", "top"])
@pytest.mark.parametrize("whole", [True, False])
def test_no_token_spells_what_was_masked(name: str, place: str, whole: bool) -> None:
    """The numbers, words and chances of tokens go with a text that was masked, wherever a server puts them, and stay otherwise."""
    out = passed(reply(f"to {SECRET} now. ", place, name, whole=whole))
    assert "[EMAIL]" in out and "979" not in out and '"ann"' not in out
    kept = passed(reply("all of it is fine. ", place, name, whole=True))
    assert "979" in kept or '"ann"' in kept


def test_tokens_do_not_come_again_with_text_that_follows() -> None:
    """Text that was held back follows in a chunk of its own, which bears no tokens of another's."""
    out = passed(reply(SECRET[:6], "top", "completion_probabilities", whole=False), delta(content=SECRET[6:]))
    assert "[EMAIL]" in out and '"ann"' not in out


def sound(transcript: str | None, data: str | None = "UklGRg==") -> Chunk:
    audio: dict[str, Any] = {"id": "a1", "transcript": transcript, "data": data}
    return delta(audio={name: value for name, value in audio.items() if value is not None})


def test_sound_goes_with_its_transcript() -> None:
    """An answer whose transcript is masked is not heard either: all of a whole one, of a stream what still comes."""
    whole = sound(f"write to {SECRET} soon")
    whole.choices[0]["message"] = whole.choices[0].pop("delta")
    whole.whole = True
    assert "UklGRg==" not in passed(whole)
    out = passed(sound("so write ", None), sound(None, "AAAA"), sound(f"to {SECRET} soon ", None), sound(None, "BBBB"))
    assert "AAAA" in out and "BBBB" not in out and "[EMAIL]" in out
    fine = passed(sound("so write ", None), sound(None, "AAAA"), sound("to me soon ", None), sound(None, "BBBB"))
    assert "AAAA" in fine and "BBBB" in fine
