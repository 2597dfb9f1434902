"""Azure OpenAI: where requests go, what they carry, what Azure adds to replies."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from proxy.errors import ApiError, Truncated
from proxy.providers.azure_openai import AzureOpenAI, AzureSettings
from proxy.providers.base import Target
from proxy.request import ChatRequest, EmbeddingsRequest
from proxy.upstream.base import UpstreamRequest
from tests.providers.recordings import Answer, decode_stream

HOST = "https://name.openai.azure.com"


def provider(**settings: Any) -> AzureOpenAI:
    return AzureOpenAI("azure", AzureSettings(**{"azure_endpoint": HOST, **settings}))


def send(
    made: AzureOpenAI, model: str = "gpt-4o", *, ours: dict[str, Any] | None = None, **fields: Any
) -> UpstreamRequest:
    request = ChatRequest({"model": "alias", "messages": [{"role": "user", "content": "hi"}], **fields})
    return made.encode(request.with_ours(ours or {}), Target("azure", model, made))


@pytest.mark.parametrize(
    ("settings", "model", "url"),
    [
        ({}, "gpt-4o", "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"),
        ({"azure_endpoint": HOST + "/", "api_version": "2024-02-01"}, "d", "/openai/deployments/d/chat/completions?api-version=2024-02-01"),
        ({"azure_deployment": "mine", "model": "gpt-4"}, "gpt-4", "/openai/deployments/mine/chat/completions?api-version=2024-10-21"),
        ({"azure_deployment": "mine", "model": "gpt-4"}, "other", "/openai/deployments/other/chat/completions?api-version=2024-10-21"),
        ({"azure_deployment": "mine"}, "gpt-4", "/openai/deployments/mine/chat/completions?api-version=2024-10-21"),
        ({"base_url": HOST + "/openai/deployments/there"}, "x", "/openai/deployments/there/chat/completions?api-version=2024-10-21"),
        ({}, "../../a b?c#d", "/openai/deployments/..%2F..%2Fa%20b%3Fc%23d/chat/completions?api-version=2024-10-21"),
        ({"api_version": "v1"}, "gpt-4o", "/openai/v1/chat/completions"),
        ({"api_version": "preview"}, "gpt-4o", "/openai/v1/chat/completions?api-version=preview"),
        ({"base_url": HOST + "/openai/v1/"}, "gpt-4o", "/openai/v1/chat/completions"),
    ],
)  # fmt: skip
def test_requests_go_to_the_deployment(settings: dict[str, Any], model: str, url: str) -> None:
    """Dated versions name the deployment in the path, safely quoted; `v1` in the body."""
    made = provider(**settings)
    sent = send(made, model)
    assert made.base_url() + sent.path == HOST + url
    assert orjson.loads(sent.body)["model"] == model


def test_undated_surface_names_the_deployment_in_the_body() -> None:
    """With `v1` the model field is the deployment's name."""
    sent = send(provider(api_version="v1", azure_deployment="mine", model="gpt-4"), "gpt-4")
    assert orjson.loads(sent.body)["model"] == "mine"


@pytest.mark.parametrize("model", [".", ".."])
def test_a_deployment_cannot_climb_out_of_its_folder(model: str) -> None:
    """Nothing that a client sends chooses another path."""
    with pytest.raises(ApiError) as caught:
        send(provider(), model)
    assert caught.value.code == "model_not_found"


def test_embeddings_have_a_path_of_their_own() -> None:
    """All of Azure's endpoints are served."""
    made = provider()
    sent = made.encode(EmbeddingsRequest({"model": "e", "input": "x"}), Target("azure", "e", made))
    assert sent.path == "/openai/deployments/e/embeddings?api-version=2024-10-21"


def test_the_key_travels_in_its_own_header() -> None:
    """Never in the URL."""
    assert provider().credentials("k") == [("api-key", "k")]


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({"api_version": "2024-06-01"}, False), ({"api_version": "2024-08-01-preview"}, False),
        ({"api_version": "2024-09-01-preview"}, True), ({"api_version": "2024-10-21"}, True), ({"api_version": "v1"}, True),
        ({"api_version": "2024-06-01", "stream_usage": "always"}, True), ({"stream_usage": "never"}, False),
    ],
)  # fmt: skip
def test_usage_in_streams_is_asked_for_where_the_version_knows_it(settings: dict[str, Any], asked: bool) -> None:
    """Old versions answer 400 to stream_options."""
    sent = send(provider(**settings), stream=True, stream_options={"include_usage": True})
    assert ("stream_options" in orjson.loads(sent.body)) == asked


@pytest.mark.parametrize(
    ("version", "name"),
    [("2024-06-01", "max_tokens"), ("2024-10-21", "max_tokens"), ("2025-04-01-preview", "max_completion_tokens"), ("v1", "max_completion_tokens")],
)  # fmt: skip
def test_our_own_bound_is_spelled_as_the_version_knows_it(version: str, name: str) -> None:
    """A bound that we inject must not break a call."""
    sent = send(provider(api_version=version), ours={"max_tokens": 9})
    body = orjson.loads(sent.body)
    assert body[name] == 9 and sent.applied_max_tokens == 9
    assert not {"max_tokens", "max_completion_tokens"} - {name} & set(body)


def test_an_entry_without_an_endpoint_is_refused() -> None:
    """The message says what to write."""
    with pytest.raises(ValidationError, match="azure_endpoint"):
        AzureSettings()


def test_probe_lists_models() -> None:
    """`check --probe` asks for models under the entry's API version."""
    assert provider().probe().path == "/openai/models?api-version=2024-10-21"
    assert provider(api_version="v1").probe().path == "/models"


EVENTS = [
    {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}], "id": "c1",
     "object": "chat.completion.chunk", "created": 5, "model": "gpt-4o"},
    {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None, "content_filter_results": {}}], "id": "c1",
     "object": "chat.completion.chunk", "created": 5, "model": "gpt-4o"},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "content_filter"}], "id": "c1",
     "object": "chat.completion.chunk", "created": 5, "model": "gpt-4o"},
]  # fmt: skip


def wire(events: list[dict[str, Any]], end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events) + end


def test_095_azures_annotations_come_before_no_role() -> None:
    """The annotation chunk without choices is held back; the role is announced once, by the first chunk."""
    made = provider()
    chunks = [c.data for c in decode_stream(made.decoder(send(made, stream=True)), [wire(EVENTS)])]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert sum("role" in choice["delta"] for chunk in chunks for choice in chunk["choices"]) == 1
    assert {chunk["id"] for chunk in chunks} == {"c1"}
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)


def test_110_content_filter_in_mid_stream_ends_it_normally() -> None:
    """The finish reason passes; the stream is complete."""
    made = provider()
    chunks = [c.data for c in decode_stream(made.decoder(send(made, stream=True)), [wire(EVENTS)])]
    answer = Answer.stream(chunks)
    assert (answer.text, answer.finish) == ("hi", "content_filter")


def test_105_an_end_without_finish_is_truncation() -> None:
    """Never a success."""
    made = provider()
    with pytest.raises(Truncated):
        decode_stream(made.decoder(send(made, stream=True)), [wire(EVENTS[:3], b"")])


@pytest.mark.parametrize(
    ("status", "body", "ours", "code"),
    [
        (404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}}, 404, "model_not_found"),
        (401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key"}}, 502, "upstream_auth_error"),
        (401, {"statusCode": 401, "message": "Unauthorized"}, 502, "upstream_auth_error"),
        (429, {"error": {"code": "429", "message": "Requests have exceeded call rate limit. Retry after 7 seconds."}}, 429, "upstream_rate_limited"),
        (400, {"error": {"code": "content_filter", "message": "The response was filtered", "param": "prompt"}}, 400, "upstream_invalid_request"),
        (400, {"error": {"code": "context_length_exceeded", "message": "too long"}}, 400, "context_length_exceeded"),
    ],
)  # fmt: skip
def test_113_azures_errors_follow_the_contracts_table(status: int, body: dict[str, Any], ours: int, code: str) -> None:
    """Numbers as codes, gateway bodies without `error`, and Azure's own words."""
    found = provider().failure(status, {"retry-after": "7"}, orjson.dumps(body))
    assert (found.status, found.code) == (ours, code)
    if status == 429:
        assert found.retry_after == 7
