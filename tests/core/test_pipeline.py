"""The one way: order, one outcome, answers of policies, faults, shadow mode."""

import asyncio
import json

import httpx2
import pytest

from proxy.ticker import Watched, ticker
from tests.core import plugins
from tests.core.inline import inline

HERE = "tests.core.plugins"


@pytest.fixture(autouse=True)
def _clean():
    plugins.EVENTS.clear()
    plugins.OUTCOMES.clear()


def policies(*rows):
    """Return the policies section for rows of (class, settings)."""
    listed = []
    for row in rows:
        name, settings = row if isinstance(row, tuple) else (row, {})
        listed.append({f"{HERE}:{name}": settings})
    return "policies: " + json.dumps(listed) + "\n"


def events(text):
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def said(response):
    """Return the text of a reply in either form."""
    if "event-stream" in response.headers["content-type"]:
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in events(response.text) if c["choices"])
    return response.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_go_down_and_replies_come_up(stream):
    """Policies are asked top to bottom, filters run bottom to top, finishers last in first out, one outcome."""
    async with inline(policies(("Marker", {"mark": "a"}), ("Below", {"mark": "b"}))) as side:
        response = await side.chat("word", stream=stream)
        assert said(response) == "wordba"
        assert plugins.EVENTS == [
            "request a", "request b", "flush b", "flush a", "end b completed", "end a completed",
        ]  # fmt: skip
        assert len(plugins.OUTCOMES) == 2
        assert plugins.OUTCOMES[0] is plugins.OUTCOMES[1]
        assert len(await side.lines()) == 1


@pytest.mark.parametrize("chunks", [2, 12])
async def test_what_a_filter_holds_back_comes_behind_the_head(upstream, chunks):
    """A filter may swallow the first reads of a stream: the head still comes first, and the first token's time is told."""
    provider = (
        f"default_provider: fake\nproviders:\n  fake: {{kind: openai, base_url: {upstream.base()}, api_key: key}}\n"
    )
    async with inline(provider + policies("HoldsBack")) as side:
        response = await side.chat(stream=True, model=f"gpt-4o;chunks={chunks};interval=0.02;omit=role")
        assert response.headers["content-type"].startswith("text/event-stream")
        assert len(said(response).split()) == chunks
        line = (await side.lines())[0]
        assert 0 < line["ttft_ms"] <= line["duration_ms"]
        assert side.side.runtime.metrics.first_token.row()[-1] > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_policy_may_answer_from_an_asynchronous_source(stream):
    """A Reply with an async source serves whole and streamed callers; filters above it run on it, nothing is billed."""
    async with inline(policies(("Marker", {"mark": "!"}), "Answers", ("Below", {"mark": "below"}))) as side:
        response = await side.chat("word", stream=stream)
        assert response.headers["x-own"] == "yes"
        assert said(response) == ("one !two!" if stream else "one two!")
        assert "request below" not in plugins.EVENTS
        (line,) = await side.lines()
        assert (line["outcome"], line["prompt_tokens"], line["completion_tokens"]) == ("completed", 0, 0)


async def test_office_hours():
    """The complete example of a user's policy: loaded by dotted path, it refuses with its own code."""
    team = {"team": "default", "start": 25, "end": 26}
    async with inline(policies(("OfficeHours", team))) as side:
        response = await side.chat()
        assert response.status_code == 403
        assert response.json()["error"]["code"] == "outside_office_hours"
        assert response.json()["error"]["message"] == "Open 25:00-26:00 UTC."
        (line,) = await side.lines()
        assert (line["outcome"], line["code"]) == ("refused", "outside_office_hours")
    async with inline(policies(("OfficeHours", {"team": "interns", "start": 25, "end": 26}))) as side:
        assert (await side.chat()).status_code == 200


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


async def test_a_deadline_whose_action_fails_stops_no_other():
    """One clock hand watches every deadline of the process: what one of them raises must not stop it."""
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context["exception"])))

    class Fails(Watched):
        def expired(self) -> None:
            raise RuntimeError("broken")

    class Works(Watched):
        def expired(self) -> None:
            told.append("works")

    items = [Fails(), Works(), Fails()]
    for item in items:
        item.deadline = 0.0
        ticker().watch(item)
    later = Works()
    ticker().watch(later)
    await asyncio.sleep(0.15)
    later.deadline = 0.0
    await asyncio.sleep(0.15)
    assert sorted(told) == ["broken", "broken", "works", "works"]


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


async def test_no_policy_is_asked_once_the_client_has_left():
    """A policy that swallows its cancel keeps nobody alive: those below are not asked, nothing goes upstream."""
    async with inline(policies("Swallows", ("Marker", {"mark": "below"}))) as side:
        with pytest.raises(httpx2.ReadTimeout):
            await side.client.post(
                "/v1/chat/completions",
                json={"model": "m", "messages": [{"role": "user", "content": "hi"}]},
                timeout=httpx2.Timeout(10, read=0.2),
            )
        (line,) = await side.lines()
        assert (line["outcome"], line["provider"]) == ("client_gone", None)
        assert plugins.EVENTS == ["waits", "swallowed"]


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


async def test_claims_may_come_from_a_generator():
    """A policy that yields its claims limits like one that returns them: the second call of a limit of one is refused."""
    async with inline(policies("Yields")) as side:
        assert [(await side.chat()).status_code for _ in range(2)] == [200, 429]


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


async def test_a_reply_that_its_filters_take_away_is_the_policys_doing(upstream):
    """A filter that lets nothing through refuses the reply; the provider is not blamed, and its breaker counts nothing."""
    provider = (
        f"default_provider: fake\nproviders:\n  fake: {{kind: openai, base_url: {upstream.base()}, api_key: key}}\n"
    )
    async with inline(provider + policies("DropsAll")) as side:
        response = await side.chat(model="gpt-4o")
        assert (response.status_code, response.json()["error"]["code"]) == (400, "content_policy_violation")
        (line,) = await side.lines()
        assert line["outcome"] == "refused"
        assert side.side.runtime.providers["fake"].last_error is None


async def test_a_finisher_that_raises_is_counted_and_the_rest_run():
    """Exceptions in finishers do not reach the client and do not stop the other finishers."""
    async with inline(policies(("Marker", {"mark": "x"}), ("Breaks", {"where": "defer"}))) as side:
        assert (await side.chat()).status_code == 200
        assert "end x completed" in plugins.EVENTS
        assert side.side.runtime.metrics.finisher_errors.values[()] == 1


async def test_a_reply_refused_in_mid_stream_ends_with_an_error_frame():
    """After the first byte a refusal is one error frame and no [DONE]; before it, a status."""
    async with inline(policies("RefusesReply")) as side:
        response = await side.chat("good good bad word", stream=True)
        assert response.status_code == 200 or response.status_code == 400
        assert "bad_word" in response.text
        assert "[DONE]" not in response.text
        whole = await side.chat("good bad", stream=False)
        assert (whole.status_code, whole.json()["error"]["code"]) == (400, "bad_word")
        assert [line["outcome"] for line in await side.lines()] == ["refused", "refused"]


async def test_policies_may_strike_targets():
    """The route is planned before the policies; what they strike is not tried."""
    config = "providers: {one: {kind: echo}, two: {kind: echo}}\nmodels: {m: [one/a, two/b]}\ndefault_provider: one\n"
    async with inline(config + policies("Strikes")) as side:
        response = await side.chat()
        assert response.headers["x-llm-provider"] == "two"
        assert response.headers["x-llm-model"] == "b"


@pytest.mark.parametrize("name", ["OfficeHours", "Impostor", "RefusesReply", "Answers"])
async def test_shadow_mode_changes_nothing(name):
    """`enforce: false` decides, counts and logs; it never refuses, answers or changes, whatever the policy does."""
    settings = {"team": "default", "start": 25} if name == "OfficeHours" else {}
    async with inline(policies((name, {**settings, "enforce": False}))) as side:
        response = await side.chat("original bad")
        assert response.status_code == 200
        assert said(response) == "original bad"
        decisions = {key[1] for key in side.side.runtime.metrics.decisions.values}
        if name in ("OfficeHours", "RefusesReply"):
            assert "shadow_refuse" in decisions


async def test_explain_header_names_what_each_policy_did():
    """With llm:manage, `x-llm-explain: 1` lists the decisions in running order."""
    async with inline(policies(("Marker", {"mark": "a"}), ("OfficeHours", {"team": "x"}))) as side:
        response = await side.client.post(
            "/v1/chat/completions",
            json={"model": "m", "messages": [{"role": "user", "content": "hi"}]},
            headers={"x-llm-explain": "1"},
        )
        assert response.headers["x-llm-policies"] == f"{HERE}:Marker=pass, {HERE}:OfficeHours=pass"
