"""What each Claude model takes: the facts that decide how a request is put.

Sources: platform.claude.com/docs/en/about-claude/models/overview, …/models/opus-5-5/whats-new-opus-5-5,
…/models/sonnet-5-5/whats-new-sonnet-5-5, …/models/haiku-5-5/whats-new-haiku-5-5,
…/build-with-claude/{thinking,effort,structured-outputs} (read in November 2026);
adaptive thinking with a forced tool or a temperature as langchain-aws#1141 and #1151 report it.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final, NamedTuple

_ALL: Final = ("low", "medium", "high", "xhigh", "max")


class Capabilities(NamedTuple):
    """What a model takes. The defaults are those of the newest line: what it refuses is never sent unasked."""

    max_output: int = 128_000
    """Tokens; also what we ask for where nobody set a bound."""
    sampling: bool = False
    """Takes temperature, top_p and top_k other than their defaults."""
    both: bool = True
    """Takes temperature and top_p in one request."""
    prefill: bool = False
    """Continues a trailing assistant message."""
    thinking: str = "adaptive"
    """How thinking is asked for: ``adaptive``, ``budget`` or ``none``."""
    by_default: bool = True
    """Thinks where the request does not mention it."""
    off: str | None = "disabled"
    """The ``thinking.type`` that turns it off; None where nothing does."""
    efforts: tuple[str, ...] = _ALL
    """Values of ``output_config.effort``."""
    forced: bool = True
    """Takes ``tool_choice`` any and tool."""
    forced_thinking: bool = True
    """Takes those together with adaptive thinking."""
    schemas: bool = True
    """Takes ``output_config.format`` and strict tools."""


_CLAUDE_3: Final = Capabilities(
    max_output=4_096, sampling=True, prefill=True, thinking="none", by_default=False, efforts=(), schemas=False
)
_CLAUDE_4: Final = _CLAUDE_3._replace(max_output=64_000, thinking="budget")
_CLAUDE_4_5: Final = _CLAUDE_4._replace(both=False, schemas=True)
_CLAUDE_4_6: Final = Capabilities(
    sampling=True, both=False, by_default=False, efforts=("low", "medium", "high", "max"), forced_thinking=False
)
#: Other servers that speak Anthropic's wire (llama.cpp, vLLM, other vendors): what they take is theirs to say.
_STAND_IN: Final = _CLAUDE_4._replace(max_output=128_000, schemas=True)
_CLAUDE_5_5: Final = Capabilities(off=None, forced=False)

#: Globs over the model's name, the first match counts.
_TABLE: Final[tuple[tuple[str, Capabilities], ...]] = (
    ("claude-3-7-*", _CLAUDE_4),
    ("claude-3-5-*", _CLAUDE_3._replace(max_output=8_192)),
    ("claude-3-*", _CLAUDE_3),
    ("claude-2*", _CLAUDE_3),
    ("claude-instant*", _CLAUDE_3),
    ("claude-*-4-5*", _CLAUDE_4_5),
    ("claude-*-4-6*", _CLAUDE_4_6),
    ("claude-*-4-7*", Capabilities(by_default=False, forced_thinking=False)),
    ("claude-*-4-8*", Capabilities(by_default=False)),
    ("claude-opus-4-1*", _CLAUDE_4._replace(max_output=32_000, both=False)),
    ("claude-opus-4*", _CLAUDE_4._replace(max_output=32_000)),
    ("claude-sonnet-4*", _CLAUDE_4),
    ("claude-opus-5-5*", _CLAUDE_5_5),
    ("claude-sonnet-5-5*", Capabilities(off="between_tools", forced=False)),
    ("claude-fable-5-[1-9]*", _CLAUDE_5_5),
    ("claude-mythos-5-[1-9]*", _CLAUDE_5_5),
    ("claude-fable-5*", Capabilities(off=None)),
    ("claude-mythos-*", Capabilities(off=None)),
)
_DATE: Final = re.compile(r"[-@]\d{8}")


@lru_cache(maxsize=512)
def capabilities(model: str) -> Capabilities:
    """Return what ``model`` takes; a Claude that we don't know gets the newest line's facts.

    Prefixes of other hosts (``us.anthropic.``, ``anthropic/``) and release dates are looked through.
    """
    name = model.lower()
    name = _DATE.sub("", name[max(0, name.find("claude-")) :], count=1)
    for glob, facts in _TABLE:
        if fnmatchcase(name, glob):
            return facts
    return Capabilities() if "claude-" in name else _STAND_IN
