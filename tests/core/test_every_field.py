"""Every field that is read, with every type of value: the contract's error or a request for the vendor."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from proxy import tokens
from proxy.errors import ApiError
from proxy.providers.anthropic import Anthropic, AnthropicSettings
from proxy.providers.azure_openai import AzureOpenAI, AzureSettings
from proxy.providers.base import Provider, Target
from proxy.providers.echo import Echo
from proxy.providers.gemini import Gemini, GeminiSettings
from proxy.providers.openai import OpenAI
from proxy.request import REQUESTS, parse_object
from tests.fakes.mutate import places

_SCHEMA = {
    "type": "object", "properties": {"a": {"type": "string", "enum": ["x"], "format": "date"}, "b": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/q"}]}},
    "required": ["a"], "$defs": {"q": {"type": ["string", "null"], "minLength": 1}}, "additionalProperties": False,
}  # fmt: skip
_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}, "extra_content": {"google": {"thought_signature": "AAAA"}}}  # fmt: skip
_USER = {"role": "user", "content": "hi"}
SEEDS: list[tuple[str, dict[str, Any]]] = [
    ("chat", {"model": "m", "messages": [{"role": "system", "content": "s", "name": "n"}, {"role": "user", "content": [{"type": "text", "text": "t", "cache_control": {"type": "ephemeral"}}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}]}], "stream": True, "stream_options": {"include_usage": True}}),
    ("chat", {"messages": [_USER, {"role": "assistant", "content": None, "refusal": None, "reasoning_content": "r", "thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "AAAA"}], "tool_calls": [_CALL]}, {"role": "tool", "tool_call_id": "c1", "content": "r"}], "tools": [{"type": "function", "function": {"name": "f", "description": "d", "strict": True, "parameters": _SCHEMA}}], "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": False}),
    ("chat", {"messages": [_USER], "temperature": 0.5, "top_p": 1, "n": 1, "stop": ["a"], "max_completion_tokens": 10, "user": "u", "seed": 1, "response_format": {"type": "json_schema", "json_schema": {"name": "n", "description": "x", "schema": _SCHEMA, "strict": True}}, "metadata": {"a": "b"}, "store": False, "modalities": ["text"], "service_tier": "auto", "verbosity": "low"}),
    ("chat", {"messages": [_USER], "max_tokens": 10, "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {"50256": -100}, "logprobs": True, "top_logprobs": 2, "prediction": {"type": "content", "content": "p"}, "reasoning_effort": "low", "top_k": 3, "thinking": {"type": "enabled", "budget_tokens": 1024}, "safety_settings": [{"category": "x", "threshold": "BLOCK_NONE"}]}),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}}]}], "functions": [{"name": "f", "parameters": {"type": "object"}}], "function_call": {"name": "f"}}),
    ("chat", {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "n"}], "function_call": {"name": "f", "arguments": "{}"}}, {"role": "function", "name": "f", "content": "x"}, {"role": "assistant", "audio": {"id": "x"}, "tool_calls": [{"id": "c2", "type": "custom", "custom": {"name": "c", "input": "i"}}]}, {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "y"}]}], "tools": [{"type": "custom", "custom": {"name": "c", "description": "d", "format": {"type": "grammar"}}}], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}}}),
    ("embeddings", {"model": "m", "input": ["a", "b"], "dimensions": 3, "encoding_format": "float", "user": "u"}),
    ("embeddings", {"input": [[1, 2], [3]]}),
    ("embeddings", {"input": "__thought thinking_blocks", "messages": [{"role": "assistant", "tool_calls": [{"id": "c1"}], "tool_call_id": "c"}], "tools": [{}]}),
    ("completions", {"prompt": "cache_control extra_content", "messages": [{"content": [{}]}], "tools": [{}]}),
    ("completions", {"prompt": "once", "max_tokens": 5, "stream": True, "suffix": "s", "logprobs": 1, "echo": False, "best_of": 1, "n": 1, "stop": ["a"]}),
]  # fmt: skip
VALUES = [
    "null", "true", "0", "-1", "3", "1.5", "1e308", str(2**63), str(10**30), '""', '"x"', '"\\ud800"', '"\\u0000"', "NaN", "1e999", "[]", '["a"]', "[null]", "[1]",
    "[{}]", "[[]]", "{}", '{"type":1}', '{"type":"function"}', '{"type":"text"}', '{"type":"object","properties":[]}', '{"type":"object","properties":{"a":{"format":[]}}}',
    '{"allOf":[[]],"properties":{"a":{"$ref":"#/allOf/²"},"b":{"$ref":"#/allOf/%s"}}}' % ("9" * 5000), '{"$ref":"#"}', '{"$ref":[]}', '{"":{"":""}}', '{"a":' * 40 + "1" + "}" * 40,
    "[" * 70 + "]" * 70, '"data:;base64,@@"', '"http://x"', '"{"', '"null"',
]  # fmt: skip
_MARK = "@@"


def spoiled() -> Iterator[tuple[str, bytes]]:
    """Yield endpoint and body: each seed with each of its fields left out, and with each value in its place."""
    for endpoint, seed in SEEDS:
        for place in range(len(places(seed, []))):
            body = copy.deepcopy(seed)
            holder, key = places(body, [])[place]
            holder[key] = _MARK
            text = json.dumps(body)
            for value in VALUES:
                yield endpoint, text.replace(f'"{_MARK}"', value).encode()
            del holder[key]
            yield endpoint, json.dumps(body).encode()


PROVIDERS: list[tuple[Provider, str]] = [
    (OpenAI("openai", OpenAI.Settings(unsupported="drop")), "gpt-4o"),
    (AzureOpenAI("azure", AzureSettings(azure_endpoint="https://x.example", unsupported="drop")), "gpt-4o"),
    (Anthropic("anthropic", AnthropicSettings(unsupported="drop")), "claude-sonnet-4-5"),
    (Gemini("gemini", GeminiSettings(unsupported="drop")), "gemini-2.5-flash"),
    (Echo("echo", Echo.Settings()), "echo"),
]


def test_wrong_types_are_refused_or_translated() -> None:
    """For each field × each value × each vendor: a 4xx of ours, or a body that is JSON; never another exception."""
    targets = [Target(provider.name, model, provider) for provider, model in PROVIDERS]
    good, bad = Counter[str](), Counter[str]()
    for endpoint, raw in spoiled():
        at = "request"
        try:
            request = REQUESTS[endpoint](parse_object(raw), len(raw))
            assert all(type(slot.text) is str for slot in request.texts())
            assert tokens.estimate(request) <= tokens.bound(request) * 2 + 10
            for target in targets:
                at = target.name
                if endpoint not in target.provider.endpoints:
                    continue  # the router's 404
                try:
                    json.loads(target.provider.encode(request, target).body)
                    good[at] += 1
                except ApiError as error:
                    assert 400 <= error.status < 500, error.code
                    bad[at] += 1
        except ApiError as error:
            assert error.status == 400, error.code
            bad[at] += 1
        except Exception as error:
            raise AssertionError(f"{at}: {error!r} for {raw.decode()[:1500]}") from error
    assert min(good.values()) > 500 and len(good) == len(targets) and bad["request"] > 2000, (good, bad)


@pytest.mark.parametrize("value", ["20.0", "1.5", "true", '"9"', "0", "1000"])
def test_a_multiplier_that_a_hold_counts_on_is_an_integer(value: str) -> None:
    """`best_of` and `n` multiply what a call may cost: neither can hide its size in another type."""
    for name in ("best_of", "n"):
        with pytest.raises(ApiError) as caught:
            REQUESTS["completions"](parse_object(b'{"prompt":"x","%b":%b}' % (name.encode(), value.encode())))
        assert (caught.value.code, caught.value.param) == ("invalid_request", name)
