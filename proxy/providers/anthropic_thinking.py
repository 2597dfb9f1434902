"""How much a Claude model thinks: OpenAI's ``reasoning_effort`` in each line's own terms.

Source: platform.claude.com/docs/en/build-with-claude/{thinking,effort,extended-thinking}.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.errors import bad
from proxy.providers.anthropic_content import VENDOR, echoed_thoughts
from proxy.providers.anthropic_models import Capabilities
from proxy.providers.base import drop_or_refuse
from proxy.providers.conversation import Turn

_EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
#: Tokens of thinking for the lines that take a budget; the least the vendor takes is 1024.
_BUDGETS: Final = {
    "minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_384, "xhigh": 32_768, "max": 63_999
}  # fmt: skip
_LEAST: Final = 1_024
_TYPES: Final = ("adaptive", "between_tools", "disabled", "enabled")


def thinking(
    body: dict[str, Any], out: dict[str, Any], turns: list[Turn], caps: Capabilities, settings: Any, dropped: list[str]
) -> str:
    """Set ``thinking`` and ``output_config.effort``; return ``budget`` or ``adaptive`` where it thinks on request, else "".

    ``thinking`` in the vendor's own form is taken as an extension and wins over ``reasoning_effort``.
    """
    asked, effort, source = body.get("thinking"), body.get("reasoning_effort"), "thinking"
    if asked is None and not effort:
        return ""
    if asked is not None:
        if not isinstance(asked, dict) or asked.get("type") not in _TYPES:
            bad(f"`thinking` must be an object whose `type` is one of {', '.join(_TYPES)}.", "thinking")
        out["thinking"] = dict(asked)
    else:
        source = "reasoning_effort"
        if effort not in _EFFORTS:
            bad(f"`reasoning_effort` must be one of {', '.join(_EFFORTS)}.", "reasoning_effort")
        _from_effort(effort, out, caps, settings, dropped)
    mode = {"enabled": "budget", "adaptive": "adaptive"}.get(out.get("thinking", {}).get("type", ""), "")
    forced = out.get("tool_choice", {}).get("type") in ("any", "tool")
    if mode != "budget" and not (mode == "adaptive" and forced and not caps.forced_thinking):
        return mode
    if _forced_by_caller(body, out) or turns[-1].role == "assistant":
        drop_or_refuse(settings, dropped, source, VENDOR, "it goes with neither a forced tool nor an answer begun")
    elif forced or not _fits(out, source) or _broken_loop(turns):
        dropped.append(source)
    else:
        return mode
    del out["thinking"]
    return ""


def _from_effort(effort: str, out: dict[str, Any], caps: Capabilities, settings: Any, dropped: list[str]) -> None:
    if effort == "none":
        if caps.by_default and caps.off is None:
            drop_or_refuse(settings, dropped, "reasoning_effort", VENDOR, "this model always thinks, least at low")
        elif caps.by_default:
            out["thinking"] = {"type": caps.off}
        return
    if caps.thinking == "none":
        drop_or_refuse(settings, dropped, "reasoning_effort", VENDOR, "this model does not reason")
    elif caps.thinking == "budget":
        out["thinking"] = {"type": "enabled", "budget_tokens": _BUDGETS[effort]}
    else:
        if not caps.by_default:
            out["thinking"] = {"type": "adaptive"}
        wanted = max(_EFFORTS.index(effort), _EFFORTS.index("low"))
        level = max((name for name in caps.efforts if _EFFORTS.index(name) <= wanted), key=_EFFORTS.index)
        out.setdefault("output_config", {})["effort"] = level


def _forced_by_caller(body: dict[str, Any], out: dict[str, Any]) -> bool:
    choice = body.get("tool_choice")
    return "tools" in out and (choice == "required" or (isinstance(choice, dict) and choice.get("type") == "function"))


def _fits(out: dict[str, Any], source: str) -> bool:
    """Cut the budget so that an answer fits behind the thoughts; False where that leaves less than the least."""
    budget: Any = out["thinking"].get("budget_tokens")
    maximum: int = out["max_tokens"]
    if type(budget) is not int:
        bad("`thinking.budget_tokens` must be an integer.", "thinking.budget_tokens")
    if budget >= maximum or (source == "reasoning_effort" and budget > maximum // 2):
        budget = out["thinking"]["budget_tokens"] = max(_LEAST, maximum // 2)
    return bool(_LEAST <= budget < maximum)


def _broken_loop(turns: list[Turn]) -> bool:
    """Tell whether the request is inside a tool loop whose assistant turn lost the thinking block it began with.

    The vendor answers that with 400 ("Expected `thinking` or `redacted_thinking`, but found `tool_use`").
    """
    return bool(turns[-1].results) and not echoed_thoughts(turns[-2].messages[0][1])
