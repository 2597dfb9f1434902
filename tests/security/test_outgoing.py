"""T6, T7, T8, T30: nothing a caller sends chooses a destination, a header or an identity, and the upstream cannot either."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from proxy.request import FORBIDDEN
from tests.fakes.httpwire import openai_error, stream
from tests.fakes.process import Upstream
from tests.fakes.rawclient import KeptClient, chat, request
from tests.fakes.sidecar import BEHALF_KEY, CLIENT_KEY, PROVIDER_KEY, Sidecar

#: By which names other gateways let a caller choose where a call goes (E1 to E3).
DESTINATIONS = sorted(FORBIDDEN | {"api_base", "base_url", "api_key", "extra_headers", "custom_llm_provider"})


@pytest.fixture(scope="module")
def second(upstream: Upstream) -> int:
    """A second listener that nobody has any business with."""
    return upstream.listen("http")


def strangers(upstream: Upstream, port: int) -> list[Any]:
    return [call for call in upstream.calls("") if call["socket"]["listener"] == f"http:{port}"]


@pytest.mark.parametrize("name", DESTINATIONS)
def test_no_field_chooses_a_destination(sidecar: Sidecar, upstream: Upstream, second: int, tag: str, name: str) -> None:
    """T6: at the top level refused, naming it; deeper down carried as text or refused, never obeyed."""
    url = f"http://127.0.0.1:{second}/v1"
    value: Any = {"x-evil": "1"} if "header" in name or name in ("extra_query", "extra_body") else url
    reply = sidecar.chat(f"m;{tag}", **{name: value})
    assert reply.status == 400
    error = openai_error(reply)
    assert (error["code"], error["param"]) == ("invalid_request", name)
    assert upstream.calls(tag) == []
    for nested in (
        {"metadata": {name: value}}, {"messages": [{"role": "user", "content": "x", name: value}]},
        {"stream_options": {"include_usage": True, name: value}, "stream": True}, {"litellm_params": {name: value}},
        {"provider": {name: value}},
    ):  # fmt: skip
        sidecar.chat(f"m;{tag}", **nested)
    calls = upstream.calls(tag)
    assert {call["socket"]["listener"].partition(":")[0] for call in calls} <= {"main"}
    for call in calls:
        headers = {key.lower(): value for key, value in call["headers"]}
        assert headers["authorization"] == f"Bearer {PROVIDER_KEY}" and "x-evil" not in headers
    assert strangers(upstream, second) == []


@pytest.mark.parametrize(
    "model",
    [
        "http://127.0.0.1:{port}/v1",
        "openai/http://127.0.0.1:{port}/x",
        "../../../etc/passwd",
        "m?x=http://127.0.0.1:{port}",
        "m#@127.0.0.1:{port}/",
        "@127.0.0.1:{port}/x",
    ],
)
def test_no_model_name_chooses_a_destination(sidecar: Sidecar, upstream: Upstream, second: int, model: str) -> None:
    """T6: a model's name is a JSON string for OpenAI's wire, never a piece of a URL."""
    before = upstream.last
    sidecar.chat(model.format(port=second))
    (call,) = upstream.calls(since=before)
    assert call["path"] == "/v1/chat/completions"
    assert strangers(upstream, second) == []


@pytest.mark.parametrize("kind", ["gemini", "azure_openai"])
@pytest.mark.parametrize(
    "model", ["../../x", "a/../../b", "m?key=1", "m#frag", "m%2e%2e/x", "m:generateContent?x=", "m\\..\\x", "..", "m@h"]
)
def test_model_names_in_paths_stay_one_segment(steady: Sidecar, upstream: Upstream, kind: str, model: str) -> None:
    """T6: where a vendor's model stands in the URL it is one encoded segment, or the call is refused."""
    before = upstream.last
    reply = steady.chat(f"{kind}/{model}")
    for call in upstream.calls(since=before):
        path = call["path"].partition("?")[0]
        if kind == "gemini":
            assert path.startswith("/v1beta/models/") and path.endswith(":generateContent"), path
            assert "/" not in path.removeprefix("/v1beta/models/").removesuffix(":generateContent"), path
        else:
            assert path.count("/") <= 5 and path.endswith("/chat/completions"), path
        assert not {".", ".."} & set(path.split("/")), path
    assert reply.status < 500 or reply.code in ("upstream_error", "upstream_invalid_response")


def test_images_are_not_fetched(sidecar: Sidecar, upstream: Upstream, second: int, tag: str) -> None:
    """T6: an image's URL passes as text; we fetch nothing a caller names."""
    url = f"http://127.0.0.1:{second}/secret.png"
    reply = sidecar.chat(
        f"m;{tag}", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    )
    assert reply.status == 200
    (call,) = upstream.calls(tag)
    assert json.loads(call["body"])["messages"][0]["content"][0]["image_url"]["url"] == url
    assert strangers(upstream, second) == []


@pytest.mark.parametrize("as_stream", [False, True])
def test_redirects_are_not_followed(
    sidecar: Sidecar, upstream: Upstream, second: int, tag: str, as_stream: bool
) -> None:
    """T6: a 302 to a second listener is a 502 to the caller, and the second listener sees nothing."""
    reply = sidecar.chat(f"m;{tag};redirect={second}", stream=as_stream)
    assert (reply.status, openai_error(reply)["code"]) == (502, "upstream_invalid_response")
    assert strangers(upstream, second) == []


# --- T7 ---------------------------------------------------------------------------------------------------

HOSTILE_NAMES = [
    "Authorization", "api-key", "Cookie", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "X-Real-IP", "Via",
    "OpenAI-Organization", "OpenAI-Project", "OpenAI-Beta", "anthropic-version", "anthropic-beta", "x-api-key", "x-goog-api-key",
    "X-Stainless-Lang", "X-Stainless-Retry-Count", "User-Agent", "Referer", "Origin", "Accept-Encoding", "Accept-Language", "TE",
    "Trailer", "Upgrade", "Proxy-Authorization", "Proxy-Connection", "Keep-Alive", "Range", "If-None-Match", "X-HTTP-Method-Override",
    "X-Original-URL", "X-Rewrite-URL", "X-Amz-Security-Token", "Metadata-Flavor", "x-llm-user", "x-llm-team", "x-litellm-api-key",
    "x-portkey-custom-host", "Host-Override", "Expect-CT", "Idempotency-Key", "Priority", "Content-Language", "traceparent", "tracestate",
    "baggage", "x-request-id", "x-llm-feature", "cache-control", "Content-Location", "Max-Forwards", "X-Custom",
]  # fmt: skip
#: What may go upstream, and nothing else.
EXPECTED = {
    "host",
    "content-type",
    "content-length",
    "authorization",
    "accept-encoding",
    "x-llm-sidecar-hop",
    "accept",
    "user-agent",
}


def test_headers_upstream_are_built_from_nothing(sidecar: Sidecar, upstream: Upstream, tag: str) -> None:
    """T7: 500 hostile header sets; the upstream's headers are the expected set, exactly, each time."""
    rng = random.Random(7)
    plain = sidecar.chat(f"m;{tag};plain")
    assert plain.status == 200
    (first,) = upstream.calls(f"{tag};plain")
    names = [name.lower() for name, _ in first["headers"]]
    assert len(set(names)) == len(names)
    assert set(names) <= EXPECTED, set(names) - EXPECTED
    fixed = {name.lower(): value for name, value in first["headers"]}
    assert fixed["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert fixed["host"] == f"127.0.0.1:{upstream.port}"
    values = [
        "evil",
        "http://evil.invalid/",
        "Bearer stolen",
        "a" * 500,
        "1, 2, 3",
        "\x7f",
        "été",
        '"quoted"',
        "chunked",
        "close, x-custom",
        "%0d%0aX-Evil: 1",
    ]
    sent = 0
    with KeptClient(sidecar.port) as client:
        for i in range(500):
            headers = [(rng.choice(HOSTILE_NAMES), rng.choice(values)) for _ in range(rng.randrange(1, 9))]
            # Credentials of one's own, and a fitting traceparent, are tested elsewhere: here they would only be refused.
            headers = [
                (name, value)
                for name, value in headers
                if name.lower() not in ("authorization", "api-key") or rng.random() < 0.2
            ]
            if rng.random() < 0.3:
                headers.append(("Connection", f"keep-alive, {rng.choice(HOSTILE_NAMES)}"))
            reply = client.ask(request(body=chat(f"m;{tag};set{i:03d}"), key=CLIENT_KEY, headers=headers))
            assert reply.status in (200, 400, 401), (reply.status, headers)
            sent += reply.status == 200
    calls = upstream.calls(f"{tag};set", bodies=0)
    assert len(calls) == sent > 300
    for call in calls:
        got = {name.lower(): value for name, value in call["headers"]}
        assert len(got) == len(call["headers"])
        got.pop("content-length")
        assert got == {name: value for name, value in fixed.items() if name != "content-length"}, got


@pytest.mark.parametrize(
    "value", [b"a\rb", b"a\nb", b"a\r\n b", b"a\x00b", b"a\x0bb", b"\r\nx: y\r\n\r\nGET / HTTP/1.1"]
)
@pytest.mark.parametrize("name", [b"x-request-id", b"x-llm-feature", b"traceparent", b"user-agent"])
def test_control_characters_in_headers_are_refused(
    sidecar: Sidecar, upstream: Upstream, tag: str, name: bytes, value: bytes
) -> None:
    """T7: CR, LF, NUL and other controls in a header's value: 400, or (for CRLF, which ends the header) never passed on."""
    data = request(body=chat(f"m;{tag}"), key=CLIENT_KEY).replace(
        b"content-type:", name + b": " + value + b"\r\ncontent-type:"
    )
    with sidecar.raw() as client:
        assert client.ask(data).status == 400
    assert upstream.calls(tag) == []


def test_ids_from_callers_are_checked(sidecar: Sidecar, upstream: Upstream, tag: str) -> None:
    """T7: a request id that is not [A-Za-z0-9_-]{1,64} is replaced; a good traceparent alone is passed on."""
    for given, kept in (
        ("good-ID_1", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("a b", False),
        ("<script>", False),
        ("é", False),
        ("", False),
    ):
        reply = sidecar.chat(f"m;{tag}", headers={"x-request-id": given})
        assert (reply.header("x-request-id") == given) is kept, given
        assert sidecar.wait_calls(1, request_id=reply.header("x-request-id"))
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    broken = ("00-xyz", trace + "-evil", trace.upper(), "ff" + trace[2:], trace.replace(trace[3:35], "0" * 32), trace.replace(trace[36:52], "0" * 16))  # fmt: skip
    for given, passed in ((trace, True), *((one, False) for one in broken)):
        before = upstream.last
        sidecar.chat(f"m;{tag}", headers={"traceparent": given})
        (call,) = upstream.calls(tag, since=before)
        assert (dict(call["headers"]).get("traceparent") == given) is passed, given


# --- T8 ---------------------------------------------------------------------------------------------------

OURS = {
    "content-type", "content-length", "transfer-encoding", "connection", "cache-control", "x-request-id", "x-llm-provider", "x-llm-model",
    "x-llm-upstream-request-id", "x-accel-buffering", "server-timing", "retry-after", "retry-after-ms", "date",
}  # fmt: skip


@pytest.mark.parametrize(
    "spec", ["hdr=hostile", "hdr=hostile;status=400", "hdr=hostile;status=500;body=html", "hdr=badid"]
)
@pytest.mark.parametrize("as_stream", [False, True])
def test_the_upstream_s_headers_stay_there(sidecar: Sidecar, tag: str, spec: str, as_stream: bool) -> None:
    """T8: cookies, banners, CORS, rate headers and odd request ids of the upstream: the caller sees none."""
    reply = sidecar.chat(f"m;{tag};{spec}", stream=as_stream)
    names = {name for name, _ in reply.headers}
    assert names <= OURS, names - OURS
    assert reply.header("x-llm-upstream-request-id") is None
    assert (reply.header("x-llm-provider"), reply.header("x-llm-model")) == ("openai", f"m;{tag};{spec}")
    assert "evil" not in str(reply.headers) and "spoofed" not in str(reply.headers)


@pytest.mark.parametrize("bomb", ["header", "headers", "status"])
def test_header_bombs_do_not_pass(sidecar: Sidecar, tag: str, bomb: str) -> None:
    """T8: heads over 64 KiB are refused, and nothing of them reaches the caller."""
    reply = sidecar.chat(f"m;{tag};bomb={bomb};bombsize={200_000 if bomb != 'headers' else 3000}")
    assert (reply.status, openai_error(reply)["code"]) == (502, "upstream_invalid_response")
    assert b"bbbb" not in reply.body and {name for name, _ in reply.headers} <= OURS


# --- T30 --------------------------------------------------------------------------------------------------


def test_identities_cannot_be_borrowed(steady: Sidecar, upstream: Upstream, tag: str) -> None:
    """T30: `x-llm-user` and `x-llm-team` count only with a key that has `on_behalf`; forwarded addresses never."""
    borrowed = {
        "x-llm-user": "boss",
        "x-llm-team": "ops",
        "x-forwarded-for": "10.0.0.1",
        "x-forwarded-user": "root",
        "x-real-ip": "10.0.0.2",
    }
    steady.chat(f"m;{tag};plain", headers=borrowed)
    steady.chat(f"m;{tag};agent", key=BEHALF_KEY, headers=borrowed)
    for bad in ("a\tb" * 3, "x" * 129, "{evil}"):
        reply = steady.chat(f"m;{tag};bad", key=BEHALF_KEY, headers={"x-llm-user": bad})
        assert (reply.status, openai_error(reply)["param"]) == (400, "x-llm-user"), bad
    (plain,) = steady.wait_calls(1, model=f"m;{tag};plain")
    (agent,) = steady.wait_calls(1, model=f"m;{tag};agent")
    assert (plain["team"], plain["user"], plain["key_id"]) == ("platform", "svc", "backend")
    assert (agent["team"], agent["user"], agent["key_id"]) == ("ops", "boss", "agent")
    assert upstream.calls(f"{tag};bad") == []


def test_streams_of_hostile_text_stay_framed(sidecar: Sidecar, tag: str) -> None:
    """T8: text that looks like frames or headers stays inside its JSON."""
    evil = 'data: [DONE]\\n\\ndata: {"error":1}'
    reply = sidecar.chat(f"m;{tag};chunks=1;text={evil}", stream=True)
    seen = stream(reply.body)
    assert (seen.text, seen.done, seen.errors) == (evil, 1, [])
