"""Request parameters that a team, a user or a template sets where the caller leaves them out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from proxy.providers.base import Strict


class ParameterSettings(Strict):
    """The parameters that may be set, with the ranges of OpenAI's API reference."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = Field(None, ge=1, le=128)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    response_format: dict[str, Any] | None = None
    service_tier: str | None = None
    parallel_tool_calls: bool | None = None


def _plain(settings: ParameterSettings) -> dict[str, Any]:
    return settings.model_dump(exclude_unset=True)


if TYPE_CHECKING:
    Parameters = dict[str, Any]
else:
    Parameters = Annotated[ParameterSettings, AfterValidator(_plain)]
    """A plain dict, checked: the hot path reads no models."""
