"""A policy's mistakes are its own: what any hook raises or returns costs one call one outcome, and nothing else ends."""

import asyncio
import json

import pytest

from tests.core import plugins
from tests.core.inline import inline
from tests.core.test_pipeline import HERE, events, policies, said
from tests.fakes.scripted import Scripted, stream_of
from tests.fakes.scripted import events as stream_events


@pytest.fixture(autouse=True)
def _clean():
    plugins.EVENTS.clear()
    plugins.OUTCOMES.clear()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", ["request", "feed", "flush"])
async def test_a_policy_that_raises_refuses_its_call(where, stream):
    """Fail closed: 503 policy_unavailable (or an error frame), one line, and none of the exception's text anywhere."""
    async with inline(policies(("Breaks", {"where": where}))) as side:
        response = await side.chat("some words", stream=stream)
        if stream and where == "flush":
            frames = events(response.text)
            assert frames[-1]["error"]["code"] == "policy_unavailable"
            assert "[DONE]" not in response.text
        else:
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "policy_unavailable"
            assert "retry-after" in response.headers
        (line,) = await side.lines()
        assert (line["outcome"], line["code"]) == ("fault", "policy_unavailable")
        (failed,) = await side.lines("policy_failed")
        assert failed["error"] == "RuntimeError"
        assert "secret text" not in response.text + json.dumps(failed) + json.dumps(line)


#: Every hook, with everything that it may raise or return and should not.
MISDEEDS = [
    *((where, how) for where in ("request", "claims", "admitted", "refusal", "source", "reply", "feed", "flush")
      for how in ("cancelled", "exit", "interrupt", "closed", "lost")),
    ("request", "number"), ("request", "bad status"), ("claims", "number"), ("claims", "words"), ("source", "number"),
    ("answer", "number"), ("answer", "none"), ("refusal", "number"),
    ("feed", "none"), ("feed", "number"), ("flush", "none"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "how"), MISDEEDS)
async def test_whatever_a_policy_does_is_its_own_fault(where, how):
    """A stray cancel, an exit, a result of the wrong kind: 503 policy_unavailable, one outcome, one line, and life goes on."""
    async with inline(policies(("Marker", {"mark": "x"}), ("Misbehaves", {"where": where, "how": how}))) as side:
        for stream in (False, True):
            response = await side.chat("some words", stream=stream)
            error = events(response.text)[-1] if response.status_code == 200 else response.json()
            assert error["error"]["code"] == "policy_unavailable", response.text
            assert "[DONE]" not in response.text
        assert [line["outcome"] for line in await side.lines()] == ["fault", "fault"]
        assert plugins.EVENTS.count("end x fault") == 2
        assert len(plugins.OUTCOMES) == 4  # two of each call's
        assert len(await side.lines("policy_failed")) == 2
        assert side.side.in_flight == 0
        assert not side.side.calls


@pytest.mark.parametrize("how", ["cancelled", "exit", "interrupt", "closed", "lost", "number", "words"])
async def test_a_filter_that_fails_at_a_word_ends_the_stream(how):
    """What a filter makes of a word goes on; raising, or a result of the wrong kind, is an error frame and its fault."""

    async def words(seen):
        for event in stream_events(seen, chunks=6):
            yield event.data
            await asyncio.sleep(0.01)  # each is a read of its own

    async with Scripted(lambda seen: stream_of(seen, words(seen))) as provider:
        entry = f"{{kind: openai, base_url: {provider.url}/v1, api_key: key}}"
        config = f"default_provider: fake\nproviders: {{fake: {entry}}}\n"
        async with inline(config + policies(("Hears", {"where": "hear", "how": how}))) as side:
            response = await side.chat("some words", stream=True)
            *told, last = events(response.text)
            assert last["error"]["code"] == "policy_unavailable" and "[DONE]" not in response.text
            assert [row["choices"][0]["delta"]["content"] for row in told] == ["", " 000001", " 000002!"]
            (line,) = await side.lines()
            assert (line["outcome"], line["code"]) == ("fault", "policy_unavailable")
            assert len(await side.lines("policy_failed")) == 1


@pytest.mark.parametrize(
    ("where", "how"),
    [pair for pair in MISDEEDS if pair[0] not in ("source", "answer", "refusal") and pair[1] != "bad status"],
)
async def test_in_shadow_mode_a_fault_is_no_refusal(where, how):
    """A policy with `enforce: false` that fails in any hook is counted and logged; the call passes, and is answered."""
    settings = {"where": where, "how": how, "enforce": False}
    async with inline(policies(("Misbehaves", settings), ("Marker", {"mark": "x"}))) as side:
        for stream in (False, True):
            assert said(await side.chat("word", stream=stream)) == "wordx"
        assert [line["outcome"] for line in await side.lines()] == ["completed", "completed"]
        assert {row["policy"] for row in await side.lines("policy_failed")} == {f"{HERE}:Misbehaves"}


@pytest.mark.parametrize("how", ["cancelled", "exit"])
async def test_a_finisher_stops_neither_the_others_nor_the_sidecar(how):
    """A finisher that raises what is no Exception is counted; the line is written and the others run."""
    async with inline(policies(("Marker", {"mark": "x"}), ("Misbehaves", {"where": "defer", "how": how}))) as side:
        assert (await side.chat()).status_code == 200
        assert plugins.EVENTS[-1] == "end x completed"
        assert [line["outcome"] for line in await side.lines()] == ["completed"]
        assert side.side.runtime.metrics.finisher_errors.values[()] == 1


@pytest.mark.parametrize("refuse", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_headers_that_are_none_cost_no_outcome(refuse, stream):
    """A policy's header of another type goes out as text or not at all; the call is answered and has its one outcome."""
    async with inline(policies(("Header", {"refuse": refuse}))) as side:
        response = await side.chat(stream=stream)
        assert response.status_code == (403 if refuse else 200)
        assert (response.headers["x-number"], response.headers["x-good"], response.headers["x-list"]) == (
            "5",
            "yes",
            "too",
        )
        if refuse:
            assert response.headers["x-count"] == "3"
            assert response.json()["error"]["message"] == "no ? text"
        assert [outcome.end for outcome in plugins.OUTCOMES] == ["refused" if refuse else "completed"]
        assert len(await side.lines()) == 1


@pytest.mark.parametrize("how", ["exit", "error", "hangs"])
async def test_background_work_and_closing_end_nothing_but_themselves(how, monkeypatch):
    """Work in the background or an `aclose` that exits, raises or hangs is logged; the sidecar serves, and stops in time."""
    monkeypatch.setattr("proxy.runtime._LONGEST_CLOSE", 0.1)
    async with inline(policies(("Leaves", {"how": how}), ("Marker", {}))) as side:
        for _ in range(2):
            assert (await side.chat()).status_code == 200
        assert len(await side.lines("background_work_failed")) == (0 if how == "hangs" else 2)
        began = asyncio.get_running_loop().time()
        await side.side.runtime.aclose()
        assert asyncio.get_running_loop().time() - began < 2
        assert len(await side.lines("policy_not_closed")) == 1
        await side.side.runtime.shared.background.aclose(0.1)


async def test_a_cancel_that_a_watching_policy_turns_into_a_failure_still_ends_the_call():
    """At shutdown no call goes on upstream because a policy with `enforce: false` made an error of its cancel."""
    async with inline(policies(("Turns", {"enforce": False}))) as side:
        asked = asyncio.ensure_future(side.chat())
        while not plugins.EVENTS:
            await asyncio.sleep(0.01)
        (call,) = side.side.calls
        call.leave("shutdown")
        assert (await asked).json()["error"]["code"] == "overloaded"
        (line,) = await side.lines()
        assert (line["outcome"], line["provider"]) == ("shutdown", None)


async def test_a_source_that_exits_when_it_is_closed_ends_nothing_else():
    """`sys.exit()` in the `finally` of a policy's generator does not end the process."""
    async with inline(policies("RefusesReply", "ExitsClosed")) as side:
        for _ in range(2):
            assert "bad_word" in (await side.chat(stream=True)).text
        assert plugins.EVENTS == ["closed", "closed"]


async def test_a_policy_that_exits_when_it_is_asked_about_itself_ends_nothing_else():
    """`sys.exit()` in `describe` or `counters` costs the operator that one answer; the sidecar serves on."""
    async with inline(policies("ExitsAsked")) as side:
        rows = (await side.client.get("/admin/policies")).json()["policies"]
        assert rows[0]["settings"] == {"error": "`describe` raised SystemExit"}
        assert (await side.client.get("/v1/usage")).json()["error"]["code"] == "internal_error"
        assert (await side.chat()).status_code == 200


async def test_a_finisher_that_raises_is_counted_and_the_rest_run():
    """Exceptions in finishers do not reach the client and do not stop the other finishers."""
    async with inline(policies(("Marker", {"mark": "x"}), ("Breaks", {"where": "defer"}))) as side:
        assert (await side.chat()).status_code == 200
        assert "end x completed" in plugins.EVENTS
        assert side.side.runtime.metrics.finisher_errors.values[()] == 1
