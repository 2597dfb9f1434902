"""The async client: what its sync twin gets, and the same class for each error."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from tests.fakes.clients import async_openai_client
from tests.fakes.ledger import Ledger
from tests.fakes.sidecar import CLIENT_KEY, Sidecar
from tests.sdk.conftest import LEAVER_KEY, VIEWER_KEY
from tests.sdk.test_chat import HI, PERSON, TOOLS, Person
from tests.sdk.test_errors import ABSENT, BAD_BODIES, UPSTREAM, WHOLE_ONLY, check


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("spec", "raised", "status", "code"), UPSTREAM)
async def test_the_provider_s_errors(
    steady: Sidecar, tag: str, spec: str, raised: type[openai.APIStatusError], status: int, code: str, stream: bool
) -> None:
    """Whatever goes wrong upstream before the first byte raises the class that its status says."""
    if stream and spec in WHOLE_ONLY:
        return
    async with async_openai_client(steady.base_url, CLIENT_KEY) as client:
        with pytest.raises(raised) as caught:
            await client.chat.completions.create(model=f"gpt-4o;{tag};{spec}", messages=HI, stream=stream)
    assert type(caught.value) is raised
    check(caught.value, status, code)


@pytest.mark.parametrize("kind", ABSENT)
async def test_a_provider_that_is_not_there(hasty: Sidecar, kind: str) -> None:
    """Nobody listens, a reset on accept, a full queue, and silence: 502 or 504."""
    async with async_openai_client(hasty.base_url, CLIENT_KEY) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model=f"{kind}/any", messages=HI)
    check(caught.value, *ABSENT[kind])


@pytest.mark.parametrize(("fields", "param"), BAD_BODIES)
async def test_malformed_requests(strict: Sidecar, fields: dict[str, Any], param: str) -> None:
    """400 `invalid_request`, naming the parameter."""
    async with async_openai_client(strict.base_url, CLIENT_KEY) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.post("/chat/completions", body={"model": "gpt-4o", "messages": HI, **fields}, cast_to=object)
    check(caught.value, 400, "invalid_request", "invalid_request_error")
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("key", "model", "raised", "status", "code"),
    [
        ("sk-nobody", "gpt-4o", openai.AuthenticationError, 401, "invalid_api_key"),
        (VIEWER_KEY, "gpt-4o", openai.PermissionDeniedError, 403, "permission_denied"),
        (LEAVER_KEY, "gpt-4o", openai.PermissionDeniedError, 403, "opted_out"),
        (CLIENT_KEY, "no-such-model", openai.NotFoundError, 404, "model_not_found"),
        (CLIENT_KEY, "slow-1", openai.PermissionDeniedError, 403, "model_not_allowed"),
    ],
)
async def test_refusals(
    strict: Sidecar, key: str, model: str, raised: type[openai.APIStatusError], status: int, code: str
) -> None:
    """What the sidecar refuses raises the class that its status says."""
    async with async_openai_client(strict.base_url, key) as client:
        with pytest.raises(raised) as caught:
            await client.chat.completions.create(model=model, messages=HI)
    check(caught.value, status, code)


async def test_an_error_inside_the_stream(aclient: openai.AsyncOpenAI, tag: str, ledger: Ledger) -> None:
    """After the first byte APIError comes from the error frame, behind what was delivered."""
    seen = []
    with pytest.raises(openai.APIError) as caught:
        stream = await aclient.chat.completions.create(model=f"gpt-4o;{tag};chunks=9;error=2", messages=HI, stream=True)
        async for chunk in stream:
            seen.append(chunk.choices[0].delta.content)
    assert seen == ["", " 000001", " 000002"] and caught.value.code == "upstream_error"
    ledger.check(1, upstream=1, outcome="upstream_error")


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_and_structured_output(aclient: openai.AsyncOpenAI, stream: bool, tag: str) -> None:
    """Parallel tool calls with valid arguments, and the typed object, whole and from the stream helper."""
    tools: dict[str, Any] = {"model": f"gpt-4o;{tag};tools=2", "messages": HI, "tools": TOOLS}
    typed: dict[str, Any] = {"model": f"gpt-4o;{tag};text={PERSON}", "messages": HI, "response_format": Person}
    if stream:
        async with aclient.chat.completions.stream(**tools) as events:
            called = await events.get_final_completion()
        async with aclient.chat.completions.stream(**typed) as events:
            parsed = await events.get_final_completion()
    else:
        called = await aclient.chat.completions.create(**tools)
        parsed = await aclient.chat.completions.parse(**typed)
    calls = called.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls if call.type == "function"] == ["weather", "traffic"]
    assert all(
        json.loads(c.function.arguments) == {"city": "Zürich 🏔", "days": 7} for c in calls if c.type == "function"
    )
    assert parsed.choices[0].message.parsed == Person(name="Zoë", age=36)


async def test_raw_responses_show_our_headers(aclient: openai.AsyncOpenAI, tag: str) -> None:
    """`with_raw_response` and `with_streaming_response`: the head, and the parsed object or the lines."""
    raw = await aclient.chat.completions.with_raw_response.create(
        model=f"gpt-4o;{tag}", messages=HI, extra_headers={"x-request-id": "my-own_id-8"}
    )
    assert raw.headers["x-request-id"] == "my-own_id-8" == raw.request_id
    assert raw.headers["x-llm-provider"] == "openai" and "policy;dur=" in raw.headers["server-timing"]
    assert raw.parse()._request_id == "my-own_id-8"
    async with aclient.chat.completions.with_streaming_response.create(
        model=f"gpt-4o;{tag}", messages=HI, stream=True
    ) as streamed:
        assert streamed.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in streamed.iter_lines()]
    assert lines[-2:] == ["data: [DONE]", ""]


async def test_many_at_once_keep_apart(aclient: openai.AsyncOpenAI, tag: str, ledger: Ledger) -> None:
    """Forty calls at once on one client, half of them streams: each gets its own answer."""

    async def ask(n: int) -> str:
        model = f"gpt-4o;{tag};n{n};text=answer {n} of forty"
        if n % 2:
            result = await aclient.chat.completions.create(model=model, messages=HI)
            return str(result.choices[0].message.content)
        stream = await aclient.chat.completions.create(model=model, messages=HI, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert await asyncio.gather(*map(ask, range(40))) == [f"answer {n} of forty" for n in range(40)]
    ledger.check(40, upstream=40, outcome="completed", spare_fds=44)  # the client keeps its connections
