"""A chat's messages for Gemini: translation cases 1 to 16, 45 to 59, 79 to 82."""

from __future__ import annotations

import base64
import json
from typing import Any

import orjson
import pytest
from openai.types.chat import ChatCompletion

from proxy.errors import ApiError
from proxy.providers.gemini_content import PLACEHOLDER
from proxy.providers.gemini_signature import MAX_ID, SKIP, plain_id, split_signature, with_signature
from tests.providers.gemini_kit import HI, answer, call, calls, candidate, decode, deltas, encode, result, stream, wire

PNG = "iVBORw0KGgo="
GEMINI_3 = "gemini-3-flash-preview"


def contents(*messages: dict[str, Any], **fields: Any) -> list[tuple[str, list[Any]]]:
    """Return (role, parts) of what the messages become."""
    return [(content["role"], content["parts"]) for content in wire(list(messages), **fields)["contents"]]


def text(*texts: str) -> list[dict[str, str]]:
    return [{"text": one} for one in texts]


def refused(*messages: dict[str, Any], **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        wire(list(messages), **fields)
    return caught.value


# --- roles ----------------------------------------------------------------------------------------------


def test_001_leading_system_messages_become_the_system_instruction() -> None:
    """System and developer messages, strings and parts, are all there, in order."""
    body = wire(
        [
            {"role": "system", "content": "one"},
            {"role": "developer", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "three"}]},
            {"role": "system", "content": "four"},
            HI,
        ]
    )
    assert body["systemInstruction"] == {"parts": text("one", "two", "three", "four")}
    assert body["contents"] == [{"role": "user", "parts": text("hi")}]


def test_002_a_later_system_message_stays_in_its_place() -> None:
    """It is marked text of a user turn, and the prefix before it does not change."""
    start = [HI, {"role": "assistant", "content": "hello"}]
    found = contents(*start, {"role": "system", "content": "be brief"}, {"role": "user", "content": "go"})
    assert found[:2] == contents(*start)
    assert found[2] == ("user", text("<system>\nbe brief\n</system>", "go"))


def test_003_a_system_message_between_calls_and_results_follows_the_results() -> None:
    """Nothing may stand between a call and its answer."""
    found = contents(HI, calls(call("a", "f")), {"role": "system", "content": "note"}, result("a"))
    assert [next(iter(part)) for part in found[2][1]] == ["functionResponse", "text"]


def test_004_only_system_messages_are_the_users_turn() -> None:
    """Contents are never empty, and the text is not lost."""
    body = wire([{"role": "system", "content": "say hi"}])
    assert body["contents"] == [{"role": "user", "parts": text("say hi")}]
    assert "systemInstruction" not in body


def test_005_a_leading_assistant_message_is_kept() -> None:
    """A user turn goes before it only where the vendor wants one: in front of function calls."""
    assert contents({"role": "assistant", "content": "I begin"}, HI) == [
        ("model", text("I begin")),
        ("user", text("hi")),
    ]
    found = contents(calls(call("a", "f")), result("a"))
    assert found[0] == ("user", text(PLACEHOLDER)) and found[1][0] == "model"


def test_006_consecutive_user_messages_are_one_turn() -> None:
    """Order is kept, parts are not glued together."""
    assert contents(HI, {"role": "user", "content": "again"}) == [("user", text("hi", "again"))]


def test_007_consecutive_assistant_messages_are_one_turn() -> None:
    """As for users."""
    found = contents(HI, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}, HI)
    assert found[1] == ("model", text("a", "b"))


def test_008_an_emptied_assistant_turn_leaves_merged_neighbours() -> None:
    """A turn with nothing in it goes, and the user turns around it become one."""
    empty = {"role": "assistant", "content": None, "reasoning_content": "hm"}
    assert contents(HI, empty, {"role": "user", "content": "there?"}) == [("user", text("hi", "there?"))]


@pytest.mark.parametrize("content", ["", " ", None, [], [{"type": "text", "text": ""}]])
def test_009_no_empty_text_is_sent(content: Any) -> None:
    """An empty user turn has the placeholder, a call with empty text only the call."""
    assert contents({"role": "user", "content": content}) == [("user", text(PLACEHOLDER))]
    turn = contents(HI, calls(call("a", "f"), content=content), result("a"))[1]
    assert [next(iter(part)) for part in turn[1]] == ["functionCall"]


def test_011_a_trailing_assistant_message_goes_where_models_continue_it() -> None:
    """Older models take it, newer ones are never sent it."""
    begun = {"role": "assistant", "content": "Once upon"}
    assert contents(HI, begun)[-1] == ("model", text("Once upon"))
    error = refused(HI, begun, model="gemini-3.8-flash")
    assert (error.code, error.param) == ("unsupported_parameter", "messages[1]")
    sent = encode([HI, begun], model="gemini-3.8-flash", settings={"unsupported": "drop"})
    assert orjson.loads(sent.body)["contents"][-1]["role"] == "user" and sent.dropped == ("prefill",)


def test_012_names_of_speakers_are_not_sent() -> None:
    """`name` is no field of the vendor's."""
    assert wire([{**HI, "name": "ann"}])["contents"] == [{"role": "user", "parts": text("hi")}]


def test_013_text_and_calls_both_survive() -> None:
    """Text first, then the calls."""
    turn = contents(HI, calls(call("a", "f"), content="let me see"), result("a"))[1]
    assert turn[1][0] == {"text": "let me see"} and turn[1][1]["functionCall"]["name"] == "f"


def test_014_refusals_in_the_history_are_text() -> None:
    """As a part and as a field."""
    part = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    field = {"role": "assistant", "content": None, "refusal": "never"}
    assert contents(HI, part, HI, field, HI)[1] == ("model", text("no"))
    assert contents(HI, part, HI, field, HI)[3] == ("model", text("never"))


def test_015_the_legacy_form_of_functions_is_converted() -> None:
    """`functions`, `function_call` and role `function` become tools, a choice and a result."""
    body = wire(
        [
            HI,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x":1}'}},
            {"role": "function", "name": "f", "content": "42"},
        ],
        functions=[{"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}],
        function_call={"name": "f"},
    )
    assert body["contents"][1]["parts"][0]["functionCall"]["args"] == {"x": 1}
    assert body["contents"][2]["parts"][0]["functionResponse"]["name"] == "f"
    assert body["toolConfig"]["functionCallingConfig"] == {"mode": "ANY", "allowedFunctionNames": ["f"]}


def test_016_an_unknown_role_is_refused_by_name() -> None:
    """The error names the message."""
    assert refused({"role": "narrator", "content": "x"}).param == "messages[0].role"


# --- calls and results ----------------------------------------------------------------------------------


def test_046_parallel_results_are_one_content_with_as_many_parts_as_calls() -> None:
    """Three calls, three responses, in one user turn, then the user's text."""
    three = calls(call("a", "f"), call("b", "g"), call("c", "f"))
    found = contents(HI, three, result("a"), result("b"), result("c"), {"role": "user", "content": "and?"})
    assert [role for role, _ in found] == ["user", "model", "user"]
    assert [part["functionResponse"]["name"] for part in found[2][1][:3]] == ["f", "g", "f"]
    assert found[2][1][3] == {"text": "and?"}


def test_047_results_are_put_in_the_order_of_the_calls() -> None:
    """However the client sends them."""
    found = contents(HI, calls(call("a", "f"), call("b", "g")), result("b", "2"), result("a", "1"))
    assert [part["functionResponse"]["response"] for part in found[2][1]] == [{"result": "1"}, {"result": "2"}]


def test_048_a_missing_result_is_refused() -> None:
    """A request that the vendor would refuse is not sent."""
    error = refused(HI, calls(call("a", "f"), call("b", "g")), result("a"))
    assert error.code == "invalid_request" and error.param == "messages[1]"


def test_049_an_orphan_or_double_result_is_refused() -> None:
    """The error names the message."""
    assert refused(HI, result("a")).param == "messages[1]"
    assert refused(HI, calls(call("a", "f")), result("a"), result("a")).param == "messages[3]"


def test_050_function_response_name_comes_from_history() -> None:
    """A tool message has an id only; the name is that of the call."""
    found = contents(HI, calls(call("id-1", "get_weather")), {**result("id-1"), "name": "ignored"})
    assert found[2][1][0]["functionResponse"] == {"name": "get_weather", "id": "id-1", "response": {"result": "ok"}}


@pytest.mark.parametrize(
    ("content", "response"),
    [
        ('{"a": {"b": [1]}}', {"a": {"b": [1]}}),
        ("plain", {"result": "plain"}),
        ("[1, 2]", {"result": "[1, 2]"}),
        ("{broken", {"result": "{broken"}),
        ('{"$ref": "#/x"}', {"result": '{"$ref": "#/x"}'}),
        ('{"a": {"$defs": {}}}', {"result": '{"a": {"$defs": {}}}'}),
        ('{"n": 123456789012345678901234567890}', {"n": 123456789012345678901234567890}),
        ([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}], {"result": "one two"}),
    ],
)
def test_051_a_function_response_is_an_object(content: Any, response: dict[str, Any]) -> None:
    """JSON objects pass as they are, everything else as text; what the vendor would resolve stays text."""
    sent = encode([HI, calls(call("a", "f")), result("a", content)])
    parts = json.loads(sent.body)["contents"][2]["parts"]
    assert parts[0]["functionResponse"]["response"] == response


def test_051_a_very_deep_result_stays_text() -> None:
    """What no serialiser would take is text."""
    deep = '{"a":' * 300 + "1" + "}" * 300
    found = contents(HI, calls(call("a", "f")), result("a", deep))
    assert found[2][1][0]["functionResponse"]["response"] == {"result": deep}


def test_052_images_in_a_result_go_along_where_models_take_them() -> None:
    """Text and image reach a Gemini 3; an older one is not asked what it cannot do."""
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    messages = [HI, calls(call("a", "f")), result("a", [{"type": "text", "text": "see"}, image])]
    response = contents(*messages, model=GEMINI_3)[2][1][0]["functionResponse"]
    assert response["response"] == {"result": "see"}
    assert response["parts"] == [{"inlineData": {"mimeType": "image/png", "data": PNG}}]
    error = refused(*messages, model="gemini-2.5-flash")
    assert (error.status, error.param) == (400, "messages[2].content[1]")


@pytest.mark.parametrize("content", ["", None, []])
def test_053_an_empty_result_is_valid(content: Any) -> None:
    """The response is an object with an empty text."""
    found = contents(HI, calls(call("a", "f")), result("a", content))
    assert found[2][1][0]["functionResponse"]["response"] == {"result": ""}


@pytest.mark.parametrize("arguments", ["", "  ", "null", "{}"])
def test_054_empty_arguments_are_an_empty_object(arguments: str) -> None:
    """Nothing else stands in for them."""
    assert contents(HI, calls(call("a", "f", arguments)), result("a"))[1][1][0]["functionCall"]["args"] == {}


@pytest.mark.parametrize("arguments", ["{", "not json", '{"a": NaN}', "5", "[1]", '"x"'])
def test_055_056_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    """The error names the call; nothing is swapped in silently."""
    error = refused(HI, calls(call("a", "f", arguments)), result("a"))
    assert (error.status, error.param) == (400, "messages[1].tool_calls[0].function.arguments")


def test_057_arguments_survive_the_round_trip() -> None:
    """Big integers, unicode and the order of keys are the same on the wire and back."""
    arguments = '{"z":12345678901234567890123,"a":"héé\\u0000","m":9007199254740993}'
    sent = encode([HI, calls(call("a", "f", arguments)), result("a")])
    assert b'"args":{"z":12345678901234567890123,"a":' in sent.body
    body = b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":%s}}]},"finishReason":"STOP"}]}'
    back = decode(body % arguments.encode())["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(back) == json.loads(arguments)
    assert "12345678901234567890123" in back and back.startswith('{"z"')


def test_058_ids_are_echoed_and_made_up_where_missing() -> None:
    """The vendor's id is the client's; an absent or empty or doubled one is replaced by a unique one."""
    parts = [{"functionCall": {"name": "f", **({"id": id} if id is not None else {})}} for id in ("v1", None, "", "v1")]
    ids = [c["id"] for c in decode(answer(candidate(*parts)))["choices"][0]["message"]["tool_calls"]]
    assert ids[0] == "v1" and len(set(ids)) == 4 and all(ids)
    found = contents(HI, calls(call("v1", "f")), result("v1"))
    assert found[1][1][0]["functionCall"]["id"] == found[2][1][0]["functionResponse"]["id"] == "v1"
    vertex = {"base_url": "https://europe-west4-aiplatform.googleapis.com"}
    found = contents(HI, calls(call("v1", "f")), result("v1"), settings=vertex)
    assert "id" not in found[1][1][0]["functionCall"] and "id" not in found[2][1][0]["functionResponse"]


# --- thought signatures ---------------------------------------------------------------------------------

SIGNATURE = base64.b64encode(bytes(range(256)) * 12).decode()


@pytest.mark.parametrize("signature", [SIGNATURE, "AA==", "abc", "sig-1", "no base64 at all!", "ü"])
def test_059_a_signature_survives_in_the_id(signature: str) -> None:
    """Any signature comes back as it was, the id as the vendor knows it."""
    carried = with_signature("call_1", signature)
    assert split_signature(carried) == ("call_1", signature)
    assert plain_id(carried) == "call_1" and carried.isascii()
    assert all(c.isalnum() or c in "-_" for c in carried)


def test_059_ids_stay_within_their_bound() -> None:
    """A signature too long for an id travels in the extension field alone."""
    fits = base64.b64encode(bytes(9_000)).decode()
    assert len(with_signature("call_1", fits)) <= MAX_ID
    huge = base64.b64encode(bytes(20_000)).decode()
    made = decode(answer(candidate({"functionCall": {"name": "f", "id": "v"}, "thoughtSignature": huge})))
    tool = made["choices"][0]["message"]["tool_calls"][0]
    assert tool["id"] == "v" and tool["extra_content"]["google"]["thought_signature"] == huge


@pytest.mark.parametrize("streamed", [False, True])
def test_059_a_stock_client_brings_signatures_back(streamed: bool) -> None:
    """Id and name are all that a client echoes; the vendor gets its signatures where they were."""
    parts = (
        {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": SIGNATURE},
        {"functionCall": {"name": "g"}},
    )
    if streamed:
        made = [c for d in deltas(stream(answer(candidate(*parts)))) for c in d.get("tool_calls", ())]
        history = [call(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in made]
    else:
        reply = ChatCompletion.model_validate(decode(answer(candidate(*parts))))
        assert reply.choices[0].message.tool_calls
        history = [
            call(c.id, c.function.name, c.function.arguments)
            for c in reply.choices[0].message.tool_calls
            if c.type == "function"
        ]
    messages = [HI, calls(*history), *(result(c["id"]) for c in history)]
    sent = contents(*messages, model=GEMINI_3)
    assert [part.get("thoughtSignature") for part in sent[1][1]] == [SIGNATURE, None]
    ids = [part["functionCall"]["id"] for part in sent[1][1]]
    assert ids == [part["functionResponse"]["id"] for part in sent[2][1]] == [plain_id(c["id"]) for c in history]


def test_059_the_extension_field_brings_a_signature_back() -> None:
    """Clients that echo whole messages need no carrier in the id; text's signature comes back the same way."""
    tool = {**call("v", "f"), "extra_content": {"google": {"thought_signature": "AAAA"}}}
    sent = contents(
        HI, {**calls(tool, content="hm"), "extra_content": {"google": {"thought_signature": "BBBB"}}}, result("v")
    )
    assert [part["thoughtSignature"] for part in sent[1][1]] == ["BBBB", "AAAA"]
    spoken = decode(answer(candidate({"text": "yes", "thoughtSignature": "CCCC"})))["choices"][0]["message"]
    assert spoken["extra_content"] == {"google": {"thought_signature": "CCCC"}}


def test_059_a_lost_signature_is_replaced_where_models_insist() -> None:
    """The first call of each step says so; models before Gemini 3 are sent none."""
    messages = [HI, calls(call("a", "f"), call("b", "g")), result("a"), result("b"), calls(call("c", "f")), result("c")]
    sent = contents(*messages, model=GEMINI_3)
    assert [part.get("thoughtSignature") for part in sent[1][1] + sent[3][1]] == [SKIP, None, SKIP]
    assert "thoughtSignature" not in orjson.dumps(contents(*messages, model="gemini-2.5-flash")).decode()


# --- images, documents, sound ---------------------------------------------------------------------------


def image(url: str) -> dict[str, Any]:
    return {
        "role": "user",
        "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": url}}],
    }


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{PNG}",
        f"data:image/png;charset=utf-8;base64,{PNG}",
        f"DATA:IMAGE/PNG;BASE64,{PNG}",
        f"data:image/png;base64,{PNG.rstrip('=')}",
        f"data:image/png;base64, {PNG[:4]}\n{PNG[4:]}",
    ],
)
def test_079_data_urls_in_every_spelling_are_inline_data(url: str) -> None:
    """Parameters, case, padding and white space don't matter."""
    assert contents(image(url))[0][1][1] == {"inlineData": {"mimeType": "image/png", "data": PNG}}


def test_079_url_safe_base64_is_taken_and_broken_base64_refused() -> None:
    """The vendor gets the standard alphabet."""
    assert contents(image("data:image/png;base64,-_-_"))[0][1][1]["inlineData"]["data"] == "+/+/"
    assert refused(image("data:image/png;base64,???")).param == "messages[0].content[1].image_url.url"


def test_080_an_image_by_url_goes_where_the_vendor_fetches_it() -> None:
    """We fetch nothing: https passes as text to models that fetch, anything else is refused."""
    url = "https://example.com/cat.JPG?size=2"
    assert contents(image(url))[0][1][1] == {"fileData": {"fileUri": url, "mimeType": "image/jpeg"}}
    for bad, model in (
        (url, "gemini-2.0-flash"),
        ("http://example.com/cat.png", GEMINI_3),
        ("file:///etc/passwd", GEMINI_3),
    ):
        assert refused(image(bad), model=model).code == "unsupported_image_url"
    own = "https://generativelanguage.googleapis.com/v1beta/files/abc"
    assert contents(image(own), model="gemini-2.0-flash")[0][1][1] == {"fileData": {"fileUri": own}}


def test_082_documents_and_sound_are_inline_data() -> None:
    """PDFs as data URLs or bare base64, and audio by its format."""
    parts = [
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": "BBBB", "filename": "notes.txt"}},
        {"type": "input_audio", "input_audio": {"data": "CCCC", "format": "wav"}},
    ]
    assert contents({"role": "user", "content": parts})[0][1] == [
        {"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}},
        {"inlineData": {"mimeType": "text/plain", "data": "BBBB"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "CCCC"}},
    ]
    by_id = {"role": "user", "content": [{"type": "file", "file": {"file_id": "file-123"}}]}
    assert refused(by_id).param == "messages[0].content[0].file.file_id"
    video = {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "x"}}]}
    assert refused(video).code == "unsupported_parameter"
