"""Whose entry it is, and of what: isolation, and every field of the request."""

from __future__ import annotations

import hmac
import itertools
from types import SimpleNamespace

import orjson
import pytest

from policies.cache.key import Keys, rules
from proxy.config.load import load_text
from proxy.dryrun import dry_runtime
from proxy.forward import effective
from tests.cache.conftest import REWRITES, policies
from tests.policies.build import ECHO, call, target

FULL = {
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:a", "detail": "low"}}]},
        {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ],
    "temperature": 0.5, "top_p": 0.9, "seed": 1, "n": 1, "max_tokens": 10, "max_completion_tokens": 10, "stop": ["a"],
    "presence_penalty": 0.1, "frequency_penalty": 0.1, "logit_bias": {"1": 1}, "logprobs": True, "top_logprobs": 1,
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object", "properties": {"a": {}, "b": {}}}}},
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}}],
    "tool_choice": "auto", "parallel_tool_calls": True, "reasoning_effort": "low", "verbosity": "low",
    "service_tier": "auto", "store": False, "modalities": ["text"], "prediction": {"type": "content", "content": "x"},
    "an_unknown_field": {"deep": [1, 2, {"er": None}]},
}  # fmt: skip


async def runtime(text=""):
    return await dry_runtime(load_text(ECHO + text, {}, "."))


def key_of(keys, made, where=None, generations=(0,)):
    where = where or made.route[0]
    return keys.key(made, where, effective(made, where), generations)


def changed(value):
    """Yield ``value`` with one leaf, key or item changed by one unit, each way once."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield {other: kept for other, kept in value.items() if other != name}
            for new in changed(inner):
                yield {**value, name: new}
        yield {**value, "one_more": 1}
        if len(value) > 1:
            yield dict(reversed(value.items()))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield value[:i] + value[i + 1 :]
            for new in changed(inner):
                yield [*value[:i], new, *value[i + 1 :]]
        yield [*value, 1]
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, float):
        yield round(value + 0.1, 1)
    elif isinstance(value, str):
        yield value + " "
        yield value[:-1] + chr(ord(value[-1]) ^ 1)
    else:
        yield 0


async def test_each_field_changed_by_one_unit_is_another_entry():
    """Every leaf, key, item and order (a schema's order decides the answer's) of every field stands in the key."""
    made = call(
        **{k: v for k, v in FULL.items() if k != "messages"}, messages=FULL["messages"], runtime=await runtime()
    )
    keys = Keys(b"s" * 32, "team")
    base = key_of(keys, made)
    assert key_of(keys, made) == base
    seen = {base}
    count = 0
    for name, value in FULL.items():
        for new in [*changed(value), None]:
            made.request.body = {"model": "m", **FULL, name: new}
            count += 1
            seen.add(key_of(keys, made))
        made.request.body = {"model": "m", **{k: v for k, v in FULL.items() if k != name}}
        count += 1
        seen.add(key_of(keys, made))
    assert len(seen) == count + 1
    assert count > 150


async def test_what_decides_nothing_stands_not_in_the_key():
    """The alias asked for, `stream`, `stream_options`, `user`, `metadata`, and the order of top-level fields."""
    runner = await runtime()
    keys = Keys(b"s" * 32, "team")
    base = key_of(keys, call("x", runtime=runner, temperature=0.5))
    for more in (
        {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}, {"user": "u"}, {"metadata": {"a": "b"}},
        {"model": "alias"},
    ):  # fmt: skip
        assert key_of(keys, call("x", runtime=runner, temperature=0.5, **more)) == base
    turned = call("x", runtime=runner, temperature=0.5)
    turned.request.body = dict(reversed(turned.request.body.items()))
    assert key_of(keys, turned) == base


async def test_everything_around_the_request_stands_in_the_key():
    """Endpoint, provider, model, generations, secret, scope and the parameters that we add."""
    runner = await runtime()
    keys = Keys(b"s" * 32, "team")
    made = call("x", runtime=runner)
    seen = {
        key_of(keys, made), key_of(keys, made, target("other")), key_of(keys, made, target("m", "echo2")),
        key_of(keys, made, generations=(1,)), key_of(Keys(b"t" * 32, "team"), made), key_of(Keys(b"s" * 32, "user"), made),
        key_of(Keys(b"s" * 32, "global"), made), key_of(keys, call("x", runtime=runner, endpoint="embeddings")),
        key_of(keys, call("x", runtime=runner, endpoint="completions")),
    }  # fmt: skip
    for parameters in ({"temperature": 0.5}, {"temperature": 0.6}, {"max_tokens": 5}):
        given = call("x", runtime=runner)
        given.notes["parameters"] = parameters
        seen.add(key_of(keys, given))
        seen.add(
            key_of(keys, call("x", runtime=runner, **parameters))
        )  # the caller's own may be refused where ours are dropped
    assert len(seen) == 15


async def test_two_urls_of_one_name_are_two_providers():
    """An entry belongs to what answered: another base_url or another setting of the answers is another provider."""
    from proxy.providers.base import Target
    from proxy.providers.openai import OpenAI, OpenAISettings

    made = call("x", runtime=await runtime())
    seen = set()
    for settings in (
        {}, {"base_url": "http://a/v1"}, {"base_url": "http://b/v1"}, {"headers": {"x-beta": "1"}}, {"organization_id": "o"}
    ):  # fmt: skip
        provider = OpenAI("p", OpenAISettings(**settings))
        seen.add(key_of(Keys(b"s" * 32, "team"), made, Target("p", "m", provider)))
    assert len(seen) == 5
    same = OpenAI("p", OpenAISettings(timeout=5, max_retries=0, api_key="another"))
    assert key_of(Keys(b"s" * 32, "team"), made, Target("p", "m", same)) in seen


async def test_who_shares_an_entry():
    """Team: all users of one; user: one user of one team; global: everybody."""
    runner = await runtime()
    people = [("t", "ann"), ("t", "bob"), ("u", "ann"), ("u", "bob")]
    for scope, shared in (
        ("team", lambda a, b: a[0] == b[0]),
        ("user", lambda a, b: a == b),
        ("global", lambda a, b: True),
    ):
        keys = Keys(b"s" * 32, scope)
        for one, two in itertools.product(people, people):
            first, second = (key_of(keys, call("x", team=team, user=user, runtime=runner)) for team, user in (one, two))
            assert (first == second) == shared(one, two), (scope, one, two)


async def test_names_do_not_run_into_each_other():
    """A team's end and a user's beginning are two fields, whatever stands in them."""
    runner = await runtime()
    keys = Keys(b"s" * 32, "user")
    pairs = [("a", "bc"), ("ab", "c"), ("a", '"],["bc'), ('a","bc', "")]
    assert len({key_of(keys, call("x", team=team, user=user, runtime=runner)) for team, user in pairs}) == 4


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"redact": {"builtin": ["pii"]}}, {"redact": {"builtin": ["secrets"]}}),
        ({"redact": {}}, {"redact": {"enforce": False}}),
        ({REWRITES: {"to": "a"}}, {REWRITES: {"to": "b"}}),
        ({"template": {"templates": {"t": {"messages": [{"role": "user", "content": "a"}]}}}},
         {"template": {"templates": {"t": {"messages": [{"role": "user", "content": "b"}]}}}}),
    ],
)  # fmt: skip
async def test_another_rule_is_another_key(one, two):
    """A changed redaction, template or custom policy that changes requests orphans what was kept under the old one."""
    digests = []
    for row in (one, two, one):
        runner = await runtime(policies(row, "cache"))
        digests.append(rules(runner.policies))
        await runner.aclose()
        await runner.store.aclose()
    assert digests[0] == digests[2] != digests[1]


async def test_another_rule_pack_is_another_key(tmp_path):
    """What a policy reads from files counts as its settings do."""
    digests = []
    for regex in ("AAA[0-9]{9}", "BBB[0-9]{9}"):
        (tmp_path / "pack.toml").write_text(f"[[rules]]\nid = 'own'\nregex = '{regex}'\n")
        text = ECHO + policies({"redact": {"packs": ["pack.toml"]}}, "cache")
        runner = await dry_runtime(load_text(text, {}, str(tmp_path)))
        digests.append(rules(runner.policies))
        await runner.store.aclose()
    assert digests[0] != digests[1]


async def test_rules_that_change_no_request_orphan_nothing():
    """A new limit or another TTL keeps the entries."""
    digests = []
    for rows in (("cache",), ({"rate_limit": {"requests": 5}}, {"cache": {"ttl": "5m"}})):
        runner = await runtime(policies(*rows))
        digests.append(rules(runner.policies))
        await runner.store.aclose()
    assert digests[0] == digests[1]


async def test_the_key_is_an_hmac(monkeypatch):
    """HMAC-SHA256 under the sidecar's secret (RFC 2104), whatever way it is computed."""
    texts = []

    def dumps(value, **options):
        texts.append(orjson.dumps(value, **options))
        return texts[-1]

    made = call("x", runtime=await runtime())
    monkeypatch.setattr("policies.cache.key.orjson", SimpleNamespace(dumps=dumps, OPT_NON_STR_KEYS=0))
    secret = bytes(range(32))
    key = key_of(Keys(secret, "team"), made)
    assert key == hmac.digest(secret, texts[-1], "sha256").hex()
