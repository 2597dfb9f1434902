"""Redaction in a running sidecar: what upstream sees, what the client gets, what the log and metrics say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import wires
from tests.fakes.httpwire import stream
from tests.fakes.process import Upstream
from tests.fakes.rawclient import chat, request
from tests.fakes.sidecar import CLIENT_KEY, Sidecar

TEXT = "write to ann@example.com, key AKIAIOSFODNN7EXAMPLE, then to ann@example.com"
MASKED = "write to [EMAIL], key [AWS_KEY], then to [EMAIL]"


def echo(sidecars: Callable[..., Sidecar], **settings: Any) -> Sidecar:
    """Return a sidecar whose provider answers with what reached it."""
    providers = {"echo": {"kind": "echo", "model": "echo"}}
    return sidecars(providers=providers, default_provider="echo", policies=[{"redact": settings}])


@pytest.mark.parametrize("streamed", [False, True])
def test_upstream_sees_masks(sidecars: Callable[..., Sidecar], streamed: bool) -> None:
    """What the provider receives is masked; the log and the metrics name detectors and counts, never a value."""
    sidecar = echo(sidecars)
    before = sidecar.metrics()
    reply = sidecar.chat("echo", text=TEXT, stream=streamed)
    assert reply.status == 200, reply.body
    said = stream(reply.body).text if streamed else reply.json()["choices"][0]["message"]["content"]
    assert said == MASKED
    after = sidecar.metrics()
    name = "llm_sensitive_data_detected_total"
    for kind, n in (("email", 2), ("aws_access_key", 1)):
        assert after.sum(name, type=kind, direction="request") - before.sum(name, type=kind, direction="request") == n
    limit = time.monotonic() + 5
    while not (lines := sidecar.log("Sensitive data detected", request_id=reply.header("x-request-id"))):
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert lines[-1]["detectors"] == {"email": 2, "aws_access_key": 1} and lines[-1]["level"] == "warning"
    assert "ann@example" not in sidecar.stdout() + sidecar.stderr()


@pytest.mark.parametrize("streamed", [False, True])
def test_the_client_gets_its_originals_back(sidecars: Callable[..., Sidecar], streamed: bool) -> None:
    """In restore mode the provider sees placeholders and the client its own words again."""
    sidecar = echo(sidecars, mode="restore")
    reply = sidecar.chat("echo", text=TEXT, stream=streamed)
    said = stream(reply.body).text if streamed else reply.json()["choices"][0]["message"]["content"]
    assert said == TEXT


def test_blocked(sidecars: Callable[..., Sidecar]) -> None:
    """A blocked finding is the contract's refusal, which the SDKs do not retry."""
    sidecar = echo(sidecars, action={"default": "mask", "email": "block"})
    reply = sidecar.chat("echo", text=TEXT)
    assert (reply.status, reply.code) == (400, "content_policy_violation")
    assert reply.header("x-should-retry") == "false" and b"ann@" not in reply.body


def test_shadow(sidecars: Callable[..., Sidecar]) -> None:
    """With enforce: false everything passes as it is, and is counted."""
    sidecar = echo(sidecars, enforce=False)
    reply = sidecar.chat("echo", text=TEXT)
    assert reply.json()["choices"][0]["message"]["content"] == TEXT
    assert sidecar.metrics().sum("llm_sensitive_data_detected_total", direction="request") == 3
    assert sidecar.metrics().sum("llm_sensitive_data_detected_total", direction="reply") == 3


@pytest.mark.parametrize("mode", ["mask", "restore"])
@pytest.mark.parametrize("vendor", ["openai", "azure_openai", "anthropic", "gemini"])
def test_an_answer_that_comes_slowly(
    sidecars: Callable[..., Sidecar], upstream: Upstream, vendor: str, mode: str
) -> None:
    """Piece by piece, what any vendor writes is masked, and what is no secret reaches the client meanwhile."""
    sidecar = sidecars(providers=wires(upstream), policies=[{"redact": {"mode": mode, "builtin": ["secrets", "pii"]}}])
    text = "The token is known, so write to bob@example.org or to none at all and be well."
    with sidecar.raw() as client:
        model = f"{vendor}/m;interval=0.02;chunks=20;text={text}"
        client.send(request(body=chat(model, stream=True), key=CLIENT_KEY))
        client.read_until(b'"content":"The')
        first = time.monotonic()
        reply = client.reply()
        last = time.monotonic()
    said = stream(reply.body)
    assert said.text == text.replace("bob@example.org", "[EMAIL]") and said.done
    assert last - first > 0.15  # not all at once at the end
    bare = {json.dumps({**event, "choices": []}) for event in said.chunks if event["choices"]}
    assert len(bare) == 1  # every event says the same of itself, whoever wrote it
