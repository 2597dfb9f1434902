"""A chat's parameters for Gemini: translation cases 62 to 78."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.errors import ApiError
from proxy.providers.base import Target
from proxy.providers.gemini_models import capabilities
from proxy.request import ChatRequest
from tests.providers.gemini_kit import HI, MODEL, encode, gemini, wire


def config(**fields: Any) -> dict[str, Any]:
    """Return the generationConfig that the parameters become."""
    found: dict[str, Any] = wire(**fields).get("generationConfig", {})
    return found


def refused(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        wire(**fields)
    return caught.value


def test_062_max_completion_tokens_beats_max_tokens() -> None:
    """And nothing is sent where nobody set a bound."""
    assert config(max_tokens=5, max_completion_tokens=7) == {"maxOutputTokens": 7}
    assert config(max_tokens=5) == {"maxOutputTokens": 5}
    assert config() == {}


def test_062_a_bound_of_ours_is_echoed() -> None:
    """`applied_max_tokens` is set where the caller said nothing."""
    provider = gemini()
    request = ChatRequest({"model": MODEL, "messages": [HI]}).with_ours({"max_tokens": 99, "temperature": 0.5})
    sent = provider.encode(request, Target("gemini", MODEL, provider))
    assert sent.applied_max_tokens == 99
    assert orjson.loads(sent.body)["generationConfig"] == {"maxOutputTokens": 99, "temperature": 0.5}
    assert encode(max_tokens=9).applied_max_tokens is None


def test_064_sampling_passes_where_it_is_heeded() -> None:
    """The newest models ignore it and the next will refuse it: left out there, and named unless it was ours."""
    fields: dict[str, Any] = {"temperature": 1.7, "top_p": 0.5}
    assert config(**fields, model="gemini-2.5-flash") == {"temperature": 1.7, "topP": 0.5}
    sent = encode(**fields, model="gemini-3.8-flash")
    assert "generationConfig" not in orjson.loads(sent.body) and sent.dropped == ("temperature", "top_p")
    provider = gemini()
    request = ChatRequest({"model": MODEL, "messages": [HI]}).with_ours({"temperature": 0.5})
    assert provider.encode(request, Target("gemini", "gemini-3.8-flash", provider)).dropped == ()


def test_067_stop_becomes_a_list_of_at_most_five() -> None:
    """A string is a list of one, empty ones go, six are too many."""
    assert config(stop="END") == {"stopSequences": ["END"]}
    assert config(stop=["a", "", "\n"]) == {"stopSequences": ["a", "\n"]}
    assert config(stop=[]) == {}
    assert refused(stop=list("abcdef")).param == "stop"
    sent = encode(stop=list("abcdef"), settings={"unsupported": "drop"})
    assert orjson.loads(sent.body)["generationConfig"]["stopSequences"] == list("abcde") and sent.dropped == ("stop",)


def test_069_n_becomes_candidate_count() -> None:
    """Never silently one."""
    assert config(n=3) == {"candidateCount": 3} and config(n=1) == {}


def test_070_logprobs_are_asked_for() -> None:
    """With the number of alternatives."""
    assert config(logprobs=True, top_logprobs=4) == {"responseLogprobs": True, "logprobs": 4}
    assert config(logprobs=False) == {}


def test_071_seed_passes_and_penalties_before_gemini_3() -> None:
    """Gemini 3 refuses penalties; zero asks for nothing."""
    fields: dict[str, Any] = {"seed": 7, "presence_penalty": 0.5, "frequency_penalty": -1}
    assert config(**fields) == {"seed": 7, "presencePenalty": 0.5, "frequencyPenalty": -1}
    assert refused(**fields, model="gemini-3-flash-preview").param == "presence_penalty"
    sent = encode(**fields, model="gemini-3-flash-preview", settings={"unsupported": "drop"})
    assert sent.dropped == ("presence_penalty", "frequency_penalty")
    assert config(presence_penalty=0, model="gemini-3-flash-preview") == {}


def test_072_the_users_identity_stays_here() -> None:
    """`user` and `metadata` change no answer and are not forwarded."""
    body = encode(user="ann@example.com", metadata={"a": "b"}, safety_identifier="s", prompt_cache_key="k").body
    assert b"ann" not in body and b"metadata" not in body


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("store", True), ("prediction", {"type": "content", "content": "x"}), ("audio", {"voice": "v", "format": "mp3"}),
        ("verbosity", "low"), ("logit_bias", {"1": 5}), ("web_search_options", {}), ("modalities", ["text", "audio"]),
        ("service_tier", "scale"), ("frobnicate", 1), ("thinking", {"type": "enabled"}),
    ],
)  # fmt: skip
def test_073_078_what_the_vendor_lacks_is_refused_or_dropped_by_name(name: str, value: Any) -> None:
    """Nothing unknown reaches the vendor, and nothing is lost without a word."""
    error = refused(**{name: value})
    assert (error.code, error.param, error.status) == ("unsupported_parameter", name, 400)
    sent = encode(**{name: value}, settings={"unsupported": "drop"})
    assert sent.dropped == (name,) and orjson.loads(sent.body) == wire()


@pytest.mark.parametrize(
    ("name", "value"),
    [("store", False), ("modalities", ["text"]), ("verbosity", "medium"), ("logit_bias", {}), ("service_tier", "auto"),
     ("frobnicate", None), ("stream_options", None), ("n", 1)],
)  # fmt: skip
def test_073_defaults_ask_for_nothing(name: str, value: Any) -> None:
    """A client that spells out the defaults is served."""
    sent = encode(**{name: value})
    assert sent.dropped == () and orjson.loads(sent.body) == wire()


def test_073_service_tiers_and_image_output_pass() -> None:
    """What the vendor has in its own words."""
    assert wire(service_tier="flex")["serviceTier"] == "flex"
    assert config(modalities=["text", "image"]) == {"responseModalities": ["TEXT", "IMAGE"]}


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-flash", "minimal", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-flash", "low", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-flash", "medium", {"thinkingBudget": 8192, "includeThoughts": True}),
        ("gemini-2.5-flash", "high", {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-2.5-flash", "max", {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-2.5-pro", "xhigh", {"thinkingBudget": 32768, "includeThoughts": True}),
        ("gemini-3-flash-preview", "none", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3-flash-preview", "medium", {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("gemini-3-pro-preview", "minimal", {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("gemini-3-pro-preview", "medium", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-3.1-pro-preview", "medium", {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("gemini-3.8-flash", "minimal", {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("gemini-3.6-flash", "minimal", {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("gemini-3.8-flash", "xhigh", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("models/gemini-2.5-flash", "low", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.0-flash", "none", None),
    ],
)
def test_074_reasoning_effort_is_put_in_the_models_own_terms(model: str, effort: str, thinking: Any) -> None:
    """A budget for 2.5, a level since 3, the nearest one that the model has."""
    assert config(model=model, reasoning_effort=effort).get("thinkingConfig") == thinking


@pytest.mark.parametrize(
    ("model", "effort"),
    [
        ("gemini-2.5-pro", "none"),
        ("gemini-3.8-flash", "none"),
        ("gemini-3.1-pro-preview", "none"),
        ("gemini-2.0-flash", "low"),
    ],
)
def test_074_what_a_model_cannot_do_is_refused(model: str, effort: str) -> None:
    """Thinking that cannot be turned off, or is not there."""
    error = refused(model=model, reasoning_effort=effort)
    assert (error.code, error.param) == ("unsupported_parameter", "reasoning_effort")
    assert encode(model=model, reasoning_effort=effort, settings={"unsupported": "drop"}).dropped == (
        "reasoning_effort",
    )


def test_074_an_unknown_effort_is_malformed() -> None:
    """It is no word of the API's."""
    assert refused(reasoning_effort="ultra").code == "invalid_request"


def test_075_a_json_schema_is_the_response_schema() -> None:
    """In the vendor's subset, what it lacks stripped."""
    schema = {
        "type": "object",
        "properties": {"b": {"type": ["string", "null"]}, "a": {"type": "integer", "exclusiveMinimum": 0}},
        "required": ["b", "a"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    assert config(response_format=form) == {
        "responseMimeType": "application/json",
        "responseSchema": {
            "type": "OBJECT",
            "properties": {"b": {"type": "STRING", "nullable": True}, "a": {"type": "INTEGER"}},
            "required": ["b", "a"],
            "propertyOrdering": ["b", "a"],
        },
    }


def test_076_json_mode_is_a_mime_type() -> None:
    """Text asks for nothing, other forms are refused."""
    assert config(response_format={"type": "json_object"}) == {"responseMimeType": "application/json"}
    assert config(response_format={"type": "text"}) == {}
    assert refused(response_format={"type": "grammar", "grammar": "x"}).param == "response_format"


def test_077_cache_marks_are_stripped() -> None:
    """They are Anthropic's."""
    mark = {"cache_control": {"type": "ephemeral"}}
    part = {"type": "text", "text": "hi", **mark}
    body = encode(
        [{"role": "user", "content": [part], **mark}], tools=[{"type": "function", "function": {"name": "f"}, **mark}]
    )
    assert b"cache_control" not in body.body


def test_safety_settings_come_from_the_configuration() -> None:
    """The design document's words become the vendor's, the vendor's own pass, others are a load error."""
    settings = {
        "safety_settings": {
            "HATE_SPEECH": "BLOCK", "HARASSMENT": "BLOCK_ONLY_HIGH", "SEXUAL_CONTENT": "BLOCK",
            "HARM_CATEGORY_DANGEROUS_CONTENT": "OFF",
        }
    }  # fmt: skip
    assert wire(settings=settings)["safetySettings"] == [
        {"category": "HARM_CATEGORY_HATE_SPEECH", "threshold": "BLOCK_LOW_AND_ABOVE"},
        {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"},
        {"category": "HARM_CATEGORY_SEXUALLY_EXPLICIT", "threshold": "BLOCK_LOW_AND_ABOVE"},
        {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "threshold": "OFF"},
    ]
    for wrong in ({"RUDENESS": "BLOCK"}, {"HARASSMENT": "SOMETIMES"}):
        with pytest.raises(ValueError, match="is one of"):
            gemini(safety_settings=wrong)


@pytest.mark.parametrize(
    ("model", "stream", "version", "path"),
    [
        ("gemini-2.5-flash", False, "v1beta", "/v1beta/models/gemini-2.5-flash:generateContent"),
        ("gemini-2.5-flash", True, "v1", "/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse"),
        ("models/gemini-2.5-flash", False, "v1beta", "/v1beta/models/gemini-2.5-flash:generateContent"),
        ("tunedModels/mine", False, "v1beta", "/v1beta/tunedModels/mine:generateContent"),
        ("../x?key=1#", False, "v1beta", "/v1beta/models/..%2Fx%3Fkey%3D1%23:generateContent"),
    ],
)
def test_the_path_names_version_model_and_method(model: str, stream: bool, version: str, path: str) -> None:
    """A model's name cannot leave its place in the path."""
    assert encode(model=model, stream=stream, settings={"api_version": version}).path == path


def test_the_key_travels_in_a_header_alone() -> None:
    """Never in the URL."""
    provider = gemini()
    assert provider.credentials("AIza") == [("x-goog-api-key", "AIza")]
    assert provider.base_url() == "https://generativelanguage.googleapis.com"
    assert "key" not in encode().path
    assert provider.probe().path == "/v1beta/models?pageSize=1000" and provider.probe().method == "GET"
    assert provider.known_models(b'{"models":[{"name":"models/b"},{"name":"models/a"}]}') == ["a", "b"]


@pytest.mark.parametrize("name", ["gemini-4-ultra", "gemini-9.1-flash", "gemini-pro-latest"])
def test_models_that_we_do_not_know_count_as_the_newest(name: str) -> None:
    """What the newest refuse is not sent to their successors."""
    facts = capabilities(name)
    assert facts.thinking == "level" and not facts.prefill and facts.signed
