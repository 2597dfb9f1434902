"""Every recorded exchange with Gemini and Vertex, through our translator and through Google's own SDK."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import orjson
import pytest
from pydantic.alias_generators import to_camel

from proxy.errors import TABLE
from proxy.providers.base import Target
from proxy.providers.gemini import Gemini, GeminiSettings
from proxy.providers.gemini_reply import finish_reason
from proxy.request import ChatRequest, EmbeddingsRequest
from proxy.upstream.base import UpstreamRequest
from tests.providers.recordings import Answer, Recordings, cut, decode_stream, reply_bytes, validator

if TYPE_CHECKING:
    from google.genai import types

_STATUS = {400: 400, 401: 502, 403: 502, 404: 404, 429: 429, 500: 502, 503: 503}
_GENERATING = ("generate", "generate_stream")
_TO_STANDARD = str.maketrans("-_", "+/", "=")


class Sdk:
    """Google's client on a transport of ours: it keeps what it sends and answers what it is told."""

    def __init__(self) -> None:
        self.sent: Any = None
        self.answer = b""
        self.kind = "application/json"
        from google import genai
        from google.genai import types

        self.types = types
        transport = httpx2.MockTransport(self._handle)
        options = types.HttpOptions(api_version="v1beta", httpx_client=httpx2.Client(transport=transport))
        self.models = genai.Client(api_key="x", http_options=options).models

    def _handle(self, request: httpx2.Request) -> httpx2.Response:
        self.sent = orjson.loads(request.read())
        return httpx2.Response(200, content=self.answer, headers={"content-type": self.kind})

    def resend(self, body: dict[str, Any]) -> Any:
        """Return what the SDK sends for its own types, read from ``body``; unknown fields raise."""
        self.answer, self.kind = b"{}", "application/json"
        rest = {name: value for name, value in body.items() if name not in ("contents", "generationConfig")}
        config = self.types.GenerateContentConfig.model_validate({**body.get("generationConfig", {}), **rest})
        contents: Any = [self.types.Content.model_validate(content) for content in body["contents"]]
        self.models.generate_content(model="gemini-2.5-flash", contents=contents, config=config)
        return self.sent

    def read(self, data: bytes, *, stream: bool) -> list[types.GenerateContentResponse]:
        """Return what the SDK makes of a reply's bytes."""
        self.answer, self.kind = data, "text/event-stream" if stream else "application/json"
        if stream:
            return list(self.models.generate_content_stream(model="gemini-2.5-flash", contents="x"))
        return [self.models.generate_content(model="gemini-2.5-flash", contents="x")]


class Bench:
    """The provider under test beside the SDK and OpenAI's schemas."""

    def __init__(self, schemas: Path) -> None:
        self.provider = Gemini("gemini", GeminiSettings())
        self.provider.now = lambda: 1_700_000_000.0
        self.sdk = Sdk()
        self.whole, self.chunk, self.embeddings = (
            validator(schemas, name)
            for name in (
                "CreateChatCompletionResponse",
                "CreateChatCompletionStreamResponse",
                "CreateEmbeddingResponse",
            )
        )

    def encode(self, asked: dict[str, Any]) -> UpstreamRequest:
        return self.provider.encode(ChatRequest(asked), Target("gemini", asked["model"], self.provider))


@pytest.fixture(scope="module")
def bench(schemas: Path) -> Bench:
    """The translator and the SDK it is compared with."""
    return Bench(schemas)


def plain(value: Any) -> Any:
    """Return ``value`` with base64 in one alphabet and names in one case: the SDK mixes, the API takes both."""
    if isinstance(value, dict):
        return {
            to_camel(name): child.translate(_TO_STANDARD) if name in ("thoughtSignature", "data") else plain(child)
            for name, child in value.items()
        }
    if isinstance(value, list):
        return [plain(child) for child in value]
    return value


def check_request(bench: Bench, row: dict[str, Any]) -> None:
    """Our encoding of the equivalent OpenAI request is one that Google's SDK would send, field for field."""
    asked = row["openai_request"]
    before = orjson.dumps(asked)
    body = orjson.loads(bench.encode(asked).body)
    body.setdefault("generationConfig", {})  # the SDK sends an empty one
    assert orjson.dumps(asked) == before
    assert plain(bench.sdk.resend(body)) == plain(body), row["id"]


def sent_for(bench: Bench, exchange: dict[str, Any]) -> UpstreamRequest:
    stream = "sse" in exchange["response"]
    return bench.encode({"model": "asked", "messages": [{"role": "user", "content": "x"}], "stream": stream})


def check_reply(bench: Bench, exchange: dict[str, Any], row: dict[str, Any] | None) -> None:
    """Our reading of a 200 agrees with Google's SDK, with the oracle, and with OpenAI's schema."""
    data = reply_bytes(exchange)
    sent = sent_for(bench, exchange)
    stream = "sse" in exchange["response"]
    if stream:
        chunks = decode_stream(bench.provider.decoder(sent), [data])
        again = decode_stream(bench.provider.decoder(sent), cut(data, exchange["id"]))
        assert [chunk.data for chunk in chunks] == [chunk.data for chunk in again]
        for chunk in chunks:
            bench.chunk.validate(chunk.data)
        assert len({(chunk.data["id"], chunk.data["created"], chunk.data["model"]) for chunk in chunks}) == 1
        assert [c.data for c in chunks if not c.choices] == [chunks[-1].data]
        roles = [choice["delta"].get("role") for chunk in chunks for choice in chunk.choices]
        assert roles == ["assistant", *[None] * (len(roles) - 1)]
        answer = Answer.stream([chunk.data for chunk in chunks])
        model = chunks[0].data["model"]
    else:
        completion = bench.provider.decode(200, {}, data, sent)
        bench.whole.validate(completion.data)
        answer = Answer.whole(completion.data)
        model = completion.data["model"]
    check_against_sdk(bench.sdk.read(data, stream=stream), answer, model)
    expect = row["expect"] if row else None
    if expect:
        assert answer.text == expect["text"]
        assert answer.calls == [(call["name"], call["arguments"] or {}) for call in expect["tool_calls"]]
        assert answer.finish == (expect["finish"] or answer.finish)
        if answer.usage is not None and expect["server_tools"] is False:
            assert answer.usage["completion_tokens"] == expect["usage"]["completion_tokens"]


def check_against_sdk(said: list[types.GenerateContentResponse], answer: Answer, model: str) -> None:
    parts = [
        part
        for response in said
        for candidate in (response.candidates or ())[:1]
        for part in ((candidate.content and candidate.content.parts) or ())
    ]
    assert answer.text == "".join(part.text for part in parts if part.text and not part.thought)
    calls = [part.function_call for part in parts if part.function_call]
    assert answer.calls == [(call.name, call.args or {}) for call in calls]
    assert len(set(answer.ids)) == len(calls)
    for id, call in zip(answer.ids, calls, strict=True):
        assert not call.id or id == call.id or id.startswith(f"{call.id}__thought__")
    words = [c.finish_reason.value for r in said for c in (r.candidates or ())[:1] if c.finish_reason]
    assert answer.finish == (finish_reason(words[-1], calls=bool(calls)) if words else "content_filter")
    assert model == (said[0].model_version or "asked")
    reports = [response.usage_metadata for response in said if response.usage_metadata]

    def last(name: str) -> int | None:
        return next((value for usage in reversed(reports) if (value := getattr(usage, name)) is not None), None)

    prompt, thoughts = last("prompt_token_count"), last("thoughts_token_count") or 0
    if prompt is None:
        assert answer.usage is None
        return
    assert answer.usage is not None
    assert answer.usage["prompt_tokens"] == prompt + (last("tool_use_prompt_token_count") or 0)
    assert answer.usage["completion_tokens"] == (last("candidates_token_count") or 0) + thoughts
    assert answer.usage["total_tokens"] == answer.usage["prompt_tokens"] + answer.usage["completion_tokens"]
    assert answer.usage.get("completion_tokens_details", {}).get("reasoning_tokens", 0) == thoughts
    cached = last("cached_content_token_count") or 0
    assert answer.usage.get("prompt_tokens_details", {}).get("cached_tokens", 0) == cached
    if reports[-1].candidates_token_count is not None:  # left out of some streams' last event, and then of the total
        assert answer.usage["total_tokens"] == (last("total_token_count") or answer.usage["total_tokens"])


def check_failure(bench: Bench, exchange: dict[str, Any]) -> None:
    reply = exchange["response"]
    error = bench.provider.failure(reply["status"], reply["headers"], reply_bytes(exchange))
    assert error.status == _STATUS[reply["status"]]
    assert error.code in TABLE
    assert set(orjson.loads(error.body())["error"]) == {"message", "type", "param", "code"}


def check_embeddings(bench: Bench, exchange: dict[str, Any]) -> None:
    """Our request is the recorded one but for its task type; our list holds the recorded numbers."""
    body = exchange["request"]["body"]
    rows = body["requests"]
    model = rows[0]["model"].removeprefix("models/")
    asked = {"model": model, "input": [row["content"]["parts"][0]["text"] for row in rows]}
    if size := rows[0].get("outputDimensionality"):
        asked["dimensions"] = size
    sent = bench.provider.encode(EmbeddingsRequest(asked), Target("gemini", model, bench.provider))
    assert sent.path.endswith(exchange["request"]["path"].rpartition("/")[2])
    bare = [{name: value for name, value in row.items() if name != "taskType"} for row in rows]
    assert orjson.loads(sent.body) == {"requests": bare}
    reply = exchange["response"]["body"]
    data = bench.provider.decode(200, {}, orjson.dumps(reply), sent).data
    bench.embeddings.validate(data)
    assert [row["embedding"] for row in data["data"]] == [row["values"] for row in reply["embeddings"]]
    counted = reply.get("usageMetadata", {}).get("promptTokenCount")
    assert data["usage"]["prompt_tokens"] == counted or data["usage"]["x_llm_estimated"] is True


def run(bench: Bench, recordings: Recordings, *, one_in: int) -> None:
    done: collections.Counter[str] = collections.Counter()
    left_out: collections.Counter[str] = collections.Counter()
    for vendor in ("gemini", "vertex"):
        oracle = recordings.expected(vendor)
        for exchange in recordings.exchanges(vendor, one_in=one_in):
            kind, reply = exchange["kind"], exchange["response"]
            row = oracle.get(exchange["id"])
            if row and row["openai_request"]:
                check_request(bench, row)
                done["requests"] += 1
            elif row:
                left_out[f"request: {row['reason'].split(':')[0].split('.')[0].split(',')[0]}"] += 1
            if reply["status"] >= 400:
                check_failure(bench, exchange)
                done["errors"] += 1
            elif kind in _GENERATING:
                if isinstance(reply.get("body"), list):
                    # Recorded without alt=sse, which we never ask for: the same pieces as events.
                    pieces = map(orjson.dumps, reply["body"])
                    reply["sse"] = "".join(f"data: {piece.decode()}\r\n\r\n" for piece in pieces)
                    done["streams recorded as an array"] += 1
                check_reply(bench, exchange, row)
                done["streams" if "sse" in reply else "wholes"] += 1
            elif kind == "embed" and "requests" in exchange["request"]["body"]:
                check_embeddings(bench, exchange)
                done["embeddings"] += 1
            else:
                left_out[f"reply: {kind} on {vendor} is not asked for"] += 1
    print(f"\nGemini and Vertex recordings, one in {one_in}: {dict(done)}; left out: {dict(left_out)}")
    assert done["wholes"] and done["streams"] and done["requests"] and done["embeddings"]


def test_recorded_exchanges_agree_with_the_vendors_sdk(bench: Bench, recordings: Recordings) -> None:
    """A fixed sample of the recorded exchanges is read and written as Google's own SDK does it."""
    run(bench, recordings, one_in=8)


@pytest.mark.slow
def test_all_recorded_exchanges_agree_with_the_vendors_sdk(bench: Bench, recordings: Recordings) -> None:
    """Every recorded exchange is read and written as Google's own SDK does it."""
    run(bench, recordings, one_in=1)
