"""Cases 83-93 and 113-118 of the translation table: whole replies and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from proxy.errors import TABLE, UpstreamError
from tests.providers.anthropic_case import decode, provider, reply, send, text


def use(ident: str, name: str = "f", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": ident, "name": name, "input": arguments}


def choice(*content: dict[str, Any], **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = decode(reply(*content, **more))["choices"][0]
    return found


def test_083_blocks_of_all_kinds_become_one_message() -> None:
    """Text is joined without separators, calls keep their order, arguments are JSON strings."""
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    message = choice(
        thought, text("a"), use("t1", n=1), hidden, text("b"), {"type": "server_tool_use", "id": "s", "name": "web"},
        {"type": "web_search_tool_result", "content": []}, text("c"), use("t2", "g"), stop="tool_use",
    )["message"]  # fmt: skip
    assert message["content"] == "abc"
    assert message["tool_calls"] == [
        {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"n":1}'}},
        {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert message["reasoning_content"] == "hm"
    assert message["thinking_blocks"] == [thought, {**hidden, "x_llm_after_calls": 1}]


def test_083_content_is_null_where_there_are_only_calls() -> None:
    """OpenAI says null, not an empty string."""
    assert choice(use("t1"), stop="tool_use")["message"]["content"] is None


@pytest.mark.parametrize(
    "content", [[], [use("t1")], [{"type": "thinking", "thinking": "", "signature": "s"}], [{"type": "news"}], ["odd"]]
)
def test_084_the_first_block_need_not_be_text(content: list[Any], schemas: Path) -> None:
    """Any list of blocks is an answer that passes OpenAI's schema."""
    schema = orjson.loads((schemas / "CreateChatCompletionResponse.real.json").read_bytes())
    jsonschema.Draft202012Validator(schema).validate(decode(reply(*content)))


@pytest.mark.parametrize(
    ("native", "mapped"),
    [
        ("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("tool_use", "tool_calls"),
        ("refusal", "content_filter"), ("pause_turn", "length"), ("model_context_window_exceeded", "length"),
        ("novelty", "stop"),
    ],
)  # fmt: skip
def test_085_every_stop_reason_has_its_finish_reason(native: str, mapped: str) -> None:
    """The vendor's own word stands beside ours."""
    found = choice(text("x"), stop=native)
    assert (found["finish_reason"], found["x_llm_native_finish_reason"]) == (mapped, native)


def test_085_no_stop_reason_is_stop() -> None:
    """A missing word is no word of the vendor's."""
    found = choice(text("x"), stop=None)
    assert found["finish_reason"] == "stop" and "x_llm_native_finish_reason" not in found


def test_085_refusals_carry_their_text() -> None:
    """The vendor's explanation, else the text, is the message's refusal."""
    assert choice(text("I can't."), stop="refusal")["message"]["refusal"] == "I can't."
    explained = choice(stop="refusal", stop_details={"type": "refusal", "explanation": "cyber"})
    assert explained["message"]["refusal"] == "cyber"
    assert choice(text("x"))["message"]["refusal"] is None


def test_090_usage_counts_cached_input_inside_the_prompt() -> None:
    """prompt = fresh + read + written; the parts stand in the details."""
    claimed = {
        "input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 1_000, "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 3},
    }  # fmt: skip
    assert decode(reply(text("x"), usage=claimed))["usage"] == {
        "prompt_tokens": 1_110,
        "completion_tokens": 7,
        "total_tokens": 1_117,
        "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 1_000},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }


@pytest.mark.parametrize("claimed", [{}, {"service_tier": "standard"}, "lots"])
def test_092_usage_that_is_missing_is_not_invented(claimed: Any) -> None:
    """The meter estimates what the vendor did not say."""
    assert "usage" not in decode(reply(text("x"), usage=claimed))


def test_092_zero_stays_zero_and_nonsense_counts_nothing() -> None:
    """Explicit zeros are facts; negative or textual counts are not."""
    zero = decode(reply(text("x"), usage={"input_tokens": 0, "output_tokens": 0}))["usage"]
    assert (zero["prompt_tokens"], zero["completion_tokens"], zero["total_tokens"]) == (0, 0, 0)
    odd = decode(reply(text("x"), usage={"input_tokens": -5, "output_tokens": "9"}))["usage"]
    assert (odd["prompt_tokens"], odd["completion_tokens"]) == (0, 0)


def test_093_envelope_is_openais() -> None:
    """The model is the upstream's own, the id the vendor's, created an integer."""
    data = decode(reply(text("x")))
    assert (data["model"], data["id"], data["object"], data["created"]) == (
        "claude-x", "msg_1", "chat.completion", 1_700_000_000,
    )  # fmt: skip


def test_057_big_integers_of_a_call_reach_the_client() -> None:
    """Arguments keep all their digits on the way back."""
    raw = orjson.dumps(reply(use("t1", n=0), stop="tool_use")).replace(b'"n":0', b'"n":123456789012345678901234567890')
    arguments = decode(raw)["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert arguments == '{"n":123456789012345678901234567890}'


def failed(status: int, body: bytes | dict[str, Any], headers: dict[str, str] | None = None) -> UpstreamError:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    error = provider().failure(status, headers or {}, raw)
    assert error.code in TABLE
    return error


def error(kind: str, message: str = "m") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


@pytest.mark.parametrize(
    ("status", "kind", "ours", "code"),
    [
        (400, "invalid_request_error", 400, "upstream_invalid_request"),
        (401, "authentication_error", 502, "upstream_auth_error"),
        (402, "billing_error", 502, "upstream_quota_exceeded"),
        (403, "permission_error", 502, "upstream_auth_error"),
        (404, "not_found_error", 404, "model_not_found"),
        (413, "request_too_large", 413, "upstream_invalid_request"),
        (429, "rate_limit_error", 429, "upstream_rate_limited"),
        (500, "api_error", 502, "upstream_error"),
        (504, "timeout_error", 504, "upstream_timeout"),
        (529, "overloaded_error", 503, "upstream_overloaded"),
    ],
)
def test_113_errors_follow_the_contracts_table(status: int, kind: str, ours: int, code: str) -> None:
    """Every error of the vendor has its place in the table."""
    found = failed(status, error(kind))
    assert (found.status, found.code) == (ours, code)
    assert found.native_code == kind


def test_113_breaker_and_retries_know_what_failed() -> None:
    """Overload counts against the target and may be retried; a bad request neither."""
    overload, bad, key = failed(529, error("overloaded_error")), failed(400, error("x")), failed(401, error("x"))
    assert (overload.retryable, overload.counts) == (True, True)
    assert (bad.retryable, bad.counts) == (False, False)
    assert (key.next_key, key.counts) == (True, False)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "17"}, 17.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"anthropic-ratelimit-requests-reset": "3s"}, 3.0),
    ],
)
def test_115_the_vendors_wait_becomes_retry_after(headers: dict[str, str], wait: float) -> None:
    """Whatever its spelling."""
    found = failed(429, error("rate_limit_error"), headers)
    assert found.retry_after == wait
    assert dict(found.headers)["retry-after"] == str(-int(-wait // 1))
    assert not any(name.startswith("anthropic-") for name, _ in found.headers)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html><h1>502 Bad Gateway</h1></html>", b"upstream sk-ant-api03-abcdefghij", b"[1]", b'{"error":"no"}'],
)
def test_116_bodies_that_are_no_json_error_are_scrubbed(body: bytes) -> None:
    """A short, clean message; no key, no markup."""
    found = failed(502, body)
    assert found.code == "upstream_error"
    assert "sk-ant-api03" not in found.message and "<" not in found.message and len(found.message) < 300


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (error("overloaded_error"), "upstream_overloaded"),
        ({"error": {"type": "rate_limit_error", "message": "slow"}}, "upstream_rate_limited"),
        ({"choices": []}, "upstream_invalid_response"),
        ({"content": "text"}, "upstream_invalid_response"),
        (b"<html>", "upstream_invalid_response"),
        (b"", "upstream_invalid_response"),
        (b"[" * 100_000, "upstream_invalid_response"),
    ],
)
def test_117_a_200_that_is_no_message_is_an_error(body: Any, code: str) -> None:
    """Never a fake success."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    with pytest.raises(UpstreamError) as caught:
        provider().decode(200, {}, raw, send())
    assert caught.value.code == code


@pytest.mark.parametrize(
    "message",
    [
        "prompt is too long: 210000 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
    ],
)
def test_118_context_overflow_has_its_own_code(message: str) -> None:
    """Clients cut their history on this word."""
    found = failed(400, error("invalid_request_error", message))
    assert (found.status, found.code) == (400, "context_length_exceeded")


def test_known_models_and_probe() -> None:
    """`check --probe` lists models with the version header and no body."""
    probe = provider().probe()
    assert (probe.method, probe.path.partition("?")[0], probe.body) == ("GET", "/v1/models", b"")
    assert ("anthropic-version", "2023-06-01") in probe.headers
    assert provider().known_models(b'{"data":[{"id":"b"},{"id":"a"},{}]}') == ["a", "b"]
    assert provider().credentials("k") == [("x-api-key", "k")]


@pytest.mark.parametrize("claimed", [{}, {"input_tokens": None, "output_tokens": None}, {"output_tokens": 5}])
def test_092_half_a_usage_is_estimated(claimed: dict[str, Any]) -> None:
    """A count that is missing or null is none: nobody bills a prompt of zero tokens."""
    assert "usage" not in decode(reply(text("x"), usage=claimed))
    zero = decode(reply(text("x"), usage={"input_tokens": 3, "output_tokens": 0}))
    assert zero["usage"]["completion_tokens"] == 0


def test_085_a_call_without_a_stop_reason_is_a_call() -> None:
    """Servers that leave `stop_reason` out, or an id, still get their call through."""
    made = decode(reply({"type": "tool_use", "name": "f", "input": None}, stop=None))["choices"][0]
    assert made["finish_reason"] == "tool_calls"
    assert made["message"]["tool_calls"][0]["id"].startswith("toolu_")
