"""`llm-sidecar check`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Run

GOOD = """
default_provider: openai
providers:
  openai: {api_key: "${OPENAI_API_KEY}"}
  gemini: {api_key: "${GEMINI_API_KEY}"}
  echo:
models: {smart: [openai/gpt-4o, echo/x]}
policies:
  - allowlist: {models: ["gpt-*", smart]}
  - prompt_limit: {max_tokens: 100, enforce: false}
  - rate_limit: {requests: 5, per: 1m, store_down: allow}
"""
BAD = """
default_provider: opnai
providers: {echo: null}
polices: []
"""


def test_a_good_file(run: Run) -> None:
    """Providers present and absent, routes, and the policies in running order with their facts."""
    result = run("check", config=GOOD, OPENAI_API_KEY="sk-0123456789")
    assert result.code == 0, result.err
    assert "llm.yml is good" in result.out
    assert "absent: the environment variable GEMINI_API_KEY is not set" in result.out
    assert "smart  openai/gpt-4o, then echo/x" in result.out
    order = [result.out.index(name) for name in ("1  allowlist", "2  prompt_limit", "3  rate_limit")]
    assert order == sorted(order)
    assert "only watches" in result.out
    assert "lets calls pass while the store is down" in result.out
    assert "sk-0123456789" not in result.out + result.err


def test_a_bad_file(run: Run) -> None:
    """Every mistake with file:line, key and suggestion, on standard error; exit 1."""
    result = run("check", config=BAD)
    assert result.code == 1
    assert result.out == ""
    assert result.err.splitlines() == [
        "llm.yml:2: default_provider: there is no provider `opnai`",
        "llm.yml:4: polices: unknown section; did you mean `policies`?",
        "2 mistakes; nothing would be served.",
    ]


def test_json(run: Run) -> None:
    """The same for programs: one object, good or bad."""
    result = run("check", "--json", config=GOOD, OPENAI_API_KEY="sk-0123456789")
    assert result.code == 0
    report = json.loads(result.out)
    assert report["ok"] is True
    assert [row["name"] for row in report["policies"]] == ["allowlist", "prompt_limit", "rate_limit"]
    assert [row["present"] for row in report["providers"]] == [True, False, True]
    assert "sk-0123456789" not in result.out
    result = run("check", "--json", config=BAD)
    assert result.code == 1
    report = json.loads(result.out)
    assert report["ok"] is False
    assert report["problems"][1] == {
        "file": "llm.yml", "line": 4, "key": "polices", "message": "unknown section", "suggestion": "policies",
    }  # fmt: skip


def test_the_environment_alone(run: Run) -> None:
    """Without a file, the variables are what is checked."""
    result = run("check", ANTHROPIC_API_KEY="sk-ant-0123456789", LLM_MAX_PROMPT_TOKENS="100")
    assert result.code == 0, result.err
    assert "environment is good" in result.out
    assert "1  prompt_limit" in result.out


def test_an_empty_environment_says_what_to_do(run: Run) -> None:
    """Nothing configured at all is one mistake that names the ways out."""
    result = run("check")
    assert result.code == 1
    assert "set OPENAI_API_KEY" in result.err


def test_a_policy_that_cannot_be_built_is_a_mistake_with_its_line(run: Run, tmp_path: Path) -> None:
    """What only shows when a policy is made (a file that is not there) is told like any other mistake."""
    (tmp_path / "failing_policy_c.py").write_text(
        "from policies.base import Policy\n"
        "class Failing(Policy):\n"
        "    def __init__(self, config, kit):\n"
        "        raise ValueError('The list cannot be read')\n"
    )
    config = "providers: {echo: null}\npolicies:\n  - prompt_limit\n  - failing_policy_c:Failing\n"
    result = run("check", config=config)
    assert result.code == 1
    assert "llm.yml:4: policies[1].failing_policy_c:Failing: the list cannot be read" in result.err


def test_probe_asks_each_provider(run: Run, upstream: object) -> None:
    """`--probe` says whose key works; one that does not makes the exit code 1."""
    base = upstream.base()  # type: ignore[attr-defined]
    config = f"providers: {{openai: {{api_key: sk-probe-0123, base_url: '{base}'}}, echo: null}}"
    result = run("check", "--probe", config=config)
    assert result.code == 0, result.out + result.err
    assert "the key works" in result.out
    config = (
        "providers: {openai: {api_key: sk-probe-0123, base_url: 'http://127.0.0.1:9/v1', max_retries: 0}, echo: null}"
    )
    result = run("check", "--probe", config=config)
    assert result.code == 1
    assert "upstream_unreachable" in result.out


def test_every_limit_is_printed(run: Run) -> None:
    """Defaults count too, and so do the limits of single users."""
    result = run(
        "check", config="""
providers: {echo: {kind: echo}}
policies: [prompt_limit, {rate_limit: {by: user, requests: 7}}]
teams: {a: {users: {ann: {rate_limit: {requests: 3}}}}}
""")  # fmt: skip
    assert "prompt_limit  max_tokens 4,096" in result.out
    assert "users {a/ann {requests 3, per 60}}" in result.out
