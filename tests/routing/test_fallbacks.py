"""Routes of several targets: in order or by weight, the next one where one fails before its first byte."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from proxy.config.load import load_text
from proxy.providers.anthropic import Anthropic
from proxy.providers.base import Provider
from proxy.providers.gemini_signature import with_signature
from proxy.route import Router
from proxy.upstream.echo import EchoUpstream
from proxy.upstream.entry import ProviderEntry
from tests.fakes.ports import free_port
from tests.fakes.scripted import VENDORS, Answer, Seen, events, llm_yml, providers, refuse, say, stream_of
from tests.routing.conftest import Serve

SMART = {"models": {"smart": ["anthropic/claude", "openai/gpt", "gemini/gem"]}}


def failing(*vendors: str, status: int = 503) -> Any:
    """Return a play in which these vendors refuse and the others answer."""

    def play(seen: Seen) -> Answer:
        name = type(seen.dialect).__name__.lower()
        return refuse(seen, status, "not now") if name in vendors else say(seen)

    return play


@pytest.mark.parametrize("as_stream", [False, True])
@pytest.mark.parametrize(
    ("bad", "answers"), [((), "anthropic"), (("anthropic",), "openai"), (("anthropic", "openai"), "gemini")]
)
async def test_the_next_target_answers(serve: Serve, bad: tuple[str, ...], answers: str, as_stream: bool) -> None:
    """Targets are tried in order until one answers; headers, line and metrics name the one that did."""
    sidecar, provider = await serve(failing(*bad), "anthropic", "openai", "gemini", config=SMART)
    reply = await sidecar.chat("hi", model="smart", stream=as_stream)
    assert reply.status_code == 200 and "000003" in reply.text
    assert reply.headers["x-llm-provider"] == answers and len(provider.calls) == len(bad) + 1
    (line,) = await sidecar.lines()
    assert (line["provider"], line["retries"]) == (answers, len(bad))


async def test_all_fail(serve: Serve) -> None:
    """Where none answers the caller gets the last one's error."""
    sidecar, provider = await serve(
        failing("anthropic", "openai", "gemini", status=529), "anthropic", "openai", "gemini", config=SMART
    )
    reply = await sidecar.chat("hi", model="smart")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "upstream_overloaded")
    assert reply.json()["error"]["message"].startswith("gemini ") and len(provider.calls) == 3


async def test_a_mistake_of_the_caller_is_nobodys_to_mend(serve: Serve) -> None:
    """A 400 is answered at once: the next target would only say the same, and be paid for it."""
    sidecar, provider = await serve(failing("anthropic", status=400), "anthropic", "openai", "gemini", config=SMART)
    assert (await sidecar.chat("hi", model="smart")).status_code == 400
    assert len(provider.calls) == 1


@pytest.mark.parametrize("status", [401, 402, 429])
async def test_another_account_may_do(serve: Serve, status: int) -> None:
    """A bad key, an empty account or a rate limit of one provider sends the call to the next, at once."""

    def play(seen: Seen) -> Answer:
        return say(seen) if seen.path.endswith("completions") else refuse(seen, status, "no", retry_after="30")

    sidecar, provider = await serve(play, "anthropic", "openai", "gemini", config=SMART, max_retries=3)
    reply = await sidecar.chat("hi", model="smart")
    assert reply.status_code == 200 and reply.headers["x-llm-provider"] == "openai"
    assert provider.calls[1].at - provider.calls[0].at < 0.3


async def test_what_a_server_does_not_do_at_all_is_no_illness(serve: Serve) -> None:
    """A 501 (embeddings of a server that only chats) is not asked twice, opens no breaker, and the next target may do."""
    play = failing("openai", status=501)
    sidecar, provider = await serve(
        play, "openai", "gemini", max_retries=3, config={"models": {"pair": ["openai/m", "gemini/g"]}}
    )
    for _ in range(6):
        reply = await sidecar.chat("hi", model="openai/m")
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_error")
        assert reply.headers["x-should-retry"] == "false"
    assert len(provider.calls) == 6
    assert (await sidecar.chat("hi", model="pair")).headers["x-llm-provider"] == "gemini"
    assert (await sidecar.client.get("/health")).json()["provider_status"]["openai"]["circuit"] == "closed"


async def test_a_target_that_cannot_is_passed_over(serve: Serve) -> None:
    """What one vendor has no way to do goes to the next that has; alone it is a 400."""
    sidecar, provider = await serve(failing(), "anthropic", "openai", "gemini", config=SMART)
    reply = await sidecar.chat("hi", model="smart", n=2)
    assert reply.status_code == 200 and reply.headers["x-llm-provider"] == "openai"
    assert len(provider.calls) == 1
    alone = await sidecar.chat("hi", model="anthropic/claude", n=2)
    assert (alone.status_code, alone.json()["error"]["code"]) == (400, "unsupported_parameter")


async def test_an_unreachable_target_is_passed_over(serve: Serve) -> None:
    """A refused connection is no reason to fail while another target lives."""
    dead = providers(f"http://127.0.0.1:{free_port()}", "anthropic")
    sidecar, _ = await serve(
        failing(), "openai", more=dead, config={"models": {"smart": ["anthropic/claude", "openai/gpt"]}}
    )
    reply = await sidecar.chat("hi", model="smart")
    assert reply.status_code == 200 and reply.headers["x-llm-provider"] == "openai"
    health = (await sidecar.client.get("/health")).json()["provider_status"]
    assert health["anthropic"]["last_error"] == "upstream_unreachable"


async def test_a_preamble_is_no_answer(serve: Serve) -> None:
    """A target that opens its stream and breaks before any content is passed over; the client sees one stream."""

    def play(seen: Seen) -> Answer:
        if not seen.path.endswith("/messages"):
            return say(seen)
        return stream_of(seen, [event.data for event in events(seen)[:3]], cut=True)

    sidecar, provider = await serve(play, "anthropic", "openai", "gemini", config=SMART)
    reply = await sidecar.chat("hi", model="smart", stream=True)
    assert reply.headers["x-llm-provider"] == "openai" and len(provider.calls) == 2
    assert reply.text.count('"role":"assistant"') == 1 and reply.text.endswith("data: [DONE]\n\n")
    (line,) = await sidecar.lines()
    assert line["prompt_tokens"] > 8, "the broken attempt was work: its prompt is on the bill"


# --- a conversation that moves from vendor to vendor ------------------------------------------------------


def _history(id: str) -> list[dict[str, Any]]:
    call = {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    extra = {"extra_content": {"google": {"thought_signature": "c2lnbmF0dXJl"}}}
    return [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [{**call, **extra}],
         "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
        {"role": "tool", "tool_call_id": id, "content": "done"},
    ]  # fmt: skip


@pytest.mark.parametrize("vendor", VENDORS)
async def test_signatures_stay_with_the_vendor_that_signed(serve: Serve, vendor: str) -> None:
    """59, 60: a Gemini history goes on elsewhere with plain ids and without fields that others refuse."""
    id = with_signature("call_1", "c2lnbmF0dXJl" * 60)
    sidecar, provider = await serve(say, vendor)
    tools = [{"type": "function", "function": {"name": "f"}}]
    reply = await sidecar.client.post(
        "/v1/chat/completions", json={"model": f"{vendor}/gemini-3-flash", "messages": _history(id), "tools": tools}
    )
    assert reply.status_code == 200, reply.text
    (seen,) = provider.calls
    sent = seen.raw.decode()
    if vendor == "gemini":
        assert "c2lnbmF0dXJl" in sent
        return
    assert "__thought" not in sent and "extra_content" not in sent
    ids = []
    for message in seen.body["messages"]:
        ids += [call["id"] for call in message.get("tool_calls") or ()] + (
            [message["tool_call_id"]] if "tool_call_id" in message else []
        )
        for block in message["content"] if isinstance(message.get("content"), list) else ():
            ids += [block[name] for name in ("id", "tool_use_id") if name in block]
    assert ids == ["call_1", "call_1"]
    assert ("thinking_blocks" in sent) is False


# --- weights ----------------------------------------------------------------------------------------------


def _router(text: str, seed: int) -> Router:
    config = load_text(text)
    entries: dict[str, ProviderEntry] = {}
    for entry in config.providers.values():
        made: Provider = entry.cls(entry.name, entry.settings)
        entries[entry.name] = ProviderEntry(entry.name, made, EchoUpstream(made))  # type: ignore[arg-type]
    return Router(config.models, entries, config.default_provider, random.Random(seed))


def test_weights_are_shares() -> None:
    """A weight of 3 beside one of 1 gets three quarters of the calls; the other target stays the fallback."""
    targets = [{"to": "openai/a", "weight": 3}, {"to": "anthropic/b", "weight": 1}]
    text = llm_yml(
        providers("http://127.0.0.1:1", "openai", "anthropic"),
        models={"spread": {"strategy": "weighted", "targets": targets}},
    )
    router = _router(text, 5)
    plans = [[target.name for target in router.plan("spread", "chat", 0.0)] for _ in range(4000)]
    first = Counter(plan[0] for plan in plans)
    assert abs(first["openai"] - 3000) < 4 * (4000 * 0.75 * 0.25) ** 0.5
    assert {tuple(sorted(plan)) for plan in plans} == {("anthropic", "openai")}


def test_an_open_breaker_gives_its_share_away() -> None:
    """A target whose breaker is open is not drawn while another is closed; if all are open, all stay planned."""
    from proxy.errors import Truncated

    targets = [{"to": "openai/a", "weight": 9}, {"to": "anthropic/b", "weight": 1}]
    text = llm_yml(
        providers("http://127.0.0.1:1", "openai", "anthropic", breaker={"failures": 1, "open": "60s"}),
        models={"spread": {"strategy": "weighted", "targets": targets}},
    )
    router = _router(text, 6)
    entries = router._entries
    entries["openai"].failed("a", Truncated(), 0.0)
    assert {tuple(t.name for t in router.plan("spread", "chat", 1.0)) for _ in range(50)} == {("anthropic",)}
    entries["anthropic"].failed("b", Truncated(), 0.0)
    assert {len(router.plan("spread", "chat", 1.0)) for _ in range(50)} == {2}
    assert {len(router.plan("spread", "chat", 61.0)) for _ in range(50)} == {2}, "due for a probe: planned again"


def test_provider_kinds_are_what_they_say() -> None:
    """The router's targets carry the translator of their provider."""
    text = llm_yml(providers("http://127.0.0.1:1", "anthropic"), models={"m": "anthropic/x"})
    (target,) = _router(text, 0).plan("m", "chat", 0.0)
    assert isinstance(target.provider, Anthropic) and target.model == "x"
