"""Translation cases that belong to the core, through a whole sidecar, for every vendor: named after their numbers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.core.inline import Inline
from tests.fakes.dialects import dumps
from tests.fakes.httpwire import sse, stream
from tests.fakes.rawclient import AsyncRawClient, chat, request
from tests.fakes.scripted import VENDORS, Answer, Scripted, Seen, events, refuse, say, stream_of
from tests.providers.recordings import Answer as Said
from tests.providers.recordings import validator
from tests.routing.conftest import Serve

TOOLS = [
    {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"i": {"type": "integer"}}}},
    }
]


def well_formed(body: bytes, *, usage: bool) -> Any:
    """Assert all that holds for a good stream (95, 96, 100, 101, 111); return what it says."""
    seen = stream(body)
    assert (seen.done, seen.after_end, seen.errors) == (1, 0, []), seen
    assert [data for _, data in sse(body)][-1] == "[DONE]"
    chunks = seen.chunks
    assert len({(c["id"], c["model"], c["created"]) for c in chunks}) == 1 and chunks[0]["id"]
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    if usage:
        assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] > 0
        assert all(c["usage"] is None for c in chunks[:-1])
        chunks = chunks[:-1]
    else:
        assert not any("usage" in c for c in chunks)
    assert all(c["choices"] for c in chunks), "clients index choices[0]"
    deltas = [c["choices"][0] for c in chunks]
    assert [i for i, d in enumerate(deltas) if "role" in d["delta"]] == [0] and deltas[0]["delta"][
        "role"
    ] == "assistant"
    assert [i for i, d in enumerate(deltas) if d["finish_reason"]] == [len(deltas) - 1]
    heads = [call for d in deltas for call in d["delta"].get("tool_calls") or () if call.get("id")]
    assert [call["index"] for call in heads] == list(range(len(heads))) and all(
        call["function"]["name"] for call in heads
    )
    return seen


async def both_forms(sidecar: Inline, schemas: Path, vendor: str, **more: Any) -> tuple[Said, Said]:
    """Ask for a whole reply and for a stream; assert that both are valid and say the same; return what they say."""
    whole = (await sidecar.chat("hi", model=f"{vendor}/m", **more)).json()
    validator(schemas, "CreateChatCompletionResponse").validate(whole)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    streamed = await sidecar.chat("hi", model=f"{vendor}/m", **options, **more)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    chunks = well_formed(streamed.content, usage=True).chunks
    chunk_validator = validator(schemas, "CreateChatCompletionStreamResponse")
    for chunk in chunks:
        chunk_validator.validate(chunk)
    first, second = Said.whole(whole), Said.stream(chunks)
    assert (first.text, first.calls, first.finish) == (second.text, second.calls, second.finish)
    assert first.usage and second.usage and first.usage["total_tokens"] == second.usage["total_tokens"] > 0
    return first, second


@pytest.mark.parametrize("vendor", VENDORS)
async def test_101_111_usage_is_shown_to_who_asked(serve: Serve, vendor: str) -> None:
    """101, 111: we always ask the provider; the caller sees one usage chunk, last, if it asked, else none."""
    sidecar, provider = await serve(say, vendor)
    plain = await sidecar.chat("hi", model=f"{vendor}/m", stream=True)
    asked = await sidecar.chat("hi", model=f"{vendor}/m", stream=True, stream_options={"include_usage": True})
    whole = await sidecar.chat("hi", model=f"{vendor}/m")
    seen = well_formed(asked.content, usage=True)
    unasked, counted = (Said.stream(one.chunks) for one in (well_formed(plain.content, usage=False), seen))
    assert (unasked.text, unasked.calls) == (counted.text, counted.calls)
    assert seen.chunks[-1]["usage"]["completion_tokens"] == whole.json()["usage"]["completion_tokens"]
    if vendor in ("openai", "azure_openai"):
        assert provider.calls[0].body["stream_options"] == {"include_usage": True}
    lines = await sidecar.lines()
    assert len({(line["prompt_tokens"], line["completion_tokens"], line["estimated"]) for line in lines}) == 1


@pytest.mark.parametrize("what", ["text", "tools", "cut short"])
@pytest.mark.parametrize("vendor", VENDORS)
async def test_101_111_whole_and_streamed_say_the_same(serve: Serve, schemas: Path, vendor: str, what: str) -> None:
    """93, 95–101, 111: both forms validate against OpenAI's schemas, and hold the same text, calls and finish."""
    behaviour: dict[str, Any] = {"text": {}, "tools": {"tools": 2}, "cut short": {"finish": "length"}}[what]
    sidecar, _ = await serve(lambda seen: say(seen, **behaviour), vendor)
    said, _ = await both_forms(sidecar, schemas, vendor, **({"tools": TOOLS} if what == "tools" else {}))
    assert said.finish == {"text": "stop", "tools": "tool_calls", "cut short": "length"}[what]
    assert [name for name, _ in said.calls] == (["f", "f"] if what == "tools" else [])
    assert bool(said.text) is (what != "tools")


@pytest.mark.parametrize("vendor", VENDORS)
async def test_101_usage_that_no_vendor_said_is_an_estimate(serve: Serve, schemas: Path, vendor: str) -> None:
    """101, 111: a provider that says no usage, or none to be believed, costs no caller the usage it asked for."""
    for said in ("absent", "huge"):
        sidecar, _ = await serve(lambda seen, said=said: say(seen, usage=said), vendor)
        for one in await both_forms(sidecar, schemas, vendor):
            assert one.usage and one.usage["x_llm_estimated"] is True
        lines = await sidecar.lines()
        assert all(line["estimated"] and 0 < line["completion_tokens"] < 100 for line in lines)


@pytest.mark.parametrize("vendor", VENDORS)
async def test_105_an_end_without_the_terminal_event(serve: Serve, vendor: str) -> None:
    """105: the text that came is kept and paid for, then an error frame: truncated is never a success."""

    def play(seen: Seen) -> Answer:
        return stream_of(seen, [e.data for e in events(seen, chunks=4) if e.mark not in ("finish", "usage", "done")])

    sidecar, _ = await serve(play, vendor)
    reply = await sidecar.chat("hi", model=f"{vendor}/m", stream=True)
    seen = stream(reply.content)
    assert seen.numbers == [1, 2, 3, 4]
    assert (seen.done, [e["code"] for e in seen.errors]) == (0, ["upstream_error"])
    (line,) = await sidecar.lines()
    assert line["outcome"] == "upstream_error" and line["completion_tokens"] > 0 and line["prompt_tokens"] > 0


@pytest.mark.parametrize("as_stream", [True, False])
@pytest.mark.parametrize("vendor", VENDORS)
async def test_108_a_client_that_leaves(serve: Serve, vendor: str, as_stream: bool) -> None:
    """108: its upstream is closed within 100 ms, what was produced is paid, and no task is left to complain."""

    def play(seen: Seen) -> Answer:
        if not as_stream:
            return Answer([b"{", 5.0])
        good = events(seen)
        first = next(i for i, event in enumerate(good) if event.mark == "chunk")
        return stream_of(seen, [*(event.data for event in good[: first + 1]), 5.0])

    sidecar, provider = await serve(play, vendor)
    async with await AsyncRawClient.open(sidecar.client.base_url.port) as leaver:
        await leaver.send(request(body=chat(f"{vendor}/m", stream=as_stream)))
        if as_stream:
            await leaver.read_until(b" 000001")
        else:
            while not provider.calls:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
        left = leaver.reset()
    await _until(lambda: provider.calls[0].left is not None)
    assert provider.calls[0].left is not None and provider.calls[0].left - left < 0.25
    (line,) = await sidecar.lines()
    assert line["outcome"] == "client_gone" and line["prompt_tokens"] > 0
    assert (line["completion_tokens"] > 0) is as_stream


async def _until(true: Any, seconds: float = 2.0) -> None:
    limit = time.monotonic() + seconds
    while not true() and time.monotonic() < limit:
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("vendor", VENDORS)
async def test_109_a_stream_by_another_name(serve: Serve, vendor: str) -> None:
    """Events that are sent as plain text are a stream all the same, whole and cut."""

    def named(seen: Seen) -> Answer:
        ask = seen.ask()
        ask.include_usage = True
        events = [event.data for event in seen.dialect.events(ask)]
        return Answer(b"".join(events[: 2 if "cut" in seen.raw.decode() else None]), content_type="text/plain")

    sidecar, _ = await serve(named, vendor, max_retries=0)
    streamed = await sidecar.chat("hi", model=f"{vendor}/m", stream=True, stream_options={"include_usage": True})
    assert Said.stream(well_formed(streamed.content, usage=True).chunks).text
    cut = await sidecar.chat("cut", model=f"{vendor}/m", stream=True)
    assert cut.status_code == 502, cut.text


@pytest.mark.parametrize("vendor", VENDORS)
async def test_109_a_byte_order_mark_is_no_part_of_the_answer(serve: Serve, vendor: str) -> None:
    """A server that begins its JSON with a byte order mark is understood, and the client gets JSON without one."""
    sidecar, _ = await serve(lambda seen: Answer(b"\xef\xbb\xbf" + seen.dialect.whole(seen.ask())), vendor)
    reply = await sidecar.chat("hi", model=f"{vendor}/m")
    assert reply.status_code == 200 and reply.content.startswith(b"{")
    assert reply.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("what", ["text", "tools"])
@pytest.mark.parametrize("vendor", VENDORS)
async def test_109_an_answer_in_the_other_form(serve: Serve, schemas: Path, vendor: str, what: str) -> None:
    """109, 112: JSON for a stream becomes a good stream, a stream for JSON a good whole reply, saying the same."""
    behaviour: dict[str, Any] = {"tools": 2} if what == "tools" else {}

    def turned(seen: Seen) -> Answer:
        ask = seen.ask(**behaviour)
        if ask.stream:
            return Answer(seen.dialect.whole(ask))
        ask.include_usage = True
        return stream_of(seen, [event.data for event in seen.dialect.events(ask)])

    sidecar, _ = await serve(turned, vendor)
    said, _ = await both_forms(sidecar, schemas, vendor, **({"tools": TOOLS} if what == "tools" else {}))
    assert bool(said.calls) is (what == "tools")


@pytest.mark.parametrize("vendor", VENDORS)
async def test_110_a_filter_in_mid_stream_ends_it_normally(serve: Serve, vendor: str) -> None:
    """110: text so far, finish `content_filter`, [DONE]: a refusal is an answer."""
    sidecar, _ = await serve(lambda seen: say(seen, finish="content_filter"), vendor)
    reply = await sidecar.chat("hi", model=f"{vendor}/m", stream=True)
    seen = well_formed(reply.content, usage=False)
    assert seen.finish == "content_filter" and seen.numbers == [1, 2, 3]
    (line,) = await sidecar.lines()
    assert line["outcome"] == "completed"


# --- 113 to 118 -------------------------------------------------------------------------------------------

#: Vendor -> (status, the vendor's word, its message, our status, our code).
TABLE: dict[str, list[tuple[int, str, str, int, str]]] = {
    "openai": [
        (400, "", "wrong", 400, "upstream_invalid_request"),
        (400, "context_length_exceeded", "too long", 400, "context_length_exceeded"),
        (401, "invalid_api_key", "bad", 502, "upstream_auth_error"),
        (403, "", "country", 502, "upstream_auth_error"),
        (404, "model_not_found", "no such model", 404, "model_not_found"),
        (413, "", "big", 413, "upstream_invalid_request"),
        (422, "", "shape", 422, "upstream_invalid_request"),
        (429, "rate_limit_exceeded", "slow", 429, "upstream_rate_limited"),
        (429, "insufficient_quota", "You exceeded your current quota", 502, "upstream_quota_exceeded"),
        (500, "", "oops", 502, "upstream_error"),
        (503, "", "down", 502, "upstream_error"),
    ],
    "azure_openai": [
        (400, "content_filter", "filtered", 400, "upstream_invalid_request"),
        (401, "401", "Access denied due to invalid subscription key", 502, "upstream_auth_error"),
        (404, "DeploymentNotFound", "The API deployment does not exist", 404, "model_not_found"),
        (429, "429", "Requests have exceeded call rate limit", 429, "upstream_rate_limited"),
    ],
    "anthropic": [
        (400, "invalid_request_error", "wrong", 400, "upstream_invalid_request"),
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", 400, "context_length_exceeded"),
        (400, "invalid_request_error", "Your credit balance is too low", 502, "upstream_quota_exceeded"),
        (401, "authentication_error", "invalid x-api-key", 502, "upstream_auth_error"),
        (403, "permission_error", "no", 502, "upstream_auth_error"),
        (404, "not_found_error", "model: m", 404, "model_not_found"),
        (413, "request_too_large", "big", 413, "upstream_invalid_request"),
        (429, "rate_limit_error", "slow", 429, "upstream_rate_limited"),
        (500, "api_error", "oops", 502, "upstream_error"),
        (529, "overloaded_error", "Overloaded", 503, "upstream_overloaded"),
    ],
    "gemini": [
        (400, "INVALID_ARGUMENT", "wrong", 400, "upstream_invalid_request"),
        (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", 502, "upstream_auth_error"),
        (400, "INVALID_ARGUMENT", "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).", 400, "context_length_exceeded"),
        (403, "PERMISSION_DENIED", "no", 502, "upstream_auth_error"),
        (404, "NOT_FOUND", "models/m is not found", 404, "model_not_found"),
        (429, "RESOURCE_EXHAUSTED", "exhausted", 429, "upstream_rate_limited"),
        (500, "INTERNAL", "oops", 502, "upstream_error"),
        (503, "UNAVAILABLE", "The model is overloaded.", 503, "upstream_overloaded"),
    ],
}  # fmt: skip


def vendor_error(vendor: str, status: int, word: str, message: str) -> bytes:
    if vendor == "gemini":
        return dumps({"error": {"code": status, "message": message, "status": word}})
    if vendor == "anthropic":
        return dumps({"type": "error", "error": {"type": word, "message": message}, "request_id": "req_1"})
    return dumps({"error": {"message": message, "type": "some_error", "param": None, "code": word or None}})


@pytest.mark.parametrize("vendor", VENDORS)
async def test_113_114_118_errors_follow_the_table(serve: Serve, schemas: Path, vendor: str) -> None:
    """113, 114, 118: each vendor's refusals in OpenAI's shape by contract.md, whole and streamed, words kept."""
    errors = validator(schemas, "ErrorResponse")
    queue: list[bytes | int] = []
    sidecar, _ = await serve(lambda seen: Answer(queue[1], queue[0]), vendor)  # type: ignore[arg-type]
    for status, word, message, ours, code in TABLE[vendor]:
        for as_stream in (False, True):
            queue[:] = [status, vendor_error(vendor, status, word, message)]
            reply = await sidecar.chat("hi", model=f"{vendor}/m", stream=as_stream)
            error = reply.json()["error"]
            assert (reply.status_code, error["code"]) == (ours, code), (status, word, message, reply.text)
            errors.validate(reply.json())
            kept = message.split(" (")[0] in error["message"]
            assert kept or code in ("upstream_auth_error", "upstream_quota_exceeded"), error
            assert ("x-should-retry" in reply.headers) is (code in ("upstream_auth_error", "upstream_quota_exceeded"))


async def test_114_geminis_errors_in_an_array(serve: Serve) -> None:
    """114: the array form is the same error."""
    body = dumps([{"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED", "details": [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}]}}])  # fmt: skip
    sidecar, _ = await serve(lambda seen: Answer(body, 429), "gemini")
    reply = await sidecar.chat("hi", model="m", stream=True)
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "17")


@pytest.mark.parametrize("vendor", VENDORS)
async def test_115_limits_in_headers_are_ours(serve: Serve, vendor: str) -> None:
    """115: the provider's own limit headers stay behind, on success and refusal; only its wait is passed on."""
    theirs = {
        "x-ratelimit-limit-requests": "9", "x-ratelimit-remaining-requests": "8", "anthropic-ratelimit-requests-limit": "9",
        "anthropic-ratelimit-tokens-remaining": "7", "x-ms-region": "x", "retry-after": "11",
    }  # fmt: skip

    def play(seen: Seen) -> Answer:
        answer = say(seen) if len(provider.calls) == 1 else refuse(seen, 429, "slow")
        answer.headers.update(theirs)
        return answer

    sidecar, provider = await serve(play, vendor)
    good = await sidecar.chat("hi", model=f"{vendor}/m")
    bad = await sidecar.chat("hi", model=f"{vendor}/m")
    assert (good.status_code, bad.status_code, bad.headers["retry-after"]) == (200, 429, "11")
    assert "retry-after" not in good.headers
    assert not any("ratelimit" in name or "region" in name for reply in (good, bad) for name in reply.headers)


BODIES = [
    (b"<html><head><title>502</title></head><body><h1>Bad Gateway</h1>" + b"x" * 5000 + b"</body></html>", "text/html"),
    (b"", ""),
    (b"upstream connect error or disconnect/reset before headers", "text/plain"),
    (b'{"error": "sk-proj-abcdefghijklmnop was refused"}', "application/json"),
    (b"\xff\xfe\x00garbage", "application/octet-stream"),
    (b'{"detail":[{"msg":"field required"}]}', "application/json"),
    (b"[]", "application/json"),
    (b"null", "application/json"),
]


@pytest.mark.parametrize("vendor", VENDORS)
async def test_116_bodies_that_are_no_errors(serve: Serve, vendor: str) -> None:
    """116: HTML, text, nothing: one JSON error, at most 200 characters of it, no key in it."""
    queue: list[tuple[bytes, str]] = []
    sidecar, _ = await serve(lambda seen: Answer(queue[0][0], 502, content_type=queue[0][1] or "text/plain"), vendor)
    for body, kind in BODIES:
        queue[:] = [(body, kind)]
        reply = await sidecar.chat("hi", model=f"{vendor}/m")
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_error"), body
        message = reply.json()["error"]["message"]
        assert "sk-proj" not in message and "<" not in message and len(message) < 300 and message.isprintable()


async def test_116_an_error_that_breaks_off_keeps_its_status(serve: Serve) -> None:
    """116: a 429 whose body is cut, or has no end, is a 429."""

    def play(seen: Seen) -> Answer:
        pieces = [b'{"error":'] if len(provider.calls) == 1 else [b" " * 100_000] * 20
        return Answer(pieces, 429, {"retry-after": "60"}, cut=True)

    sidecar, provider = await serve(play, "openai")
    for _ in range(2):
        reply = await sidecar.chat("hi", model="m")
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "upstream_rate_limited")
        assert reply.headers["retry-after"] == "60"


async def test_85_an_unknown_stop_reason_is_counted_and_said_once(serve: Serve) -> None:
    """85: it reads `stop` with the vendor's word beside it; the metric and one warning tell the operator."""

    def play(seen: Seen) -> Answer:
        answer = say(seen)
        if isinstance(answer.body, bytes):
            answer.body = answer.body.replace(b"end_turn", b"went_home")
        else:
            answer.body = [piece.replace(b"end_turn", b"went_home") for piece in answer.body]  # type: ignore[union-attr]
        return answer

    sidecar, _ = await serve(play, "anthropic")
    whole = (await sidecar.chat("hi", model="m")).json()["choices"][0]
    assert (whole["finish_reason"], whole["x_llm_native_finish_reason"]) == ("stop", "went_home")
    await sidecar.chat("hi", model="m", stream=True)
    metrics = (await sidecar.client.get("/metrics")).text
    assert 'llm_unknown_finish_reasons_total{provider="anthropic"} 2.0' in metrics
    (warning,) = await sidecar.lines("unknown_finish_reason")
    assert (warning["provider"], warning["word"], warning["level"]) == ("anthropic", "went_home", "warning")


async def test_keys_do_not_leak_in_mid_stream(serve: Serve) -> None:
    """An error event that repeats our key reaches the client without it."""

    def play(seen: Seen) -> Answer:
        good = [event.data for event in events(seen)][:3]
        return stream_of(seen, [*good, seen.dialect.error_event(f"bad key {seen.key}!", "server_error")])

    for vendor in ("openai", "anthropic"):
        sidecar, provider = await serve(play, vendor, api_key="verysecretwordwithoutashape")
        reply = await sidecar.chat("hi", model=f"{vendor}/m", stream=True)
        assert "verysecret" not in reply.text and "[REDACTED]" in reply.text
        assert isinstance(provider, Scripted)
