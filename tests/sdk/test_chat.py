"""Chat through the official client: the same objects as from the provider itself, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.fakes.clients import openai_client
from tests.fakes.ledger import Ledger
from tests.fakes.sidecar import CLIENT_KEY, Sidecar

HI: Any = [{"role": "user", "content": "say something"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "looks things up",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        },
    }
    for name in ("weather", "traffic")
]


class Person(BaseModel):
    """What the structured-output tests ask for."""

    name: str
    age: int


PERSON = '{"name":"Zoë","age":36}'


def comparable(result: Any) -> Any:
    """Return a result as plain data, without what differs from call to call."""
    data = result.model_dump() if hasattr(result, "model_dump") else result

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: ("…" if key in ("id", "created", "model", "_request_id") else walk(value))
                for key, value in node.items()
            }
        return [walk(item) for item in node] if isinstance(node, list) else node

    return walk(data)


SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "two answers": {"n": 2},
    "parameters": {
        "temperature": 0.3,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["END"],
        "max_completion_tokens": 50,
        "user": "u1",
    },
    "parts": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is this"},
                    {"type": "image_url", "image_url": {"url": "https://img.invalid/a.png"}},
                ],
            }
        ]
    },
    "developer": {
        "messages": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "Grüß Gott 👋🏽"}]
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_whole_answer_is_the_provider_s_own(
    client: openai.OpenAI, direct: openai.OpenAI, shape: str, tag: str, ledger: Ledger
) -> None:
    """The client gets, field for field, what it would get without the sidecar."""
    ask: dict[str, Any] = {"model": f"gpt-4o;{tag}", "messages": HI, **SHAPES[shape]}
    ours, theirs = client.chat.completions.create(**ask), direct.chat.completions.create(**ask | {"model": "gpt-4o"})
    assert type(ours) is type(theirs)
    assert comparable(ours) == comparable(theirs)
    assert ours.model == ask["model"]
    ledger.check(1, upstream=1, outcome="completed")


@pytest.mark.parametrize("usage", [None, False, True])
def test_a_stream_is_the_provider_s_own(
    client: openai.OpenAI, direct: openai.OpenAI, usage: bool | None, tag: str, ledger: Ledger
) -> None:
    """Chunk for chunk the provider's stream; a usage chunk if and only if the caller asked for one."""
    ask: dict[str, Any] = {"model": f"gpt-4o;{tag};chunks=5", "messages": HI, "stream": True}
    if usage is not None:
        ask["stream_options"] = {"include_usage": usage}
    ours, theirs = (
        list(client.chat.completions.create(**ask)),
        list(direct.chat.completions.create(**ask | {"model": "gpt-4o;chunks=5"})),
    )
    # The usage chunk is ours: servers disagree on where usage stands, so it is made anew from what they said.
    for chunk in (*ours, *theirs):
        if not chunk.choices:
            chunk.service_tier = chunk.system_fingerprint = None
    assert comparable([chunk.model_dump() for chunk in ours]) == comparable([chunk.model_dump() for chunk in theirs])
    assert len([chunk for chunk in ours if chunk.usage]) == bool(usage)
    assert len({chunk.id for chunk in ours}) == 1
    (row,) = ledger.check(1, upstream=1, outcome="completed")
    assert row.booked == (9, 15) and not row.line["estimated"]


async def test_the_async_client_streams_too(aclient: openai.AsyncOpenAI, tag: str, ledger: Ledger) -> None:
    """AsyncOpenAI: whole, streamed with `async for`, and left early with `async with`."""
    whole = await aclient.chat.completions.create(model=f"gpt-4o;{tag}", messages=HI)
    assert whole.choices[0].message.content == " 000001 000002 000003"
    stream = await aclient.chat.completions.create(model=f"gpt-4o;{tag}", messages=HI, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == " 000001 000002 000003"
    async with await aclient.chat.completions.create(
        model=f"gpt-4o;{tag};chunks=1000;interval=0.01", messages=HI, stream=True
    ) as stream:
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
    rows = ledger.check(3, upstream=3, unread=9)
    assert [row.line["outcome"] for row in rows] == ["completed", "completed", "client_gone"]


def test_the_stream_helper_assembles_the_same(client: openai.OpenAI, tag: str) -> None:
    """`client.chat.completions.stream` sees every event and ends with the final completion."""
    with client.chat.completions.stream(
        model=f"gpt-4o;{tag}", messages=HI, stream_options={"include_usage": True}
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
    final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content == " 000001 000002 000003"
    assert final.usage is not None and final.usage.total_tokens == 18


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_arrive_whole(client: openai.OpenAI, stream: bool, tag: str, ledger: Ledger) -> None:
    """Two parallel tool calls, their arguments valid JSON, streamed in pieces or not."""
    ask: dict[str, Any] = {"model": f"gpt-4o;{tag};tools=2", "messages": HI, "tools": TOOLS}
    if stream:
        with client.chat.completions.stream(**ask) as events:
            done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
        result = events.get_final_completion()
        assert [event.name for event in done] == ["weather", "traffic"]
    else:
        result = client.chat.completions.create(**ask)
    choice = result.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.tool_calls is not None
    calls = [
        (call.id, call.function.name, json.loads(call.function.arguments))
        for call in choice.message.tool_calls
        if call.type == "function"
    ]
    assert [name for _, name, _ in calls] == ["weather", "traffic"]
    assert len({id for id, _, _ in calls}) == 2
    assert all(arguments == {"city": "Zürich 🏔", "days": 7} for _, _, arguments in calls)
    ledger.check(1, upstream=1, outcome="completed")


def test_a_tool_s_result_goes_back(client: openai.OpenAI, upstream: Any, tag: str) -> None:
    """The second turn, with the assistant's call and the tool's result, reaches the provider unchanged."""
    first = client.chat.completions.create(model=f"gpt-4o;{tag};tools=1", messages=HI, tools=TOOLS)
    call = first.choices[0].message.tool_calls[0]  # type: ignore[index]
    turn: Any = [
        *HI,
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "12 °C"},
    ]
    client.chat.completions.create(model=f"gpt-4o;{tag}", messages=turn, tools=TOOLS)
    sent = json.loads(upstream.calls(tag)[-1]["body"].encode("latin-1"))
    assert sent["messages"] == turn and sent["tools"] == TOOLS


@pytest.mark.parametrize("stream", [False, True])
def test_structured_output_is_parsed(client: openai.OpenAI, stream: bool, upstream: Any, tag: str) -> None:
    """`parse` sends the model's JSON schema on and gives back the typed object."""
    ask: dict[str, Any] = {"model": f"gpt-4o;{tag};text={PERSON}", "messages": HI, "response_format": Person}
    if stream:
        with client.chat.completions.stream(**ask) as events:
            result = events.get_final_completion()
    else:
        result = client.chat.completions.parse(**ask)
    assert result.choices[0].message.parsed == Person(name="Zoë", age=36)
    schema = json.loads(upstream.calls(tag)[-1]["body"])["response_format"]
    assert schema["type"] == "json_schema" and schema["json_schema"]["strict"] is True
    assert schema["json_schema"]["schema"]["required"] == ["name", "age"]


def test_structured_output_cut_by_length_raises(client: openai.OpenAI, tag: str) -> None:
    """The SDK's own error for an answer that hit the limit, as straight from OpenAI."""
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=f"gpt-4o;{tag};text={PERSON};finish=length", messages=HI, response_format=Person
        )


def test_a_refusal_is_a_refusal(client: openai.OpenAI, tag: str) -> None:
    """`message.refusal`, whole and streamed."""
    whole = client.chat.completions.create(model=f"gpt-4o;{tag};refusal", messages=HI)
    assert whole.choices[0].message.refusal == " 000001 000002 000003" and whole.choices[0].message.content is None
    stream = client.chat.completions.create(model=f"gpt-4o;{tag};refusal", messages=HI, stream=True)
    assert "".join(chunk.choices[0].delta.refusal or "" for chunk in stream) == " 000001 000002 000003"


def test_raw_responses_show_our_headers(client: openai.OpenAI, tag: str) -> None:
    """`with_raw_response` and `with_streaming_response`: request ids, provider, model, and the parsed object."""
    raw = client.chat.completions.with_raw_response.create(
        model=f"gpt-4o;{tag}", messages=HI, extra_headers={"x-request-id": "my-own_id-7"}
    )
    assert raw.headers["x-request-id"] == "my-own_id-7" == raw.request_id
    assert raw.headers["x-llm-provider"] == "openai"
    assert raw.headers["x-llm-model"] == f"gpt-4o;{tag}"
    assert raw.headers["x-llm-upstream-request-id"].startswith("up_")
    assert "policy;dur=" in raw.headers["server-timing"]
    assert raw.parse()._request_id == "my-own_id-7"
    with client.chat.completions.with_streaming_response.create(
        model=f"gpt-4o;{tag}", messages=HI, stream=True
    ) as streamed:
        assert streamed.headers["content-type"].startswith("text/event-stream")
        lines = list(streamed.iter_lines())
    assert lines[-2:] == ["data: [DONE]", ""]


def test_other_endpoints(client: openai.OpenAI, direct: openai.OpenAI, tag: str, ledger: Ledger) -> None:
    """Embeddings (floats and base64), legacy completions, and the model list."""
    ask: dict[str, Any] = {"model": f"emb;{tag}", "input": ["one", "two"]}
    assert comparable(client.embeddings.create(**ask)) == comparable(direct.embeddings.create(**ask | {"model": "emb"}))
    floats = client.embeddings.create(**ask, encoding_format="float", dimensions=3)
    assert [len(row.embedding) for row in floats.data] == [3, 3]
    legacy = client.completions.create(model=f"inst;{tag}", prompt="once upon a time", max_tokens=9)
    assert legacy.choices[0].text == " 000001 000002 000003"
    stream = client.completions.create(model=f"inst;{tag}", prompt="once upon a time", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == " 000001 000002 000003"
    ledger.check(4, upstream=4, outcome="completed")
    names = [model.id for model in client.models.list()]
    assert names and all(client.models.retrieve(name).id == name for name in names)


def test_embeddings_say_the_same_behind_another_wire(steady: Sidecar, tag: str) -> None:
    """Gemini's batch of embeddings comes back as OpenAI's list: the same vectors, in order, with usage."""
    ask: dict[str, Any] = {"input": ["one", "two words"], "dimensions": 3}
    with openai_client(steady.base_url, CLIENT_KEY) as client:
        first, second = (client.embeddings.create(model=f"{wire}/emb;{tag}", **ask) for wire in ("openai", "gemini"))
    # The SDK asks for base64, which holds 32 bits a number.
    for one, two in zip(first.data, second.data, strict=True):
        assert one.index == two.index and two.embedding == pytest.approx(one.embedding, rel=1e-6)
    assert second.usage.prompt_tokens == first.usage.prompt_tokens == 3


def test_azure_s_client(sidecar: Any, tag: str) -> None:
    """AzureOpenAI's paths and its `api-key` header lead to the same place."""
    with openai.AzureOpenAI(
        azure_endpoint=sidecar.url, api_key=CLIENT_KEY, api_version="2024-10-21", max_retries=0
    ) as azure:
        result = azure.chat.completions.create(model=f"gpt-4o;{tag}", messages=HI)
        assert result.choices[0].message.content == " 000001 000002 000003"
        stream = azure.chat.completions.create(model=f"gpt-4o;{tag}", messages=HI, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == " 000001 000002 000003"
        assert len(azure.embeddings.create(model=f"gpt-4o;{tag}", input="x").data) == 1


@pytest.mark.parametrize("said", ["absent", "null", "negative", "huge", "words"])
def test_usage_that_the_provider_does_not_say_is_an_estimate(
    client: openai.OpenAI, said: str, tag: str, ledger: Ledger
) -> None:
    """Asked for usage, a stream ends with one usage chunk whatever the provider said; so has a whole reply its usage."""
    ask: dict[str, Any] = {"model": f"gpt-4o;{tag};chunks=5;usage={said}", "messages": HI}
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    whole = client.chat.completions.create(**ask)
    silent = list(client.chat.completions.create(**ask, stream=True))
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert not any(chunk.usage for chunk in silent)
    assert len({(chunk.id, chunk.object, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    told = [usage.model_dump(exclude_none=True) for usage in (chunks[-1].usage, whole.usage) if usage is not None]
    rows = ledger.check(3, upstream=3, outcome="completed")
    assert all(row.line["estimated"] for row in rows)
    (prompt, completion) = {row.booked for row in rows}.pop()
    assert prompt > 0 < completion
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    assert told == [{**counts, "x_llm_estimated": True}] * 2
