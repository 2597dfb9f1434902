"""Cases 62-82 of the translation table: parameters and media."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from proxy.errors import ApiError
from proxy.providers.anthropic_models import capabilities
from tests.providers.anthropic_case import TOOL, USER, body, call, calls, result, send, text

DROP = {"unsupported": "drop"}


def refused(param: str, code: str = "unsupported_parameter", **request: Any) -> None:
    """Assert that the request is refused for ``param``."""
    with pytest.raises(ApiError) as caught:
        body(**request)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)


@pytest.mark.parametrize(
    ("asked", "ours", "settings", "sent", "applied"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 7}, {}, {}, 7, None),
        ({"max_tokens": 5}, {}, {"max_tokens": 9}, 5, None),
        ({}, {"max_tokens": 11}, {"max_tokens": 9}, 11, 11),
        ({"max_completion_tokens": 7}, {"max_tokens": 11}, {}, 7, None),
        ({}, {}, {"max_tokens": 9}, 9, 9),
        ({}, {}, {}, 64_000, 64_000),
    ],
)
def test_062_the_bound_is_the_clients_ours_or_the_models(
    asked: dict[str, Any], ours: dict[str, Any], settings: dict[str, Any], sent: int, applied: int | None
) -> None:
    """max_completion_tokens beats max_tokens; a bound that the client did not set is echoed."""
    request = send(ours=ours, settings=settings, **asked)
    assert orjson.loads(request.body)["max_tokens"] == sent
    assert request.applied_max_tokens == applied


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("claude-3-opus-20240229", 4_096), ("claude-3-5-haiku-latest", 8_192), ("claude-3-7-sonnet-20250219", 64_000),
        ("claude-opus-4-20250514", 32_000), ("claude-opus-4-1-20250805", 32_000), ("claude-sonnet-4-0", 64_000),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", 64_000), ("claude-sonnet-4-6", 128_000),
        ("claude-sonnet-4-20250514", 64_000), ("claude-opus-4-5@20251101", 64_000), ("claude-haiku-5-5", 128_000),
        ("claude-unheard-of-9", 128_000), ("gpt-9", 128_000),
    ],
)  # fmt: skip
def test_062_the_default_bound_is_the_models_own(model: str, most: int) -> None:
    """No answer is cut that nobody asked to cut."""
    assert capabilities(model).max_output == most


def test_063_budget_stays_below_the_bound() -> None:
    """The budget is cut to leave room for the answer; below the vendor's least, thinking is dropped and named."""
    assert body(max_tokens=10_000, reasoning_effort="high")["thinking"]["budget_tokens"] == 5_000
    assert body(max_tokens=1_500, reasoning_effort="high")["thinking"]["budget_tokens"] == 1_024
    sent = send(max_tokens=1_024, reasoning_effort="high")
    assert "thinking" not in orjson.loads(sent.body)
    assert sent.dropped == ("reasoning_effort",)
    own = body(max_tokens=4_000, thinking={"type": "enabled", "budget_tokens": 3_999})
    assert own["thinking"]["budget_tokens"] == 3_999


def test_064_temperature_above_one_is_refused_or_clamped() -> None:
    """The vendor's scale ends at 1."""
    refused("temperature", temperature=1.5)
    sent = send(temperature=1.5, settings=DROP)
    assert orjson.loads(sent.body)["temperature"] == 1
    assert sent.dropped == ("temperature",)
    assert body(ours={"temperature": 1.5})["temperature"] == 1
    assert body(temperature=0)["temperature"] == 0


def test_065_temperature_and_top_p_together() -> None:
    """Models that take only one of them keep the temperature."""
    refused("top_p", temperature=0.5, top_p=0.9)
    sent = send(temperature=0.5, top_p=0.9, settings=DROP)
    assert "top_p" not in orjson.loads(sent.body) and sent.dropped == ("top_p",)
    old = body(temperature=0.5, top_p=0.9, model="claude-3-opus-20240229")
    assert (old["temperature"], old["top_p"]) == (0.5, 0.9)
    assert body(temperature=0.5, top_p=1)["temperature"] == 0.5


@pytest.mark.parametrize(
    ("model", "settings"),
    [("claude-opus-4-7", {}), ("claude-new-9", {}), ("claude-opus-4-6", {"version": "2026-10-21"})],
)
@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_066_models_and_versions_that_take_no_sampling(model: str, settings: dict[str, Any], name: str) -> None:
    """The client's own value is refused or dropped and named; ours is dropped silently; the default is left out."""
    value = 5 if name == "top_k" else 0.5
    refused(name, model=model, settings=settings, **{name: value})
    sent = send(model=model, settings={**settings, **DROP}, **{name: value})
    assert name not in orjson.loads(sent.body) and sent.dropped == (name,)
    sent = send(model=model, settings=settings, ours={name: value})
    assert name not in orjson.loads(sent.body) and sent.dropped == ()
    if name != "top_k":
        sent = send(model=model, settings=settings, **{name: 1})
        assert name not in orjson.loads(sent.body) and sent.dropped == ()


def test_066_thinking_budget_takes_no_temperature() -> None:
    """A manual budget fixes the sampling too."""
    refused("temperature", temperature=0.5, reasoning_effort="low")
    assert "temperature" not in body(ours={"temperature": 0.5}, reasoning_effort="low")


@pytest.mark.parametrize(("stop", "sent"), [("END", ["END"]), (["a", "b"], ["a", "b"]), ([], None), (None, None)])
def test_067_stop_becomes_a_list(stop: Any, sent: Any) -> None:
    """A string is a list of one."""
    assert body(stop=stop).get("stop_sequences") == sent


def test_067_blank_stop_sequences_are_refused_or_dropped() -> None:
    """The vendor refuses white space alone."""
    refused("stop", stop=["\n\n", "END"])
    sent = send(stop=["\n\n", "END"], settings=DROP)
    assert orjson.loads(sent.body)["stop_sequences"] == ["END"] and sent.dropped == ("stop",)


def test_069_more_than_one_answer_is_refused_always() -> None:
    """n is never silently 1."""
    refused("n", n=2)
    refused("n", n=2, settings=DROP)
    assert "n" not in body(n=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logprobs", True), ("top_logprobs", 2), ("seed", 7), ("presence_penalty", 0.1), ("frequency_penalty", -1),
        ("logit_bias", {"5": 1}), ("service_tier", "flex"), ("store", True), ("prediction", {"type": "content"}),
        ("modalities", ["text", "audio"]), ("audio", {"voice": "x"}), ("verbosity", "low"), ("web_search_options", {}),
        ("made_up_field", 1),
    ],
)  # fmt: skip
def test_070_071_073_078_what_the_vendor_lacks_is_refused_or_named(name: str, value: Any) -> None:
    """Nothing that changes the answer is dropped without a word, and nothing unknown goes upstream."""
    refused(name, **{name: value})
    sent = send(settings=DROP, **{name: value})
    assert sent.dropped == (name,)
    assert name not in orjson.loads(sent.body)


def test_073_values_that_change_nothing_pass_unseen() -> None:
    """Defaults said aloud are no reason to refuse."""
    sent = send(
        logprobs=False, top_logprobs=0, presence_penalty=0, frequency_penalty=0.0, logit_bias={}, store=False,
        modalities=["text"], verbosity="medium", n=1, seed=None, metadata={"a": "b"}, prompt_cache_key="k",
        safety_identifier="s", stream_options=None, parallel_tool_calls=True,
    )  # fmt: skip
    assert set(orjson.loads(sent.body)) == {"model", "max_tokens", "messages"}
    assert sent.dropped == ()


@pytest.mark.parametrize(("tier", "sent"), [("auto", "auto"), ("default", "standard_only"), (None, None)])
def test_073_service_tiers_that_both_have(tier: Any, sent: Any) -> None:
    """Two of OpenAI's tiers have a counterpart."""
    assert body(service_tier=tier).get("service_tier") == sent


@pytest.mark.parametrize("user", ["ann@example.com", "+49 170 1234567", "0170-1234567", "x" * 300])
def test_072_users_that_name_a_person_are_hashed(user: str) -> None:
    """Opaque ids pass; an address, a number or an overlong name becomes its SHA-256, always the same."""
    sent = body(user=user)["metadata"]["user_id"]
    assert len(sent) == 64 and user not in sent
    assert body(user=user)["metadata"]["user_id"] == sent
    assert body(user="user-4711-abc")["metadata"] == {"user_id": "user-4711-abc"}


def test_077_cache_marks_are_kept_with_their_ttl() -> None:
    """On system, parts, messages, tools and tool results."""
    hour, short = {"type": "ephemeral", "ttl": "1h"}, {"type": "ephemeral"}
    sent = body(
        [
            {"role": "system", "content": [text("s", cache_control=hour)]},
            {"role": "user", "content": [text("u", cache_control=short)]},
            calls(call("t1")),
            result("t1", cache_control=short),
        ],
        tools=[{**TOOL, "cache_control": hour}],
    )
    assert sent["system"][0]["cache_control"] == hour
    assert sent["tools"][0]["cache_control"] == hour
    assert sent["messages"][0]["content"][0]["cache_control"] == short
    assert sent["messages"][2]["content"][0]["cache_control"] == short


def test_077_more_than_four_cache_marks_keep_the_last_four() -> None:
    """The vendor refuses a fifth; the last ones cover the longest prefix."""
    parts = [text(str(n), cache_control={"type": "ephemeral"}) for n in range(6)]
    sent = send([{"role": "user", "content": parts}])
    marked = ["cache_control" in part for part in orjson.loads(sent.body)["messages"][0]["content"]]
    assert marked == [False, False, True, True, True, True]
    assert sent.dropped == ("cache_control",)
    assert (
        "cache_control"
        not in orjson.dumps(body([{"role": "user", "content": [text("x", cache_control="yes")]}])).decode()
    )


RED = base64.b64encode(b"\xff\xfe\xfb?>").decode()


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{RED}",
        f"data:image/png;charset=utf-8;base64,{RED}",
        f"DATA:IMAGE/PNG;BASE64,{RED}",
        "data:image/png;base64," + RED.translate(str.maketrans("+/", "-_")).rstrip("="),
        f"data:image/png;base64,{RED[:3]}\n{RED[3:]}",
        "data:image/png;base64," + RED.replace("+", "%2B").replace("/", "%2F"),
    ],
)
def test_079_data_urls_in_every_spelling(url: str) -> None:
    """Parameters, upper case, URL-safe alphabet, missing padding, line breaks and percent signs are understood."""
    sent = body([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]}])
    assert sent["messages"][0]["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": RED}}
    ]


def image(url: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [text("see"), {"type": "image_url", "image_url": {"url": url}}]}]


def test_080_http_images_pass_as_urls() -> None:
    """We fetch nothing that a caller names."""
    block = body(image("https://example.com/a.png"))["messages"][0]["content"][1]
    assert block == {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}


@pytest.mark.parametrize(
    "url", ["data:image/tiff;base64,aGk=", "data:application/pdf;base64,aGk=", "file:///etc/passwd", "gs://x/y"]
)
def test_081_other_images_are_refused(url: str) -> None:
    """The error names the part."""
    refused("messages[0].content[1].image_url.url", "unsupported_image_url", messages=image(url))


def test_081_broken_base64_is_refused() -> None:
    """A data URL must hold base64."""
    refused("messages[0].content[1].image_url.url", "invalid_request", messages=image("data:image/png;base64,a*b"))


def file(**fields: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "file", "file": fields}]}]


def test_082_files_become_documents() -> None:
    """PDF and text as documents, images as images, with the file's name as title."""
    sent = body(file(file_data="data:application/pdf;base64,aGk=", filename="a.pdf"))["messages"][0]["content"][0]
    source = {"type": "base64", "media_type": "application/pdf", "data": "aGk="}
    assert sent == {"type": "document", "source": source, "title": "a.pdf"}
    assert body(file(file_data="aGk=", filename="a.pdf"))["messages"][0]["content"][0]["source"] == source
    plain = body(file(file_data="data:text/markdown;base64,aGk="))["messages"][0]["content"][0]
    assert plain == {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}}
    assert body(file(file_data="data:image/png;base64,aGk="))["messages"][0]["content"][0]["type"] == "image"


def test_082_audio_and_foreign_files_are_refused() -> None:
    """What Claude cannot read is refused by name, dropping is no option."""
    audio = {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}
    refused("messages[0].content[0].input_audio", messages=[{"role": "user", "content": [audio]}], settings=DROP)
    refused("messages[0].content[0].file.file_id", messages=file(file_id="file-1"))
    refused("messages[0].content[0].file.file_data", messages=file(file_data="data:application/zip;base64,aGk="))
    refused("messages[0].content[0].type", messages=[{"role": "user", "content": [{"type": "video"}]}])


def test_request_names_model_stream_and_version() -> None:
    """The upstream's model, the stream flag and the API version are sent; the alias is in no body."""
    sent = send(stream=True, stream_options={"include_usage": True}, settings={"headers": {"Anthropic-Beta": "x"}})
    assert sent.path == "/v1/messages" and sent.stream
    assert ("anthropic-version", "2023-06-01") in sent.headers and ("anthropic-beta", "x") in sent.headers
    assert orjson.loads(sent.body)["stream"] is True
    assert b"alias" not in sent.body and b"stream_options" not in sent.body
    assert "stream" not in body([USER])
