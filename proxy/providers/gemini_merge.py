"""``allOf`` as one plain schema."""

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
