"""Tools and tool choice for Gemini: translation cases 31 to 44."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from proxy.errors import ApiError
from tests.providers.gemini_kit import (
    HI,
    answer,
    call,
    calls,
    candidate,
    decode,
    encode,
    function,
    result,
    stream,
    wire,
)

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")
X = {"type": "object", "properties": {"x": {"type": "string"}}}


def declared(body: dict[str, Any]) -> list[str]:
    return [tool["name"] for tool in body["tools"][0]["functionDeclarations"]]


def mode(**fields: Any) -> Any:
    """Return the functionCallingConfig of a request with the tools f and g."""
    body = wire(tools=[function("f", X), function("g", X)], **fields)
    return body.get("toolConfig", {}).get("functionCallingConfig")


def test_031_tool_names_are_sanitized_bijectively() -> None:
    """Every name is one the vendor takes, no two become one, and the caller sees its own again."""
    names = ["a b", "a/b", "a_b", "1st", "x" * 80, "x" * 79 + "y", "ns.tool:v-1", "héllo", "日本"]
    sent = encode(
        [HI, calls(call("i", "a b"), call("j", "1st")), result("i"), result("j")],
        tools=[function(name, X) for name in names],
        tool_choice={"type": "function", "function": {"name": "a/b"}},
    )
    body = orjson.loads(sent.body)
    found = declared(body)
    assert all(NAME.fullmatch(name) for name in found) and len(set(found)) == len(names)
    assert found[2] == "a_b" and found[6] == "ns.tool:v-1"
    assert body["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"] == [found[1]]
    turn, answers = body["contents"][1]["parts"], body["contents"][2]["parts"]
    assert [part["functionCall"]["name"] for part in turn] == [found[0], found[3]]
    assert [part["functionResponse"]["name"] for part in answers] == [found[0], found[3]]
    back = decode(answer(candidate(*({"functionCall": {"name": name}} for name in found))), sent)
    assert [c["function"]["name"] for c in back["choices"][0]["message"]["tool_calls"]] == names


def test_032_duplicate_names_are_refused() -> None:
    """Ours to say, not the vendor's."""
    with pytest.raises(ApiError) as caught:
        wire(tools=[function("f"), function("f")])
    assert (caught.value.status, caught.value.param) == (400, "tools[1].function.name")


def test_033_strict_tools_are_validated() -> None:
    """Strict becomes the vendor's mode that keeps to the schema, where the model has it."""
    strict = [function("f", X, strict=True)]
    assert wire(tools=strict)["toolConfig"]["functionCallingConfig"] == {"mode": "VALIDATED"}
    assert wire(tools=strict, tool_choice="required")["toolConfig"]["functionCallingConfig"] == {"mode": "ANY"}
    assert "toolConfig" not in wire(tools=strict, model="gemini-2.0-flash")


def test_034_a_history_of_calls_needs_no_tools() -> None:
    """The vendor takes calls of functions that are no longer declared."""
    body = wire([HI, calls(call("a", "f")), result("a")])
    assert "tools" not in body and "toolConfig" not in body


def test_035_042_no_tools_no_choice() -> None:
    """An empty list and a choice without tools are both left out."""
    body = wire(tools=[], tool_choice="required", parallel_tool_calls=False)
    assert "tools" not in body and "toolConfig" not in body


def test_036_tool_choice_becomes_a_mode() -> None:
    """auto, none, required, and one function."""
    assert mode() is None
    assert mode(tool_choice="auto") == {"mode": "AUTO"}
    assert mode(tool_choice="none") == {"mode": "NONE"}
    assert mode(tool_choice="required") == {"mode": "ANY"}
    one = {"type": "function", "function": {"name": "g"}}
    assert mode(tool_choice=one) == {"mode": "ANY", "allowedFunctionNames": ["g"]}
    with pytest.raises(ApiError) as caught:
        mode(tool_choice={"type": "function", "function": {"name": "h"}})
    assert caught.value.param == "tool_choice"


def test_039_parallel_calls_are_the_default() -> None:
    """true asks for nothing."""
    assert mode(parallel_tool_calls=True) is None


def test_040_single_calls_are_refused_or_kept_to_the_first() -> None:
    """The vendor cannot be told: it is refused, or the first call alone reaches the caller, whole and streamed."""
    fields: dict[str, Any] = {"tools": [function("f", X)], "parallel_tool_calls": False}
    with pytest.raises(ApiError) as caught:
        wire(**fields)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "parallel_tool_calls")
    sent = encode(settings={"unsupported": "drop"}, **fields)
    assert sent.dropped == ("parallel_tool_calls",)
    two = answer(candidate({"functionCall": {"name": "f", "id": "1"}}, {"functionCall": {"name": "f", "id": "2"}}))
    assert [c["id"] for c in decode(two, sent)["choices"][0]["message"]["tool_calls"]] == ["1"]
    sent = encode(settings={"unsupported": "drop"}, stream=True, **fields)
    again = answer(candidate({"functionCall": {"name": "f", "id": "3"}}))
    chunks = stream(answer(candidate({"functionCall": {"name": "f", "id": "1"}}, finish=None)), again, sent=sent)
    ids = [c["id"] for chunk in chunks for choice in chunk["choices"] for c in choice["delta"].get("tool_calls", ())]
    assert ids == ["1"]


def test_041_allowed_tools_filter_the_declarations() -> None:
    """Both modes; names that we don't know keep all declarations."""

    def choice(mode: str, *names: str) -> dict[str, Any]:
        tools = [{"type": "function", "function": {"name": name}} for name in names]
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}

    tools = [function("f", X), function("g", X)]
    body = wire(tools=tools, tool_choice=choice("required", "g"))
    assert declared(body) == ["g"] and body["toolConfig"]["functionCallingConfig"] == {"mode": "ANY"}
    body = wire(tools=tools, tool_choice=choice("auto", "f"))
    assert declared(body) == ["f"] and body["toolConfig"]["functionCallingConfig"] == {"mode": "AUTO"}
    assert declared(wire(tools=tools, tool_choice=choice("auto", "nobody"))) == ["f", "g"]


def test_044_json_together_with_tools_is_for_models_that_can() -> None:
    """Refused, or dropped by name, before Gemini 3; sent since."""
    fields: dict[str, Any] = {"tools": [function("f", X)], "response_format": {"type": "json_object"}}
    with pytest.raises(ApiError) as caught:
        wire(**fields, model="gemini-2.5-pro")
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "response_format")
    sent = encode(**fields, model="gemini-2.5-pro", settings={"unsupported": "drop"})
    assert sent.dropped == ("response_format",) and b"responseMimeType" not in sent.body
    assert wire(**fields, model="gemini-3-flash-preview")["generationConfig"]["responseMimeType"] == "application/json"


def test_tools_of_other_types_are_refused_by_place() -> None:
    """A custom tool is none of the vendor's."""
    with pytest.raises(ApiError) as caught:
        wire(tools=[function("f"), {"type": "custom", "custom": {"name": "c"}}])
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "tools[1]")
