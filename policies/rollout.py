"""Features let loose on a share of the teams, and the switch that stops everything."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from pydantic import Field

from policies.base import ApiError, Call, Policy, PolicyConfig


class FeatureRollout(PolicyConfig):
    """``percent`` of teams get the feature; ``teams`` listed are always in."""

    percent: Annotated[float, Field(ge=0, le=100)] = 100
    teams: tuple[str, ...] = ()


class RolloutConfig(PolicyConfig):
    """``enabled: false`` is the kill switch: every call is refused."""

    enabled: bool = True
    features: dict[str, FeatureRollout] = {}


def bucket(feature: str, team: str) -> int:
    """Return the team's place from 0 to 9999 in a feature's rollout: the same on every machine and start."""
    return int.from_bytes(hashlib.sha256(f"{feature}:{team}".encode()).digest()) % 10_000


class Rollout(Policy[RolloutConfig]):
    """Refuse calls of a feature that has not reached the caller's team; calls without a listed feature pass."""

    Config = RolloutConfig

    async def on_request(self, call: Call) -> None:
        if not self.config.enabled:
            raise ApiError("feature_disabled", "Language models are switched off at the moment; try again later.")
        feature = self.config.features.get(call.feature)
        if feature is None or call.caller.team in feature.teams:
            return
        if bucket(call.feature, call.caller.team) >= feature.percent * 100:
            raise ApiError(
                "feature_disabled",
                f"The feature {call.feature} is not rolled out to your team yet.",
                param="x-llm-feature",
            )

    def describe(self) -> dict[str, Any]:
        return {
            "enabled": self.config.enabled,
            "features": {n: f"{f.percent:g} %" for n, f in self.config.features.items()},
        }
