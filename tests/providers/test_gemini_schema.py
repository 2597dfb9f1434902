"""JSON Schema for Gemini: translation cases 17 to 30."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.providers.gemini_schema import parameters, response_schema
from tests.providers.gemini_kit import function, wire
from tests.timing import least, slowness

#: The allowlist, from the vendor's Schema type.
ALLOWED = frozenset(
    ("type", "format", "description", "nullable", "enum", "maxItems", "minItems", "properties", "required",
     "minProperties", "maxProperties", "minLength", "maxLength", "pattern", "anyOf", "propertyOrdering", "items",
     "minimum", "maximum")
)  # fmt: skip


@cache
def vendors_schema() -> Callable[[Any], Any]:
    """Return what reads a schema as Google's SDK does. (Importing it takes long: not before it is needed.)"""
    from google.genai import types

    return types.Schema.model_validate


def keywords(schema: dict[str, Any]) -> set[str]:
    """Return every keyword used anywhere in ``schema``."""
    found = set(schema)
    for child in [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), schema.get("items")]:
        if child is not None:
            found |= keywords(child)
    return found


def one(schema: Any, **root: Any) -> dict[str, Any]:
    """Return what a property of that schema becomes."""
    converted = parameters({"type": "object", "properties": {"p": schema}, **root})
    assert converted is not None
    vendors_schema()(converted)
    found: dict[str, Any] = converted["properties"]["p"]
    return found


@pytest.mark.parametrize("schema", [None, {}, {"type": "object"}, {"type": "object", "properties": {}}])
def test_017_a_tool_without_parameters_has_none(schema: dict[str, Any] | None) -> None:
    """Nothing stands where the vendor refuses an empty object."""
    declared = wire(tools=[function("f", schema)])["tools"][0]["functionDeclarations"]
    assert declared == [{"name": "f"}]


def test_019_references_are_inlined_wherever_they_are_repeated() -> None:
    """`$ref` to `$defs`, nested and repeated, becomes the schema it names, with what stands beside it."""
    defs = {"City": {"type": "object", "properties": {"zip": {"$ref": "#/$defs/Zip"}}}, "Zip": {"type": "string"}}
    city = {"type": "OBJECT", "properties": {"zip": {"type": "STRING"}}}
    assert one({"$ref": "#/$defs/City", "description": "home"}, **{"$defs": defs}) == {**city, "description": "home"}
    both = {"type": "object", "properties": {"a": {"$ref": "#/$defs/City"}, "b": {"$ref": "#/$defs/City"}}}
    assert one(both, **{"$defs": defs})["properties"] == {"a": city, "b": city}
    assert one({"$ref": "#/definitions/a~1b"}, definitions={"a/b": {"type": "integer"}}) == {"type": "INTEGER"}


def test_019_a_recursive_schema_ends_in_a_permissive_object() -> None:
    """A tree of itself is unrolled a little and then any object."""
    node = {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/N"}}}
    found = one({"$ref": "#/$defs/N"}, **{"$defs": {"N": node}})
    depth = 0
    while "properties" in found:
        found, depth = found["properties"]["next"], depth + 1
    assert found == {"type": "OBJECT"} and 1 <= depth <= 3


@pytest.mark.parametrize(
    "defs",
    [
        {
            f"a{i}": {"type": "object", "properties": {k: {"$ref": f"#/$defs/a{i + 1}"} for k in "xyz"}}
            for i in range(40)
        },
        {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(5_000)},
        {"a0": {"allOf": [{"$ref": "#/$defs/a0"}] * 20}},
        {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{j}"} for j in range(12)]} for i in range(12)},
        {f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{j}"} for j in range(12)]} for i in range(12)},
    ],
    ids=["laughs", "chain", "self", "all-of-all", "any-of-all"],
)
def test_019_hostile_references_cost_little(defs: dict[str, Any]) -> None:
    """Schemas that would grow without bound are cut within a fraction of a second."""
    schema = {"type": "object", "properties": {"p": {"$ref": "#/$defs/a0"}}, "$defs": defs}
    assert least(lambda: parameters(schema), 0.5) < 0.5 * slowness()
    assert len(orjson.dumps(parameters(schema))) < 200_000


@pytest.mark.parametrize("extra", [False, True, {"type": "string"}])
def test_020_additional_properties_are_stripped_at_any_depth(extra: Any) -> None:
    """The vendor has no additionalProperties."""
    inner = {"type": "object", "properties": {"x": {"type": "string"}}, "additionalProperties": extra}
    found = one({"type": "array", "items": inner}, additionalProperties=extra)
    assert found == {"type": "ARRAY", "items": {"type": "OBJECT", "properties": {"x": {"type": "STRING"}}}}


def test_021_only_the_vendors_keywords_remain() -> None:
    """What is not on the allowlist goes, whatever it is called."""
    noise = {
        "$schema": "x", "$id": "x", "$comment": "x", "title": "T", "examples": [1], "default": "d", "uniqueItems": True,
        "multipleOf": 2, "patternProperties": {}, "propertyNames": {}, "exclusiveMinimum": 1, "contentSchema": {},
        "deprecated": True, "enumDescriptions": [], "strict": True, "x-own": 1, "not": {}, "if": {}, "readOnly": True,
    }  # fmt: skip
    assert one({"type": "string", "minLength": 1, **noise}) == {"type": "STRING", "minLength": 1}
    assert one({"type": "object", "properties": {"q": {"type": "number", **noise}}, **noise}) == {
        "type": "OBJECT",
        "properties": {"q": {"type": "NUMBER"}},
    }


def test_021_required_names_only_what_is_declared() -> None:
    """The vendor refuses a required property that is not defined."""
    found = one({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a", "ghost", "a"]})
    assert found["required"] == ["a"]


@pytest.mark.parametrize(
    ("kind", "form", "kept"),
    [
        ("string", "date-time", True), ("string", "enum", True), ("string", "uri", False), ("string", "date", False),
        ("integer", "int32", True), ("integer", "int64", True), ("integer", "float", False), ("number", "float", True),
        ("number", "double", True), ("number", "decimal", False),
    ],
)  # fmt: skip
def test_022_only_known_formats_are_kept(kind: str, form: str, kept: bool) -> None:
    """A format that the vendor does not know would be a 400."""
    assert ("format" in one({"type": kind, "format": form})) is kept


def test_023_a_nullable_object_keeps_its_properties() -> None:
    """`["object", "null"]` becomes nullable, with everything below it."""
    schema = {"type": ["object", "null"], "properties": {"x": {"type": ["string", "null"]}}, "required": ["x"]}
    assert one(schema) == {
        "type": "OBJECT",
        "properties": {"x": {"type": "STRING", "nullable": True}},
        "required": ["x"],
        "nullable": True,
    }


def test_024_several_types_become_any_of() -> None:
    """Each type keeps only its own keywords."""
    assert one({"type": ["string", "integer"], "minLength": 2, "maximum": 9, "description": "d"}) == {
        "anyOf": [{"type": "STRING", "minLength": 2}, {"type": "INTEGER", "maximum": 9}],
        "description": "d",
    }


def test_025_any_of_with_null_becomes_nullable() -> None:
    """A choice of one thing and null is that thing, nullable; of more it stays a choice."""
    assert one({"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "d"}) == {
        "type": "INTEGER",
        "nullable": True,
        "description": "d",
    }
    assert one({"oneOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]}) == {
        "anyOf": [{"type": "INTEGER"}, {"type": "STRING"}],
        "nullable": True,
    }
    assert one({"anyOf": [{"type": "null"}]}) == {"type": "NULL"}


def test_025_what_stands_beside_any_of_holds_for_every_branch() -> None:
    """Siblings of a choice are pushed into it: the vendor wants anyOf alone."""
    schema = {
        "type": "object",
        "properties": {"id": {"type": "string"}},
        "anyOf": [{"required": ["id"]}, {"properties": {"name": {"type": "string"}}}],
    }
    first, second = one(schema)["anyOf"]
    assert first == {"type": "OBJECT", "properties": {"id": {"type": "STRING"}}, "required": ["id"]}
    assert set(second["properties"]) == {"id", "name"}


def test_026_all_of_is_merged() -> None:
    """One or several parts of allOf become one schema."""
    assert one({"allOf": [{"type": "string"}], "description": "d"}) == {"type": "STRING", "description": "d"}
    schema = {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "string", "minLength": 1}}, "required": ["a"]},
            {"$ref": "#/$defs/B"},
            {"properties": {"a": {"minLength": 3}}},
        ]
    }
    found = one(
        schema, **{"$defs": {"B": {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]}}}
    )
    assert found == {
        "type": "OBJECT",
        "properties": {"a": {"type": "STRING", "minLength": 3}, "b": {"type": "INTEGER"}},
        "required": ["a", "b"],
    }


def test_027_const_becomes_a_typed_enum() -> None:
    """A constant is an enum of one; the vendor's enums hold strings, so other values are said in words."""
    assert one({"const": "x"}) == {"type": "STRING", "enum": ["x"]}
    assert one({"const": 5, "description": "Version."}) == {"type": "INTEGER", "description": "Version. One of: 5."}
    assert one({"enum": [1, 2.5]}) == {"type": "NUMBER", "description": "One of: 1, 2.5."}
    assert one({"enum": [True]}) == {"type": "BOOLEAN", "description": "One of: true."}
    assert one({"enum": ["a", 1, None]}) == {
        "anyOf": [{"type": "STRING", "enum": ["a"]}, {"type": "INTEGER"}], "nullable": True
    }  # fmt: skip


def test_028_empty_strings_leave_an_enum() -> None:
    """An empty entry is dropped, an enum that has nothing left too."""
    assert one({"type": "string", "enum": ["", "a", "a"]}) == {"type": "STRING", "enum": ["a"]}
    assert one({"type": "string", "enum": [""]}) == {"type": "STRING"}
    assert one({"type": "string", "enum": []}) == {"type": "STRING"}


def test_029_an_array_without_items_gets_them() -> None:
    """The vendor refuses an array that does not say of what."""
    assert one({"type": "array"}) == {"type": "ARRAY", "items": {"type": "STRING"}}
    assert one({"type": "array", "items": {}, "maxItems": 2})["items"] == {"type": "STRING"}
    tuple_ = {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]}
    assert one(tuple_)["items"] == {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]}


def test_030_a_nested_empty_object_is_kept() -> None:
    """An object without properties inside a schema stays, with its description."""
    assert one({"type": "object", "properties": {}, "description": "free form"}) == {
        "type": "OBJECT",
        "description": "free form",
    }


def test_a_schema_without_a_type_takes_anything() -> None:
    """Untyped schemas get the type their keywords tell, else a choice of all."""
    assert one({"properties": {"x": {"type": "string"}}})["type"] == "OBJECT"
    assert one({"pattern": "^a"}) == {"type": "STRING", "pattern": "^a"}
    anything = [{"type": "STRING"}, {"type": "NUMBER"}, {"type": "BOOLEAN"}, {"type": "OBJECT"}]
    assert one({"description": "d"}) == {"anyOf": anything, "description": "d"}
    assert one(True) == {"anyOf": anything}


def test_a_choice_at_the_root_of_parameters_becomes_one_object() -> None:
    """A function's parameters are one object: the union of the branches, required where all agree."""
    schema = {
        "anyOf": [
            {
                "type": "object",
                "properties": {"a": {"type": "string"}, "k": {"type": "string"}},
                "required": ["a", "k"],
            },
            {
                "type": "object",
                "properties": {"b": {"type": "string"}, "k": {"type": "string"}},
                "required": ["b", "k"],
            },
        ]
    }
    found = parameters(schema)
    assert found is not None
    assert list(found["properties"]) == ["a", "k", "b"] and found["required"] == ["k"]


def test_structured_outputs_keep_the_order_of_their_keys() -> None:
    """propertyOrdering carries the caller's order, which protobuf maps lose."""
    schema = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "string"}}}
    assert response_schema(schema)["propertyOrdering"] == ["z", "a"]
    found = parameters(schema)
    assert found is not None and "propertyOrdering" not in found


def test_counts_are_whole_numbers() -> None:
    """A bound that counts letters, elements or keys is sent whole (5.0 as 5), and left out where it is a fraction."""
    assert one({"type": "string", "minLength": 5.0, "maxLength": 7.5}) == {"type": "STRING", "minLength": 5}
    assert one({"type": "array", "maxItems": 1.5, "items": {"type": "number", "maximum": 1.5}}) == {
        "type": "ARRAY",
        "items": {"type": "NUMBER", "maximum": 1.5},
    }


_leaf = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.sampled_from(["", "a", "x/y"]), st.just(1.5))
_words = st.sampled_from(
    ["type", "properties", "items", "anyOf", "oneOf", "allOf", "$ref", "$defs", "enum", "const", "required", "format",
     "description", "nullable", "minimum", "maxLength", "prefixItems", "additionalProperties", "pattern"]
)  # fmt: skip
_values = st.sampled_from(["string", "object", "array", "null", "#", "#/$defs/a", "#/properties/p", "integer"])
_json = st.recursive(
    st.one_of(_leaf, _values),
    lambda c: st.one_of(st.lists(c, max_size=4), st.dictionaries(_words, c, max_size=5)),
    max_leaves=25,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(_words, _json, max_size=6))
def test_any_json_makes_a_schema_of_allowed_keywords(schema: dict[str, Any]) -> None:
    """Whatever a caller writes as a schema, the result holds allowed keywords only and never fails."""
    found = response_schema({"type": "object", "properties": {"p": schema}})
    assert keywords(found) <= ALLOWED
    vendors_schema()(found)
