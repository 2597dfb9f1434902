"""What a policy test of llm.yml expects, against what a dry run found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.config.expectation import Expectation


def disagreements(expect: Expectation, found: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each expectation that did not come true."""
    refused = found["refused"]
    upstream = found["upstream"] or {}
    result: list[str] = []
    if expect.refused is not None:
        if refused is None:
            result.append(f"expected the refusal `{expect.refused}`, but the call is allowed")
        elif refused["code"] != expect.refused:
            result.append(f"expected the refusal `{expect.refused}`, got {_refusal(refused)}")
    elif expect.allowed is False and refused is None:
        result.append("expected a refusal, but the call is allowed")
    elif expect.allowed is not False and refused is not None and not _only(expect, "param"):
        result.append(f"expected the call to be allowed, got {_refusal(refused)}")
        return result
    if expect.param is not None:
        got = None if refused is None else refused["param"]
        if got != expect.param:
            result.append(f"expected the refusal to name the parameter `{expect.param}`, got {_shown(got)}")
    seen = {
        "provider": upstream.get("provider"),
        "model": upstream.get("model"),
        "upstream_text": found["upstream_text"] if upstream else None,
        "reply_text": found["reply_text"],
        "cache": found["cache"],
    }
    for key, got in seen.items():
        wanted = getattr(expect, key)
        if wanted is not None and wanted != got:
            result.append(f"expected {key} {_shown(wanted)}, got {_shown(got)}")
    return result


def _only(expect: Expectation, key: str) -> bool:
    return expect.model_fields_set == {key}


def _refusal(refused: Mapping[str, Any]) -> str:
    return f"the refusal `{refused['code']}` ({refused['message']})"


def _shown(value: Any) -> str:
    return "nothing" if value is None else f'"{value}"'
