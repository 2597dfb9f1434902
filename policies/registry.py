"""The built-in policies by name, in the recommended order (cheap refusals first)."""

from __future__ import annotations

from typing import Final

BUILTIN: Final[dict[str, str]] = {
    "opt_out": "policies.opt_out:OptOut",
    "rollout": "policies.rollout:Rollout",
    "template": "policies.template:Template",
    "allowlist": "policies.allowlist:Allowlist",
    "prompt_limit": "policies.prompt_limit:PromptLimit",
    "rate_limit": "policies.rate_limit:RateLimit",
    "quota": "policies.quota:Quota",
    "budget": "policies.budget:Budget",
    "redact": "policies.redact:Redact",
    "cache": "policies.cache:Cache",
}
"""Name in llm.yml → where its class lives; imported only when listed."""

ORDER: Final = tuple(BUILTIN)
"""The order to recommend."""
