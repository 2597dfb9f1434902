"""What each Gemini model takes: the facts that decide how a request is put.

Sources (read in November 2026): ai.google.dev/gemini-api/docs/{thinking,thought-signatures,openai,
file-input-methods,api-versions}, …/docs/generate-content/whats-new-gemini-3.{5,6,7}; what they leave open is
as clients report it (langchain-google#1897 on fixed sampling and prefill, python-genai#867 on tools with JSON).
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final, NamedTuple


class Capabilities(NamedTuple):
    """What a model takes. The defaults are those of the newest line."""

    thinking: str = "level"
    """How thinking is asked for: ``level`` (thinkingLevel), ``budget`` (thinkingBudget) or ``none``."""
    levels: tuple[str, ...] = ("LOW", "MEDIUM", "HIGH")
    budget: int = 24_576
    """The largest thinkingBudget."""
    off: bool = False
    """Takes a thinkingBudget of 0."""
    sampling: bool = False
    """Heeds temperature and topP; the newest accept and ignore them, and their successors will refuse."""
    penalties: bool = False
    """Takes presencePenalty and frequencyPenalty."""
    prefill: bool = False
    """Continues a trailing model turn."""
    json_with_tools: bool = True
    """Takes responseMimeType together with function declarations."""
    media_results: bool = True
    """Takes images and documents inside a functionResponse."""
    fetches: bool = True
    """Fetches public https URLs given as fileData."""
    validated: bool = True
    """Takes the function calling mode VALIDATED, in which arguments keep to their schema."""
    signed: bool = True
    """Refuses a function call in the history without its thoughtSignature."""


_NEWEST: Final = Capabilities()
_SETTLED: Final = Capabilities(prefill=True, sampling=True)
_MINIMAL: Final = ("MINIMAL", "LOW", "MEDIUM", "HIGH")
_2_5: Final = Capabilities(
    thinking="budget", off=True, sampling=True, penalties=True, prefill=True, json_with_tools=False,
    media_results=False, signed=False,
)  # fmt: skip
_OLD: Final = _2_5._replace(thinking="none", fetches=False, validated=False)

#: Globs over the model's name, the first match counts.
_TABLE: Final[tuple[tuple[str, Capabilities], ...]] = (
    ("gemini-1*", _OLD),
    ("gemini-2.0*", _OLD),
    ("gemini-pro", _OLD),
    ("gemini-pro-vision", _OLD),
    ("gemini-2.5-pro*", _2_5._replace(budget=32_768, off=False)),
    ("gemini-2*", _2_5),
    ("gemini-3-pro*", _SETTLED._replace(levels=("LOW", "HIGH"))),
    ("gemini-3.1-pro*", _SETTLED),
    ("gemini-3-*", _SETTLED._replace(levels=_MINIMAL)),
    ("gemini-3.1-*", _SETTLED._replace(levels=_MINIMAL)),
    ("gemini-3.5-flash-lite*", _NEWEST._replace(levels=_MINIMAL)),
    ("gemini-3.5-*", _SETTLED._replace(levels=_MINIMAL)),
    ("gemini-3.6-*", _NEWEST._replace(levels=_MINIMAL)),
    ("gemini-flash-lite-latest", _NEWEST._replace(levels=_MINIMAL)),
    ("gemini-*", _NEWEST),
    ("gemma-*", _OLD),
    ("learnlm-*", _OLD),
)
#: A name that is not the vendor's own (a tuned model, a stand-in): sent as asked, the vendor decides.
_UNKNOWN: Final = Capabilities(sampling=True, penalties=True, prefill=True, signed=False)


@lru_cache(maxsize=512)
def capabilities(model: str) -> Capabilities:
    """Return what ``model`` takes; a Gemini that we don't know gets the newest line's facts."""
    name = model.lower().rsplit("/", 1)[-1]
    for glob, facts in _TABLE:
        if fnmatchcase(name, glob):
            return facts
    return _UNKNOWN


_BUDGETS: Final = {"minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576, "xhigh": 32_768, "max": 32_768}
_LEVELS: Final = {
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "HIGH",
    "max": "HIGH",
}
#: Where a model lacks a level, the nearest one that thinks no less.
_NEXT: Final = {"MINIMAL": "LOW", "MEDIUM": "HIGH"}
EFFORTS: Final = ("none", *_LEVELS)


def thinking_config(effort: str, facts: Capabilities) -> dict[str, object] | None:
    """Return the ``thinkingConfig`` for a ``reasoning_effort`` among :data:`EFFORTS`, None where it can't be had.

    The numbers are those of Google's own OpenAI-compatible endpoint. An empty object: nothing to send.
    """
    if facts.thinking == "none":
        return {} if effort == "none" else None
    if facts.thinking == "budget":
        if effort == "none":
            return {"thinkingBudget": 0} if facts.off else None
        return {"thinkingBudget": min(_BUDGETS[effort], facts.budget), "includeThoughts": True}
    if effort == "none":
        return {"thinkingLevel": "MINIMAL"} if "MINIMAL" in facts.levels else None
    level = _LEVELS[effort]
    while level not in facts.levels:
        level = _NEXT[level]
    return {"thinkingLevel": level, "includeThoughts": True}
