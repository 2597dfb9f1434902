"""JSON Schema as Claude's constrained decoding takes it.

Source: platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations.
"""

from __future__ import annotations

from typing import Any, Final

#: Keywords that the grammar compiler knows, beside those handled one by one.
_KEPT: Final = frozenset(("$ref", "const", "default", "description", "enum", "required", "title", "type"))
#: Keywords that say nothing about valid values.
_SILENT: Final = frozenset(("$schema", "$id", "$comment", "examples", "deprecated", "readOnly", "writeOnly", "strict"))
_FORMATS: Final = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
)


def strict_schema(schema: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return ``schema`` for `output_config.format` or a strict tool, and the keywords it cannot enforce.

    Those move into the field's description, so that the model still reads them. Objects are closed, as
    the vendor demands. ``schema`` stays as it is.
    """
    lost: list[str] = []
    return _convert(schema, lost), sorted(set(lost))


def _convert(node: Any, lost: list[str]) -> Any:
    if not isinstance(node, dict):
        return {}  # `true` as a schema
    out: dict[str, Any] = {}
    notes: list[str] = []
    for key, value in node.items():
        if key in _KEPT:
            out[key] = value
        elif key in ("properties", "$defs", "definitions") and isinstance(value, dict):
            out[key] = {name: _convert(child, lost) for name, child in value.items()}
        elif key == "items" and isinstance(value, dict):
            out[key] = _convert(value, lost)
        elif key in ("anyOf", "allOf", "oneOf") and isinstance(value, list):
            # No oneOf in the grammar; anyOf admits at least the same answers.
            out["anyOf" if key == "oneOf" else key] = [_convert(child, lost) for child in value]
        elif (key == "format" and type(value) is str and value in _FORMATS) or (key == "minItems" and value in (0, 1)):
            out[key] = value
        elif key == "additionalProperties":
            if value is not False:
                lost.append(key)
        elif key not in _SILENT:
            lost.append(key)
            notes.append(f"{key}: {value}")
    if out.get("type") == "object" or "properties" in out:
        out["additionalProperties"] = False
    if notes:
        text = out.get("description")
        out["description"] = f"{text} ({', '.join(notes)})" if text else ", ".join(notes)
    return out
