"""Globs of model names: what is none, what matches nothing, what was probably meant."""

from __future__ import annotations

import pytest

from proxy.config.globs import complaint, near_miss, unknown_provider
from proxy.config.load import load_text

NAMES = ["gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "smart", "o3"]


@pytest.mark.parametrize("glob", ["*", "gpt-*", "gpt-4?", "gpt-[34]*", "openai/*", "gpt-4.1", "a:b_c"])
def test_globs(glob: str) -> None:
    """Nothing is said about a glob."""
    assert complaint(glob) is None


@pytest.mark.parametrize("glob", ["^gpt", "gpt$", "a|b", "(a)", "a+", "\\d", "", " a"])
def test_regular_expressions_are_no_globs(glob: str) -> None:
    """What only makes sense in a regular expression is told, because it would match nothing."""
    assert complaint(glob)


@pytest.mark.parametrize(
    ("glob", "unknown"),
    [
        ("gpt-*", None),
        ("openai/*", None),
        ("open*/x", None),
        ("*/gpt-4o", None),
        ("opnai/*", "opnai"),
        ("azure/x", "azure"),
    ],
)
def test_the_provider_part_must_be_there(glob: str, unknown: str | None) -> None:
    """A glob with a `/` means provider/model."""
    assert unknown_provider(glob, ["openai", "echo"]) == unknown


@pytest.mark.parametrize(
    ("glob", "meant"),
    [
        ("gtp-4o", "gpt-4o"), ("gtp-*", "gpt-*"), ("gpt4o*", "gpt-4o*"), ("cluade-*", "claude-*"), ("smrt", "smart"),
        ("clade-*", "claude-*"), ("gpt-4o", None), ("gpt-4*", None), ("*", None), ("gpt-4o-2024-08-06", None),
        ("gpt-5", None), ("gpt-3*", None), ("claude-opus-4", None), ("gemini-*", None), ("o1", None), ("o4*", None),
        ("llama*", None), ("openai/gtp-4o", None),
    ],
)  # fmt: skip
def test_slips_are_seen_and_versions_are_not(glob: str, meant: str | None) -> None:
    """One letter swapped, missing or too many in a name that the file mentions; never another version or vendor."""
    assert near_miss(glob, NAMES) == meant


def test_a_slip_is_a_warning_with_its_place() -> None:
    """Nobody can know all models there are, so that a glob that only looks wrong still loads."""
    config = load_text(
        "providers: {echo: null}\nmodels: {smart: echo/gpt-4o}\npolicies:\n  - allowlist: {models: [smrt, 'gtp-*', 'gpt-4*']}"
    )
    assert list(config.warnings) == [
        "llm.yml:4: policies[0].allowlist.models[0]: this glob matches no name in this file; did you mean `smart`?",
        "llm.yml:4: policies[0].allowlist.models[1]: this glob matches no name in this file; did you mean `gpt-*`?",
    ]


def test_names_are_case_sensitive() -> None:
    """A glob that differs from an alias in case alone is warned about."""
    config = load_text("providers: {echo: null}\nmodels: {Smart: echo/x}\npolicies: [{allowlist: {models: [smart]}}]")
    assert any("the alias is `Smart`" in warning for warning in config.warnings)
