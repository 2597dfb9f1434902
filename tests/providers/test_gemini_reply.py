"""Whole replies from Gemini: translation cases 83 to 93."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from proxy.errors import UpstreamError
from tests.providers.gemini_kit import MODEL, NOW, answer, candidate, decode, encode, stream


@lru_cache
def validator() -> Any:
    """Return the validator of a whole reply, None where the schemas are absent."""
    folder = Path(os.environ.get("SHARED_DIR") or Path(__file__).parents[3] / "shared")
    schema = folder / "schemas" / "CreateChatCompletionResponse.real.json"
    return jsonschema.Draft202012Validator(orjson.loads(schema.read_bytes())) if schema.is_file() else None


def choice(body: dict[str, Any]) -> dict[str, Any]:
    """Return the first choice of what a reply becomes; it must pass OpenAI's schema."""
    data = decode(body)
    if (schema := validator()) is not None:
        schema.validate(data)
    found: dict[str, Any] = data["choices"][0]
    return found


def test_083_interleaved_parts_keep_their_order() -> None:
    """All text is joined without separators, calls stand in order, arguments are JSON text."""
    found = choice(
        answer(
            candidate(
                {"text": "a "},
                {"functionCall": {"name": "f", "args": {"x": [1, "ü"]}}},
                {"text": "b"},
                {"functionCall": {"name": "g"}},
            )
        )
    )
    message = found["message"]
    assert message["content"] == "a b"
    assert [call["function"] for call in message["tool_calls"]] == [
        {"name": "f", "arguments": '{"x":[1,"ü"]}'},
        {"name": "g", "arguments": "{}"},
    ]
    assert all(call["type"] == "function" and "index" not in call for call in message["tool_calls"])


def test_083_only_calls_have_no_content() -> None:
    """`content` is null then."""
    assert choice(answer(candidate({"functionCall": {"name": "f"}})))["message"]["content"] is None


REASONS = [
    ("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("RECITATION", "content_filter"),
    ("LANGUAGE", "content_filter"), ("BLOCKLIST", "content_filter"), ("PROHIBITED_CONTENT", "content_filter"),
    ("SPII", "content_filter"), ("IMAGE_SAFETY", "content_filter"), ("IMAGE_PROHIBITED_CONTENT", "content_filter"),
    ("IMAGE_RECITATION", "content_filter"), ("IMAGE_OTHER", "content_filter"), ("MODEL_ARMOR", "content_filter"),
    ("OTHER", "stop"), ("NO_IMAGE", "stop"), ("SOMETHING_NEW", "stop"), ("MALFORMED_RESPONSE", "stop"),
]  # fmt: skip


@pytest.mark.parametrize(("word", "reason"), REASONS)
def test_086_every_finish_reason(word: str, reason: str) -> None:
    """OpenAI's closed set, and the vendor's own word beside it where it differs."""
    found = choice(answer(candidate({"text": "x"}, finish=word)))
    assert found["finish_reason"] == reason
    assert found.get("x_llm_native_finish_reason") == (None if word.lower() == reason else word)
    streamed = stream(answer(candidate({"text": "x"}, finish=word)))[-2]["choices"][0]
    assert (streamed["finish_reason"], streamed.get("x_llm_native_finish_reason")) == (
        found["finish_reason"],
        found.get("x_llm_native_finish_reason"),
    )


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", "tool_calls"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("UNEXPECTED_TOOL_CALL", "tool_calls"),
    ],
)
def test_086_finish_reasons_with_tool_calls(word: str, reason: str) -> None:
    """A cut answer is cut even if it calls tools."""
    found = choice(answer(candidate({"functionCall": {"name": "f"}}, finish=word)))
    assert found["finish_reason"] == reason and found["x_llm_native_finish_reason"] == word


@pytest.mark.parametrize(
    "word", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE", "MISSING_THOUGHT_SIGNATURE"]
)
@pytest.mark.parametrize("parts", [(), ({"text": "hm", "thought": True},)])
def test_086_a_failed_answer_without_content_is_an_error(word: str, parts: tuple[dict[str, Any], ...]) -> None:
    """Not an empty 200: it may be tried again, and the breaker does not count it."""
    for read in (decode, stream):
        with pytest.raises(UpstreamError) as caught:
            read(answer(candidate(*parts, finish=word)))
        error = caught.value
        assert (error.status, error.code, error.retryable, error.counts) == (
            502,
            "upstream_invalid_response",
            True,
            False,
        )
        assert error.native_code == word


def test_087_a_blocked_prompt_is_an_empty_choice() -> None:
    """One choice `content_filter` with the vendor's reason."""
    feedback = {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "The prompt was blocked."}
    found = choice(answer(promptFeedback=feedback))
    assert found["finish_reason"] == "content_filter"
    assert found["x_llm_native_finish_reason"] == "PROHIBITED_CONTENT"
    assert found["message"] == {"role": "assistant", "content": "", "refusal": "The prompt was blocked."}


@pytest.mark.parametrize("content", [None, {}, {"role": "model"}, {"role": "model", "parts": []}])
def test_088_a_candidate_without_content_is_an_empty_message(content: Any) -> None:
    """With the reason mapped; what a filter says of itself is the refusal."""
    entry: dict[str, Any] = {"finishReason": "SAFETY", "finishMessage": "Blocked.", "index": 0}
    if content is not None:
        entry["content"] = content
    found = choice(answer(entry))
    assert found["finish_reason"] == "content_filter"
    assert found["message"] == {"role": "assistant", "content": "", "refusal": "Blocked."}


def test_089_thoughts_are_reasoning_by_their_flag() -> None:
    """A signature does not make a thought."""
    found = choice(
        answer(
            candidate(
                {"text": "let me ", "thought": True},
                {"text": "see", "thought": True, "thoughtSignature": "AAAA"},
                {"text": "answer", "thoughtSignature": "BBBB"},
            )
        )
    )
    assert found["message"]["reasoning_content"] == "let me see"
    assert found["message"]["content"] == "answer"


@pytest.mark.parametrize(
    ("metadata", "usage"),
    [
        (
            {"promptTokenCount": 10, "candidatesTokenCount": 3, "thoughtsTokenCount": 4, "totalTokenCount": 17},
            {"prompt_tokens": 10, "completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 4}},
        ),
        (
            {"promptTokenCount": 10, "cachedContentTokenCount": 8, "candidatesTokenCount": 3},
            {"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}},
        ),
        (
            {"promptTokenCount": 10, "toolUsePromptTokenCount": 5, "candidatesTokenCount": 1},
            {"prompt_tokens": 15, "completion_tokens": 1},
        ),
        ({"promptTokenCount": 10, "totalTokenCount": 10}, {"prompt_tokens": 10, "completion_tokens": 0}),
        ({"promptTokenCount": 0, "candidatesTokenCount": 0}, {"prompt_tokens": 0, "completion_tokens": 0}),
        ({"promptTokenCount": -5, "candidatesTokenCount": True}, {"prompt_tokens": 0, "completion_tokens": 0}),
    ],
)
def test_091_usage_adds_up(metadata: dict[str, Any], usage: dict[str, Any]) -> None:
    """Thoughts are completion, tool prompts are prompt, cached tokens are inside already; total is the sum."""
    found = decode(answer(candidate({"text": "x"}), usage=metadata))["usage"]
    assert found == {**usage, "total_tokens": usage["prompt_tokens"] + usage["completion_tokens"]}
    assert stream(answer(candidate({"text": "x"}), usage=metadata))[-1]["usage"] == found


@pytest.mark.parametrize("metadata", [None, {}, {"trafficType": "ON_DEMAND"}, "9"])
def test_092_missing_usage_is_left_to_be_estimated(metadata: Any) -> None:
    """Nothing is claimed where the vendor said nothing."""
    assert "usage" not in decode(answer(candidate({"text": "x"}), usage=metadata))


def test_093_the_envelope() -> None:
    """The upstream's own model and id, our time, the exact object."""
    data = decode(answer(candidate({"text": "x"})))
    assert (data["id"], data["object"], data["created"]) == ("r1", "chat.completion", NOW)
    assert data["model"] == "gemini-2.5-flash-001"
    bare = {"candidates": [candidate({"text": "x"})]}
    first, second = decode(bare), decode({"candidates": [candidate({"text": "y"})]})
    assert first["model"] == MODEL and first["id"].startswith("chatcmpl-") and first["id"] != second["id"]


def test_069_candidates_keep_their_index() -> None:
    """Whatever the order they come in."""
    one, two = candidate({"text": "b"}, index=1), candidate({"text": "a"}, index=0)
    data = decode(answer(one, two), encode(n=2))
    assert [(c["index"], c["message"]["content"]) for c in data["choices"]] == [(0, "a"), (1, "b")]


def test_070_logprobs_take_openais_form() -> None:
    """Token, number, bytes and alternatives."""
    result = {
        "chosenCandidates": [{"token": "é", "logProbability": -0.25, "tokenId": 1}, {"token": "!"}],
        "topCandidates": [
            {"candidates": [{"token": "é", "logProbability": -0.25}, {"token": "e", "logProbability": -2}]}
        ],
    }
    found = choice(answer(candidate({"text": "é!"}, logprobsResult=result)))["logprobs"]
    assert found["content"][0] == {
        "token": "é",
        "logprob": -0.25,
        "bytes": [195, 169],
        "top_logprobs": [
            {"token": "é", "logprob": -0.25, "bytes": [195, 169]},
            {"token": "e", "logprob": -2.0, "bytes": [101]},
        ],
    }
    assert found["content"][1] == {"token": "!", "logprob": 0.0, "bytes": [33], "top_logprobs": []}


def test_images_in_the_answer_are_data_urls() -> None:
    """OpenAI's shape has no place for them: the field that other gateways use."""
    found = choice(answer(candidate({"inlineData": {"mimeType": "image/png", "data": "AAAA"}})))["message"]
    assert found["images"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>nope</html>", b"null", b"5", b"[]", b"{}", b'{"candidates":[]}', b'{"candidates":5}', b'{"usageMetadata":{}}',
        b'{"candidates":[5]}', b'{"candidates":[{"content":[]}]}{', b'{"candidates":[{"content":{"parts":"ab"}}]}',
        b'{"candidates":[{"content":{"parts":[{"text":5}]}}]}', b'{"candidates":[{"content":{"parts":[{"functionCall":{}}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":[1]}}]}}]}', b'{"choices":[]}',
        b'[{"candidates":[]}]', b'{"candidates":[{"content":5}]}', b"\xff",
    ],
)  # fmt: skip
def test_117_what_is_no_answer_is_an_error(body: bytes) -> None:
    """Garbage in a 200 is never a success, and a JSON array (no alt=sse) is refused."""
    with pytest.raises(UpstreamError) as caught:
        decode(body)
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (502, "upstream_invalid_response", True)
