"""Retries: within a budget, as late as the provider asks, and never once the client has seen a byte."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Any

import pytest

from proxy.providers.openai_stream import OpenAIDecoder
from tests.fakes.dialects import dumps
from tests.fakes.httpwire import stream
from tests.fakes.scripted import VENDORS, Answer, Seen, events, refuse, say, stream_of
from tests.routing.conftest import Serve


@pytest.mark.parametrize("as_stream", [False, True])
async def test_r22_a_failing_upstream_is_not_stormed(serve: Serve, as_stream: bool) -> None:
    """R22: of an upstream that answers 503 to all, 200 calls make at most 1.2 × 200 + 3."""
    sidecar, provider = await serve(lambda seen: refuse(seen, 503, "down"), "openai", max_retries=3)
    replies = await asyncio.gather(*(sidecar.chat("hi", model="m", stream=as_stream) for _ in range(200)))
    assert {reply.status_code for reply in replies} == {502}
    assert 200 < len(provider.calls) <= 1.2 * 200 + 3
    metrics = sidecar.side.runtime.metrics
    assert metrics.upstream_retries.values == {("openai",): len(provider.calls) - 200}
    assert not metrics.tokens.values, "a refusal costs nothing"


@pytest.mark.slow
@pytest.mark.alone
async def test_r22_at_two_hundred_calls_a_second(serve: Serve) -> None:
    """R22 in full: twelve seconds at 200 a second."""
    sidecar, provider = await serve(lambda seen: refuse(seen, 503, "down"), "openai", max_retries=3)
    began = time.monotonic()
    tasks = []
    for i in range(2400):
        await asyncio.sleep(max(0.0, began + i / 200 - time.monotonic()))
        tasks.append(asyncio.ensure_future(sidecar.chat("hi", model="m")))
    await asyncio.gather(*tasks)
    windows = 1 + int((time.monotonic() - began) // 10)
    assert len(provider.calls) <= 1.2 * 2400 + 3 * windows


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 529])
async def test_what_may_pass_is_tried_again(serve: Serve, status: int) -> None:
    """T28: errors that another attempt may not meet are retried, and the caller never sees them."""

    def play(seen: Seen) -> Answer:
        return say(seen) if len(provider.calls) > 1 else refuse(seen, status, "a moment")

    sidecar, provider = await serve(play, "openai", max_retries=1)
    reply = await sidecar.chat("hi", model="m")
    assert reply.status_code == 200 and len(provider.calls) == 2


async def test_the_wait_before_a_retry_is_the_upstreams_time(serve: Serve) -> None:
    """What an upstream asks a call to wait is no overhead of ours, in the line and in server-timing."""

    def play(seen: Seen) -> Answer:
        return say(seen) if len(provider.calls) > 1 else refuse(seen, 429, "wait", retry_after="1")

    sidecar, provider = await serve(play, "openai", max_retries=1)
    reply = await sidecar.chat("hi", model="m")
    (line,) = await sidecar.lines()
    assert reply.status_code == 200 and line["retries"] == 1
    assert line["duration_ms"] > 1000 and line["overhead_ms"] < 500, line
    assert float(reply.headers["server-timing"].rpartition("dur=")[2]) > 1000


@pytest.mark.parametrize("interval", [0.0, 0.05])
async def test_a_translator_that_stumbles_in_mid_stream_is_an_upstream_error(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, interval: float
) -> None:
    """An exception of a translator ends the stream as an invalid answer, however its events arrived."""
    feed = OpenAIDecoder.feed

    def stumble(self: OpenAIDecoder, event: str, data: bytes) -> Any:
        if b'"finish_reason":"stop"' in data:
            raise KeyError("x")
        return feed(self, event, data)

    monkeypatch.setattr(OpenAIDecoder, "feed", stumble)
    pieces: list[bytes | float] = []

    def play(seen: Seen) -> Answer:
        for event in events(seen):
            pieces.extend((event.data, interval))
        return Answer(pieces, content_type="text/event-stream")

    sidecar, _ = await serve(play, "openai", max_retries=0)
    reply = await sidecar.chat("hi", model="m", stream=True)
    assert '"code":"upstream_invalid_response"' in reply.text and "[DONE]" not in reply.text
    (line,) = await sidecar.lines()
    assert (line["outcome"], line["code"]) == ("upstream_error", "upstream_invalid_response")


@pytest.mark.parametrize("body", [b"<html>SECRET</html>", b'{"SECRET": 1}', b'["SECRET"]', b"SECRET", b""])
async def test_a_garbage_answer_is_not_quoted(serve: Serve, body: bytes) -> None:
    """A 200 reply that is no answer is named by its kind and size: its text has not passed redaction."""
    answer = Answer(body, content_type="text/plain")
    for vendor in VENDORS:
        sidecar, _ = await serve(lambda seen: answer, vendor, max_retries=0)
        reply = await sidecar.chat("hi", model="m")
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_invalid_response")
        assert "SECRET" not in reply.text


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_what_stays_is_not_tried_again(serve: Serve, status: int) -> None:
    """The caller's own mistakes are the caller's."""
    sidecar, provider = await serve(lambda seen: refuse(seen, status, "wrong"), "openai", max_retries=3)
    assert (await sidecar.chat("hi", model="m")).status_code == status
    assert len(provider.calls) == 1


def _headers(**headers: str) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _in(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


#: How providers spell "wait 7 seconds", and for whom.
SPELLINGS: list[tuple[str, str, Any]] = [
    ("seconds", "openai", lambda: _headers(retry_after="7")),
    ("a fraction", "openai", lambda: _headers(retry_after="6.5")),
    ("milliseconds", "openai", lambda: _headers(retry_after_ms="6500", retry_after="100")),
    ("a date", "openai", lambda: _headers(retry_after=_in(7.9))),
    ("the limit's reset", "openai", lambda: {"x-ratelimit-reset-requests": "6s500ms"}),
    ("seconds from Azure", "azure_openai", lambda: _headers(retry_after="7")),
    ("seconds from Anthropic", "anthropic", lambda: _headers(retry_after="7")),
    ("Anthropic's reset", "anthropic", lambda: {
        "anthropic-ratelimit-requests-reset": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 7.9))}),
    ("RetryInfo", "gemini", "7s"),
    ("RetryInfo with a fraction", "gemini", "6.5s"),
    ("Gemini's words", "gemini", "words"),
]  # fmt: skip


def gemini_limit(delay: str) -> Answer:
    """Return Gemini's 429, the wait in RetryInfo or only in the message."""
    details = [] if delay == "words" else [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
    message = "Resource exhausted." + (" Please retry in 6.5s." if delay == "words" else "")
    return Answer(
        dumps({"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}}), 429
    )


@pytest.mark.parametrize(("spelling", "vendor", "how"), SPELLINGS, ids=[name for name, _, _ in SPELLINGS])
async def test_a_long_wait_is_the_callers(serve: Serve, spelling: str, vendor: str, how: Any) -> None:
    """A wait above the cap is passed on at once, in seconds, whatever its spelling; nothing is retried."""

    def play(seen: Seen) -> Answer:
        return gemini_limit(how) if vendor == "gemini" else Answer(seen.dialect.error(429, "slow", "", ""), 429, how())

    sidecar, provider = await serve(play, vendor, max_retries=3)
    reply = await sidecar.chat("hi", model=f"{vendor}/m")
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "upstream_rate_limited")
    assert reply.headers["retry-after"] in ("6", "7", "8") and len(provider.calls) == 1
    assert "x-ratelimit-reset-requests" not in reply.headers, "those describe our limits, never the provider's"


@pytest.mark.parametrize(("vendor", "how"), [("openai", "150"), ("gemini", "0.15s")])
async def test_a_short_wait_is_kept(serve: Serve, vendor: str, how: str) -> None:
    """A wait below the cap is waited for, and the caller only sees the answer."""

    def play(seen: Seen) -> Answer:
        if len(provider.calls) > 1:
            return say(seen)
        return gemini_limit(how) if vendor == "gemini" else refuse(seen, 429, "slow", retry_after_ms=how)

    sidecar, provider = await serve(play, vendor, max_retries=2)
    assert (await sidecar.chat("hi", model=f"{vendor}/m")).status_code == 200
    first, second = provider.calls
    assert 0.145 <= second.at - first.at < 1.0


@pytest.mark.parametrize("vendor", VENDORS)
async def test_nothing_is_retried_after_the_first_byte(serve: Serve, vendor: str) -> None:
    """R22: once content went out, a failure is an error frame, and the provider is left alone."""

    def play(seen: Seen) -> Answer:
        good = events(seen, chunks=4)
        content = next(i for i, event in enumerate(good) if event.mark == "chunk")
        return stream_of(seen, [event.data for event in good[: content + 1]], cut=True)

    sidecar, provider = await serve(play, vendor, max_retries=3)
    reply = await sidecar.chat("hi", model=f"{vendor}/m", stream=True)
    got = stream(reply.content)
    assert reply.status_code == 200 and (len(got.errors), got.done, got.numbers) == (1, 0, [1])
    assert got.errors[0]["code"] == "upstream_error"
    assert len(provider.calls) == 1


@pytest.mark.parametrize("vendor", VENDORS)
async def test_every_attempt_is_on_the_bill(serve: Serve, vendor: str) -> None:
    """T28: an attempt that broke off in the middle of a whole answer was work: its prompt is counted too."""

    def play(seen: Seen) -> Answer:
        good = seen.dialect.whole(seen.ask())
        return say(seen) if len(provider.calls) > 1 else Answer([good[: len(good) // 2]], cut=True)

    sidecar, provider = await serve(play, vendor, max_retries=1)
    words = "one two three four five six seven eight nine ten"
    reply = await sidecar.chat(words, model=f"{vendor}/m")
    assert reply.status_code == 200 and len(provider.calls) == 2
    (line,) = await sidecar.lines()
    said = reply.json()["usage"]["prompt_tokens"]
    assert line["retries"] == 1 and line["prompt_tokens"] >= said + 8 and line["estimated"]


async def test_a_second_provider_hears_of_the_first_ones_answer_nothing(serve: Serve) -> None:
    """A refused attempt leaves no request id, no header and no price behind."""

    def play(seen: Seen) -> Answer:
        if seen.path.endswith("/messages"):
            return refuse(seen, 529, "overloaded")
        answer = say(seen)
        answer.headers["x-request-id"] = "not/fit{to}be passed"
        return answer

    sidecar, _ = await serve(play, "anthropic", "openai", config={"models": {"smart": ["anthropic/a", "openai/b"]}})
    reply = await sidecar.chat("hi", model="smart")
    assert reply.status_code == 200
    assert "x-llm-applied-max-tokens" not in reply.headers and reply.headers["x-llm-provider"] == "openai"
    (line,) = await sidecar.lines()
    assert (line["retries"], line["estimated"]) == (1, False)
