"""The JSON Schema of llm.yml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from policies import registry as policies
from policies.base import Policy
from proxy.config import plugins
from proxy.config.document import read
from proxy.config.schema import schema
from proxy.providers import registry as providers
from proxy.providers.base import Provider


@pytest.fixture(scope="module")
def validator() -> Any:
    made = schema()
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


def tree(text: str) -> Any:
    return read(text, "llm.yml").tree


P = "providers: {echo: null}\n"
GOOD = [
    P,
    "x-own: {anything: [1]}\n" + P,
    "providers: {openai: {api_key: a}}",
    "providers: {openai: {api_key: [a, b], timeout: 30}}",
    "providers: {openai: {timeout: {connect: 5s}}, mine: {kind: openai, base_url: http://x}}",
    "providers: {a: {kind: azure_openai, azure_endpoint: https://x}, b: {kind: 'my.module:Class', any: thing}}",
    "providers: {openai: {kind: azure_openai, azure_deployment: d}}",
    P + "store: memory",
    P + "store: {url: memory, deadline: 100ms}",
    P + "models: {a: x/y, b: [x/y, {to: x/z, weight: 2}], c: {strategy: weighted, targets: [x/y]}}",
    P + "policies: [prompt_limit, {quota: {tokens: 100_000, enforce: false, store_down: allow}}, 'my.mod:Class']",
    P + "policies: [{rate_limit: {requests: 5, per: 1m}}, {'my.mod:Class': {any: thing}}, {prompt_limit: }]",
    P + "policies: [{rate_limit: {limits: [{by: team, requests: 5}]}}]",
    P + "policies: [{prompt_limit: {max_tokens: '${N:-5}'}}]\nserver: {reuse_port: '${R}', metrics: '${M}'}",
    P + "teams: {default: , a: {token_quota: 1_000, parameters: {temperature: 0.1}}}",
    P + "teams: {a: {token_quota: '1_000'}}",
    P + "tests: [{name: a, as: {team: b}, request: {}, expect: {allowed: true}}]",
]
BAD = [
    "server: {lisen: x}\n" + P,
    "server: {metrics: public}\n" + P,
    "server: {reuse_port: yes}\n" + P,
    "unknown: 1\n" + P,
    "providers: {openai: {temperature: hot}}",
    "providers: {openai: {version: x}}",
    "providers: {anthropic: {organization_id: x}}",
    "providers: {mine: {base_url: http://x}}",
    "providers: {mine: {kind: opnai}}",
    "providers: {openai: {kind: azure_openai, organization: d}}",
    P + "models: {a: gpt-4o}",
    P + "policies: {redact: }",
    P + "policies: [redacted]",
    P + "policies: [{prompt_limit: , quota: }]",
    P + "policies: [{prompt_limit: {store_down: allow}}]",
    P + "policies: [{quota: {store_down: maybe}}]",
    P + "policies: [{rate_limit: {request: 5}}]",
    P + "teams: {a: {parameters: {temprature: 1}}}",
    P + "tests: [{name: a, request: {}, expect: {alowed: true}}]",
    P + "audit: {file: x}",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_loads_is_valid(validator: Any, text: str) -> None:
    """No editor underlines what is right: short forms, expansions, `_` in numbers, nulls."""
    assert not [error.message for error in validator.iter_errors(tree(text))]


@pytest.mark.parametrize("text", BAD)
def test_what_does_not_load_is_not(validator: Any, text: str) -> None:
    """Wrong keys, types, words and forms are seen."""
    assert not validator.is_valid(tree(text))


def test_the_design_documents_example_is_valid(validator: Any, shared: Path) -> None:
    """The example that must load unchanged is valid too."""
    text = next((shared / "seed").glob("*.txt")).read_text()
    found = re.search(r"```yaml\n(# config/llm\.yml.*?)```", text, re.DOTALL)
    assert found
    validator.validate(tree(found[1]))


def test_every_setting_of_every_policy_and_provider_is_in_it() -> None:
    """What a policy's or a provider's model takes, an editor can complete."""
    made = schema()
    text = str(made)
    for name, cls in plugins.available(policies.BUILTIN, Policy, "policy").items():
        for key in cls.Config.model_fields:
            assert f"'{key}'" in text, f"{name}.{key}"
    for name, kind in plugins.available(providers.BUILTIN, Provider, "kind").items():
        for key in kind.Settings.model_fields:
            assert f"'{key}'" in text, f"{name}.{key}"
