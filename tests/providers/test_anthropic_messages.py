"""Cases 1-16 and 45-61 of the translation table: messages, roles, tool calls and results in the history."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.errors import ApiError
from proxy.providers.anthropic_content import PLACEHOLDER
from tests.providers.anthropic_case import TOOL, USER, body, call, calls, result, send, text


def roles(sent: dict[str, Any]) -> list[str]:
    return [message["role"] for message in sent["messages"]]


def use(ident: str, name: str = "f", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": ident, "name": name, "input": arguments}


def done(ident: str, content: Any = "ok") -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": ident, "content": content}


def test_001_leading_system_and_developer_become_system_blocks_in_order() -> None:
    """Nothing of the leading system and developer messages is lost."""
    sent = body(
        [
            {"role": "system", "content": "a"},
            {"role": "developer", "content": [text("b"), text("c")]},
            {"role": "system", "content": "d"},
            USER,
        ]
    )
    assert sent["system"] == [text("a"), text("b"), text("c"), text("d")]
    assert sent["messages"] == [{"role": "user", "content": [text("hi")]}]


def test_002_later_system_message_stays_in_its_place() -> None:
    """A system message in mid-conversation is never hoisted."""
    sent = body([USER, {"role": "assistant", "content": "yo"}, {"role": "system", "content": "be brief"}, USER])
    assert "system" not in sent
    assert sent["messages"][2]["content"] == [text("<system>\nbe brief\n</system>"), text("hi")]


def test_003_system_between_calls_and_results_comes_after_the_results() -> None:
    """Tool results directly follow their calls."""
    sent = body([USER, calls(call("t1")), {"role": "system", "content": "s"}, result("t1")], tools=[TOOL])
    assert [part["type"] for part in sent["messages"][2]["content"]] == ["tool_result", "text"]


def test_004_only_system_messages_are_refused() -> None:
    """A conversation without a user's word is refused with advice."""
    with pytest.raises(ApiError) as caught:
        body([{"role": "system", "content": "x"}])
    assert (caught.value.code, caught.value.param) == ("invalid_request", "messages")


def test_005_assistant_first_keeps_its_text_behind_a_leading_user_turn() -> None:
    """The assistant's opening words are not dropped."""
    sent = body([{"role": "assistant", "content": "welcome"}, USER])
    assert roles(sent) == ["user", "assistant", "user"]
    assert sent["messages"][0]["content"] == [text(PLACEHOLDER)]
    assert sent["messages"][1]["content"] == [text("welcome")]


def test_006_consecutive_user_messages_merge_part_by_part() -> None:
    """One turn, order kept, texts not joined into one string."""
    sent = body([USER, {"role": "user", "content": [text("a"), text("b")]}])
    assert sent["messages"] == [{"role": "user", "content": [text("hi"), text("a"), text("b")]}]


def test_007_consecutive_assistant_messages_merge() -> None:
    """Two assistant messages are one turn."""
    sent = body([USER, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}, USER])
    assert sent["messages"][1] == {"role": "assistant", "content": [text("a"), text("b")]}


def test_008_emptied_assistant_turn_goes_and_its_neighbours_merge() -> None:
    """An assistant turn without anything to send leaves no hole in the alternation."""
    sent = body([USER, {"role": "assistant", "content": ""}, {"role": "user", "content": "you there?"}])
    assert sent["messages"] == [{"role": "user", "content": [text("hi"), text("you there?")]}]


@pytest.mark.parametrize("empty", ["", " ", None, [], [text("")], [text(" \n")]])
def test_009_no_empty_text_block_is_sent(empty: Any) -> None:
    """Blanks vanish; a user turn of blanks alone becomes the documented placeholder."""
    sent = body([{"role": "user", "content": empty}])
    assert sent["messages"] == [{"role": "user", "content": [text(PLACEHOLDER)]}]
    sent = body([USER, calls(call("t1"), content=empty), result("t1")], tools=[TOOL])
    assert sent["messages"][1]["content"] == [use("t1")]


def test_010_trailing_white_space_of_a_prefill_is_trimmed() -> None:
    """The vendor refuses a prefill that ends in white space."""
    sent = body([USER, {"role": "assistant", "content": "The answer is \n"}])
    assert sent["messages"][-1]["content"] == [text("The answer is")]


def test_011_prefill_passes_where_the_model_takes_it_and_is_refused_elsewhere() -> None:
    """A trailing assistant message is passed on or refused in our words, never an opaque 400."""
    messages = [USER, {"role": "assistant", "content": "Well,"}]
    assert body(messages)["messages"][-1]["role"] == "assistant"
    for model in ("claude-opus-4-6", "claude-sonnet-5", "claude-unheard-of-9"):
        with pytest.raises(ApiError) as caught:
            body(messages, model=model)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "messages[1]")


def test_012_names_on_messages_are_not_sent() -> None:
    """Anthropic knows no name on a message."""
    sent = body([{"role": "user", "content": "hi", "name": "ann"}])
    assert sent["messages"] == [{"role": "user", "content": [text("hi")]}]


def test_013_text_and_calls_of_one_message_both_survive_text_first() -> None:
    """An assistant message may speak and call."""
    sent = body([USER, calls(call("t1"), content="let me see"), result("t1")], tools=[TOOL])
    assert sent["messages"][1]["content"] == [text("let me see"), use("t1")]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "assistant", "content": None, "refusal": "no"},
    ],
)
def test_014_refusals_in_the_history_are_text(message: dict[str, Any]) -> None:
    """What the assistant refused is part of the conversation."""
    assert body([USER, message, USER])["messages"][1]["content"] == [text("no")]


def test_015_legacy_function_messages_become_a_tool_call_and_its_result() -> None:
    """`function_call` and role `function` are translated, not ignored."""
    sent = body(
        [
            USER,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a":1}'}},
            {"role": "function", "name": "f", "content": "42"},
        ],
        tools=[TOOL],
    )
    assert sent["messages"][1]["content"] == [use("call_1", a=1)]
    assert sent["messages"][2]["content"] == [done("call_1", "42")]


def test_016_unknown_role_is_refused() -> None:
    """The error names the message's role."""
    with pytest.raises(ApiError) as caught:
        body([{"role": "narrator", "content": "x"}])
    assert caught.value.param == "messages[0].role"


def test_045_tool_results_become_one_user_message() -> None:
    """All results of a turn stand in one user message, in call order, before any text."""
    sent = body(
        [
            USER,
            calls(call("t1"), call("t2")),
            result("t1", "one"),
            result("t2", "two"),
            {"role": "user", "content": "so?"},
        ],
        tools=[TOOL],
    )
    assert roles(sent) == ["user", "assistant", "user"]
    assert sent["messages"][2]["content"] == [done("t1", "one"), done("t2", "two"), text("so?")]


def test_047_results_out_of_order_are_put_in_call_order() -> None:
    """The caller may answer calls in any order."""
    sent = body([USER, calls(call("t1"), call("t2")), result("t2", "2"), result("t1", "1")], tools=[TOOL])
    assert [part["content"] for part in sent["messages"][2]["content"]] == ["1", "2"]


@pytest.mark.parametrize(
    "messages",
    [
        [USER, calls(call("t1"), call("t2")), result("t1")],
        [USER, calls(call("t1"))],
        [USER, calls(call("t1")), USER],
        [USER, calls(call("t1")), USER, {"role": "assistant", "content": "x"}, result("t1")],
    ],
)
def test_048_missing_result_is_refused(messages: list[dict[str, Any]]) -> None:
    """A call without its result is refused here, not upstream."""
    with pytest.raises(ApiError) as caught:
        body(messages, tools=[TOOL])
    assert (caught.value.code, caught.value.param) == ("invalid_request", "messages[1]")


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([USER, result("t1")], "messages[1]"),
        ([USER, calls(call("t1")), result("t1"), result("t9")], "messages[3]"),
        ([USER, calls(call("t1")), result("t1"), result("t1")], "messages[3]"),
        ([USER, calls(call("t1"), call("t1")), result("t1")], "messages[1]"),
    ],
)
def test_049_orphan_or_doubled_results_are_refused(messages: list[dict[str, Any]], param: str) -> None:
    """A result must answer one call, once."""
    with pytest.raises(ApiError) as caught:
        body(messages, tools=[TOOL])
    assert (caught.value.code, caught.value.param) == ("invalid_request", param)


def test_049_one_result_with_an_unknown_id_answers_the_one_open_call() -> None:
    """The recordings hold clients that mix up the id; where there is no doubt, it is put right."""
    sent = body([USER, calls(call("t1"), call("t2")), result("t2"), result("typo", "1")], tools=[TOOL])
    assert sent["messages"][2]["content"] == [done("t1", "1"), done("t2")]


def test_052_images_in_tool_results_survive() -> None:
    """Content parts of a tool message become blocks of the result."""
    url = "data:image/png;base64,aGk="
    content = [text("see"), {"type": "image_url", "image_url": {"url": url}}]
    sent = body([USER, calls(call("t1")), result("t1", content)], tools=[TOOL])
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    assert sent["messages"][2]["content"][0]["content"] == [text("see"), image]


@pytest.mark.parametrize("empty", ["", None, [], " "])
def test_053_empty_tool_result_is_a_valid_block(empty: Any) -> None:
    """A tool may have nothing to say."""
    sent = body([USER, calls(call("t1")), result("t1", empty)], tools=[TOOL])
    assert sent["messages"][2]["content"] == [{"type": "tool_result", "tool_use_id": "t1"}]


@pytest.mark.parametrize("arguments", ["", " ", "{}", "null"])
def test_054_empty_arguments_are_an_empty_object(arguments: str) -> None:
    """No arguments means no arguments."""
    sent = body([USER, calls(call("t1", arguments=arguments)), result("t1")], tools=[TOOL])
    assert sent["messages"][1]["content"] == [use("t1")]


@pytest.mark.parametrize(
    "arguments", ["{", '{"a":}', "yes", '{"a":NaN}', '{"a":"\\ud800"}', "[" * 3000, '{"a":' * 200 + "1" + "}" * 200]
)
def test_055_arguments_that_are_no_json_are_refused(arguments: str) -> None:
    """The error names the call; nothing is silently emptied, nothing crashes."""
    with pytest.raises(ApiError) as caught:
        body([USER, calls(call("t0"), call("t1", arguments=arguments)), result("t0"), result("t1")], tools=[TOOL])
    assert caught.value.status == 400
    assert caught.value.param == "messages[1].tool_calls[1].function.arguments"


@pytest.mark.parametrize("arguments", ["5", "[1]", '"x"', "true"])
def test_056_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    """Anthropic takes objects only."""
    with pytest.raises(ApiError) as caught:
        body([USER, calls(call("t1", arguments=arguments)), result("t1")], tools=[TOOL])
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"


def test_057_big_integers_unicode_and_key_order_survive() -> None:
    """Arguments reach the vendor digit by digit."""
    arguments = '{"z":123456789012345678901234567890,"a":"ünï\\u0041","m":9007199254740993,"f":1.5}'
    sent = send([USER, calls(call("t1", arguments=arguments)), result("t1")], tools=[TOOL])
    assert '"input":{"z":123456789012345678901234567890,"a":"ünïA","m":9007199254740993,"f":1.5}'.encode() in sent.body


def test_058_ids_are_made_valid_without_clashes() -> None:
    """Ids of other vendors are mapped one to one, calls and results alike."""
    sent = body(
        [
            USER,
            calls(call("a.b"), call("a_b"), call("a:b")),
            result("a:b", "3"),
            result("a.b", "1"),
            result("a_b", "2"),
        ],
        tools=[TOOL],
    )
    ids = [part["id"] for part in sent["messages"][1]["content"]]
    assert ids == ["a_b", "a_b_2", "a_b_3"]
    assert [(part["tool_use_id"], part["content"]) for part in sent["messages"][2]["content"]] == list(
        zip(ids, "123", strict=True)
    )


def test_058_an_id_used_again_in_a_later_turn_is_made_unique() -> None:
    """Clients that number their calls anew each turn are understood; the vendor wants unique ids."""
    sent = body([USER, calls(call("1")), result("1", "a"), calls(call("1")), result("1", "b")], tools=[TOOL])
    used = [part["id"] for message in sent["messages"] for part in message["content"] if part["type"] == "tool_use"]
    answered = [part for message in sent["messages"] for part in message["content"] if part["type"] == "tool_result"]
    assert len(set(used)) == 2
    assert [(part["tool_use_id"], part["content"]) for part in answered] == list(zip(used, "ab", strict=True))


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "sig=="}
HIDDEN = {"type": "redacted_thinking", "data": "xyz"}


def test_060_echoed_thinking_goes_back_verbatim_and_first() -> None:
    """The blocks that the reply showed are sent as they were, before text and calls."""
    sent = body(
        [USER, calls(call("t1"), content="so", thinking_blocks=[THOUGHT, HIDDEN]), result("t1")],
        tools=[TOOL],
        reasoning_effort="low",
    )
    assert sent["messages"][1]["content"] == [THOUGHT, HIDDEN, text("so"), use("t1")]
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": 2048}


def test_060_lost_thinking_in_a_tool_loop_turns_thinking_off_for_the_turn() -> None:
    """What the vendor would answer with 400 goes without thinking, and the reply's header says so."""
    sent = send([USER, calls(call("t1")), result("t1")], tools=[TOOL], reasoning_effort="low")
    assert "thinking" not in orjson.loads(sent.body)
    assert sent.dropped == ("reasoning_effort",)
    after = send([USER, calls(call("t1")), result("t1"), {"role": "assistant", "content": "x"}, USER], tools=[TOOL],
                 reasoning_effort="low")  # fmt: skip
    assert "thinking" in orjson.loads(after.body), "outside the loop the vendor asks for nothing"
    assert after.dropped == ()


def test_060_unsigned_thinking_and_models_that_do_not_think_get_none() -> None:
    """Blocks of other vendors, and blocks to a model that knows none, stay behind."""
    foreign = {"type": "thinking", "thinking": "hm"}
    assistant = {"role": "assistant", "content": "so", "thinking_blocks": [foreign]}
    assert body([USER, assistant, USER])["messages"][1]["content"] == [text("so")]
    assistant = {"role": "assistant", "content": "so", "thinking_blocks": [THOUGHT]}
    assert body([USER, assistant, USER], model="claude-3-haiku-20240307")["messages"][1]["content"] == [text("so")]


def test_060_thinking_between_two_calls_returns_to_its_place() -> None:
    """A block that stood behind a call is marked in the reply and goes back there, without the mark."""
    late = {**THOUGHT, "x_llm_after_calls": 1}
    sent = body(
        [USER, calls(call("t1"), call("t2"), thinking_blocks=[HIDDEN, late]), result("t1"), result("t2")], tools=[TOOL]
    )
    assert sent["messages"][1]["content"] == [HIDDEN, use("t1"), THOUGHT, use("t2")]


def test_appending_a_message_keeps_the_prefix() -> None:
    """A growing conversation keeps the bytes that the vendor has cached (promise A17)."""
    whole = [
        {"role": "system", "content": "s"}, USER, calls(call("x.1", "my.tool")), result("x.1"),
        {"role": "system", "content": "mind"}, {"role": "assistant", "content": "ok"}, USER,
        calls(call("x_1"), call("x:1")), result("x:1"), result("x_1"), {"role": "assistant", "content": "bye"}, USER,
    ]  # fmt: skip
    longest = body(whole, tools=[TOOL])
    for end in (2, 4, 7, 10):
        sent = body(whole[:end], tools=[TOOL])
        assert sent["system"] == longest["system"] and sent["tools"] == longest["tools"]
        kept = [part for message in sent["messages"] for part in message["content"]]
        later = [part for message in longest["messages"] for part in message["content"]]
        assert later[: len(kept)] == kept
