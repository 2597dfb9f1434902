"""Cases 17-44 and 74-76 of the translation table: tools, tool choice, thinking, structured answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.errors import ApiError
from tests.providers.anthropic_case import TOOL, USER, body, call, calls, decode, play, reply, result, send, text, tool

MANUAL = "claude-sonnet-4-5"


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


@pytest.mark.parametrize("declared", [{}, {"parameters": {}}, {"parameters": {"properties": {}}}, {"parameters": None}])
def test_017_tool_without_parameters_gets_an_empty_object_schema(declared: dict[str, Any]) -> None:
    """The vendor wants a schema of type object."""
    sent = body(tools=[function("f", **declared)])
    assert sent["tools"] == [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]


def test_018_the_whole_json_schema_is_kept() -> None:
    """No keyword of a tool's parameters is lost."""
    schema = {
        "type": "object",
        "description": "d",
        "properties": {"a": {"anyOf": [{"type": "string", "enum": ["x", ""]}, {"type": "null"}], "default": None}},
        "required": ["a"],
        "additionalProperties": {"type": "integer", "minimum": 3},
        "$defs": {"n": {"$ref": "#"}},
        "x-own": 1,
    }
    sent = body(tools=[function("f", description="what", parameters=schema)])
    assert sent["tools"] == [{"name": "f", "description": "what", "input_schema": schema}]


def test_031_invalid_names_are_mapped_one_to_one_and_back() -> None:
    """Two names that would become one stay two; the reply and the history speak the caller's names."""
    names = ["my.tool", "my_tool", "my tool", "9lives", "é" * 3, "x" * 200]
    messages = [USER, calls(call("t1", "my tool")), result("t1")]
    request: dict[str, Any] = {"messages": messages, "tools": [function(name) for name in names]}
    sent = body(**request)
    upstream = [tool["name"] for tool in sent["tools"]]
    assert len(set(upstream)) == len(names)
    assert upstream[1] == "my_tool", "a valid name stays"
    assert all(len(name) <= 128 and name.replace("_", "a").replace("-", "a").isascii() for name in upstream)
    assert sent["messages"][1]["content"][0]["name"] == upstream[2]
    for name, used in zip(names, upstream, strict=True):
        answer = decode(reply({"type": "tool_use", "id": "t", "name": used, "input": {}}, stop="tool_use"), **request)
        assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == name
        chunks = play(stream_of(used), **request)
        assert [c["function"]["name"] for chunk in chunks for choice in chunk["choices"]
                for c in choice["delta"].get("tool_calls", ()) if "name" in c["function"]] == [name]  # fmt: skip


def stream_of(name: str) -> list[dict[str, Any]]:
    from tests.providers.anthropic_case import events

    return events(*tool(0, name, "{}"), stop="tool_use")


def test_031_a_forced_tool_is_named_as_it_was_declared() -> None:
    """tool_choice follows the renaming."""
    sent = body(tools=[function("my.tool")], tool_choice=function("my.tool"))
    assert sent["tool_choice"] == {"type": "tool", "name": "my_tool"}


def test_032_duplicate_tool_names_are_refused() -> None:
    """The error names the second one."""
    with pytest.raises(ApiError) as caught:
        body(tools=[function("f"), function("g"), function("f")])
    assert (caught.value.code, caught.value.param) == ("invalid_request", "tools[2].function.name")


def test_033_strict_is_sent_where_the_model_takes_it_and_named_elsewhere() -> None:
    """A strict tool's schema is closed and freed of what the grammar does not know, which is listed."""
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
    sent = send(tools=[function("f", strict=True, parameters=schema)])
    declared = orjson.loads(sent.body)["tools"][0]
    assert declared["strict"] is True
    assert declared["input_schema"] == {
        "type": "object",
        "properties": {"n": {"type": "integer", "description": "minimum: 1"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    assert sent.dropped == ("tools[0].function.parameters.minimum",)
    old = send(tools=[function("f", strict=True, parameters=schema)], model="claude-3-5-sonnet-20240620")
    assert orjson.loads(old.body)["tools"] == [{"name": "f", "input_schema": schema}]
    assert old.dropped == ("tools[0].function.strict",)


def test_034_tools_of_the_history_are_declared_though_the_request_has_none() -> None:
    """The vendor wants declarations; nothing new may be called."""
    sent = body(
        [USER, calls(call("t1", "f"), call("t2", "g"), call("t3", "f")), result("t1"), result("t2"), result("t3")]
    )
    empty = {"type": "object", "properties": {}}
    assert sent["tools"] == [{"name": "f", "input_schema": empty}, {"name": "g", "input_schema": empty}]
    assert sent["tool_choice"] == {"type": "none"}


def test_035_empty_tools_are_left_out() -> None:
    """An empty array is no array."""
    assert "tools" not in body(tools=[])


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
    ],
)
def test_036_tool_choice_is_mapped(asked: Any, sent: dict[str, Any]) -> None:
    """Every form of tool_choice has its counterpart."""
    assert body(tools=[TOOL], tool_choice=asked)["tool_choice"] == sent


def test_037_none_carries_no_word_on_parallel_calls() -> None:
    """The vendor refuses the pair."""
    assert body(tools=[TOOL], tool_choice="none", parallel_tool_calls=False)["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize(
    ("asked", "kind"), [(None, "auto"), ("auto", "auto"), ("required", "any"), (function("f"), "tool")]
)
def test_038_single_calls_are_asked_for(asked: Any, kind: str) -> None:
    """`parallel_tool_calls: false` goes along with any choice, or with none given."""
    choice = body(tools=[TOOL], tool_choice=asked, parallel_tool_calls=False)["tool_choice"]
    assert choice["disable_parallel_tool_use"] is True and choice["type"] == kind


def test_039_parallel_calls_are_the_default() -> None:
    """`parallel_tool_calls: true` sends nothing."""
    assert "tool_choice" not in body(tools=[TOOL], parallel_tool_calls=True)


@pytest.mark.parametrize(("mode", "kind"), [("auto", "auto"), ("required", "any")])
def test_041_allowed_tools_filter_the_declarations(mode: str, kind: str) -> None:
    """Only the named tools are declared; unknown names alone keep them all."""
    declared = [function("f"), function("g")]

    def choice(*names: str) -> dict[str, Any]:
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [function(name) for name in names]}}

    sent = body(tools=declared, tool_choice=choice("g"))
    assert [tool["name"] for tool in sent["tools"]] == ["g"]
    assert sent["tool_choice"] == {"type": kind}
    assert len(body(tools=declared, tool_choice=choice("h"))["tools"]) == 2


def test_042_tool_choice_without_tools_is_left_out() -> None:
    """The vendor would answer 400."""
    assert "tool_choice" not in body(tool_choice="auto")
    assert "tool_choice" not in body(tool_choice="required", tools=[])


def test_043_forced_tool_and_a_thinking_budget_exclude_each_other() -> None:
    """Refused by name, or thinking dropped and named; adaptive thinking takes both from 4.8 on."""
    asked: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required", "reasoning_effort": "low"}
    with pytest.raises(ApiError) as caught:
        body(**asked)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "reasoning_effort")
    sent = send(settings={"unsupported": "drop"}, **asked)
    assert sent.dropped == ("reasoning_effort",)
    assert "thinking" not in orjson.loads(sent.body)
    for model in ("claude-opus-4-6", "claude-sonnet-4-6", "claude-opus-4-7"):
        with pytest.raises(ApiError) as caught:
            body(model=model, **asked)
        assert caught.value.param == "reasoning_effort"
        alone = body(model=model, settings={"unsupported": "drop"}, **asked)
        assert "thinking" not in alone and alone["tool_choice"] == {"type": "any"}
    both = body(model="claude-opus-4-8", **asked)
    assert both["thinking"] == {"type": "adaptive"} and both["tool_choice"] == {"type": "any"}


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-1"])
def test_043_models_that_refuse_forced_tools(model: str) -> None:
    """A forced tool is refused in our words, or left to the model and named."""
    with pytest.raises(ApiError) as caught:
        body(tools=[TOOL], tool_choice="required", model=model)
    assert caught.value.param == "tool_choice"
    sent = send(tools=[TOOL], tool_choice="required", model=model, settings={"unsupported": "drop"})
    assert "tool_choice" not in orjson.loads(sent.body)
    assert sent.dropped == ("tool_choice",)


def test_tools_of_other_types_are_refused_or_dropped() -> None:
    """Only functions are translated."""
    other = {"type": "custom", "custom": {"name": "c"}}
    with pytest.raises(ApiError) as caught:
        body(tools=[TOOL, other])
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "tools[1]")
    assert send(tools=[TOOL, other], settings={"unsupported": "drop"}).dropped == ("tools[1]",)


def test_unknown_forced_function_is_refused() -> None:
    """tool_choice must name a tool of the request."""
    with pytest.raises(ApiError) as caught:
        body(tools=[TOOL], tool_choice=function("nope"))
    assert (caught.value.code, caught.value.param) == ("invalid_request", "tool_choice")


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "output"),
    [
        (MANUAL, "none", None, None),
        (MANUAL, "minimal", {"type": "enabled", "budget_tokens": 1024}, None),
        (MANUAL, "high", {"type": "enabled", "budget_tokens": 16384}, None),
        ("claude-opus-4-6", "none", None, None),
        ("claude-opus-4-6", "minimal", {"type": "adaptive"}, {"effort": "low"}),
        ("claude-opus-4-6", "xhigh", {"type": "adaptive"}, {"effort": "high"}),
        ("claude-sonnet-4-6", "max", {"type": "adaptive"}, {"effort": "max"}),
        ("claude-opus-4-8", "xhigh", {"type": "adaptive"}, {"effort": "xhigh"}),
        ("claude-opus-5", "medium", None, {"effort": "medium"}),
        ("claude-opus-5", "none", {"type": "disabled"}, None),
        ("claude-sonnet-5-5", "none", {"type": "between_tools"}, None),
        ("claude-opus-5-5", "low", None, {"effort": "low"}),
        ("claude-unheard-of-9", "high", None, {"effort": "high"}),
    ],
)
def test_074_reasoning_effort_in_each_lines_terms(model: str, effort: str, thinking: Any, output: Any) -> None:
    """Effort becomes a budget, adaptive thinking with an effort, or what turns thinking off."""
    sent = body(model=model, reasoning_effort=effort)
    assert sent.get("thinking") == thinking
    assert sent.get("output_config") == output


def test_074_unknown_effort_is_refused() -> None:
    """A word that OpenAI does not know is the caller's mistake."""
    with pytest.raises(ApiError) as caught:
        body(reasoning_effort="huge")
    assert (caught.value.code, caught.value.param) == ("invalid_request", "reasoning_effort")


@pytest.mark.parametrize(("model", "effort"), [("claude-3-haiku-20240307", "low"), ("claude-opus-5-5", "none")])
def test_074_effort_that_the_model_cannot_give(model: str, effort: str) -> None:
    """Refused by name, or dropped and named."""
    with pytest.raises(ApiError) as caught:
        body(model=model, reasoning_effort=effort)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "reasoning_effort")
    assert send(model=model, reasoning_effort=effort, settings={"unsupported": "drop"}).dropped == ("reasoning_effort",)


def test_074_the_vendors_own_thinking_is_an_extension() -> None:
    """`thinking` passes in the vendor's form and wins over reasoning_effort."""
    asked = {"type": "adaptive", "display": "summarized"}
    assert body(thinking=asked, reasoning_effort="low", model="claude-opus-4-8")["thinking"] == asked
    with pytest.raises(ApiError):
        body(thinking={"type": "budget"})
    with pytest.raises(ApiError):
        body(thinking={"type": "enabled"})


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 1}, "s": {"type": "string", "format": "date"}},
    "required": ["n", "s"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "out", "schema": SCHEMA, "strict": True}}


def test_075_json_schema_goes_to_the_models_own_structured_output() -> None:
    """Keywords that the grammar lacks move to the description and are listed."""
    sent = send(response_format=FORMAT)
    schema = orjson.loads(sent.body)["output_config"]["format"]
    assert schema["type"] == "json_schema"
    assert schema["schema"]["properties"] == {
        "n": {"type": "integer", "description": "minimum: 1"},
        "s": {"type": "string", "format": "date"},
    }
    assert sent.dropped == ("response_format.json_schema.schema.minimum",)
    both = body(response_format=FORMAT, reasoning_effort="low", model="claude-opus-4-8")["output_config"]
    assert both["effort"] == "low" and "format" in both


OLD = "claude-3-5-sonnet-20240620"


def test_075_older_models_answer_through_a_forced_tool() -> None:
    """Its arguments come back as content with finish `stop` and no tool call, whole and streamed."""
    request: dict[str, Any] = {"response_format": FORMAT, "model": OLD}
    sent = body(**request)
    assert sent["tools"][0]["input_schema"] == SCHEMA
    name = sent["tools"][0]["name"]
    assert sent["tool_choice"] == {"type": "tool", "name": name}
    answer = decode(
        reply({"type": "tool_use", "id": "t", "name": name, "input": {"n": 1, "s": "x"}}, stop="tool_use"), **request
    )
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert orjson.loads(choice["message"]["content"]) == {"n": 1, "s": "x"}
    assert "tool_calls" not in choice["message"]

    from tests.providers.anthropic_case import events

    chunks = play(events(*tool(0, name, '{"n"', ":1}"), stop="tool_use"), **request)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == '{"n":1}'
    assert not any("tool_calls" in delta for delta in deltas)
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


def test_075_the_answers_tool_stands_beside_the_callers_own() -> None:
    """The model may call a tool or answer; the names do not clash."""
    taken = function("json_output")
    request: dict[str, Any] = {"response_format": FORMAT, "model": OLD, "tools": [taken]}
    sent = body(**request)
    names = [tool["name"] for tool in sent["tools"]]
    assert names[0] == "json_output" and len(set(names)) == 2
    assert sent["tool_choice"] == {"type": "any"}
    answer = decode(reply({"type": "tool_use", "id": "t", "name": names[0], "input": {}}, stop="tool_use"), **request)
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


def test_076_json_object_becomes_an_instruction() -> None:
    """JSON mode is asked for at the end of the system prompt; the caller's own stays before it."""
    sent = body([{"role": "system", "content": "s"}, USER], response_format={"type": "json_object"})
    assert sent["system"][0] == text("s")
    assert "JSON" in sent["system"][1]["text"]
    assert "system" not in body(response_format={"type": "text"})
