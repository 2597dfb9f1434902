"""The settings of ``redact`` in llm.yml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from policies.base import PolicyConfig
from policies.redact.detector import CAP, Detector
from policies.redact.groups import BY_NAME, GROUPS
from policies.redact.mask import Action, Mode
from policies.redact.syntax import PatternError
from proxy.config.problem import did_you_mean

#: Bytes that a pattern without a bound of its own may match, unless it sets ``max_length``.
UNBOUNDED: Final = 1_024


def bounded_detector(name: str, regex: str, longest: int | None, **settings: Any) -> Detector:
    """Return a detector whose matches have at most ``longest`` characters; None: as many as the pattern says."""
    found = Detector(name, regex, longest=longest or CAP, **settings)
    if longest is None and found.node.most > CAP:
        return Detector(name, regex, cap=UNBOUNDED, **settings)
    if longest is not None and found.node.least > longest:
        raise PatternError(f"its shortest match has {found.node.least} characters, `max_length` allows {longest}")
    return found


class Pattern(BaseModel):
    """One pattern of the house's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    regex: Annotated[str, Field(min_length=1, max_length=4_096)]
    replacement: Annotated[str, Field(max_length=256)] = "[REDACTED]"
    description: str = ""
    priority: Annotated[int, Field(ge=0, le=100)] = 0
    max_length: Annotated[int, Field(ge=1, le=CAP)] | None = None
    action: Action | None = None

    @model_validator(mode="after")
    def _compiles(self) -> Pattern:
        self.detector()
        return self

    def detector(self) -> Detector:
        """Return the detector; raise ValueError, naming the pattern, where the regex cannot be used."""
        try:
            return bounded_detector(self.name, self.regex, self.max_length, group="own", replacement=self.replacement,
                                    priority=self.priority)  # fmt: skip
        except PatternError as error:
            raise ValueError(f"the pattern `{self.name}` cannot be used: {error}") from None


class RedactConfig(PolicyConfig):
    """What is looked for, and what happens to it.

    ``action`` is one word for everything, or words by detector or group with ``default`` for the rest.
    """

    builtin: tuple[str, ...] = ("secrets", "pii")
    patterns: tuple[Pattern, ...] = ()
    packs: tuple[str, ...] = ()
    action: Action | Mapping[str, Action] = "mask"
    mode: Mode = "mask"
    replies: Action = "mask"
    on_unscannable: Literal["allow", "block"] = "allow"

    @field_validator("builtin")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in GROUPS and name not in BY_NAME:
                near = did_you_mean(name, [*GROUPS, *BY_NAME])
                hint = f"; did you mean `{near}`?" if near else f"; the groups are {', '.join(GROUPS)}"
                raise ValueError(f"there is no built-in detector or group `{name}`{hint}")
        return names

    @model_validator(mode="after")
    def _distinct(self) -> RedactConfig:
        names = [pattern.name for pattern in self.patterns]
        for name in names:
            if name in BY_NAME:
                raise ValueError(f"the pattern `{name}` bears the name of a built-in detector; give it another one")
            if names.count(name) > 1:
                raise ValueError(f"two patterns are called `{name}`; give each a name of its own")
        return self
