"""One line a request, whatever became of it: the contract's fields, and a code that the caller saw too."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from proxy.call import Usage
from proxy.telemetry.line import line, who
from tests.core.inline import inline
from tests.fakes.rawclient import chat, request
from tests.fakes.sidecar import CLIENT_KEY, Sidecar

FIELDS = (
    "ts", "request_id", "upstream_request_id", "trace_id", "endpoint", "team", "user", "key_id", "feature", "model",
    "provider", "status", "code", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "estimated",
    "cost_usd", "duration_ms", "ttft_ms", "overhead_ms", "cache", "stored", "detectors", "retries",
)  # fmt: skip
AUTH = """
auth: {keys: [{id: k, key: secret-secret-secret, team: red, user: ann, roles: [generate]}]}
features: [summary]
"""
GOOD = {"messages": [{"role": "user", "content": "hi"}]}
KEY = {"authorization": "Bearer secret-secret-secret"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "expected"),
    [
        ("POST", "/v1/chat/completions", KEY, {**GOOD, "model": "m"}, {"status": 200, "code": None, "model": "m"}),
        ("POST", "/v1/chat/completions", KEY, GOOD, {"status": 200, "code": None, "model": None}),
        ("POST", "/v1/chat/completions", {}, GOOD, {"status": 401, "code": "invalid_api_key", "user": None}),
        ("POST", "/openai/deployments/m/chat/completions", {}, GOOD, {"status": 401, "endpoint": "chat"}),
        ("POST", "/v1/chat/completions", KEY, {"model": "m"}, {"status": 400, "model": "m", "user": "ann"}),
        ("POST", "/v1/chat/completions", KEY, [], {"status": 400, "code": "invalid_request", "model": None}),
        ("POST", "/v1/embeddings", KEY, {"model": 7}, {"status": 400, "model": None, "endpoint": "embeddings"}),
        ("GET", "/v1/chat/completions", KEY, None, {"status": 405, "code": "method_not_allowed"}),
        ("GET", "/v1/nothing", KEY, None, {"status": 404, "code": "route_not_found", "endpoint": "/v1/nothing"}),
        ("GET", "/metrics", KEY, None, {"status": 403, "code": "permission_denied", "team": "red"}),
    ],
)
async def test_every_request_has_one_line_with_all_fields(
    method: str, path: str, headers: dict[str, str], body: Any, expected: dict[str, Any]
) -> None:
    """Served or refused early, a request is one line with every field of the contract, under the id that was sent."""
    more = {"x-request-id": "mine", "traceparent": TRACE, "x-llm-feature": "summary"}
    async with inline(AUTH) as side:
        reply = await side.client.request(method, path, headers={**headers, **more}, json=body)
        (line,) = await side.lines()
        assert not (missing := set(FIELDS) - set(line)), missing
        assert {name: line[name] for name in expected} == expected
        assert line["status"] == reply.status_code and line["request_id"] == reply.headers["x-request-id"] == "mine"
        assert (line["trace_id"], line["feature"]) == (TRACE[3:35], "summary")
        if reply.status_code != 200:
            assert line["code"] == reply.json()["error"]["code"] and line["outcome"] == "refused"


async def test_a_request_of_few_headers_keeps_what_they_say() -> None:
    """A client that sends nothing but what it must is heard all the same: its trace, its hops, its wishes."""
    body = json.dumps({**GOOD, "model": "m"}).encode()
    async with inline("") as side:
        reader, writer = await asyncio.open_connection("127.0.0.1", side.client.base_url.port)
        for name, value in ((b"traceparent", TRACE.encode()), (b"x-llm-explain", b"1")):
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n%b: %b\r\ncontent-length: %d\r\n\r\n%b"
                % (name, value, len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        assert b"x-llm-policies:" in head
        writer.close()
        assert [line["trace_id"] for line in await side.lines()] == [TRACE[3:35], None]


@pytest.mark.parametrize("model", ["m", "echo/m", "a/b/c"])
async def test_a_deployment_may_be_named_as_any_model(model: str) -> None:
    """The model in an Azure client's path may hold a slash, as `provider/model` does; without one there is no route."""
    async with inline("") as side:
        reply = await side.client.post(f"/openai/deployments/{model}/chat/completions?api-version=1", json=GOOD)
        assert reply.status_code == 200, reply.text
        (line,) = await side.lines()
        assert (line["model"], line["endpoint"]) == (model, "chat")
        refused = await side.client.post(f"/openai/deployments/{model}/chat/completions", json={})
        assert refused.status_code == 400 and [line["endpoint"] for line in await side.lines()] == ["chat", "chat"]
        wrong = await side.client.get(f"/openai/deployments/{model}/chat/completions")
        assert wrong.status_code == 405 and wrong.headers["allow"] == "POST"
        for path in ("/chat/completions", f"{model}/", f"{model}/nothing"):
            lost = await side.client.post(f"/openai/deployments/{path}", json=GOOD)
            assert lost.status_code == 404, path


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"nonsense\r\n\r\n", "invalid_request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "invalid_request"),
        (b"GET /" + b"x" * 20_000, "headers_too_large"),
        (b"\x16\x03\x01\x02\x00", "invalid_request"),
    ],
)
async def test_what_was_no_request_has_a_line_too(raw: bytes, code: str) -> None:
    """A reply that the server itself gives is counted and logged under the id that it carries."""
    async with inline(AUTH) as side:
        reader, writer = await asyncio.open_connection("127.0.0.1", side.client.base_url.port)
        writer.write(raw)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        (line,) = await side.lines()
        assert not set(FIELDS) - set(line)
        assert line["code"] == code == json.loads(body)["error"]["code"]
        assert f"x-request-id: {line['request_id']}".encode() in head
        assert side.side.runtime.metrics.requests.values == {("", "other", "other", "other", "refused"): 1}


@pytest.mark.parametrize("code", ['say "no"', "a\\b", "zwei\n", "é", "after_hours", ""])
def test_a_code_of_a_users_own_policy_leaves_the_line_json(code: str) -> None:
    """`Refused` takes any code; whatever it holds, the line is one line of JSON that says it."""
    raw = line(
        "t", "r", "u-1", TRACE, who("chat", "red", 'a"b', "k", None, "m", None, None), 403, "refused", code, False,
        Usage(1, 2, 3, 0, 4), 1, 0.0015, None, 0.0001, "", False, ["email"], 2, {},
    )  # fmt: skip
    row = json.loads(raw)
    assert raw.count(b"\n") == 1 and not set(FIELDS) - set(row)
    assert (row["code"], row["user"], row["cost_usd"], row["duration_ms"]) == (code or None, 'a"b', 1e-06, 1.5)
    assert json.loads(line(*LINE, {"policy": "x", "status": 1}))["policy"] == "x"


LINE: Any = ("t", "r", None, None, who(*[None] * 8), 200, "completed", None, True, Usage(), None, 1.0, 0.5, None, "hit",
             True, (), 0)  # fmt: skip


async def test_probes_carry_a_request_id_and_no_line() -> None:
    """`/healthz` and `/readyz` answer under the id they were asked with, and fill no log."""
    async with inline(AUTH) as side:
        for path in ("/healthz", "/readyz"):
            for method, status in (("GET", 200), ("POST", 405)):
                reply = await side.client.request(method, path, headers={"x-request-id": "mine"})
                assert (reply.status_code, reply.headers["x-request-id"]) == (status, "mine")
        assert await side.lines() == []


async def test_the_start_of_a_call_is_told_at_debug() -> None:
    """At DEBUG a call has a line when it begins, under the id of the one at its end; at INFO it has none."""
    for level in ("DEBUG", "INFO"):
        async with inline(AUTH + f"telemetry: {{log_level: {level}}}\n") as side:
            await side.client.post("/v1/chat/completions", headers=KEY, json={**GOOD, "model": "m"})
            (ended,) = await side.lines()
            started = [row["request_id"] for row in await side.lines("llm_request_started")]
            assert started == ([ended["request_id"]] if level == "DEBUG" else [])


def test_overhead_is_the_sidecars_own_time(sidecar: Sidecar) -> None:
    """A slow stream's time is the upstream's, not ours, in the line and in the histogram."""
    before = sidecar.metrics().sum("llm_overhead_seconds_count"), sidecar.metrics().sum("llm_overhead_seconds_sum")
    sidecar.chat("gpt-4o;chunks=6;interval=0.05;tag=overhead", stream=True)
    for _ in range(100):
        if rows := [row for row in sidecar.calls() if "tag=overhead" in (row["model"] or "")]:
            break
        time.sleep(0.02)  # the line is written a moment after the reply
    (line,) = rows
    assert line["duration_ms"] > 250 and 0 < line["overhead_ms"] < 100, line
    after = sidecar.metrics().sum("llm_overhead_seconds_count"), sidecar.metrics().sum("llm_overhead_seconds_sum")
    assert after[0] == before[0] + 1 and after[1] - before[1] < 0.1


@pytest.mark.parametrize("ends", ["error", "cut", "gone", "slow"])
def test_overhead_is_so_however_the_stream_ends(sidecar: Sidecar, tag: str, ends: str) -> None:
    """An error event, a lost connection, a client that leaves: the wait before it was the upstream's all the same."""
    how = {"error": "error=5", "cut": "cut=rst@chunk6", "gone": "hang=chunk@5", "slow": "error=5;first=0.2"}[ends]
    with sidecar.raw() as client:
        client.send(request(body=chat(f"gpt-4o;chunks=6;interval=0.1;{how};tag={tag}", stream=True), key=CLIENT_KEY))
        client.read_until(b" 000004")
        if ends == "gone":
            time.sleep(0.1)
        else:
            client.reply()
    for _ in range(100):
        if rows := [row for row in sidecar.calls() if tag in (row["model"] or "")]:
            break
        time.sleep(0.02)
    (line,) = rows
    assert line["outcome"] == ("client_gone" if ends == "gone" else "upstream_error")
    assert line["duration_ms"] > 400 and 0 < line["overhead_ms"] < 200, line
