"""A new vendor is one file: the worked example, loaded by dotted path and run through a whole sidecar."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.core.inline import Inline, inline
from tests.fakes.httpwire import stream
from tests.fakes.scripted import Answer, Scripted, Seen

EXAMPLE = Path(__file__).with_name("example_vendor.py")


def whole(seen: Seen) -> Answer:
    """Answer as Parrot does."""
    said = {"says": "Hello there", "why": "done", "heard": 4, "said": 2}
    if not seen.body["live"]:
        return Answer(json.dumps({"id": "p-1", "bird": seen.body["bird"], **said}).encode())
    return Answer(
        [_event("perch", id="p-1", bird=seen.body["bird"]), *_words("Hello", " there"), _end()],
        content_type="text/event-stream",
    )


def _event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _words(*words: str) -> list[bytes]:
    return [_event("word", says=word) for word in words]


def _end(why: str = "done") -> bytes:
    return _event("hush", why=why, heard=4, said=2)


Serving = Callable[..., Any]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """Serve an llm.yml that names the example by dotted path, with a copy of the file beside it, as a user has it."""
    (tmp_path / "example_vendor.py").write_text(EXAMPLE.read_text())
    before = list(sys.path)

    @asynccontextmanager
    async def start(play: Callable[[Seen], Answer], **more: Any) -> AsyncIterator[tuple[Inline, Scripted]]:
        async with Scripted(play) as provider:
            entry = {
                "kind": "example_vendor:Parrot",
                "base_url": provider.url,
                "api_key": "pk-1234567890",
                "max_retries": 0,
                **more,
            }
            config = {"providers": {"parrot": entry}, "models": {"bird": "parrot/grey"}, "default_provider": "parrot"}
            async with inline(yaml.safe_dump(config), folder=str(tmp_path)) as sidecar:
                yield sidecar, provider

    yield start
    sys.path[:] = before
    sys.modules.pop("example_vendor", None)


async def test_whole(serving: Serving) -> None:
    """A call goes out in the vendor's words and comes back in OpenAI's, metered and labelled."""
    async with serving(whole) as (sidecar, provider):
        reply = await sidecar.chat("hi", model="bird", max_tokens=9)
        body = reply.json()
        assert body["choices"] == [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ]
        assert body["usage"] == {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
        assert (body["model"], reply.headers["x-llm-provider"]) == ("grey", "parrot")
        (seen,) = provider.calls
        assert seen.path == "/talk" and seen.headers["x-parrot-key"] == "pk-1234567890"
        assert seen.body == {"bird": "grey", "turns": [{"who": "guest", "says": "hi"}], "live": False, "words": 9}
        (line,) = await sidecar.lines()
        assert (line["prompt_tokens"], line["completion_tokens"], line["estimated"]) == (4, 2, False)


async def test_streamed(serving: Serving) -> None:
    """The stream is OpenAI's: role, words, finish, usage if asked for, [DONE]."""
    async with serving(whole) as (sidecar, _):
        reply = await sidecar.chat("hi", model="bird", stream=True, stream_options={"include_usage": True})
        seen = stream(reply.content)
        assert (seen.text, seen.finish, seen.done, seen.errors) == ("Hello there", "stop", 1, [])
        assert seen.usage == [{"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}]
        assert seen.chunks[0]["choices"][0]["delta"]["role"] == "assistant"


async def test_what_goes_wrong(serving: Serving) -> None:
    """Refusals, an error event, a missing end and nonsense become the contract's errors, though the file checks nothing."""
    perch = _event("perch", id="p", bird="grey")
    plays: list[tuple[Answer, bool, int, str]] = [
        (Answer(b"no seeds left", 429, {"retry-after": "7"}), False, 429, "upstream_rate_limited"),
        (Answer(b"who are you?", 401), False, 502, "upstream_auth_error"),
        (Answer(b"[]"), False, 502, "upstream_invalid_response"),
        (Answer(b"<html>"), False, 502, "upstream_invalid_response"),
        (
            Answer([_event("squawk", code=529, text="busy")], content_type="text/event-stream"),
            True,
            503,
            "upstream_overloaded",
        ),
        (
            Answer([perch, b"data: nonsense\n\n"], content_type="text/event-stream"),
            True,
            502,
            "upstream_invalid_response",
        ),
        (Answer([perch], content_type="text/event-stream"), True, 502, "upstream_error"),
    ]
    turn = [0]
    async with serving(lambda seen: plays[turn[0]][0]) as (sidecar, _):
        for turn[0], (_, as_stream, status, code) in enumerate(plays):
            reply = await sidecar.chat("hi", model="bird", stream=as_stream)
            assert (reply.status_code, reply.json()["error"]["code"]) == (status, code), (turn, reply.text)
        assert len(await sidecar.lines("translator_failed")) == 3, "the operator sees where the file stumbled"
    late = Answer([perch, *_words("Hel"), b"event: word\ndata: {}\n\n", _end()], content_type="text/event-stream")
    async with serving(lambda seen: late) as (sidecar, _):
        seen = stream((await sidecar.chat("hi", model="bird", stream=True)).content)
        assert (seen.text, seen.done, [e["code"] for e in seen.errors]) == ("Hel", 0, ["upstream_invalid_response"])


async def test_what_it_cannot_do(serving: Serving) -> None:
    """A parameter that the vendor lacks is refused by name, or dropped and said where llm.yml says so."""
    async with serving(whole) as (sidecar, _):
        reply = await sidecar.chat("hi", model="bird", seed=7)
        assert (reply.status_code, reply.json()["error"]["code"], reply.json()["error"]["param"]) == (
            400,
            "unsupported_parameter",
            "seed",
        )
        for message in (
            {"role": "tool", "tool_call_id": "x", "content": "y"},
            {"role": "user", "content": [{"type": "text", "text": "z"}]},
        ):
            reply = await sidecar.chat(model="bird", messages=[message])
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, "messages")
    async with serving(whole, unsupported="drop") as (sidecar, _):
        reply = await sidecar.chat("hi", model="bird", seed=7)
        assert (reply.status_code, reply.headers["x-llm-dropped-params"]) == (200, "seed")


def test_it_is_short() -> None:
    """The README prints the file as it is: about sixty lines of code, and none of them reads a private name."""
    lines = [line for line in EXAMPLE.read_text().splitlines() if line.strip()]
    assert len(lines) <= 75 and not any("._" in line or "import _" in line for line in lines)
