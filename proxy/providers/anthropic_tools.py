"""Tools, tool choice and structured answers as Anthropic declares them.

Source: platform.claude.com/docs/en/agents-and-tools/tool-use/overview, …/build-with-claude/structured-outputs.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.errors import ApiError, bad
from proxy.providers.anthropic_content import NAMES, VENDOR, Block, cache_mark
from proxy.providers.anthropic_models import Capabilities
from proxy.providers.anthropic_schema import strict_schema
from proxy.providers.base import drop_or_refuse
from proxy.providers.common import NameMap, allowed, function_tools, tool_choice
from proxy.providers.conversation import ToolCall

JSON_TOOL: Final = "json_output"
_FIELDS: Final = frozenset(("tools", "functions", "tool_choice", "function_call", "response_format"))


def tool_names(body: dict[str, Any]) -> NameMap:
    """Return the map of tool names, in which the declared functions' come first."""
    names = NameMap(NAMES)
    if declared := body.get("tools"):
        names.reserve(tool["function"]["name"] for tool in declared if tool.get("type") == "function")
    return names


def tools(
    body: dict[str, Any], out: dict[str, Any], calls: list[ToolCall], names: NameMap, caps: Capabilities, settings: Any,
    dropped: list[str],
) -> str | None:  # fmt: skip
    """Set ``tools`` and ``tool_choice``; return the name of the tool that stands for a JSON answer, if any.

    ``calls`` are those of the history.
    """
    if not calls and _FIELDS.isdisjoint(body):
        return None
    if body.get("functions"):
        raise ApiError("unsupported_parameter", "`functions` is not translated; use `tools`.", param="functions")
    found, others = function_tools(body)
    for where in others:
        drop_or_refuse(settings, dropped, where, VENDOR, "use a tool of type function")
    choice = tool_choice(body)
    chosen = allowed(found, choice)
    declared: list[Block] = []
    for tool in chosen:
        block: Block = {"name": names(tool.name)}
        if tool.description is not None:
            block["description"] = tool.description
        schema = tool.parameters or {"properties": {}}
        if tool.strict and caps.schemas:
            schema, lost = strict_schema(schema)
            dropped += [f"{tool.where}.function.parameters.{keyword}" for keyword in lost]
            block["strict"] = True
        elif tool.strict:
            dropped.append(f"{tool.where}.function.strict")
        block["input_schema"] = schema if "type" in schema else {"type": "object", **schema}
        if not cache_mark(tool.tool, block).get("cache_control") and (function := tool.tool.get("function")):
            cache_mark(function, block)
        declared.append(block)

    forced: Block | None = None
    if choice.mode == "required":
        forced = {"type": "any"}
    elif choice.mode == "function":
        forced = {"type": "tool", "name": names(choice.names[0])}
    json_tool = _response_format(body, out, declared, caps, settings, dropped)
    if json_tool:
        forced = {"type": "tool", "name": json_tool} if choice.mode == "none" or not chosen else {"type": "any"}
    elif not declared:
        called = dict.fromkeys(names(call.name) for call in calls)
        if called:
            # The vendor wants a declaration for what the history calls, though nothing may be called now.
            out["tools"] = [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in called]
            out["tool_choice"] = {"type": "none"}
        return None
    out["tools"] = declared
    if forced and not caps.forced:
        drop_or_refuse(settings, dropped, "tool_choice", VENDOR, "this model decides itself: use auto or none")
        forced = None
    single = body.get("parallel_tool_calls") is False
    if forced is None and choice.mode == "none":
        out["tool_choice"] = {"type": "none"}
    elif forced or choice.mode == "auto" or single:
        out["tool_choice"] = forced or {"type": "auto"}
        if single:
            out["tool_choice"]["disable_parallel_tool_use"] = True
    return json_tool


def _response_format(
    body: dict[str, Any], out: dict[str, Any], tools: list[Block], caps: Capabilities, settings: Any, dropped: list[str]
) -> str | None:
    """Put a JSON schema where the model takes it, else add the tool whose arguments are the answer."""
    wanted = body.get("response_format")
    if wanted is None or wanted["type"] in ("text", "json_object"):
        return None
    if wanted["type"] != "json_schema":
        drop_or_refuse(settings, dropped, "response_format", VENDOR, "use text, json_object or json_schema")
        return None
    inner = wanted["json_schema"]
    schema = inner.get("schema") or {"type": "object"}
    where = "response_format.json_schema.schema"
    if caps.schemas:
        schema, lost = strict_schema(schema)
        dropped += [f"{where}.{keyword}" for keyword in lost]
        out["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        return None
    if schema.get("type", "object") != "object":
        bad(f"`{where}` must describe an object for this model.", where)
    taken = {tool["name"] for tool in tools}
    name = JSON_TOOL
    while name in taken:
        name += "_"
    about = inner.get("description") or "Give your whole answer by calling this tool."
    tools.append({"name": name, "description": about, "input_schema": {"type": "object", **schema}})
    return name
