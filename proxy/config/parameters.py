"""Request parameters that a team, a user or a template sets where the caller leaves them out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, WithJsonSchema

from proxy.config.problem import did_you_mean
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


def _check(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if name not in ParameterSettings.model_fields:
            near = did_you_mean(name, ParameterSettings.model_fields)
            hint = f"; did you mean `{near}`?" if near else ""
            raise ValueError(f"`{name}` is not a parameter that can be set here{hint}")
    try:
        ParameterSettings.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise ValueError(f"`{first['loc'][0]}`: {first['msg'][0].lower()}{first['msg'][1:]}") from None
    return value


Parameters = Annotated[
    dict[str, Any], AfterValidator(_check), WithJsonSchema(ParameterSettings.model_json_schema(), mode="validation")
]
"""A plain dict, checked."""
