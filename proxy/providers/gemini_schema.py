"""JSON Schema, as OpenAI's tools and structured outputs use it, in the OpenAPI subset that Gemini takes.

Source: https://ai.google.dev/api/caching#Schema. Gemini answers an unknown keyword with a 400, so this is
an allowlist: what is not known to be taken is left out, and what remains is never stricter than the
caller's schema.
"""

from __future__ import annotations

from functools import lru_cache
from json import loads as json_loads
from typing import Any, Final
from urllib.parse import unquote

from proxy.providers.common import dumps
from proxy.providers.gemini_merge import merge, united

Schema = dict[str, Any]

_TYPES: Final = {
    "string": "STRING", "number": "NUMBER", "integer": "INTEGER", "boolean": "BOOLEAN", "array": "ARRAY",
    "object": "OBJECT", "null": "NULL",
}  # fmt: skip
_FORMATS: Final = {
    "STRING": ("enum", "date-time"),
    "INTEGER": ("int32", "int64"),
    "NUMBER": ("float", "double"),
}
#: Keywords with an integer or number as value, by the type that takes them.
_BOUNDS: Final = {
    "STRING": ("minLength", "maxLength"),
    "ARRAY": ("minItems", "maxItems"),
    "OBJECT": ("minProperties", "maxProperties"),
    "INTEGER": ("minimum", "maximum"),
    "NUMBER": ("minimum", "maximum"),
}
#: Types whose bounds are counts: Gemini refuses a fraction there.
_COUNTED: Final = ("STRING", "ARRAY", "OBJECT")
#: A keyword that only one type has tells the type of a schema that names none.
_HINTS: Final = (
    ("properties", "object"), ("required", "object"), ("additionalProperties", "object"), ("items", "array"),
    ("prefixItems", "array"), ("minItems", "array"), ("maxItems", "array"), ("pattern", "string"),
    ("minLength", "string"), ("maxLength", "string"), ("format", "string"), ("minimum", "number"),
    ("maximum", "number"),
)  # fmt: skip
_UNROLL: Final = 2
"""How often one reference may stand on a path before a permissive object ends the recursion."""
_BUDGET: Final = 1_500
"""Nodes written before further references become permissive objects: inlining can grow exponentially."""
_DEPTH: Final = 48
_REMEMBER: Final = 8_192
"""Bytes of a schema whose translation is worth keeping."""


def parameters(schema: Schema | None) -> Schema | None:
    """Return a function's ``parameters``, None where it takes none (Gemini refuses an empty object there).

    The result is shared between equal schemas: agents send the same tools with every step. Don't change it.
    """
    if not schema:
        return None
    raw = dumps(schema)
    return _remembered(raw) if len(raw) <= _REMEMBER else _parameters(schema)


@lru_cache(maxsize=256)
def _remembered(raw: bytes) -> Schema | None:
    return _parameters(json_loads(raw))


def _parameters(schema: Schema) -> Schema | None:
    converted = _Converter(schema, ordering=False).convert(schema, 0)
    if "anyOf" in converted:
        converted = united(converted)
    return converted if converted.get("properties") and converted["type"] == "OBJECT" else None


def response_schema(schema: Schema) -> Schema:
    """Return a structured output's ``responseSchema``; ``propertyOrdering`` keeps the caller's order of keys."""
    return _Converter(schema, ordering=True).convert(schema, 0)


class _Converter:
    __slots__ = ("_budget", "_ordering", "_path", "_root")

    def __init__(self, root: Schema, *, ordering: bool) -> None:
        self._root = root
        self._ordering = ordering
        self._path: list[str] = []
        self._budget = _BUDGET

    def convert(self, node: Any, depth: int) -> Schema:
        """Return ``node`` in Gemini's form; an anything-goes schema becomes a choice of types."""
        self._budget -= 1
        if type(node) is not dict:
            return _anything({})
        if depth > _DEPTH:
            return _permissive(node)
        mark = len(self._path)
        if "$ref" in node or "allOf" in node:
            flat = self._flatten(node, depth)
            if flat is None:
                del self._path[mark:]
                return _permissive(node)
            node = flat
        try:
            branches = node.get("anyOf") or node.get("oneOf")
            if type(branches) is list and branches:
                return self._choice(node, branches, depth)
            return self._typed(node, depth)
        finally:
            del self._path[mark:]

    # --- references and allOf ---------------------------------------------------------------------------

    def _flatten(self, node: Schema, depth: int) -> Schema | None:
        """Return ``node`` without ``$ref`` and ``allOf``, or None where that would never end."""
        self._budget -= 1
        if depth > _DEPTH:
            return None
        ref = node.get("$ref")
        if ref is not None:
            if self._budget <= 0 or self._path.count(ref) >= _UNROLL:
                return None
            target = self._resolve(ref)
            if type(target) is not dict:
                return {name: value for name, value in node.items() if name != "$ref"}
            self._path.append(ref)
            node = {**target, **{name: value for name, value in node.items() if name != "$ref"}}
            if "$ref" in target or "allOf" in node:
                if "$ref" in target:
                    node["$ref"] = target["$ref"]
                return self._flatten(node, depth + 1)
            return node
        parts = node.get("allOf")
        if parts is not None:
            node = {name: value for name, value in node.items() if name != "allOf"}
            for part in parts if type(parts) is list else ():
                flat = self._flatten(part, depth + 1) if type(part) is dict else {}
                if flat is None:
                    return None
                node = merge(node, flat)
        return node

    def _resolve(self, ref: Any) -> Any:
        if type(ref) is not str or not ref.startswith("#"):
            return None
        node: Any = self._root
        for step in ref[1:].split("/")[1:]:
            step = unquote(step).replace("~1", "/").replace("~0", "~")
            if type(node) is dict:
                node = node.get(step)
            elif type(node) is list and step.isdecimal() and len(step) < 10 and int(step) < len(node):
                node = node[int(step)]
            else:
                return None
        return node

    # --- choices ----------------------------------------------------------------------------------------

    def _choice(self, node: Schema, branches: list[Any], depth: int) -> Schema:
        shared = {name: value for name, value in node.items() if name not in ("anyOf", "oneOf")}
        nullable = shared.pop("nullable", None) is True
        description = shared.pop("description", None)
        found: list[Schema] = []
        for branch in branches:
            if _is_null(branch):
                nullable = True
                continue
            # What stands beside the choice holds for every branch.
            converted = self.convert({"allOf": [branch, shared]} if shared else branch, depth + 1)
            for one in converted["anyOf"] if "anyOf" in converted and len(converted) == 1 else (converted,):
                if one not in found:
                    found.append(one)
        if not found:
            return {"type": "NULL"}
        result: Schema = found[0] if len(found) == 1 else {"anyOf": found}
        if nullable:
            result["nullable"] = True
        if type(description) is str:
            result["description"] = description
        return result

    # --- one type ---------------------------------------------------------------------------------------

    def _typed(self, node: Schema, depth: int) -> Schema:
        nullable = node.get("nullable") is True
        values = [node["const"]] if "const" in node else node.get("enum")
        if type(values) is list:
            if None in values and len(values) > 1:
                nullable = True
            values = [value for value in values if value is not None and value != ""]
        else:
            values = None
        declared = node.get("type")
        names = declared if type(declared) is list else [declared]
        types = [name.lower() for name in names if type(name) is str and name.lower() in _TYPES]
        if "null" in types and len(types) > 1:
            nullable = True
            types = [name for name in types if name != "null"]
        if not types:
            types = _types_of(values) if values else [kind for word, kind in _HINTS if word in node][:1]
        if not types:
            result = _anything(node)
        elif len(types) == 1:
            result = self._single(_TYPES[types[0]], node, values, depth)
        else:
            result = {"anyOf": [self._single(_TYPES[name], node, values, depth) for name in dict.fromkeys(types)]}
            for branch in result["anyOf"]:
                branch.pop("description", None)
            if type(node.get("description")) is str:
                result["description"] = node["description"]
        if nullable:
            result["nullable"] = True
        return result

    def _single(self, kind: str, node: Schema, values: list[Any] | None, depth: int) -> Schema:
        result: Schema = {"type": kind}
        description = node.get("description")
        description = description if type(description) is str and description else None
        if values:
            fitting = [value for value in values if _fits(value, kind)]
            if kind == "STRING" and fitting:
                result["enum"] = list(dict.fromkeys(fitting))
            elif fitting and kind != "STRING":
                # Gemini takes strings only in an enum: the others are said in words.
                note = "One of: " + ", ".join(dumps(value).decode() for value in fitting) + "."
                description = f"{description} {note}" if description else note
        if description:
            result["description"] = description
        if node.get("format") in _FORMATS.get(kind, ()):
            result["format"] = node["format"]
        for word in _BOUNDS.get(kind, ()):
            bound = node.get(word)
            if type(bound) is float and kind in _COUNTED:
                bound = int(bound) if bound.is_integer() else None  # 5.0 counts; half a letter bounds nothing
            if type(bound) in (int, float):
                result[word] = bound
        if kind == "STRING":
            if type(node.get("pattern")) is str:
                result["pattern"] = node["pattern"]
        elif kind == "ARRAY":
            result["items"] = self._items(node, depth)
        elif kind == "OBJECT":
            self._object(result, node, depth)
        return result

    def _items(self, node: Schema, depth: int) -> Schema:
        items = node.get("items")
        tuples = node.get("prefixItems") or (items if type(items) is list else None)
        if type(tuples) is list and tuples:
            return self._choice({}, tuples, depth + 1)
        if type(items) is dict and items:
            return self.convert(items, depth + 1)
        return {"type": "STRING"}

    def _object(self, result: Schema, node: Schema, depth: int) -> None:
        properties = node.get("properties")
        if type(properties) is not dict:
            return
        converted = {name: self.convert(value, depth + 1) for name, value in properties.items() if value is not False}
        if not converted:
            return
        result["properties"] = converted
        required = node.get("required")
        if type(required) is list:
            names = [name for name in dict.fromkeys(n for n in required if type(n) is str) if name in converted]
            if names:
                result["required"] = names
        if self._ordering and len(converted) > 1:
            result["propertyOrdering"] = list(converted)


def _anything(node: Schema) -> Schema:
    result: Schema = {"anyOf": [{"type": "STRING"}, {"type": "NUMBER"}, {"type": "BOOLEAN"}, {"type": "OBJECT"}]}
    if type(node.get("description")) is str:
        result["description"] = node["description"]
    return result


def _permissive(node: Schema) -> Schema:
    result: Schema = {"type": "OBJECT"}
    if type(node.get("description")) is str:
        result["description"] = node["description"]
    return result


def _is_null(node: Any) -> bool:
    return type(node) is dict and (node.get("type") in ("null", "NULL", ["null"]) or node.get("enum") == [None])


_KINDS: Final = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def _types_of(values: list[Any]) -> list[str]:
    found = list(dict.fromkeys(_KINDS[type(value)] for value in values if type(value) in _KINDS))
    return ["number"] if set(found) == {"integer", "number"} else found


def _fits(value: Any, kind: str) -> bool:
    own = _TYPES.get(_KINDS.get(type(value), ""), "")
    return own == kind or (own == "INTEGER" and kind == "NUMBER")
