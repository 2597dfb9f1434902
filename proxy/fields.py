"""What each field of a request must be, where we read it; any other field passes as it is.

A check is given the value and the field's name and raises ``invalid_request``, naming the field in ``param``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from proxy.errors import bad

MAX_TOKENS: Final = 100_000_000
ROLES: Final = frozenset(("system", "developer", "user", "assistant", "tool", "function"))

Check = Callable[[Any, str], None]


def check_input(value: Any, name: str) -> None:
    if type(value) is str:
        return
    if type(value) is not list or not value or len(value) > 4_096:
        bad(f"`{name}` must be a string or a non-empty array of at most 4096 strings or token arrays.", name)
    for i, item in enumerate(value):
        kind = type(item)
        if kind is str or kind is int:
            continue
        if kind is not list or not all(type(token) is int for token in item):
            bad(f"`{name}[{i}]` must be a string or an array of integers.", f"{name}[{i}]")
    if len({type(item) for item in value}) > 1:
        bad(f"`{name}` must not mix strings and tokens.", name)


def check_message(message: Any, i: int) -> None:
    if type(message) is not dict:
        bad(f"`messages[{i}]` must be an object.", f"messages[{i}]")
    role = message.get("role")
    if type(role) is not str or role not in ROLES:
        bad(f"`messages[{i}].role` must be one of {', '.join(sorted(ROLES))}.", f"messages[{i}].role")
    content = message.get("content")
    if type(content) is list:
        for j, part in enumerate(content):
            if type(part) is not dict or type(part.get("type")) is not str:
                bad(f"`messages[{i}].content[{j}]` must be an object with a `type`.", f"messages[{i}].content[{j}]")
            _check_part(part, f"messages[{i}].content[{j}]")
    elif content is not None and type(content) is not str:
        bad(f"`messages[{i}].content` must be a string or an array of parts.", f"messages[{i}].content")
    if len(message) > 2 or content is None:
        for name in ("name", "refusal", "tool_call_id"):
            if (value := message.get(name)) is not None and type(value) is not str:
                bad(f"`messages[{i}].{name}` must be a string.", f"messages[{i}].{name}")
        if (calls := message.get("tool_calls")) is not None:
            _check_tool_calls(calls, f"messages[{i}].tool_calls")
        if (call := message.get("function_call")) is not None:
            _check_function(call, f"messages[{i}].function_call")
        if (audio := message.get("audio")) is not None and type(audio) is not dict:
            bad(f"`messages[{i}].audio` must be an object.", f"messages[{i}].audio")


def _check_part(part: dict[str, Any], where: str) -> None:
    kind = part["type"]
    if kind in ("text", "refusal"):
        if type(part.get(kind)) is not str:
            bad(f"`{where}.{kind}` must be a string.", f"{where}.{kind}")
    elif kind == "image_url":
        image = part.get("image_url")
        if type(image) is not dict or type(image.get("url")) is not str:
            bad(f"`{where}.image_url.url` must be a string.", f"{where}.image_url")
    elif kind == "input_audio":
        audio = part.get("input_audio")
        if type(audio) is not dict or type(audio.get("data")) is not str or type(audio.get("format")) is not str:
            bad(f"`{where}.input_audio` must hold `data` and `format` strings.", f"{where}.input_audio")
    elif kind == "file":
        file = part.get("file")
        if type(file) is not dict or any(
            type(file.get(name)) not in (str, type(None)) for name in ("file_data", "file_id", "filename")
        ):
            bad(f"`{where}.file` must be an object of strings.", f"{where}.file")


def _check_function(function: Any, where: str) -> None:
    if type(function) is not dict or type(function.get("name")) is not str or not function["name"]:
        bad(f"`{where}.name` must be a non-empty string.", f"{where}.name")
    if (arguments := function.get("arguments")) is not None and type(arguments) is not str:
        bad(f"`{where}.arguments` must be a string of JSON.", f"{where}.arguments")


def _check_tool_calls(calls: Any, where: str) -> None:
    if type(calls) is not list:
        bad(f"`{where}` must be an array.", where)
    for i, call in enumerate(calls):
        at = f"{where}[{i}]"
        if type(call) is not dict or type(call.get("id")) is not str:
            bad(f"`{at}.id` must be a string.", f"{at}.id")
        if call.get("type") == "custom":
            custom = call.get("custom")
            if type(custom) is not dict or type(custom.get("name")) is not str or type(custom.get("input")) is not str:
                bad(f"`{at}.custom` must hold `name` and `input` strings.", f"{at}.custom")
        else:
            _check_function(call.get("function"), f"{at}.function")


def _check_tools(tools: Any, name: str) -> None:
    if type(tools) is not list or len(tools) > 1_024:
        bad(f"`{name}` must be an array of at most 1024 tools.", name)
    for i, tool in enumerate(tools):
        at = f"{name}[{i}]"
        if type(tool) is not dict or type(tool.get("type")) is not str:
            bad(f"`{at}` must be an object with a `type`.", at)
        if tool["type"] == "function":
            _check_function(tool.get("function"), f"{at}.function")
            function = tool["function"]
            if type(function.get("parameters")) not in (dict, type(None)):
                bad(f"`{at}.function.parameters` must be a JSON Schema object.", f"{at}.function.parameters")
            if type(function.get("description")) not in (str, type(None)):
                bad(f"`{at}.function.description` must be a string.", f"{at}.function.description")


def _check_functions(functions: Any, name: str) -> None:
    if type(functions) is not list:
        bad(f"`{name}` must be an array.", name)
    for i, function in enumerate(functions):
        _check_function(function, f"{name}[{i}]")


def _check_tool_choice(choice: Any, name: str) -> None:
    if type(choice) is dict and type(choice.get("type")) is str:
        inner = choice.get(choice["type"])
        if choice["type"] == "function" and (type(inner) is not dict or type(inner.get("name")) is not str):
            bad(f"`{name}.function.name` must be a string.", f"{name}.function.name")
        return
    if choice not in ("none", "auto", "required"):
        bad(f"`{name}` must be none, auto, required or an object that names a tool.", name)


def _check_stop(stop: Any, name: str) -> None:
    if type(stop) is str:
        return
    if type(stop) is not list or len(stop) > 256 or not all(type(word) is str for word in stop):
        bad(f"`{name}` must be a string or an array of strings.", name)


def _check_response_format(value: Any, name: str) -> None:
    if type(value) is not dict or type(value.get("type")) is not str:
        bad(f"`{name}` must be an object with a `type`.", name)
    if value["type"] == "json_schema":
        inner = value.get("json_schema")
        if type(inner) is not dict or type(inner.get("schema")) not in (dict, type(None)):
            bad(f"`{name}.json_schema` must be an object with a `schema`.", f"{name}.json_schema")


def integer(low: int, high: int) -> Check:
    def check(value: Any, name: str) -> None:
        if type(value) is not int or not low <= value <= high:
            bad(f"`{name}` must be an integer from {low} to {high}.", name)

    return check


def _number(low: float, high: float) -> Check:
    def check(value: Any, name: str) -> None:
        if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
            bad(f"`{name}` must be a number from {low:g} to {high:g}.", name)

    return check


def _of_type(wanted: type, words: str) -> Check:
    def check(value: Any, name: str) -> None:
        if type(value) is not wanted:
            bad(f"`{name}` must be {words}.", name)

    return check


_OBJECT: Final = _of_type(dict, "an object")
_STRING: Final = _of_type(str, "a string")
_BOOL: Final = _of_type(bool, "true or false")
_ARRAY: Final = _of_type(list, "an array")
COMMON: Final[dict[str, Check]] = {
    "n": integer(1, 128),
    "max_tokens": integer(1, MAX_TOKENS),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "stop": _check_stop,
    "user": _STRING,
    "metadata": _OBJECT,
    "seed": integer(-(2**63), 2**63 - 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "logit_bias": _OBJECT,
    "service_tier": _STRING,
    "template": _STRING,
    "variables": _OBJECT,
}
COMPLETIONS: Final[dict[str, Check]] = COMMON | {
    "best_of": integer(1, 128),  # a hold multiplies by it
    "logprobs": integer(0, 100),
    "echo": _BOOL,
    "suffix": _STRING,
}
CHAT: Final[dict[str, Check]] = COMMON | {
    "max_completion_tokens": integer(1, MAX_TOKENS),
    "tools": _check_tools,
    "functions": _check_functions,
    "tool_choice": _check_tool_choice,
    "parallel_tool_calls": _BOOL,
    "response_format": _check_response_format,
    "reasoning_effort": _STRING,
    "verbosity": _STRING,
    "logprobs": _BOOL,
    "top_logprobs": integer(0, 100),
    "store": _BOOL,
    "modalities": _ARRAY,
    "audio": _OBJECT,
    "prediction": _OBJECT,
}
