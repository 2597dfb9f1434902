"""What /admin/config shows."""

from __future__ import annotations

import json

from proxy.config.load import load_text
from proxy.config.mask import masked

TEXT = """
server: {secret: canary-server-secret}
store: {url: "redis+sentinel://user:canary-store@redis:26379/main?sentinel_password=canary-sentinel"}
auth:
  keys:
    - {id: ops, key: canary-client-key-1, roles: [manage]}
    - {id: backend, hash: "sha256:%s"}
providers:
  openai:
    api_key: [canary-one-1, canary-two-2]
    headers: {x-secret: canary-header}
    proxy: http://user:canary-proxy@proxy:3128
  echo:
models: {smart: {strategy: weighted, targets: [{to: openai/gpt-4o, weight: 3}, echo/x]}}
teams: {a: {parameters: {temperature: 0.2}, users: {ann: {parameters: {seed: 1}}}}}
policies:
  - prompt_limit: {max_tokens: 10}
  - budget: {usd: 5, webhook: "https://hooks.example.com/canary-hook"}
""" % ("ca" * 32)


def test_no_secret_is_shown() -> None:
    """Keys, hashes, header values, passwords in addresses and webhooks are three stars."""
    text = json.dumps(masked(load_text(TEXT)))
    assert "canary" not in text
    assert "caca" not in text
    assert text.count("***") >= 7


def test_everything_else_is_shown_as_in_the_file() -> None:
    """The dump reads like llm.yml, and is JSON."""
    shown = masked(load_text(TEXT))
    assert shown["server"]["listen"] == "127.0.0.1:8080"
    assert shown["store"]["url"] == "redis+sentinel://***@redis:26379/main?sentinel_password=***"
    assert shown["models"]["smart"]["targets"][0] == {"to": "openai/gpt-4o", "weight": 3.0}
    assert shown["policies"][0] == {
        "prompt_limit": {"max_tokens": 10, "max_messages": None, "enforce": True, "store_down": "refuse"}
    }
    assert shown["teams"]["a"]["parameters"] == {"temperature": 0.2}
    assert shown["providers"]["openai"]["present"] is True
    assert shown["auth"]["keys"][0]["id"] == "ops"
    assert json.loads(json.dumps(shown)) == shown
