"""OpenAI embeddings through Gemini."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from proxy.errors import ApiError, UpstreamError
from proxy.providers.base import Target
from proxy.request import EmbeddingsRequest
from proxy.upstream.base import UpstreamRequest
from tests.providers.gemini_kit import gemini

MODEL = "gemini-embedding-001"
REPLY = {"embeddings": [{"values": [0.5, -1]}, {"values": [0.25, 2.0]}], "usageMetadata": {"promptTokenCount": 7}}


def encode(settings: dict[str, Any] | None = None, **fields: Any) -> UpstreamRequest:
    provider = gemini(**(settings or {}))
    return provider.encode(EmbeddingsRequest({"model": MODEL, **fields}), Target("gemini", MODEL, provider))


def decode(body: Any, sent: UpstreamRequest) -> dict[str, Any]:
    return gemini().decode(200, {}, orjson.dumps(body), sent).data


def test_inputs_become_one_batch() -> None:
    """A string is a batch of one, dimensions go along, the model stands in each."""
    sent = encode(input=["a", "b"], dimensions=768, user="u")
    assert sent.path == f"/v1beta/models/{MODEL}:batchEmbedContents"
    one = {"model": f"models/{MODEL}", "outputDimensionality": 768}
    assert orjson.loads(sent.body) == {
        "requests": [{**one, "content": {"parts": [{"text": "a"}]}}, {**one, "content": {"parts": [{"text": "b"}]}}]
    }
    assert len(orjson.loads(encode(input="a").body)["requests"]) == 1


def test_the_reply_is_openais_list(schemas: Path) -> None:
    """In order, with the vendor's usage."""
    data = decode(REPLY, encode(input=["a", "b"]))
    schema = orjson.loads((schemas / "CreateEmbeddingResponse.real.json").read_bytes())
    jsonschema.Draft202012Validator(schema).validate(data)
    assert [(row["index"], row["embedding"]) for row in data["data"]] == [(0, [0.5, -1]), (1, [0.25, 2.0])]
    assert data["usage"] == {"prompt_tokens": 7, "total_tokens": 7} and data["model"] == MODEL


def test_base64_is_little_endian_floats() -> None:
    """What OpenAI's own client asks for by default."""
    data = decode(REPLY, encode(input=["a", "b"], encoding_format="base64"))
    assert struct.unpack("<2f", base64.b64decode(data["data"][1]["embedding"])) == (0.25, 2.0)


def test_missing_usage_is_estimated_and_says_so() -> None:
    """Older models report none."""
    data = decode({"embeddings": [{"values": [1.0]}]}, encode(input="twelve chars"))
    assert data["usage"] == {"prompt_tokens": 3, "total_tokens": 3, "x_llm_estimated": True}


def test_token_numbers_are_refused() -> None:
    """They are another vendor's vocabulary."""
    for given in ([1, 2], [[1], [2]]):
        with pytest.raises(ApiError) as caught:
            encode(input=given)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "input")


def test_unknown_parameters_are_refused_or_dropped() -> None:
    """As for chats."""
    with pytest.raises(ApiError):
        encode(input="a", task="x")
    assert encode({"unsupported": "drop"}, input="a", task="x").dropped == ("task",)


@pytest.mark.parametrize("body", [{}, {"embeddings": [5]}, {"embeddings": [{"values": ["x"]}]}, {"embeddings": [{}]}])
def test_what_is_no_embedding_is_an_error(body: Any) -> None:
    """Never a success."""
    with pytest.raises(UpstreamError) as caught:
        decode(body, encode(input="a"))
    assert caught.value.code == "upstream_invalid_response"
