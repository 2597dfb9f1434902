"""Which models a caller may use: the contract's truth table, and whose list holds."""

import pytest

from policies.allowlist import Allowlist
from policies.base import ApiError
from tests.policies.build import call, kit, runtime_of, target

MODELS = """
providers:
  openai: {kind: echo}
  anthropic: {kind: echo}
default_provider: openai
models: {smart: [anthropic/claude-x, openai/gpt-4o]}
"""


async def asked(runtime, model, team="default"):
    """Return the targets that an asked model is left with, or the refusal's code."""
    one = call(model=model, team=team, route=runtime.router.plan(model, "chat", 0.0), runtime=runtime)
    try:
        await runtime.policies[0].on_request(one)
    except ApiError as error:
        assert error.status == 403
        assert error.param == "model"
        return error.code
    return [repr(t) for t in one.route]


@pytest.mark.parametrize(
    ("globs", "model", "left"),
    [
        ("smart", "smart", ["anthropic/claude-x", "openai/gpt-4o"]),
        ("claude-*", "smart", ["anthropic/claude-x"]),
        ("openai/*", "gpt-4o", ["openai/gpt-4o"]),
        ("gpt-4o", "openai/gpt-4o", ["openai/gpt-4o"]),
        ("gpt-4o", "gpt-4o-mini", "model_not_allowed"),
        ("claude-*", "gpt-4o", "model_not_allowed"),
        ("openai/gpt-4o", "smart", ["openai/gpt-4o"]),
        ("nothing", "smart", "model_not_allowed"),
    ],
)
async def test_truth_table(globs, model, left):
    """A glob with a slash matches provider/model, one without an alias or a bare name; globs are anchored."""
    runtime = await runtime_of(MODELS + f"policies: [{{allowlist: {{models: ['{globs}']}}}}]")
    assert await asked(runtime, model) == left
    await runtime.store.aclose()


async def test_a_teams_own_list_replaces_the_policys():
    """A listed team's list holds for it, the default team's for teams not listed, the policy's for the rest."""
    runtime = await runtime_of(
        MODELS
        + """
policies: [{allowlist: {models: ["gpt-4o"]}}]
teams: {default: {allowed_models: ["gpt-3.5"]}, research: {allowed_models: ["claude-*"]}, plain: {}}
"""
    )
    assert await asked(runtime, "gpt-4o", "plain") == ["openai/gpt-4o"]
    assert await asked(runtime, "gpt-4o", "research") == "model_not_allowed"
    assert await asked(runtime, "smart", "research") == ["anthropic/claude-x"]
    assert await asked(runtime, "gpt-4o", "strangers") == "model_not_allowed"
    assert await asked(runtime, "gpt-3.5", "strangers") == ["openai/gpt-3.5"]
    await runtime.store.aclose()


def test_an_empty_list_allows_nothing():
    """No globs means no model: a list that is empty by mistake opens nothing."""
    policy = Allowlist(Allowlist.Config(), kit())
    assert not policy.allows(call().caller, "m", target())
