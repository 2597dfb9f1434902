"""The one way: order, one outcome, answers of policies, shadow mode."""

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


async def test_a_refusal_says_how_long_the_policies_took():
    """`server-timing` is on success and refusal alike."""
    async with inline(policies(("OfficeHours", {"team": "default", "start": 25, "end": 26}))) as side:
        response = await side.chat()
        assert response.status_code == 403
        policy, upstream = response.headers["server-timing"].split(", ")
        assert float(policy.removeprefix("policy;dur=")) >= 0.0 and upstream == "upstream;dur=0.0"


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


async def test_claims_may_come_from_a_generator():
    """A policy that yields its claims limits like one that returns them: the second call of a limit of one is refused."""
    async with inline(policies("Yields")) as side:
        assert [(await side.chat()).status_code for _ in range(2)] == [200, 429]


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
