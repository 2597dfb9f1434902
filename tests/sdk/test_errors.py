"""Every row of the contract's error table that a call can reach raises the SDK's right class, with the right word."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.conftest import Sidecars
from tests.fakes.clients import openai_client
from tests.fakes.ports import free_port
from tests.fakes.process import Upstream
from tests.fakes.sidecar import CLIENT_KEY, PROVIDER_KEY, Sidecar, config
from tests.sdk.conftest import LEAVER_KEY, VIEWER_KEY

HI: Any = [{"role": "user", "content": "say something"}]


def api(sidecar: Sidecar, key: str = CLIENT_KEY, retries: int = 0) -> openai.OpenAI:
    return openai_client(sidecar.base_url, key, retries=retries)


def check(error: openai.APIStatusError, status: int, code: str, type: str | None = None) -> None:
    """Assert that the SDK found everything where it looks for it."""
    assert (error.status_code, error.code) == (status, code), error
    assert error.request_id and error.request_id == error.response.headers["x-request-id"]
    body: Any = error.body
    assert set(body) == {"message", "type", "param", "code"} and body["message"]
    if type is not None:
        assert error.type == type


# --- what the provider answers ------------------------------------------------------------------------

UPSTREAM = [
    ("status=400", openai.BadRequestError, 400, "upstream_invalid_request"),
    ("status=400;code=context_length_exceeded", openai.BadRequestError, 400, "context_length_exceeded"),
    ("status=400;msg=This model's maximum context length is 8192 tokens", openai.BadRequestError, 400, "context_length_exceeded"),
    ("status=401", openai.InternalServerError, 502, "upstream_auth_error"),
    ("status=403", openai.InternalServerError, 502, "upstream_auth_error"),
    ("status=402", openai.InternalServerError, 502, "upstream_quota_exceeded"),
    ("status=429;code=insufficient_quota", openai.InternalServerError, 502, "upstream_quota_exceeded"),
    ("status=404", openai.NotFoundError, 404, "model_not_found"),
    ("status=413", openai.APIStatusError, 413, "upstream_invalid_request"),
    ("status=422", openai.UnprocessableEntityError, 422, "upstream_invalid_request"),
    ("status=429;after=3", openai.RateLimitError, 429, "upstream_rate_limited"),
    ("status=500", openai.InternalServerError, 502, "upstream_error"),
    ("status=503;body=html", openai.InternalServerError, 502, "upstream_error"),
    ("status=529", openai.InternalServerError, 503, "upstream_overloaded"),
    ("status=302", openai.InternalServerError, 502, "upstream_invalid_response"),
    ("bad=json", openai.InternalServerError, 502, "upstream_invalid_response"),
    ("bad=line", openai.InternalServerError, 502, "upstream_invalid_response"),
    ("bad=event", openai.InternalServerError, 502, "upstream_invalid_response"),
    ("bad=deep", openai.InternalServerError, 502, "upstream_invalid_response"),
    ("cut=rst@headers", openai.InternalServerError, 502, "upstream_unreachable"),
    ("cut=fin@headers", openai.InternalServerError, 502, "upstream_unreachable"),
    ("cut=rst@40", openai.InternalServerError, 502, "upstream_error"),
    ("cut=fin@40", openai.InternalServerError, 502, "upstream_error"),
]  # fmt: skip


#: A whole reply's own faults; streams have theirs in tests/reliability.
WHOLE_ONLY = {"bad=json", "bad=line", "bad=event", "bad=deep", "cut=rst@40", "cut=fin@40"}


@pytest.mark.parametrize(
    ("spec", "raised", "status", "code", "stream"),
    [(*row, stream) for row in UPSTREAM for stream in (False, True) if not (stream and row[0] in WHOLE_ONLY)],
)
def test_the_provider_s_errors(
    upstream: Upstream,
    steady: Sidecar,
    tag: str,
    spec: str,
    raised: type[openai.APIStatusError],
    status: int,
    code: str,
    stream: bool,
) -> None:
    """What fails before the first byte is plain JSON with the right status, streamed requests included."""
    with api(steady) as client, pytest.raises(raised) as caught:
        client.chat.completions.create(model=f"gpt-4o;{tag};{spec}", messages=HI, stream=stream)
    assert type(caught.value) is raised
    check(caught.value, status, code)
    headers = caught.value.response.headers
    assert headers["content-type"].startswith("application/json")
    if "after=3" in spec:
        assert headers["retry-after"] == "3" and headers["retry-after-ms"] == "3000"
    if code in ("upstream_auth_error", "upstream_quota_exceeded"):
        assert headers["x-should-retry"] == "false"
    assert PROVIDER_KEY not in caught.value.response.text
    (line,) = steady.wait_calls(1, model=f"gpt-4o;{tag};{spec}")
    assert (line["outcome"], line["status"], line["code"]) == ("upstream_error", status, code)
    assert line["completion_tokens"] == 0


ABSENT = {
    "refuse": (502, "upstream_unreachable"),
    "reset": (502, "upstream_unreachable"),
    "full": (504, "upstream_timeout"),
    "silent": (504, "upstream_timeout"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ABSENT)
def test_a_provider_that_is_not_there(hasty: Sidecar, kind: str, stream: bool) -> None:
    """Nobody listens, a reset on accept, a full queue, and silence: 502 or 504."""
    with api(hasty) as client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=f"{kind}/any", messages=HI, stream=stream)
    check(caught.value, *ABSENT[kind])


def test_an_error_inside_the_stream(sidecar: Sidecar, tag: str) -> None:
    """After the first byte the SDK raises APIError from the error frame; what came before was delivered."""
    seen = []
    with api(sidecar) as client, pytest.raises(openai.APIError) as caught:
        for chunk in client.chat.completions.create(model=f"gpt-4o;{tag};chunks=9;error=2", messages=HI, stream=True):
            seen.append(chunk.choices[0].delta.content)
    assert seen == ["", " 000001", " 000002"]
    assert caught.value.code == "upstream_error" and caught.value.type == "server_error"
    (line,) = sidecar.wait_calls(1, model=f"gpt-4o;{tag};chunks=9;error=2")
    assert (line["outcome"], line["code"], line["status"]) == ("upstream_error", "upstream_error", 502)


# --- what the sidecar refuses ---------------------------------------------------------------------------

BAD_BODIES: list[tuple[dict[str, Any], str]] = [
    ({"messages": "hello"}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
    ({"temperature": 3}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 10**18}, "max_tokens"),
    ({"n": 0}, "n"),
    ({"n": 1000}, "n"),
    ({"stream": "yes"}, "stream"),
    ({"tools": {"a": 1}}, "tools"),
    ({"response_format": "json"}, "response_format"),
    ({"model": 7}, "model"),
]


@pytest.mark.parametrize(("fields", "param"), BAD_BODIES)
def test_malformed_requests(strict: Sidecar, fields: dict[str, Any], param: str) -> None:
    """400 `invalid_request`, naming the parameter, before anything goes upstream."""
    with api(strict) as client, pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body={"model": "gpt-4o", "messages": HI, **fields}, cast_to=object)
    check(caught.value, 400, "invalid_request", "invalid_request_error")
    assert caught.value.param == param


def test_who_calls(strict: Sidecar) -> None:
    """401 for a key that is unknown, 403 for one that may not generate."""
    with api(strict, "sk-nobody") as client, pytest.raises(openai.AuthenticationError) as bad:
        client.chat.completions.create(model="gpt-4o", messages=HI)
    check(bad.value, 401, "invalid_api_key", "invalid_request_error")
    assert bad.value.response.headers["www-authenticate"] == "Bearer"
    with api(strict, VIEWER_KEY) as client, pytest.raises(openai.PermissionDeniedError) as denied:
        client.chat.completions.create(model="gpt-4o", messages=HI)
    check(denied.value, 403, "permission_denied", "permission_error")


def test_what_may_be_called(strict: Sidecar) -> None:
    """Unknown models are 404, known but forbidden ones 403, opted-out teams and switched-off features 403."""
    with api(strict) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            client.chat.completions.create(model="no-such-model", messages=HI)
        check(unknown.value, 404, "model_not_found", "invalid_request_error")
        assert unknown.value.param == "model"
        with pytest.raises(openai.PermissionDeniedError) as forbidden:
            client.chat.completions.create(model="slow-1", messages=HI)
        check(forbidden.value, 403, "model_not_allowed", "permission_error")
        assert forbidden.value.param == "model"
        with pytest.raises(openai.PermissionDeniedError) as feature:
            client.chat.completions.create(model="gpt-4o", messages=HI, extra_headers={"x-llm-feature": "beta"})
        check(feature.value, 403, "feature_disabled", "permission_error")
    with api(strict, LEAVER_KEY) as client, pytest.raises(openai.PermissionDeniedError) as left:
        client.chat.completions.create(model="gpt-4o", messages=HI)
    check(left.value, 403, "opted_out", "permission_error")


def test_sizes_and_encodings(strict: Sidecar) -> None:
    """413 over the body's limit, 400 over the prompt's, 415 for a compressed body."""
    with api(strict) as client:
        with pytest.raises(openai.APIStatusError) as large:
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "a " * 40_000}])
        check(large.value, 413, "request_too_large", "invalid_request_error")
        with pytest.raises(openai.BadRequestError) as long:
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "word " * 400}])
        check(long.value, 400, "context_length_exceeded", "invalid_request_error")
        with pytest.raises(openai.APIStatusError) as packed:
            client.chat.completions.create(model="gpt-4o", messages=HI, extra_headers={"content-encoding": "gzip"})
        check(packed.value, 415, "unsupported_media_type", "invalid_request_error")


def test_routes_and_methods(strict: Sidecar) -> None:
    """404 for routes that are not served, 405 for the wrong method, both in OpenAI's shape."""
    with api(strict) as client:
        for call in (
            lambda: client.responses.create(model="gpt-4o", input="x"),
            lambda: client.files.list(),
            lambda: client.moderations.create(input="x"),
            lambda: client.images.generate(prompt="x"),
        ):
            with pytest.raises(openai.NotFoundError) as missing:
                call()
            check(missing.value, 404, "route_not_found", "invalid_request_error")
        with pytest.raises(openai.APIStatusError) as wrong:
            client.get("/chat/completions", cast_to=object)
        check(wrong.value, 405, "method_not_allowed", "invalid_request_error")
        assert wrong.value.response.headers["allow"] == "POST"


def test_overload_and_open_breaker(sidecars: Sidecars, upstream: Upstream, tag: str) -> None:
    """503 with a true retry-after: `overloaded` above the cap, `circuit_open` after the failures."""
    small = sidecars(server={"max_in_flight": 1}, providers={"openai": {"breaker": {"failures": 1, "open": "2s"}}})
    with api(small) as client:
        with client.chat.completions.create(
            model=f"gpt-4o;{tag};chunks=100;interval=0.02", messages=HI, stream=True
        ) as stream:
            next(iter(stream))
            with pytest.raises(openai.InternalServerError) as full:
                client.chat.completions.create(model=f"gpt-4o;{tag}", messages=HI)
            check(full.value, 503, "overloaded", "server_error")
            assert full.value.response.headers["retry-after"] == "1"
        small.wait_calls(1, model=f"gpt-4o;{tag};chunks=100;interval=0.02")
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model=f"gpt-4o;{tag};status=500", messages=HI)
        with pytest.raises(openai.InternalServerError) as opened:
            client.chat.completions.create(model=f"gpt-4o;{tag};status=500", messages=HI)
        check(opened.value, 503, "circuit_open", "server_error")
        assert opened.value.response.headers["retry-after"] in ("1", "2")
    assert len(upstream.calls(f"{tag};status=500")) == 1


def test_a_loop_is_seen(own_sidecar: Any, upstream: Upstream) -> None:
    """Two sidecars that point at each other: one 508 where the call comes round, and no storm."""
    ports = [free_port(), free_port()]
    first, second = (
        own_sidecar(
            config(f"http://127.0.0.1:{other}/v1", providers={"openai": {"api_key": CLIENT_KEY, "max_retries": 1}}),
            port=port,
        )
        for port, other in (ports, reversed(ports))
    )
    with api(first) as client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=HI)
    assert caught.value.status_code in (502, 508)
    lines = first.wait_calls(2)
    assert (lines[0]["code"], lines[0]["status"]) == ("loop_detected", 508)
    assert len(first.calls()) + len(second.calls()) <= 7, "each sidecar's retries, and no more"


# --- retries that the SDK makes ---------------------------------------------------------------------------


def test_the_sdk_retries_what_may_be_retried(steady: Sidecar, upstream: Upstream, tag: str) -> None:
    """A 503 with retry-after is tried again and succeeds; nobody sees the failure."""
    with api(steady, retries=2) as client:
        result = client.chat.completions.create(model=f"gpt-4o;{tag};status=529;after=0;fails=1", messages=HI)
    assert result.choices[0].message.content == " 000001 000002 000003"
    assert len(upstream.calls(tag)) == 2


@pytest.mark.parametrize("spec", ["status=401", "status=402", "status=429;code=insufficient_quota"])
def test_the_sdk_does_not_retry_what_cannot_help(steady: Sidecar, upstream: Upstream, tag: str, spec: str) -> None:
    """`x-should-retry: false`: one call only, though its status is a 502."""
    with api(steady, retries=3) as client, pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=f"gpt-4o;{tag};{spec}", messages=HI)
    assert len(upstream.calls(tag)) == 1


def test_the_client_s_own_timeout(sidecar: Sidecar, upstream: Upstream, tag: str) -> None:
    """A client that gives up closes the call upstream."""
    impatient = openai_client(sidecar.base_url, CLIENT_KEY, timeout=0.2)
    with impatient as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model=f"gpt-4o;{tag};hang=headers", messages=HI)
    (call,) = upstream.wait_calls(tag, 1)
    assert call["end"] == "gone"
    (line,) = sidecar.wait_calls(1, model=f"gpt-4o;{tag};hang=headers")
    assert line["outcome"] == "client_gone"
