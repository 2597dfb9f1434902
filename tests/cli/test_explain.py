"""`llm-sidecar explain`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Run

CONFIG = """
providers:
  openai: {api_key: sk-canary-0123, headers: {x-secret: canary-header}, temperature: 0.5}
policies:
  - opt_out: {users: [bob]}
  - allowlist: {models: ["gpt-4o*"]}
  - prompt_limit: {max_tokens: 100, enforce: false}
teams:
  interns: {parameters: {top_p: 0.1}}
"""
REQUEST = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def test_the_exact_upstream_request_with_secrets_masked(run: Run, tmp_path: Path) -> None:
    """Each policy's word, then what would be sent: provider, model, URL, headers, body with what we add."""
    (tmp_path / "request.json").write_text(json.dumps(REQUEST))
    result = run("explain", "request.json", "--as", "interns/ann", config=CONFIG)
    assert result.code == 0, result.err
    assert "canary" not in result.out + result.err
    assert "user ann of team interns" in result.out
    assert "allowlist     passes" in result.out
    assert "POST https://api.openai.com/v1/chat/completions" in result.out
    assert "authorization: ***" in result.out
    body = json.loads(result.out[result.out.index("\n{") :])
    assert (body["temperature"], body["top_p"], body["model"]) == (0.5, 0.1, "gpt-4o")


def test_a_refusal(run: Run) -> None:
    """Who refuses, with what, and that the rest is not asked; exit 1."""
    request = json.dumps({**REQUEST, "model": "gpt-3.5-turbo"})
    result = run("explain", "-", config=CONFIG, stdin=request)
    assert result.code == 1
    assert "allowlist     refuses" in result.out
    assert "prompt_limit  is not asked" in result.out
    assert "refused 403 model_not_allowed" in result.out
    result = run("explain", "-", "--as", "default/bob", config=CONFIG, stdin=json.dumps(REQUEST))
    assert "refused 403 opted_out" in result.out


def test_shadow_mode_is_shown(run: Run) -> None:
    """A policy that only watches says what it would have done."""
    request = json.dumps({**REQUEST, "messages": [{"role": "user", "content": "word " * 500}]})
    result = run("explain", "-", config=CONFIG, stdin=request)
    assert result.code == 0
    assert "prompt_limit  would refuse, but only watches" in result.out


def test_json(run: Run) -> None:
    """For programs: one object with the decisions and the request."""
    result = run("explain", "-", "--json", config=CONFIG, stdin=json.dumps(REQUEST))
    found = json.loads(result.out)
    assert found["upstream"]["provider"] == "openai"
    assert found["refused"] is None
    assert "canary" not in result.out


def test_what_is_no_request_is_wrong_usage(run: Run) -> None:
    """A file that is not there or holds no JSON object exits 2 with a sentence."""
    assert run("explain", "nothing.json", config=CONFIG).code == 2
    result = run("explain", "-", config=CONFIG, stdin="[1")
    assert result.code == 2
    assert "not valid JSON" in result.err


def test_a_broken_configuration(run: Run) -> None:
    """Its mistakes are printed as `check` prints them."""
    result = run("explain", "-", config="polices: []", stdin=json.dumps(REQUEST))
    assert result.code == 1
    assert "did you mean `policies`?" in result.err


def test_a_mistyped_team_or_feature_is_told(run: Run) -> None:
    """A team that no caller can have is wrong usage; a feature that is not listed counts as `other`, and it says so."""
    config = f"features: [summary]\n{CONFIG}"
    result = run("explain", "-", "--as", "intern/ann", config=config, stdin=json.dumps(REQUEST))
    assert (result.code, result.out) == (2, "")
    assert "there is no team `intern` under `teams:`; did you mean `interns`?" in result.err
    result = run("explain", "-", "--feature", "sumary", config=config, stdin=json.dumps(REQUEST))
    assert result.code == 0
    assert "counts as `other`; did you mean `summary`?" in result.err
    result = run("explain", "-", "--feature", "summary", "--as", "interns", config=config, stdin=json.dumps(REQUEST))
    assert (result.code, result.err) == (0, "")
