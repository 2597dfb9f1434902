"""What a policy gives back is looked at before it is sent: what cannot be sent is that policy's fault, under its name."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from proxy.providers.base import StreamDecoder
from proxy.providers.openai_stream import OpenAIDecoder
from tests.core import odd
from tests.core.inline import inline
from tests.core.test_pipeline import events, said
from tests.fakes.scripted import Scripted, stream_of
from tests.fakes.scripted import events as stream_events

HERE = "tests.core.odd"


def policies(*rows):
    return "policies: " + json.dumps([{f"{HERE}:{name}": settings} for name, settings in rows]) + "\n"


async def blamed(side, name):
    """Assert that a call, whole or streamed, ends in policy ``name``'s fault: no 200, no `[DONE]`, counted and logged."""
    ids = []
    for stream in (False, True):
        response = await side.chat("some words", stream=stream)
        ids.append(response.headers["x-request-id"])
        error = events(response.text)[-1] if stream and response.status_code == 200 else response.json()
        assert error["error"]["code"] == "policy_unavailable", response.text
        assert response.status_code == 503 or stream
        assert "[DONE]" not in response.text
    for event in ("policy_failed", "llm_request_completed"):
        rows = await side.lines(event)
        assert [row["request_id"] for row in rows] == ids, rows
        assert {row["policy"] for row in rows} == {f"{HERE}:{name}"}
        assert {row.get("outcome", "fault") for row in rows} == {"fault"}
    assert side.side.runtime.metrics.decisions.values[(f"{HERE}:{name}", "fail")] == 2
    assert not side.side.calls


@pytest.mark.parametrize(
    ("where", "what"),
    [
        (where, what)
        for where in ("feed", "flush", "answer")
        for what in odd.NO_CHUNKS
        if (where, what) != ("answer", "list")
    ],
)
async def test_what_is_no_chunk_is_its_policys_fault(where, what):
    """A filter or an answer that gives what cannot be sent ends in 503 policy_unavailable; nothing of it gets out."""
    gives = {f"{HERE}:Gives": {"where": where, "what": what}}
    for listed in ([gives], ["redact", gives]):  # alone, and below a filter of our own, which would stumble over it
        async with inline(f"policies: {json.dumps(listed)}\n") as side:
            await blamed(side, "Gives")


@pytest.mark.parametrize("where", ["feed", "flush"])
async def test_in_shadow_mode_what_is_no_chunk_is_counted(where):
    """With `enforce: false` the call is answered, and the policy counted as one that failed."""
    async with inline(policies(("Gives", {"where": where, "what": "text", "enforce": False}))) as side:
        assert said(await side.chat("some words")) == said(await side.chat("some words", stream=True)) == "some words"
        assert side.side.runtime.metrics.decisions.values[(f"{HERE}:Gives", "fail")] == 2


@pytest.mark.parametrize(
    ("where", "status"),
    [
        *(("request", status) for status in (*odd.STATUSES, "number")),
        *((where, status) for where in ("request", "claims", "source", "reply", "feed", "flush")
          for status in ("1000", "halved", "assigned", "headers")),
    ],
)  # fmt: skip
async def test_a_refusal_that_is_none_is_its_policys_fault(where, status):
    """A refusal whose status is not one from 400 to 599, or that is only half made, is a 503 policy_unavailable."""
    async with inline(policies(("Refuses", {"where": where, "status": status}))) as side:
        await blamed(side, "Refuses")


@pytest.mark.parametrize("above", [[], ["redact"], ["redact", "cache"]])
async def test_what_a_filter_adds_behind_the_answer_is_in_a_whole_reply_too(above):
    """A chunk more than the answer had reaches the client in either form; one that fits to nothing is a fault."""
    async with inline(f"policies: {json.dumps([*above, f'{HERE}:Adds'])}\n") as side:
        for stream in (False, False, True):
            assert said(await side.chat("some words", stream=stream)) == "some words and more"
        whole = (await side.chat("some words")).json()
        assert (whole["object"], whole["choices"][0]["finish_reason"]) == ("chat.completion", "stop")
        assert whole["usage"]["total_tokens"] > 0
    async with inline(policies(("Adds", {"odd": True}))) as side:
        error = (await side.chat("some words")).json()["error"]
        assert error["code"] == "policy_unavailable"
        assert [row["policy"] for row in await side.lines("policy_failed")] == [f"{HERE}:Adds"]


@asynccontextmanager
async def word_by_word(config):
    """A sidecar before an OpenAI-compatible server whose every word is a read of its own."""

    async def words(seen):
        for event in stream_events(seen, chunks=6):
            yield event.data
            await asyncio.sleep(0.01)

    async with Scripted(lambda seen: stream_of(seen, words(seen))) as provider:
        entry = f"{{kind: openai, base_url: {provider.url}/v1, api_key: key}}"
        async with inline(f"default_provider: fake\nproviders: {{fake: {entry}}}\n{config}") as side:
            yield side


@pytest.mark.parametrize("made", ["subclass", "wrapper", "instance"])
async def test_a_filter_whose_feed_is_its_own_is_fed_every_word(made):
    """A `feed` of its own is never passed by through the `hear` that was made for another."""
    async with word_by_word(policies(("Loud", {"made": made}))) as side:
        text = said(await side.chat("some words", stream=True))
        assert "X" in text and "0" not in text


async def test_a_word_that_is_no_unicode_is_its_filters_fault():
    """A filter that makes a lone surrogate of a word ends the stream as its own fault."""
    async with word_by_word(policies(("Surrogate", {}))) as side:
        last = events((await side.chat("some words", stream=True)).text)[-1]
        assert last["error"]["code"] == "policy_unavailable"
        assert [row["policy"] for row in await side.lines("policy_failed")] == [f"{HERE}:Surrogate"]


def test_a_decoder_whose_feed_is_its_own_is_fed_every_event():
    """A translator's decoder made of ours that changes `feed` alone has no `lone` that would pass it by."""

    class Own(OpenAIDecoder):
        def feed(self, event, data):
            return super().feed(event, data)

    class Both(OpenAIDecoder):
        def feed(self, event, data):
            return super().feed(event, data)

        def lone(self, data, usage):
            return super().lone(data, usage)

    class Neither(OpenAIDecoder):
        pass

    assert Own.lone is StreamDecoder.lone
    assert Both.lone is not StreamDecoder.lone
    assert Neither.lone is OpenAIDecoder.lone


def test_a_decoder_with_half_of_the_quick_way_does_not_load():
    """`lone` without `around` is an error where the class is made, not in the first stream that a filter changes."""
    with pytest.raises(TypeError, match="`lone` and no `around`"):

        class Half(StreamDecoder):
            def lone(self, data, usage):
                return "x", data
