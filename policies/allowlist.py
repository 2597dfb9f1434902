"""Which models a caller may use, by globs; a team's own list replaces the policy's."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from pydantic import field_validator

from policies.base import ApiError, Call, Caller, Kit, Policy, PolicyConfig, Target


class AllowlistConfig(PolicyConfig):
    """Globs: one with ``/`` matches ``provider/model``, one without an alias or a bare model name."""

    models: tuple[str, ...] = ()

    @field_validator("models")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for glob in value:
            if not glob or glob != glob.strip():
                raise ValueError("a model glob must not be empty or have spaces around it")
        return value


class Allowlist(Policy[AllowlistConfig]):
    """Let a call through to the targets that its caller's list allows; refuse it where none is left."""

    Config = AllowlistConfig
    after: ClassVar[tuple[str, ...]] = ("template",)

    def __init__(self, config: AllowlistConfig, kit: Kit) -> None:
        super().__init__(config, kit)
        self._aliases: frozenset[str] = frozenset(getattr(kit.config, "models", None) or ())
        self._lists: dict[str, Sequence[str]] = {}
        for name, team in kit.teams.items():
            if team.allowed_models is not None:
                self._lists[name] = tuple(team.allowed_models)
        default = kit.teams.get("default")
        self._default: Sequence[str] = (
            default.allowed_models if default is not None and default.allowed_models is not None else config.models
        )

    def globs(self, team: str) -> Sequence[str]:
        """Return the list that holds for ``team``: its own, for unlisted teams the default team's, else the policy's."""
        found = self._lists.get(team)
        if found is not None:
            return found
        return self.config.models if team in self.kit.teams else self._default

    def allows(self, caller: Caller, asked: str, target: Target) -> bool:
        """Tell whether ``caller`` may have ``asked`` answered by ``target``."""
        globs = self.globs(caller.team)
        if asked in self._aliases and any("/" not in glob and fnmatchcase(asked, glob) for glob in globs):
            return True
        full = f"{target.name}/{target.model}"
        return any(fnmatchcase(full if "/" in glob else target.model, glob) for glob in globs)

    async def on_request(self, call: Call) -> None:
        caller, asked = call.caller, call.model
        allowed = [target for target in call.route if self.allows(caller, asked, target)]
        if not allowed:
            raise ApiError(
                "model_not_allowed",
                "This model is not allowed for your team; GET /v1/models lists those that are.",
                param="model",
            )
        if len(allowed) != len(call.route):
            call.route = allowed

    def describe(self) -> dict[str, Any]:
        return {"models": list(self.config.models), "teams": {name: list(globs) for name, globs in self._lists.items()}}
