"""T10, T11, T21, T23: canaries through every failure, then a search of everything the sidecar ever said."""

from __future__ import annotations

import json

import pytest

from tests.fakes.httpwire import Reply
from tests.fakes.process import Upstream
from tests.fakes.rawclient import chat, request
from tests.fakes.sidecar import CLIENT_KEY, OPS_KEY, OTHER_KEY, PROVIDER_KEY, SECOND_KEY, Sidecar

KEYS = (PROVIDER_KEY, SECOND_KEY, CLIENT_KEY, OPS_KEY, OTHER_KEY)
PROMPT = "CANARYprompt the patient's name is Ottilie Wunderlich"
ANSWER = "CANARYanswer she lives at Am Markt 7"

FAILURES = [
    "", "status=400", "status=401;body=key", "status=403;body=key", "status=400;body=key", "status=404;body=key", "status=422;body=nested",
    "status=429;body=key;after=1", "status=500;body=html", "status=500;body=key", "status=500;body=empty", "status=500;body=big",
    "status=500;body=utf8", "status=500;body=truncated", "status=503;body=array", "status=502;body=null", "status=500;body=plainjson",
    "status=529;body=key", "bad=json", "bad=shape", "bad=utf8", "bad=nan", "bad=deep", "bad=json@1", "bad=shape@1", "bad=utf8@1", "error=0",
    "error=1", f"error=1:x:key {PROVIDER_KEY} is bad", "cut=rst@headers", "cut=rst@head", "cut=rst@50", "cut=fin@300", "omit=finish+done",
    "framing=both", "framing=double", "framing=badchunk", "gzip", "hang=headers", "hang=half@1", "redirect=1", "bomb=header",
    f"status=400;msg=echo {PROVIDER_KEY}", f"status=500;msg=Bearer {PROVIDER_KEY}", "usage=huge", "hdr=hostile", "tools=1", "refusal",
]  # fmt: skip


def everything_said(sidecar: Sidecar, replies: list[Reply]) -> dict[str, str]:
    """Return all outputs: replies with their headers, log, stderr, metrics, admin pages."""
    said = {f"reply {i}": f"{reply.headers}{reply.body.decode('utf-8', 'replace')}" for i, reply in enumerate(replies)}
    said |= {"stdout": sidecar.stdout(), "stderr": sidecar.stderr()}
    for path in (
        "/metrics",
        "/health",
        "/admin/config",
        "/admin/policies",
        "/admin/usage",
        "/admin/quotas",
        "/v1/models",
    ):
        reply = sidecar.ask("GET", path, key=OPS_KEY)
        assert reply.status == 200, (path, reply)
        said[path] = f"{reply.headers}{reply.body.decode()}"
    return said


@pytest.fixture(scope="module")
def said(hasty: Sidecar, upstream: Upstream) -> dict[str, str]:
    """Everything that a sidecar at DEBUG said while every failure was forced upon it, whole and streamed."""
    running = hasty
    replies = []
    # Registered, so that neither a key nor the answer's text stands in a model's name, which is logged.
    for i, spec in enumerate(FAILURES):
        model = upstream.register(f"leak{i}", spec if "tools" in spec else f"{spec};text={ANSWER}")
        for provider in ("keys", "anthropic", "gemini"):
            for as_stream in (False, True):
                # Every failure on OpenAI's wire, a third of them on the others.
                if provider == "keys" or (i + len(provider) + as_stream) % 3 == 0:
                    replies.append(
                        running.chat(
                            f"{provider}/{model}",
                            stream=as_stream,
                            text=PROMPT,
                            user=PROMPT,
                            headers={"x-llm-user": PROMPT},
                        )
                    )
    for name in ("refuse", "reset", "garbage", "silent", "tls"):
        replies.append(running.chat(f"{name}/m", text=PROMPT))
    for key in (None, "sk-wrong-CANARYwrong", PROVIDER_KEY):
        replies.append(running.ask("POST", "/v1/chat/completions", chat("m", text=PROMPT), key=key))
    for body in (
        b"{" + PROMPT.encode(),
        json.dumps({"model": "m", "messages": PROMPT}).encode(),
        json.dumps({"prompt": PROMPT}).encode(),
        b"\xff" + PROMPT.encode(),
    ):
        replies.append(running.ask("POST", "/v1/chat/completions", body, key=CLIENT_KEY))
    replies.append(
        running.ask("POST", "/v1/embeddings", {"model": "m;status=500;body=key", "input": PROMPT}, key=CLIENT_KEY)
    )
    with running.raw() as client:
        replies.append(client.ask(request(body=b"x", key=CLIENT_KEY, headers={"x-a\x00": PROVIDER_KEY})))
    return everything_said(running, replies)


@pytest.mark.parametrize("key", KEYS)
def test_no_key_is_ever_said(said: dict[str, str], key: str) -> None:
    """T10: every failure forced, errors that echo the key included: no key, nor its telling half, in any output."""
    for place, text in said.items():
        assert key not in text and key[8:] not in text, (place, text[max(0, text.find(key[8:]) - 200) :][:400])


@pytest.mark.parametrize("text", [PROMPT, ANSWER, "Ottilie", "Am Markt"])
def test_no_text_is_ever_written_down(said: dict[str, str], text: str) -> None:
    """T11: prompts and answers are in replies only (and in the provider's errors about them), never in log, metrics or pages."""
    for place, there in said.items():
        assert place.startswith("reply") or text not in there, place


def test_the_failures_were_real(said: dict[str, str]) -> None:
    """The search above is worth something: all kinds of codes were met."""
    codes = {json.loads(line).get("code") for line in said["stdout"].splitlines()}
    assert codes >= {
        "upstream_auth_error", "upstream_error", "upstream_invalid_response", "upstream_timeout", "upstream_unreachable", "upstream_tls",
        "upstream_rate_limited", "upstream_overloaded", "upstream_invalid_request", "invalid_api_key", "invalid_request", "model_not_found",
    }, codes  # fmt: skip


# --- T21 --------------------------------------------------------------------------------------------------


def junk(sidecar: Sidecar, upstream: Upstream, count: int) -> dict[str, tuple[int, int]]:
    """Send ``count`` calls with made-up models, features, users and paths; return each metric's series before and after."""
    from tests.fakes.rawclient import KeptClient

    with KeptClient(sidecar.port) as client:
        for warm in ("gpt-4o-mini", "junk-model"):
            client.ask(request(body=chat(warm), key=CLIENT_KEY, headers={"x-llm-feature": "junk"}))
        for warm in (b"{", b'{"model":"m","messages":3}'):
            client.ask(request(body=warm, key=CLIENT_KEY))
        client.ask(request("/nope", method="GET", key=CLIENT_KEY))
        before = sidecar.metrics().series()
        for i in range(count):
            match i % 5:
                case 0 | 1:
                    data = request(
                        body=chat(f"junk-{i}", user=f"u{i}"), key=CLIENT_KEY, headers={"x-llm-feature": f"f{i}"}
                    )
                case 2:
                    data = request(
                        body=chat(f"prov{i}/junk"),
                        key=CLIENT_KEY,
                        headers={"x-llm-team": f"t{i}", "x-llm-user": f"u{i}"},
                    )
                case 3:
                    data = request(f"/v1/junk/{i}", body=chat("m"), key=CLIENT_KEY)
                case _:
                    data = request(body={"model": f"x{i}", "messages": i}, key=CLIENT_KEY)
            client.ask(data)
        after = sidecar.metrics().series()
    upstream.forget()
    return {name: (before.get(name, 0), n) for name, n in after.items()}


def test_junk_makes_no_series(sidecar: Sidecar, upstream: Upstream) -> None:
    """T21 with 300 junk values: no metric grows by more than one label set."""
    grown = {
        name: counts
        for name, counts in junk(sidecar, upstream, 300).items()
        if counts[1] > counts[0] + 1 and not name.endswith("_bucket")
    }
    assert not grown, grown


@pytest.mark.slow
def test_ten_thousand_junk_values_make_no_series(sidecar: Sidecar, upstream: Upstream) -> None:
    """T21 in full, buckets included."""
    grown = {name: counts for name, counts in junk(sidecar, upstream, 10_000).items() if counts[1] > counts[0] + 14}
    assert not grown, grown


# --- T23 --------------------------------------------------------------------------------------------------

INJECTIONS = [
    '\n{"level":"error","event":"forged"}', "\r\n\r\nforged", "\x1b[31mred\x1b[0m", "\x00nul", '"},{"event":"forged"', "\u2028\u2029", "\ud800",
    "a" * 250, "é" * 120, "\\n\\u0000", "%n%s%x", "${jndi:ldap://evil.invalid/x}", "{{7*7}}", "\u202eevil", "🏔" * 60,
]  # fmt: skip


def test_log_lines_cannot_be_forged(sidecar: Sidecar, tag: str) -> None:
    """T23: whatever stands in model, user, feature or request id: one call, one line, valid JSON, nothing forged."""
    before = len(sidecar.log())
    sent = 0
    for text in INJECTIONS:
        data = json.dumps({**chat(f"{tag}{text}"[:256]), "user": text, "metadata": {"a": text}}).encode()
        reply = sidecar.ask("POST", "/v1/chat/completions", data, key=CLIENT_KEY)
        assert reply.status in (200, 400, 404, 502), (text, reply)
        clean = text.encode("ascii", "ignore").decode().replace("\r", "").replace("\n", "").replace("\x00", "")
        reply = sidecar.ask(
            "POST",
            "/v1/chat/completions",
            chat(f"m;{tag}"),
            key=CLIENT_KEY,
            headers={"x-llm-feature": clean, "x-request-id": clean},
        )
        assert reply.status in (200, 400)
        sent += 2
    sidecar.wait_calls(sent, timeout=2)
    lines = sidecar.log()[before:]
    assert not [line for line in lines if line.get("event") == "forged"]
    assert all(line["event"] for line in lines)
    raw = sidecar.stdout()
    assert "\x1b" not in raw and "\x00" not in raw
    assert max(len(line) for line in raw.splitlines()) < 8192
