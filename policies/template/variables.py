"""What a template's variables may be: types and limits, checked before anything is rendered."""

from __future__ import annotations

import math
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from proxy.config.problem import did_you_mean, listed
from proxy.errors import bad
from proxy.providers.base import Strict

_NUMBERS: Final = ("integer", "number")
_TEXTS: Final = ("string", "list")
_WORDS: Final = {
    "string": "a string", "integer": "an integer", "number": "a number", "boolean": "true or false",
    "list": "an array of strings, numbers or booleans",
}  # fmt: skip


class Variable(Strict):
    """One variable. ``max_length`` counts the characters of a string, or of each of a list's."""

    type: Literal["string", "integer", "number", "boolean", "list"] = "string"
    required: bool = False
    default: Any = None
    max_length: int = Field(20_000, ge=1)
    max_items: int = Field(100, ge=1, le=10_000)
    min: float | None = None
    max: float | None = None
    enum: tuple[Any, ...] | None = Field(None, min_length=1)
    description: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        """Take ``category: string`` and a bare ``category:`` for what they mean."""
        return {"type": value} if isinstance(value, str) else {} if value is None else value

    @model_validator(mode="after")
    def _sensible(self) -> Variable:
        given = self.model_fields_set
        if self.type not in _NUMBERS and given & {"min", "max"}:
            raise ValueError(f"`min` and `max` are for numbers; this is {_WORDS[self.type]}")
        if self.type not in _TEXTS and "max_length" in given:
            raise ValueError(f"`max_length` is for strings and lists; this is {_WORDS[self.type]}")
        if self.type != "list" and "max_items" in given:
            raise ValueError(f"`max_items` is for lists; this is {_WORDS[self.type]}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("`min` is above `max`")
        if self.required and self.default is not None:
            raise ValueError("a required variable needs no default; take one of them out")
        for name, values in (("enum", self.enum or ()), ("default", () if self.default is None else (self.default,))):
            for value in values:
                if name == "enum" and self.type == "list":
                    raise ValueError("a list cannot have an `enum`")
                wrong = self.wrong(value, enum=name != "enum")
                if wrong:
                    raise ValueError(f"`{name}` does not fit: {wrong}")
        return self

    def wrong(self, value: Any, *, enum: bool = True) -> str | None:
        """Return what is wrong about ``value``, as the end of a sentence; None if nothing is."""
        kind = type(value)
        fits = {
            "string": kind is str, "integer": kind is int, "boolean": kind is bool, "list": kind is list,
            "number": kind is int or (kind is float and math.isfinite(value)),
        }[self.type]  # fmt: skip
        if not fits:
            return f"it must be {_WORDS[self.type]}"
        if self.type == "list":
            if len(value) > self.max_items:
                return f"it has {len(value)} items; at most {self.max_items} are taken"
            for item in value:
                if type(item) not in (str, int, float, bool):
                    return f"it must be {_WORDS['list']}"
                if type(item) is str and len(item) > self.max_length:
                    return f"an item has {len(item)} characters; at most {self.max_length} are taken"
        if self.type == "string" and len(value) > self.max_length:
            return f"it has {len(value)} characters; at most {self.max_length} are taken"
        if self.min is not None and value < self.min:
            return f"it must be at least {self.min:g}"
        if self.max is not None and value > self.max:
            return f"it must be at most {self.max:g}"
        if enum and self.enum is not None and value not in self.enum:
            return f"it must be {listed(map(str, self.enum))}"
        return None


def settle(variables: dict[str, Variable], given: dict[str, Any], template: str) -> dict[str, Any]:
    """Return the values to render with; what is optional and missing has none.

    Raises:
        ApiError: ``invalid_request`` for an unknown, missing or unfit variable, with its name as ``param``.
    """
    for name in given:
        if name not in variables:
            near = did_you_mean(name, variables)
            hint = f"did you mean `{near}`?" if near else f"it takes {listed(sorted(variables), 'and') or 'none'}."
            bad(f"The template `{template}` has no variable `{name[:64]}`; {hint}", f"variables.{name[:64]}")
    values = {}
    for name, variable in variables.items():
        value = given.get(name)
        if value is None:
            if variable.required:
                bad(f"The template `{template}` needs the variable `{name}`.", f"variables.{name}")
            value = variable.default
            if value is None:
                continue
        elif wrong := variable.wrong(value):
            bad(f"The variable `{name}` of the template `{template}` does not fit: {wrong}.", f"variables.{name}")
        values[name] = value
    return values
