"""Where a name leads, and what a caller sees of it."""

import random
from collections import Counter

import pytest

from proxy.auth import ALL
from proxy.call import Caller
from proxy.errors import ApiError
from proxy.models import list_models
from tests.core.inline import inline
from tests.policies.build import runtime_of

CONFIG = """
providers:
  one: {kind: echo, model: base, models: ["one-*", x]}
  two: {kind: echo, models: ["two-a", "two-*", y]}
default_provider: one
models:
  both: [one/x, two/y]
  spread: {strategy: weighted, targets: [{to: one/x, weight: 3}, {to: two/y, weight: 1}]}
"""


@pytest.mark.parametrize(
    ("asked", "leads_to"),
    [
        ("both", ["one/x", "two/y"]),
        ("two/anything", ["two/anything"]),
        ("two/with/slash", ["two/with/slash"]),
        ("one", ["one/base"]),
        ("", ["one/base"]),
        ("two-b", ["two/two-b"]),
        ("one-b", ["one/one-b"]),
        ("base", ["one/base"]),
        ("nowhere", "model_not_found"),
        ("three/x", "model_not_found"),
        ("two/", "model_not_found"),
    ],
)
async def test_resolution(asked, leads_to):
    """Alias, provider/model, provider alone, the first provider whose globs match, the default provider's own."""
    runtime = await runtime_of(CONFIG)
    try:
        found = [repr(t) for t in runtime.router.plan(asked, "chat", 0.0)]
    except ApiError as error:
        found = error.code
        assert error.param == "model"
    assert found == leads_to
    await runtime.store.aclose()


async def test_weights_share_out_and_the_rest_are_fallbacks():
    """Three to one in the long run, every target in each plan."""
    runtime = await runtime_of(CONFIG)
    runtime.router._random = random.Random(7)
    plans = [runtime.router.plan("spread", "chat", 0.0) for _ in range(4000)]
    first = Counter(plan[0].name for plan in plans)
    assert 2.6 < first["one"] / first["two"] < 3.4
    assert all(len(plan) == 2 for plan in plans)
    await runtime.store.aclose()


async def test_the_list_is_what_the_caller_may_use():
    """GET /v1/models shows aliases and configured models, less what the allowlist refuses; one by name, or 404."""
    async with inline(CONFIG + "policies: [{allowlist: {models: [both, two-a]}}]") as side:
        listed = (await side.client.get("/v1/models")).json()
        assert listed["object"] == "list"
        assert [row["id"] for row in listed["data"]] == ["both", "two-a"]
        assert (await side.client.get("/v1/models/both")).json()["id"] == "both"
        missing = await side.client.get("/models/base")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_an_endpoint_that_the_provider_lacks_is_said():
    """A route to a provider without the endpoint is a clear 400, before anything is sent."""
    config = "providers: {a: {kind: anthropic, api_key: sk-ant-xxxxxxxxxxxx}}\ndefault_provider: a\n"
    async with inline(config) as side:
        reply = await side.client.post("/v1/embeddings", json={"model": "m", "input": "x"})
        assert reply.status_code == 400
        assert "embeddings" in reply.json()["error"]["message"]


async def test_the_list_shows_names_that_lead_to_their_own_provider():
    """A model that its bare name does not lead to stands in the list as provider/model, and works so."""
    runtime = await runtime_of(
        """
providers:
  one: {kind: echo, model: base}
  two: {kind: echo, model: other}
  three: {kind: echo, model: base}
  four: {kind: echo, model: globbed, models: ["glob*"]}
  five: {kind: echo, model: alias}
default_provider: one
models: {alias: one/base}
"""
    )
    listed = list_models(runtime, Caller("k", "default", "u", ALL))["data"]
    assert [row["id"] for row in listed] == ["alias", "base", "globbed", "three/base", "two/other"]
    for row in listed:
        (target,) = runtime.router.plan(row["id"], "chat", 0.0)
        assert target.name == row["owned_by"]
    await runtime.store.aclose()


async def test_models_that_the_file_names_have_labels_of_their_own():
    """An alias, a target, an allowed or priced model is counted by its name; what only callers say is `other`."""
    runtime = await runtime_of(
        """
providers: {one: {kind: echo, model: base, models: ["glob-*", exact]}, two: {kind: echo}}
models: {alias: two/target}
policies: [{allowlist: {models: [allowed, two/of-two, two/a/b, "free-*"]}}]
teams: {t: {allowed_models: [of-team]}}
prices: {two/priced: {input: 1, output: 2}}
"""
    )
    named = ("base", "exact", "alias", "target", "allowed", "of-two", "a/b", "of-team", "priced")
    assert {name: runtime.model_label(name) for name in named} == {name: name for name in named}
    for name in ("glob-1", "glob-*", "free-*", "free-1", "two/of-two", "", "made-up"):
        assert runtime.model_label(name) == "other"
    await runtime.store.aclose()
