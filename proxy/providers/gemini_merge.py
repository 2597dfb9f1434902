"""Several schemas as one: all of them (``allOf``), or any of them where a choice is not allowed."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

_MAXIMA: Final = frozenset(("maximum", "maxLength", "maxItems", "maxProperties"))
_MINIMA: Final = frozenset(("minimum", "minLength", "minItems", "minProperties"))


def merge(one: Schema, two: Schema) -> Schema:
    """Return a schema that asks for both, as far as plain keywords can say it."""
    merged = dict(one)
    for name, value in two.items():
        if name not in merged:
            merged[name] = value
            continue
        mine = merged[name]
        if name == "properties" and type(mine) is dict and type(value) is dict:
            both = dict(mine)
            for key, schema in value.items():
                same = key not in both or both[key] == schema
                both[key] = schema if same else {"allOf": [both[key], schema]}
            merged[name] = both
        elif name == "required" and type(mine) is list and type(value) is list:
            merged[name] = [*mine, *(item for item in value if item not in mine)]
        elif name == "enum" and type(mine) is list and type(value) is list:
            merged[name] = [item for item in mine if item in value]
        elif name == "type" and mine != value:
            mine = mine if type(mine) is list else [mine]
            merged[name] = [kind for kind in mine if kind in (value if type(value) is list else [value])] or mine
        elif type(mine) in (int, float) and type(value) in (int, float):
            if name in _MINIMA:
                merged[name] = max(mine, value)
            elif name in _MAXIMA:
                merged[name] = min(mine, value)
    return merged


def united(schema: Schema) -> Schema:
    """Return one object that any branch of ``schema`` fits: a function's parameters cannot be a choice."""
    branches = [branch for branch in schema["anyOf"] if branch.get("type") == "OBJECT"]
    united: Schema = {"type": "OBJECT", "properties": {}}
    required: list[str] | None = None
    for branch in branches:
        for name, value in branch.get("properties", {}).items():
            united["properties"].setdefault(name, value)
        names = branch.get("required", [])
        required = names if required is None else [name for name in required if name in names]
    if required:
        united["required"] = required
    if description := schema.get("description"):
        united["description"] = description
    return united
