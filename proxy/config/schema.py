"""llm.yml as JSON Schema (draft 2020-12), for editors: completion and most mistakes while typing.

A schema cannot see across sections (a team that is not listed, a wrong order); `check` can.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic.json_schema import models_json_schema

from policies import registry as policies
from policies.base import Policy
from proxy.config import plugins
from proxy.config.build import LATER, NAMED, SECTIONS
from proxy.providers import registry as providers
from proxy.providers.base import Provider

DOTTED: Final = rf"^{plugins.DOTTED.pattern}$"
#: A scalar that is one or more expansions stands for a value of any type.
_EXPANSION: Final = {"type": "string", "pattern": r"\$\{"}
#: YAML 1.2 knows no `_` in numbers; editors take such a number for a text.
_GROUPED: Final = {"type": "string", "pattern": r"^[-+]?[0-9][0-9_]*(\.[0-9_]+)?$"}
_DESCRIPTIONS: Final = {
    "server": "Where and how the sidecar listens.",
    "store": "Where limits, quotas and the cache are kept: memory, sqlite:///path, redis://…",
    "auth": "Client keys; without this section only loopback is served.",
    "default_provider": "The provider of models that nothing else leads to.",
    "providers": "The vendors, by name.",
    "models": "Names for clients, each leading to one or more provider/model.",
    "features": "The values of x-llm-feature that are counted by name.",
    "teams": "Values of each team in place of the policies' own.",
    "policies": "The rules, top to bottom on the request and bottom to top on the reply.",
    "prices": "US dollars per million tokens, by provider/model.",
    "usage": "The usage ledger.",
    "telemetry": "What the sidecar tells about itself.",
    "tests": "Policy tests, run by `llm-sidecar test`.",
}


def schema() -> dict[str, Any]:
    """Return the JSON Schema of llm.yml, with the settings of all built-in policies and providers."""
    policy_classes = plugins.available(policies.BUILTIN, Policy, "policy")
    provider_classes = plugins.available(providers.BUILTIN, Provider, "kind of provider")
    sections = {name: model for name, model in SECTIONS.items() if isinstance(model, type)}
    models: list[type[Any]] = [
        *sections.values(),
        *(cls.Config for cls in policy_classes.values()),
        *(cls.Settings for cls in provider_classes.values()),
    ]
    refs, definitions = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)], ref_template="#/$defs/{model}"
    )
    properties: dict[str, Any] = {}
    for name in SECTIONS:
        model = sections.get(name)
        if model is not None:
            ref = refs[model, "validation"]
            properties[name] = _nullable({"type": "object", "additionalProperties": _nullable(ref)}) \
                if name in NAMED else _nullable(ref)  # fmt: skip
    properties["store"] = {"anyOf": [{"type": "string"}, refs[SECTIONS["store"], "validation"]]}
    properties["tests"] = _nullable({"type": "array", "items": refs[SECTIONS["tests"], "validation"]})
    properties["default_provider"] = {"type": "string", "minLength": 1}
    properties["features"] = _nullable(
        {"type": "array", "items": {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,64}$"}}
    )
    properties["providers"] = _providers({k: refs[c.Settings, "validation"] for k, c in provider_classes.items()})
    defs: dict[str, Any] = definitions["$defs"]
    for part in defs.values():
        if "api_key" in part.get("properties", {}):
            part["properties"]["api_key"] = {
                "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}],
                "description": "One key, or several: the next one is tried on 401 and 429.",
            }
    settings = {name: f"{name}_policy" for name in policy_classes}
    for name, cls in policy_classes.items():
        ref_name = str(refs[cls.Config, "validation"]["$ref"]).rsplit("/", 1)[1]
        defs[settings[name]] = _policy(cls, defs[ref_name])
    if "rate_limit" in settings:
        # One limit's keys may stand there directly, in place of a list of limits.
        item = str(defs[settings["rate_limit"]]["properties"]["limits"]["items"]["$ref"]).rsplit("/", 1)[1]
        defs[settings["rate_limit"]]["properties"].update(defs[item]["properties"])
    properties["policies"] = _policies(settings)
    for path, message in LATER.items():
        if len(path) == 1:
            properties[str(path[0])] = {"not": {}, "description": f"Not in this version: {message}."}
    for name, text in _DESCRIPTIONS.items():
        properties[name]["description"] = text
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llm.yml",
        "description": "The configuration of llm-sidecar.",
        "type": "object",
        "properties": {name: _loosen(part) for name, part in properties.items()},
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
        "$defs": {name: _loosen(part) for name, part in defs.items()},
    }


def _nullable(part: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [part, {"type": "null"}]}


def _providers(refs: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of ``providers:``: an entry's settings follow from its kind, which defaults to its name."""
    says_kind = {"properties": {"kind": {}}, "required": ["kind"]}
    by_kind: list[dict[str, Any]] = [
        {"if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]}, "then": ref}
        for kind, ref in refs.items()
    ]
    kinds = {"kind": {"anyOf": [{"enum": list(refs)}, {"type": "string", "pattern": DOTTED}]}}
    return {
        "type": "object",
        "minProperties": 1,
        "properties": {
            kind: _nullable(
                {
                    "type": "object",
                    "properties": kinds,
                    "allOf": [{"if": says_kind, "then": {"allOf": by_kind}, "else": ref}],
                }
            )
            for kind, ref in refs.items()
        },
        "patternProperties": {DOTTED: _nullable({"type": "object"})},
        "additionalProperties": {"type": "object", "properties": kinds, "required": ["kind"], "allOf": by_kind},
    }


def _policy(cls: type[Policy[Any]], config: dict[str, Any]) -> dict[str, Any]:
    """Return a policy's settings with the keys that every entry may have."""
    common: dict[str, Any] = {
        "enforce": {"type": "boolean", "description": "false: decide, count and log, but refuse and change nothing."}
    }
    if cls.keeps_state:
        common["store_down"] = {
            "enum": ["refuse", "allow"],
            "default": cls.store_down_default,
            "description": "What happens to calls while the store does not answer.",
        }
    if "properties" not in config:
        return {"anyOf": [_policy(cls, {"properties": {}, **part}) for part in config.get("anyOf", [config])]}
    return {**config, "properties": {**config["properties"], **common}}


def _policies(settings: dict[str, str]) -> dict[str, Any]:
    entry = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "properties": {name: _nullable({"$ref": f"#/$defs/{ref}"}) for name, ref in settings.items()},
        "patternProperties": {DOTTED: {"type": ["object", "null"]}},
        "additionalProperties": False,
    }
    return _nullable(
        {"type": "array", "items": {"anyOf": [{"enum": list(settings)}, {"type": "string", "pattern": DOTTED}, entry]}}
    )


def _loosen(part: Any, *, names: bool = False) -> Any:
    """Return the schema with ``${…}`` allowed wherever a scalar stands."""
    if isinstance(part, list):
        return [_loosen(item) for item in part]
    if not isinstance(part, dict):
        return part
    if names:
        return {name: _loosen(item) for name, item in part.items()}
    result: dict[str, Any] = {}
    for key, value in part.items():
        if key in ("properties", "patternProperties", "$defs"):
            result[key] = _loosen(value, names=True)
        elif key in ("enum", "const", "default", "examples", "required", "if", "not"):
            result[key] = value
        else:
            result[key] = _loosen(value)
    kind = part.get("type")
    if kind in ("integer", "number"):
        return _or(result, _GROUPED, _EXPANSION)
    if kind == "boolean" or (kind == "string" and ("pattern" in part or "format" in part or "enum" in part)):
        return _or(result, _EXPANSION)
    if kind is None and ("enum" in part or "const" in part):
        return _or(result, _EXPANSION)
    return result


def _or(part: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    notes: dict[str, Any] = {key: part.pop(key) for key in ("description", "default", "title") if key in part}
    return {"anyOf": [part, *others], **notes}
