"""A stream's preamble is held back: an error before the first content is retried, or answered with its own status."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.dialects import Gemini, dumps
from tests.fakes.httpwire import stream
from tests.fakes.scripted import VENDORS, Answer, Seen, events, say, stream_of
from tests.routing.conftest import Serve

#: Vendor -> the overload as it stands inside a stream, and what contract.md 2 makes of it.
ERRORS: dict[str, list[tuple[bytes, int, str]]] = {
    "openai": [
        (b'data: {"error":{"message":"overloaded","type":"overloaded_error","code":null}}\n\n', 503, "upstream_overloaded"),
        (b'data: {"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}}\n\n', 429, "upstream_rate_limited"),
        (b'data: {"error":{"message":"oops","type":"server_error","code":"500"}}\n\n', 502, "upstream_error"),
    ],
    "azure_openai": [
        (b'data: {"error":{"message":"busy","type":"server_error","code":"429"}}\n\n', 429, "upstream_rate_limited"),
    ],
    "anthropic": [
        (b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n', 503, "upstream_overloaded"),
        (b'event: error\ndata: {"type":"error","error":{"type":"rate_limit_error","message":"slow"}}\n\n', 429, "upstream_rate_limited"),
        (b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"oops"}}\n\n', 502, "upstream_error"),
    ],
    "gemini": [
        (b'data: {"error":{"code":503,"message":"The model is overloaded","status":"UNAVAILABLE"}}\r\n\r\n', 503, "upstream_overloaded"),
        (b'data: {"error":{"code":429,"message":"exhausted","status":"RESOURCE_EXHAUSTED"}}\r\n\r\n', 429, "upstream_rate_limited"),
        (b'data: [{"error":{"code":500,"message":"oops","status":"INTERNAL"}}]\r\n\r\n', 502, "upstream_error"),
    ],
}  # fmt: skip
CASES = [(vendor, *case) for vendor, cases in ERRORS.items() for case in cases]


def preamble(seen: Seen) -> list[bytes]:
    """Return what the vendor sends before the first content."""
    found = []
    for event in events(seen):
        if event.mark == "chunk":
            return found
        found.append(event.data)
    return found


AZURE_NOTES = (
    b'data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0}]}\n\n'
)


def opening(seen: Seen, vendor: str) -> list[bytes]:
    return ([AZURE_NOTES] if vendor == "azure_openai" else []) + ([] if vendor == "gemini" else preamble(seen))


@pytest.mark.parametrize(("vendor", "error", "status", "code"), CASES, ids=[f"{c[0]}-{c[3]}" for c in CASES])
async def test_104_106_an_error_before_any_content_has_its_status(
    serve: Serve, vendor: str, error: bytes, status: int, code: str
) -> None:
    """104, 106: role, ping, message_start and annotations are no answer yet: 529 is a 503, not a broken 200."""
    sidecar, _ = await serve(lambda seen: stream_of(seen, [*opening(seen, vendor), 0.02, error]), vendor)
    reply = await sidecar.chat("hi", model=f"{vendor}/m", stream=True)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code), reply.text
    assert reply.headers["content-type"] == "application/json"
    (line,) = await sidecar.lines()
    assert (line["status"], line["outcome"]) == (status, "upstream_error")


@pytest.mark.parametrize(("vendor", "error", "status", "code"), CASES, ids=[f"{c[0]}-{c[3]}" for c in CASES])
async def test_104_106_and_is_retried(serve: Serve, vendor: str, error: bytes, status: int, code: str) -> None:
    """104, 106: with retries allowed the caller sees one whole stream and nothing of the first attempt."""

    def play(seen: Seen) -> Answer:
        return say(seen) if len(provider.calls) > 1 else stream_of(seen, [*opening(seen, vendor), error])

    sidecar, provider = await serve(play, vendor, max_retries=1)
    reply = await sidecar.chat("hi", model=f"{vendor}/m", stream=True)
    seen = stream(reply.content)
    assert (seen.numbers, seen.done, seen.errors, seen.finish) == ([1, 2, 3], 1, [], "stop")
    assert sum("role" in c["choices"][0]["delta"] for c in seen.chunks if c["choices"]) == 1
    assert len({chunk["id"] for chunk in seen.chunks}) == 1 and len(provider.calls) == 2


@pytest.mark.parametrize(("vendor", "error", "status", "code"), CASES, ids=[f"{c[0]}-{c[3]}" for c in CASES])
async def test_104_106_an_error_after_content_is_a_frame(
    serve: Serve, vendor: str, error: bytes, status: int, code: str
) -> None:
    """104, 106: what was said stays said, then one error frame and no [DONE]."""

    def play(seen: Seen) -> Answer:
        good = events(seen)
        first = next(i for i, event in enumerate(good) if event.mark == "chunk")
        return stream_of(seen, [*(event.data for event in good[: first + 1]), error])

    sidecar, provider = await serve(play, vendor, max_retries=3)
    reply = await sidecar.chat("hi", model=f"{vendor}/m", stream=True)
    seen = stream(reply.content)
    assert (reply.status_code, seen.numbers, seen.done, seen.after_end) == (200, [1], 0, 0)
    assert [error["code"] for error in seen.errors] == [code] and len(provider.calls) == 1


async def test_107_a_silent_beginning_is_kept_alive(serve: Serve) -> None:
    """107: comments while the provider thinks, for every vendor; the headers are whole though they go out early."""

    def play(seen: Seen) -> Answer:
        first = preamble(seen)
        if isinstance(seen.dialect, Gemini):
            return stream_of(seen, [0.45, *(event.data for event in events(seen))])
        return stream_of(seen, [*first, 0.45, *(event.data for event in events(seen)[len(first) :])])

    sidecar, _ = await serve(play, *VENDORS, config={"server": {"keep_alive": "0.1s"}})
    replies = await asyncio.gather(*(sidecar.chat("hi", model=f"{vendor}/m", stream=True) for vendor in VENDORS))
    for vendor, reply in zip(VENDORS, replies, strict=True):
        assert reply.content.startswith(b": keep-alive\n\n") and 1 <= reply.content.count(b": keep-alive\n\n") <= 4
        assert reply.headers["x-llm-provider"] == vendor
        assert reply.headers.get("x-llm-applied-max-tokens") == ("1000" if vendor == "anthropic" else None)
        seen = stream(reply.content)
        assert (seen.numbers, seen.done, seen.errors) == ([1, 2, 3], 1, [])


async def test_107_after_a_comment_an_error_is_a_frame(serve: Serve) -> None:
    """107: the first comment commits the status: what fails then is not tried again."""
    error = ERRORS["anthropic"][0][0]
    sidecar, provider = await serve(
        lambda seen: stream_of(seen, [*preamble(seen), 0.6, error]), "anthropic", max_retries=3,
        config={"server": {"keep_alive": "0.2s"}},
    )  # fmt: skip
    reply = await sidecar.chat("hi", model="m", stream=True)
    assert reply.status_code == 200 and len(provider.calls) == 1
    seen = stream(reply.content)
    assert [e["code"] for e in seen.errors] == ["upstream_overloaded"] and not seen.done
    (line,) = await sidecar.lines()
    assert line["status"] == 503


async def test_107_a_stream_that_falls_silent_ends_in_a_timeout(serve: Serve) -> None:
    """107: after the idle limit every vendor's caller gets a 504's words in an error frame."""

    def play(seen: Seen) -> Answer:
        good = events(seen)
        first = next(i for i, event in enumerate(good) if event.mark == "chunk")
        return stream_of(seen, [*(event.data for event in good[: first + 1]), 5.0])

    timeout = {"connect": 1, "first_byte": 1, "idle": 0.3, "total": 10}
    sidecar, _ = await serve(play, *VENDORS, timeout=timeout)
    work = asyncio.gather(*(sidecar.chat("hi", model=f"{vendor}/m", stream=True) for vendor in VENDORS))
    for reply in await asyncio.wait_for(work, 3):
        seen = stream(reply.content)
        assert [error["code"] for error in seen.errors] == ["upstream_timeout"] and seen.numbers == [1]
    assert [line["status"] for line in await sidecar.lines()] == [504] * 4


# --- 117 --------------------------------------------------------------------------------------------------

#: A 200 that is none.
FAKES: dict[str, list[Any]] = {
    "openai": [{"error": {"message": "no", "type": "server_error"}}, {"hello": 1}, [1], "x"],
    "azure_openai": [{"error": {"message": "no", "code": "InternalServerError"}}, {"choices": "none"}],
    "anthropic": [
        {"type": "error", "error": {"type": "api_error", "message": "no"}},
        {"content": "text"},
        {"choices": []},
    ],
    "gemini": [
        {"error": {"code": 500, "message": "no"}},
        [{"error": {"code": 500, "message": "no"}}],
        {},
        {"candidates": 4},
    ],
}


@pytest.mark.parametrize("as_stream", [False, True])
@pytest.mark.parametrize("vendor", VENDORS)
async def test_117_a_200_with_an_error_in_it_is_an_error(serve: Serve, vendor: str, as_stream: bool) -> None:
    """117: never a fake success, whatever form was asked for; it is retried, and counts for the breaker."""
    bodies = [dumps(body) for body in FAKES[vendor]] + [b"<html>ok</html>", b""]
    left = list(bodies)
    sidecar, provider = await serve(
        lambda seen: Answer(left.pop(0)), vendor, breaker={"failures": len(bodies), "open": "60s"}
    )
    for body in bodies:
        reply = await sidecar.chat("hi", model=f"{vendor}/m", stream=as_stream)
        assert reply.status_code == 502, (body, reply.text)
        assert reply.json()["error"]["code"] in ("upstream_error", "upstream_invalid_response"), body
    assert (await sidecar.chat("hi", model=f"{vendor}/m")).json()["error"]["code"] == "circuit_open"
    assert len(provider.calls) == len(bodies)
