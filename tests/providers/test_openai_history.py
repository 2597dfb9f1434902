"""59, 60, 77: what other vendors left in a conversation does not reach servers that would refuse it."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest

from proxy.providers.azure_openai import AzureOpenAI
from proxy.providers.base import Target
from proxy.providers.gemini_signature import with_signature
from proxy.providers.openai import OpenAI
from proxy.request import ChatRequest

SIGNED = with_signature("call_7", "QUJD" * 3000)
PLACES = {
    "openai": ("OpenAI", "https://api.openai.com/v1"),
    "azure": ("AzureOpenAI", "https://x.openai.azure.com"),
    "compatible": ("OpenAI", "http://127.0.0.1:8000/v1"),
    "google": ("OpenAI", "https://generativelanguage.googleapis.com/v1beta/openai"),
}


def sent(place: str, body: dict[str, Any]) -> dict[str, Any]:
    kind, url = PLACES[place]
    cls = {"OpenAI": OpenAI, "AzureOpenAI": AzureOpenAI}[kind]
    provider = cls("p", cls.Settings(base_url=url))
    before = copy.deepcopy(body)
    encoded: dict[str, Any] = orjson.loads(provider.encode(ChatRequest(body), Target("p", "m", provider)).body)
    assert body == before, "the caller's request is left as it is: another target may get it next"
    return encoded


def history() -> dict[str, Any]:
    call = {
        "id": SIGNED,
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
        "extra_content": {"google": {}},
    }
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    return {
        "model": "m",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "be brief", **mark}]},
            {"role": "user", "content": "go", **mark},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [call],
                "reasoning_content": "hm",
                "thinking_blocks": [{}],
            },
            {"role": "tool", "tool_call_id": SIGNED, "content": "ok"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}, **mark}],
    }


@pytest.mark.parametrize("place", PLACES)
def test_59_ids_are_plain_everywhere(place: str) -> None:
    """No signature rides on an id to a vendor that did not make it, and call and result still belong together."""
    messages = sent(place, history())["messages"]
    assert messages[2]["tool_calls"][0]["id"] == messages[3]["tool_call_id"] == "call_7"


@pytest.mark.parametrize("place", ["openai", "azure"])
def test_60_77_what_openai_does_not_know_is_taken_out(place: str) -> None:
    """Thinking blocks, reasoning, cache marks and signatures are left out for OpenAI and Azure; the text stays."""
    body = sent(place, history())
    raw = orjson.dumps(body)
    assert not any(
        word in raw for word in (b"cache_control", b"thinking_blocks", b"reasoning_content", b"extra_content")
    )
    assert body["messages"][0]["content"] == [{"type": "text", "text": "be brief"}]
    assert body["tools"] == [{"type": "function", "function": {"name": "f"}}]


def test_compatible_servers_keep_what_they_may_want() -> None:
    """Cache marks and reasoning pass to servers that take them; Google's own endpoint gets its signature back."""
    raw = orjson.dumps(sent("compatible", history()))
    assert b"cache_control" in raw and b"reasoning_content" in raw
    assert b"thinking_blocks" not in raw and b"extra_content" not in raw
    assert b"extra_content" in orjson.dumps(sent("google", history()))


def test_a_word_in_the_text_changes_nothing() -> None:
    """Text that speaks of these fields is text."""
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "what are thinking_blocks and __thought__ and cache_control?"}],
    }
    assert sent("openai", copy.deepcopy(body)) == body
