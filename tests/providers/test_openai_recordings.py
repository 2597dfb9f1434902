"""Every recorded exchange of OpenAI, Azure and compatible servers, through our wire and through OpenAI's own SDK."""

from __future__ import annotations

import collections
import re
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import openai
import orjson
import pytest

from proxy.errors import TABLE, UpstreamError
from proxy.providers.azure_openai import AzureOpenAI, AzureSettings
from proxy.providers.base import Target
from proxy.providers.openai import OpenAI, OpenAISettings
from proxy.providers.openai_mend import FINISH
from proxy.request import ChatRequest
from tests.providers.recordings import Answer, Recordings, cut, decode_stream, loads, reply_bytes, validator

_STATUS = {400: 400, 401: 502, 403: 502, 404: 404, 429: 429}


@pytest.fixture(scope="module")
def validators(schemas: Path) -> tuple[Any, Any]:
    """Validators of a whole reply and of a chunk."""
    return (
        validator(schemas, "CreateChatCompletionResponse"),
        validator(schemas, "CreateChatCompletionStreamResponse"),
    )


def provider_for(name: str, exchange: dict[str, Any]) -> OpenAI:
    if name != "azure":
        return OpenAI(name, OpenAISettings())
    version = re.search(r"api-version=([\w-]+)", exchange["request"]["path"])
    return AzureOpenAI(
        name, AzureSettings(azure_endpoint="https://x.openai.azure.com", api_version=version[1] if version else "v1")
    )


def sdk_says(data: bytes, streamed: bool) -> Any:
    """Return what OpenAI's own SDK makes of the bytes: a completion, or the list of chunks."""
    kind = "text/event-stream" if streamed else "application/json"
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=data, headers={"content-type": kind}))
    with openai.OpenAI(api_key="x", http_client=httpx2.Client(transport=transport), max_retries=0) as client:
        if not streamed:
            return client.chat.completions.create(model="m", messages=[])
        return list(client.chat.completions.create(model="m", messages=[], stream=True))


def agree(ours: Answer, theirs: Answer) -> None:
    assert ours.text == theirs.text
    assert ours.calls == theirs.calls
    if theirs.finish in FINISH:
        assert ours.finish == theirs.finish
    if theirs.usage:
        assert ours.usage is not None
        for name in ("prompt_tokens", "completion_tokens"):
            assert ours.usage[name] == theirs.usage[name]


def plain(content: Any) -> str:
    """Return content's text; some servers send an array of parts where the SDK's type says string."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content)
    return content or ""


def of_sdk(found: Any, streamed: bool) -> Answer:
    if not streamed:
        answer = Answer()
        choice = found.choices[0].to_dict(warnings=False)
        message = choice.get("message") or {}
        answer.text, answer.finish = plain(message.get("content")), choice.get("finish_reason")
        for call in message.get("tool_calls") or ():
            if "custom" in call:
                answer.calls.append((call["custom"]["name"], call["custom"]["input"]))
            else:
                answer.calls.append((call["function"]["name"], loads(call["function"].get("arguments") or "")))
        answer.usage = found.usage.to_dict(warnings=False) if found.usage else None
        return answer
    dumped = [chunk.to_dict(warnings=False) for chunk in found]
    for chunk in dumped:
        chunk["choices"] = [c for c in chunk.get("choices") or () if c.get("delta") is not None]
        for choice in chunk["choices"]:
            choice.setdefault("index", 0)
            choice.setdefault("finish_reason", None)
            choice["delta"]["content"] = plain(choice["delta"].get("content"))
            for n, call in enumerate(choice["delta"].get("tool_calls") or ()):
                if call.get("index") is None:
                    call["index"] = n
    return Answer.stream(dumped)


def is_error(data: bytes) -> bool:
    """Tell whether a 200 is none: an error, or nothing that OpenAI's API ever sends."""
    return b'"error"' in data or b'"choices"' not in data


def check(name: str, exchange: dict[str, Any], validators: Any) -> None:
    provider = provider_for(name, exchange)
    body = exchange["request"]["body"]
    request = ChatRequest(
        {"model": "alias", "messages": [{"role": "user", "content": "x"}], "stream": bool(body.get("stream"))}
    )
    sent = provider.encode(request, Target(name, body.get("model") or "m", provider))
    data = reply_bytes(exchange)
    streamed = "sse" in exchange["response"]
    if streamed:
        chunks = decode_stream(provider.decoder(sent), [data])
        again = decode_stream(provider.decoder(sent), cut(data, exchange["id"]))
        assert [chunk.encode() for chunk in chunks] == [chunk.encode() for chunk in again]
        for chunk in chunks:
            validators[1].validate(orjson.loads(chunk.encode()))
        ours = Answer.stream([chunk.data for chunk in chunks])
        assert len({chunk.data["id"] for chunk in chunks}) == 1
    else:
        completion = provider.decode(200, {}, data, sent)
        validators[0].validate(orjson.loads(completion.encode()))
        ours = Answer.whole(completion.data)
    agree(ours, of_sdk(sdk_says(data, streamed), streamed))


@pytest.mark.parametrize(
    ("name", "one_in"),
    [
        ("azure", 1),
        ("openai", 10),
        ("openai-compat", 6),
        pytest.param("openai", 1, marks=pytest.mark.slow),
        pytest.param("openai-compat", 1, marks=pytest.mark.slow),
    ],
)
def test_recorded_exchanges_agree_with_the_vendors_sdk(
    name: str, one_in: int, recordings: Recordings, validators: Any
) -> None:
    """Text, calls, finish and usage are those that OpenAI's SDK reads; everything passes OpenAI's schemas."""
    done: collections.Counter[str] = collections.Counter()
    left_out: collections.Counter[str] = collections.Counter()
    problems: list[Any] = []
    for exchange in recordings.exchanges(name, one_in=one_in):
        if exchange["kind"] != "chat":
            left_out[f"{exchange['kind']}: another endpoint"] += 1
            continue
        status = exchange["response"]["status"]
        if status >= 400:
            error = provider_for(name, exchange).failure(status, exchange["response"]["headers"], reply_bytes(exchange))
            assert error.code in TABLE and error.status == _STATUS[status], exchange["id"]
            done["errors"] += 1
            continue
        data = reply_bytes(exchange)
        try:
            check(name, exchange, validators)
            done["streams" if "sse" in exchange["response"] else "wholes"] += 1
        except UpstreamError as problem:
            if not is_error(data):
                problems.append((exchange["id"], problem))
            done["errors inside a 200"] += 1
        except (AssertionError, LookupError, TypeError, jsonschema.ValidationError) as problem:
            problems.append((exchange["id"], f"{type(problem).__name__}: {str(problem)[:300]}"))
    print(f"\n{name} recordings, one in {one_in}: {dict(done)}; left out: {dict(left_out)}")
    assert not problems, "\n".join(map(str, problems))
    assert done["wholes"] and done["streams"]
