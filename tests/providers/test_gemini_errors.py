"""Gemini's errors in the contract's table: translation cases 113 to 118."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.errors import UpstreamError
from tests.providers.gemini_kit import decode, gemini


def fail(
    status: int, message: str = "m", word: str = "", *, details: Any = None, array: bool = False, **settings: Any
) -> UpstreamError:
    """Return the error for a recorded shape of body."""
    error = {"code": status, "message": message, "status": word, **({"details": details} if details else {})}
    body: Any = {"error": error}
    return gemini(**settings).failure(status, {}, orjson.dumps([body] if array else body))


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize(
    ("status", "word", "message", "ours", "code"),
    [
        (400, "INVALID_ARGUMENT", "Unsupported field.", 400, "upstream_invalid_request"),
        (
            400,
            "FAILED_PRECONDITION",
            "User location is not supported for the API use.",
            400,
            "upstream_invalid_request",
        ),
        (401, "UNAUTHENTICATED", "x", 502, "upstream_auth_error"),
        (403, "PERMISSION_DENIED", "x", 502, "upstream_auth_error"),
        (404, "NOT_FOUND", "models/x is not found for API version v1beta", 404, "model_not_found"),
        (413, "", "Request too large", 413, "upstream_invalid_request"),
        (429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).", 429, "upstream_rate_limited"),
        (500, "INTERNAL", "An internal error has occurred.", 502, "upstream_error"),
        (503, "UNAVAILABLE", "The model is overloaded. Please try again later.", 503, "upstream_overloaded"),
        (504, "DEADLINE_EXCEEDED", "x", 504, "upstream_timeout"),
    ],
)
def test_113_the_table(status: int, word: str, message: str, ours: int, code: str, array: bool) -> None:
    """Every status, as an object and as an array."""
    error = fail(status, message, word, array=array)
    assert (error.status, error.code, error.upstream_status) == (ours, code, status)
    assert set(orjson.loads(error.body())["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "message", ["API key not valid. Please pass a valid API key.", "API Key not found.", "API key expired."]
)
def test_114_a_bad_key_is_ours_whatever_the_status(message: str) -> None:
    """400 INVALID_ARGUMENT about the key is 502: the caller can do nothing."""
    error = fail(400, message, "INVALID_ARGUMENT")
    assert (error.status, error.code, error.next_key) == (502, "upstream_auth_error", True)
    assert ("x-should-retry", "false") in error.headers


def test_114_a_bad_key_is_known_by_its_reason_too() -> None:
    """ErrorInfo says it without words."""
    info = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    assert fail(400, "Bad.", "INVALID_ARGUMENT", details=info).code == "upstream_auth_error"


@pytest.mark.parametrize(("delay", "seconds"), [("17s", "17"), ("0.6s", "1"), ("41.5s", "42")])
def test_114_retry_info_becomes_retry_after(delay: str, seconds: str) -> None:
    """Though every 429 of the vendor's speaks of plan and billing."""
    message = "You exceeded your current quota, please check your plan and billing details."
    details = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure"},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
    ]
    error = fail(429, message, "RESOURCE_EXHAUSTED", details=details)
    assert (error.status, error.code) == (429, "upstream_rate_limited")
    assert dict(error.headers)["retry-after"] == seconds


def test_114_the_wait_may_stand_in_the_message_or_a_header() -> None:
    """Where there is no RetryInfo."""
    assert fail(429, "Quota exceeded. Please retry in 12.3s.", "RESOURCE_EXHAUSTED").retry_after == 12.3
    error = gemini().failure(429, {"retry-after": "9"}, b'{"error":{"message":"slow down"}}')
    assert error.retry_after == 9


def test_114_an_account_without_credit_is_no_rate_limit() -> None:
    """Waiting would not help."""
    error = fail(
        429,
        "Your prepayment credits are depleted. Please go to AI Studio to manage your billing.",
        "RESOURCE_EXHAUSTED",
    )
    assert (error.status, error.code) == (502, "upstream_quota_exceeded")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html><body>Bad Gateway</body></html>", "Bad Gateway"),
        (b"", "HTTP 502"),
        (b"plain words", "plain words"),
        (b'["x"]', '["x"]'),
    ],
)
def test_116_bodies_that_are_no_json_error(body: bytes, said: str) -> None:
    """A snippet of what it was, in a JSON error."""
    error = gemini().failure(502, {}, body)
    assert (error.status, error.code) == (502, "upstream_error") and said in error.message


def test_116_keys_are_scrubbed() -> None:
    """Upstreams echo keys in their errors."""
    assert "AIzaSy" not in fail(400, "Key AIzaSyA-0123456789abcdef is wrong").message
    assert len(fail(400, "x" * 5_000).message) < 600


def test_117_an_error_in_a_200_is_an_error() -> None:
    """With the status that it names."""
    with pytest.raises(UpstreamError) as caught:
        decode({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}})
    assert caught.value.code == "upstream_overloaded"
    with pytest.raises(UpstreamError) as caught:
        decode({"error": "boom"})
    assert caught.value.code == "upstream_error"


def test_118_a_context_overflow_is_named() -> None:
    """So that clients can cut their prompt."""
    error = fail(
        400,
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        "INVALID_ARGUMENT",
    )
    assert (error.status, error.code) == (400, "context_length_exceeded")


def test_errors_of_the_stable_version_point_to_the_other() -> None:
    """v1 has no previews: the error says where they are."""
    missing = "models/gemini-3-flash-preview is not found for API version v1"
    assert "v1beta" in fail(404, missing, "NOT_FOUND", api_version="v1").message
    assert "try v1beta" not in fail(404, missing, "NOT_FOUND").message
