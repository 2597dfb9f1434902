"""``models:``, names for clients and where they lead."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from proxy.config.problem import did_you_mean
from proxy.providers.base import Strict


class RouteTarget(NamedTuple):
    """One place that a model name leads to."""

    to: str
    """``provider/model``."""
    weight: float = 1.0


def _target(item: Any) -> RouteTarget:
    if isinstance(item, str):
        return RouteTarget(item)
    if not isinstance(item, dict) or not isinstance(item.get("to"), str):
        raise ValueError("a target is provider/model, or {to: provider/model, weight: 1}")
    for key in item:
        if key not in ("to", "weight"):
            near = did_you_mean(str(key), ("to", "weight"))
            raise ValueError(f"unknown key `{key}`" + (f"; did you mean `{near}`?" if near else ""))
    weight = item.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1e9:
        raise ValueError("a weight must be a number above 0")
    return RouteTarget(item["to"], float(weight))


_TARGET_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "string", "pattern": "^[^/]+/.+"},
        {
            "type": "object",
            "properties": {
                "to": {"type": "string", "pattern": "^[^/]+/.+"},
                "weight": {"type": "number", "exclusiveMinimum": 0},
            },
            "required": ["to"],
            "additionalProperties": False,
        },
    ]
}


class ModelRoute(Strict):
    """An entry of ``models:``; a string or a list stands for ordered targets."""

    model_config = ConfigDict(
        json_schema_extra=lambda schema: _any_of(
            schema,
            {"type": "string", "pattern": "^[^/]+/.+"},
            {"type": "array", "minItems": 1, "items": _TARGET_SCHEMA},
        )
    )

    strategy: Literal["ordered", "weighted"] = "ordered"
    targets: Annotated[
        tuple[Annotated[RouteTarget, BeforeValidator(_target)], ...],
        WithJsonSchema({"type": "array", "minItems": 1, "items": _TARGET_SCHEMA}),
    ] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            value = {"targets": value}
        return value

    @field_validator("targets", mode="before")
    @classmethod
    def _targets(cls, value: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError("targets must be a list of provider/model")
        return value


def _any_of(schema: dict[str, Any], *others: dict[str, Any]) -> None:
    """Make a model's schema, in place, one of several forms."""
    own = dict(schema)
    schema.clear()
    schema["anyOf"] = [own, *others]
