"""`llm-sidecar test`: the file's own policy tests."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Run

CONFIG = """
providers: {{openai: {{api_key: sk-0123456789}}, echo: null}}
default_provider: openai
models: {{fast: openai/gpt-4o-mini, smart: [echo/big, openai/gpt-4o]}}
teams: {{interns: {{allowed_models: [fast]}}}}
policies:
  - allowlist: {{models: ["*"]}}
  - prompt_limit: {{max_messages: 2}}
  - rate_limit: {{requests: 1}}
tests:
  - name: the case
    as: {{team: {team}}}
    request: {{model: {model}, messages: [{messages}]}}
    upstream: {{reply: "done"}}
    expect: {expect}
"""
HI = "{role: user, content: hi}"


def config(expect: str, *, team: str = "default", model: str = "fast", messages: str = HI) -> str:
    return CONFIG.format(expect=expect, team=team, model=model, messages=messages)


@pytest.mark.parametrize(
    ("expect", "changes"),
    [
        ("{allowed: true}", {}),
        ("{allowed: true, provider: openai, model: gpt-4o-mini}", {}),
        ("{provider: echo, model: big}", {"model": "smart"}),
        ("{upstream_text: hi, reply_text: done}", {}),
        ("{refused: model_not_allowed}", {"team": "interns", "model": "gpt-4o"}),
        ("{refused: model_not_allowed, param: model}", {"team": "interns", "model": "gpt-4o"}),
        ("{allowed: false}", {"team": "interns", "model": "gpt-4o"}),
        ("{param: model}", {"team": "interns", "model": "gpt-4o"}),
        ("{allowed: true}", {"team": "interns"}),
        ("{refused: context_length_exceeded}", {"messages": f"{HI}, {HI}, {HI}"}),
    ],
)
def test_expectations_that_come_true(expect: str, changes: dict[str, str], run: Run) -> None:
    """Each thing that can be expected, in a case where it is so."""
    result = run("test", config=config(expect, **changes))
    assert result.code == 0, result.out + result.err
    assert "ok  the case" in result.out
    assert "1 of 1 tests came true" in result.out


@pytest.mark.parametrize(
    ("expect", "changes", "sentence"),
    [
        ("{allowed: false}", {}, "expected a refusal, but the call is allowed"),
        ("{refused: model_not_allowed}", {}, "expected the refusal `model_not_allowed`, but the call is allowed"),
        ("{allowed: true}", {"team": "interns", "model": "gpt-4o"}, "expected the call to be allowed, got the refusal "
         "`model_not_allowed`"),
        ("{refused: opted_out}", {"team": "interns", "model": "gpt-4o"}, "expected the refusal `opted_out`, got the "
         "refusal `model_not_allowed`"),
        ("{param: messages}", {}, "expected the refusal to name the parameter `messages`, got nothing"),
        ("{provider: echo}", {}, 'expected provider "echo", got "openai"'),
        ("{model: gpt-4o}", {}, 'expected model "gpt-4o", got "gpt-4o-mini"'),
        ("{upstream_text: ho}", {}, 'expected upstream_text "ho", got "hi"'),
        ("{reply_text: undone}", {}, 'expected reply_text "undone", got "done"'),
        ("{cache: miss}", {}, 'expected cache "miss", got nothing'),
    ],
)  # fmt: skip
def test_expectations_that_do_not(expect: str, changes: dict[str, str], sentence: str, run: Run) -> None:
    """Each thing that can be expected, in a case where it is not so: exit 1 and what was found instead."""
    result = run("test", config=config(expect, **changes))
    assert result.code == 1
    assert "failed  the case" in result.out
    assert sentence in result.out
    assert "0 of 1 tests came true" in result.out


def test_tests_do_not_disturb_each_other(run: Run) -> None:
    """Each begins with empty counters: a limit of one request lets the first call of every test through."""
    text = config("{allowed: true}")
    entry = text[text.index("  - name: the case") :]
    result = run("test", config=text + entry.replace("the case", "another"))
    assert result.code == 0, result.out


def test_a_file_without_tests(run: Run) -> None:
    """Nothing declared is nothing failed, and says how to declare some."""
    result = run("test", config="providers: {echo: null}")
    assert result.code == 0
    assert "declares no tests" in result.out


def test_a_broken_configuration(run: Run) -> None:
    """Its mistakes are printed, exit 1."""
    result = run("test", config="providers: {echo: null}\ntests: [{name: x, request: {}, expect: {}}]")
    assert result.code == 1
    assert "a test needs something to expect" in result.err
