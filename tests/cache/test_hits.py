"""Hits, misses and what is never kept, through a running sidecar."""

from __future__ import annotations

import asyncio
import json
import math

import pytest

from proxy.config.load import ConfigError, load_text
from tests.cache.conftest import BELOW, REWRITES, STRIKES, TRIPS, events, policies, said
from tests.fakes.clients import async_openai_client
from tests.policies.build import ECHO
from tests.policies.build import kit as make_kit

CACHE = {"cache": {}}


async def ask(side, model, text="x", headers=None, **more):
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return await side.client.post("/v1/chat/completions", json=body, headers=headers)


def result(response):
    return response.headers.get("x-llm-cache")


# --- hits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [False, True])
async def test_one_entry_serves_both_forms(serve, behind, first):
    """What was asked for whole is served as a stream, and the other way; the usage shown is the original's."""
    async with serve(policies("cache")) as side:
        model = behind.model("chunks=5")
        miss = await ask(side, model, stream=first)
        whole = await ask(side, model)
        stream = await ask(side, model, stream=True, stream_options={"include_usage": True})
        assert [result(r) for r in (miss, whole, stream)] == ["miss", "hit", "hit"]
        assert said(miss) == said(whole) == said(stream)
        usage = whole.json()["usage"]
        assert [usage["prompt_tokens"], usage["completion_tokens"]] == behind.calls()[0]["usage"]
        assert events(stream.text)[-1]["usage"] == usage
        assert events(stream.text)[-1]["choices"] == []
        assert whole.headers["x-llm-provider"] == "openai" and whole.headers["x-llm-model"] == model
        assert behind.count() == 1
        if not first:
            assert whole.content == miss.content


async def test_a_hit_costs_nothing_and_says_so(serve, behind):
    """Zero tokens in the log line, the metrics and the quota; `stored` on the miss, `cache` on both."""
    async with serve(policies({"quota": {"tokens": 1_000_000}}, "cache")) as side:
        model = behind.model()
        for _ in range(3):
            last = await ask(side, model)
        rows = await side.lines()
        assert [(row["cache"], row["stored"]) for row in rows] == [("miss", True), ("hit", False), ("hit", False)]
        assert [row["prompt_tokens"] + row["completion_tokens"] for row in rows][1:] == [0, 0]
        assert last.headers["age"].isdigit()
        metrics = side.side.runtime.metrics
        assert metrics.cache_requests.values == {("miss",): 1, ("hit",): 2}
        assert metrics.cache_hit_ratio.read()[0][1] == pytest.approx(2 / 3)
        assert sum(metrics.tokens.values.values()) == rows[0]["prompt_tokens"] + rows[0]["completion_tokens"]
        text = (await side.client.get("/metrics")).text
        assert 'llm_cache_requests_total{result="hit"} 2.0' in text
        used = last.headers["x-quota-remaining-tokens"]
        assert int(used) > 1_000_000 - 100 - 4096 - 100


async def test_a_spent_team_gets_402_where_a_hit_lies_ready(serve, behind):
    """With `quota` above `cache` the quota is asked first; with `cache` above it a hit needs none."""
    for above in (True, False):
        rows = [{"quota": {"tokens": 60, "default_max_tokens": 50}}, "cache"]
        async with serve(policies(*(rows if above else rows[::-1]))) as side:
            model = behind.model("usage=30+20")
            assert (await ask(side, model, str(above))).status_code == 200
            assert (await ask(side, model, str(above))).status_code == (402 if above else 200)


async def test_tool_calls_reasoning_and_completions(serve, behind):
    """Tool calls and /v1/completions are kept and replayed in both forms."""
    async with serve(policies("cache")) as side:
        tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
        model = behind.model("tools=2")
        miss = await ask(side, model, tools=tools)
        hit = await ask(side, model, tools=tools, stream=True)
        assert result(hit) == "hit"
        calls = [c["function"] for c in miss.json()["choices"][0]["message"]["tool_calls"]]
        deltas = [d for e in events(hit.text) for c in e["choices"] for d in c["delta"].get("tool_calls") or ()]
        assert [d["function"] for d in deltas] == calls and [d["index"] for d in deltas] == [0, 1]
        body = {"model": behind.model(), "prompt": "once upon"}
        miss = await side.client.post("/v1/completions", json=body)
        hit = await side.client.post("/v1/completions", json={**body, "stream": True})
        assert (result(miss), result(hit)) == ("miss", "hit")
        assert "".join(e["choices"][0]["text"] for e in events(hit.text)) == miss.json()["choices"][0]["text"]


async def test_embeddings_are_cached(serve, behind):
    """The same input is one upstream call; the bytes are the same; another form of encoding is another entry."""
    async with serve(policies("cache")) as side:
        body = {"model": behind.model(), "input": ["a", "b"]}
        answers = [await side.client.post("/v1/embeddings", json=body) for _ in range(2)]
        assert [result(a) for a in answers] == ["miss", "hit"]
        assert answers[0].content == answers[1].content
        other = await side.client.post("/v1/embeddings", json={**body, "input": ["a", "c"]})
        assert result(other) == "miss"
        assert behind.count() == 2


async def test_the_official_client_cannot_tell(serve, behind):
    """OpenAI's own client reads replayed streams, calls and usage like the upstream's."""
    async with serve(policies("cache")) as side:
        async with async_openai_client(f"{side.client.base_url}/v1") as client:
            model, seen = behind.model("chunks=4"), []
            for stream in (False, True, True):
                answer = await client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": "x"}], stream=stream,
                    **({"stream_options": {"include_usage": True}} if stream else {}),
                )  # fmt: skip
                if stream:
                    chunks = [chunk async for chunk in answer]
                    seen.append(
                        (
                            "".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
                            chunks[-1].usage.total_tokens,
                        )
                    )
                else:
                    seen.append((answer.choices[0].message.content, answer.usage.total_tokens))
        assert len(set(seen)) == 1
        assert behind.count() == 1


async def test_cache_control(serve, behind):
    """no-store: no part of it; no-cache: a fresh answer that replaces the entry; max-age: none older than that."""
    async with serve(policies("cache")) as side:
        model = behind.model()

        async def go(header):
            answer = await ask(side, model, headers={"cache-control": header} if header else None)
            return result(answer), behind.count()

        assert await go("no-store") == ("bypass", 1)
        assert await go("") == ("miss", 2)
        assert await go("no-store") == ("bypass", 3)
        assert await go("no-cache") == ("bypass", 4)
        assert await go("max-age=60") == ("hit", 4)
        assert await go("max-age=0") == ("bypass", 5)
        first = (await side.lines())[-1]
        assert first["stored"]
        clock = side.side.runtime.clock
        now = clock.time()
        clock.time = lambda: now + 30
        assert await go("max-age=31") == ("hit", 5)
        assert (await ask(side, model)).headers["age"] in ("29", "30")
        assert await go("max-age=20") == ("miss", 6)
        assert await go("max-age=20") == ("hit", 6)
        assert side.side.runtime.metrics.cache_requests.values["bypass",] == 4


# --- what is never kept ----------------------------------------------------------------------------------------------

NEVER = {
    "length": "finish=length", "content filter": "finish=content_filter", "an error in the stream": "error=2",
    "cut": "chunks=5;cut=rst@chunk3", "500": "status=500", "no end": "omit=done+finish",
}  # fmt: skip


@pytest.mark.parametrize("name", NEVER)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_did_not_come_to_its_end_is_not_kept(serve, behind, name, stream):
    """Cut, filtered, broken and failed answers are asked for again."""
    spec = NEVER[name]
    if not stream and name in ("an error in the stream", "no end", "cut"):
        pytest.skip("streams only")
    async with serve(policies("cache")) as side:
        model = behind.model(spec)
        for _ in range(2):
            assert result(await ask(side, model, stream=stream)) == "miss"
        assert behind.count() == 2
        assert not any(row["stored"] for row in await side.lines())


@pytest.mark.parametrize(("user", "policy"), [
    ("no_store", TRIPS), ("stop-Trips", TRIPS), ("break-Trips", TRIPS), ("stop-Below", BELOW), ("no_store", BELOW),
])  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_policy_forbids_is_not_kept(serve, behind, user, policy, stream):
    """One policy's no, or a reply that one stopped, is enough; who comes next asks anew."""
    rows = (TRIPS, "cache") if policy == TRIPS else ("cache", BELOW)
    async with serve(policies(*rows)) as side:
        model = behind.model("chunks=6")
        await ask(side, model, user=user, stream=stream)
        assert result(await ask(side, model, stream=stream)) == "miss"
        assert behind.count() == 2


def targets(*models):
    return f"models: {json.dumps({'m': [f'openai/{model}' for model in models]})}\n"


async def test_an_answer_of_another_target_is_not_kept(serve, behind):
    """Kept only if the first target of the route answered: a fallback's answer is another model's."""
    config = targets(behind.model("status=500"), behind.model("chunks=2"))
    async with serve(config + policies("cache")) as side:
        for _ in range(2):
            answer = await ask(side, "m")
            assert (answer.status_code, result(answer)) == (200, "miss")
    config = targets(behind.model("chunks=3"), behind.model("chunks=2"))
    async with serve(config + policies("cache", STRIKES)) as side:
        for _ in range(2):
            assert result(await ask(side, "m")) == "miss"


async def test_an_answer_above_max_entry_is_not_kept(serve, behind):
    """`max_entry` bounds each entry, in both forms."""
    async with serve(policies({"cache": {"max_entry": "2KiB"}})) as side:
        for stream in (False, True):
            model = behind.model(f"chunks=2;size=3000;n{int(stream)}")
            for _ in range(2):
                assert result(await ask(side, model, stream=stream)) == "miss"


async def test_warm_requests_pass_it_by(serve, behind):
    """Above `temperature_up_to` (a request that says nothing is at 1) the cache is not asked."""
    async with serve(policies({"cache": {"temperature_up_to": 0.5}})) as side:
        model = behind.model()
        assert [result(await ask(side, model, temperature=t)) for t in (0.5, 0.5, 0.6)] == ["miss", "hit", "bypass"]
        assert result(await ask(side, model)) == "bypass"
        body = {"model": behind.model(), "input": "a"}
        assert result(await side.client.post("/v1/embeddings", json=body)) == "miss"


# --- redact ---------------------------------------------------------------------------------------------------------------


async def test_only_answers_to_sanitised_prompts(serve, behind):
    """What goes into the store was asked without secrets; a secret in the answer keeps it out of the store."""
    async with serve(policies("redact", "cache")) as side:
        clean = behind.model("chunks=1;text=done")
        assert result(await ask(side, clean, "write to ann@example.com")) == "miss"
        assert result(await ask(side, clean, "write to bob@example.com")) == "hit"
        entries = side.side.runtime.store._entries._entries
        assert len(entries) == 1
        leaky = behind.model("chunks=1;text=ask carl@example.com")
        for stream in (False, True):
            assert [result(await ask(side, leaky, f"{stream}", stream=stream)) for _ in range(2)] == ["miss", "miss"]
        assert len(entries) == 1
        assert all(b"example.com" not in value for _, value in entries.values())


async def test_watched_findings_are_not_kept(serve, behind):
    """A redact that only watches masks nothing, so the answer to a prompt with a finding is not kept."""
    async with serve(policies({"redact": {"enforce": False}}, "cache")) as side:
        model = behind.model("chunks=1;text=done")
        assert [result(await ask(side, model, "to ann@example.com")) for _ in range(2)] == ["miss", "miss"]
        assert [result(await ask(side, model, "nothing")) for _ in range(2)] == ["miss", "hit"]


@pytest.mark.parametrize("stream", [False, True])
async def test_restored_originals_never_reach_the_entry(serve, behind, stream):
    """`mode: restore` gives each caller its own originals back, from one entry that holds placeholders."""
    async with serve(policies({"redact": {"mode": "restore"}}, "cache")) as side:
        model = behind.model("echo;chunks=3")
        for name in ("ann", "bob"):
            answer = await ask(side, model, f"write to {name}@example.com now", stream=stream)
            assert said(answer) == f"write to {name}@example.com now"
        assert behind.count() == 1
        assert all(b"example.com" not in value for _, value in side.side.runtime.store._entries._entries.values())


# --- isolation ------------------------------------------------------------------------------------------------------------

KEYS = """auth:
  keys:
    - {id: a1, key: key-of-a1-0123456789, team: a, user: u1, roles: [generate]}
    - {id: a2, key: key-of-a2-0123456789, team: a, user: u2, roles: [generate]}
    - {id: b1, key: key-of-b1-0123456789, team: b, user: u1, roles: [generate]}
    - {id: ops, key: key-of-ops-0123456789, team: ops, roles: [manage]}
    - {id: proxy, key: key-of-proxy-0123456789, team: c, user: svc, roles: [generate], on_behalf: true}
"""


def as_(name, **more):
    return {"authorization": f"Bearer key-of-{name}-0123456789", **more}


@pytest.mark.parametrize(("scope", "wanted"), [
    ("team", ["miss", "hit", "miss"]), ("user", ["miss", "miss", "miss"]), ("global", ["miss", "hit", "hit"]),
])  # fmt: skip
async def test_who_shares_an_entry(serve, behind, scope, wanted):
    """Two teams never share one unless `scope: global`; two users of a team do unless `scope: user`."""
    async with serve(KEYS + policies({"cache": {"scope": scope}})) as side:
        model = behind.model()
        assert [result(await ask(side, model, headers=as_(who))) for who in ("a1", "a2", "b1")] == wanted


async def test_nothing_a_client_sends_changes_whose_entries_it_sees(serve, behind):
    """No field and no header: only the credential (or a key with `on_behalf`) says which team it is."""
    async with serve(KEYS + policies("cache")) as side:
        model = behind.model()
        attempts = [
            ({"x-llm-team": "a"}, {}), ({"x-llm-user": "u1"}, {}), ({"x-team": "a"}, {}), ({"cache-scope": "global"}, {}),
            ({"x-llm-scope": "global"}, {}), ({"openai-organization": "a"}, {}), ({"vary": "*"}, {}),
            ({"cache-control": "public, max-age=60"}, {}), ({"x-llm-cache": "hit"}, {}), ({}, {"user": "u1"}),
            ({}, {"metadata": {"team": "a", "scope": "global"}}),
        ]  # fmt: skip
        for seed, (headers, more) in enumerate(attempts):
            assert result(await ask(side, model, headers=as_("a1"), seed=seed)) == "miss"
            assert result(await ask(side, model, headers=as_("b1", **headers), seed=seed, **more)) == "miss", (
                headers,
                more,
            )
        delegated = as_("proxy", **{"x-llm-team": "a", "x-llm-user": "u9"})
        assert result(await ask(side, model, headers=delegated, seed=0)) == "hit"


async def test_teams_do_not_share_a_flight(serve, behind):
    """Calls under way are shared as entries are: one upstream call a team."""
    async with serve(KEYS + policies("cache")) as side:
        model = behind.model("first=0.4")
        answers = await asyncio.gather(*[ask(side, model, headers=as_(who)) for who in ("a1", "a2", "b1", "b1")])
        assert sorted(map(result, answers)) == ["coalesced", "coalesced", "miss", "miss"]
        assert behind.count() == 2


# --- flush ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "gone"), [
    ({}, "a1 a2 b1 b2"), ({"team": "a"}, "a1 a2"), ({"model": "MODEL1"}, "a1 b1"), ({"model": "alias"}, "a1 b1"),
    ({"team": "b", "model": "openai/MODEL2"}, "b2"), ({"team": "nobody"}, ""), ({"model": "nothing"}, ""),
])  # fmt: skip
async def test_flushes(serve, behind, order, gone):
    """By team, by model (alias, provider/model or bare), by both, or all: at once, and logged with who did it."""
    models = {"1": behind.model("chunks=1"), "2": behind.model("chunks=2")}
    config = f'models: {{alias: "openai/{models["1"]}"}}\n'
    async with serve(config + KEYS + policies("cache")) as side:

        async def all_of():
            return [
                f"{team}{n}" for team in "ab" for n in "12"
                if result(await ask(side, models[n], headers=as_(f"{team}1"))) == "miss"
            ]  # fmt: skip

        assert await all_of() == ["a1", "a2", "b1", "b2"]
        assert await all_of() == []
        body = json.loads(json.dumps(order).replace("MODEL1", models["1"]).replace("MODEL2", models["2"]))
        answer = await side.client.post("/admin/cache/flush", json=body or None, headers=as_("ops"))
        assert (answer.status_code, answer.json()["flushed"]) == (200, True)
        assert await all_of() == gone.split()
        (line,) = await side.lines("cache_flushed")
        assert (line["by"], line["team"]) == ("ops", order.get("team"))


async def test_a_global_cache_is_flushed_whole_with_any_team(serve, behind):
    """Its entries belong to no team: who must be rid of a team's is rid of all, and is told."""
    async with serve(KEYS + policies({"cache": {"scope": "global"}})) as side:
        model = behind.model()
        await ask(side, model, headers=as_("a1"))
        answer = await side.client.post("/admin/cache/flush", json={"team": "b"}, headers=as_("ops"))
        assert "scope: global" in answer.json()["notes"][0]
        assert result(await ask(side, model, headers=as_("a1"))) == "miss"


async def test_what_is_under_way_at_a_flush_is_not_kept_for_later(serve, behind):
    """An answer asked for before a flush goes to who asked, and to nobody after it."""
    async with serve(policies("cache")) as side:
        model = behind.model("first=0.2")
        before = asyncio.create_task(ask(side, model))
        await asyncio.sleep(0.1)
        await side.client.post("/admin/cache/flush")
        after = await asyncio.gather(ask(side, model), before)
        assert [result(answer) for answer in after] == ["miss", "miss"]
        assert behind.count() == 2


@pytest.mark.parametrize(("key", "body", "status"), [
    ("a1", {}, 403), ("ops", {"teams": "a"}, 400), ("ops", {"team": 3}, 400), ("ops", [], 400), ("ops", {"team": ""}, 400),
    ("ops", {"team": "x" * 5000}, 413),
])  # fmt: skip
async def test_a_flush_that_is_none(serve, key, body, status):
    """It needs llm:manage; a typo flushes nothing and is named."""
    async with serve(KEYS + policies("cache")) as side:
        answer = await side.client.post("/admin/cache/flush", json=body, headers=as_(key))
        assert answer.status_code == status
        assert answer.json()["error"]["message"]
        assert not await side.lines("cache_flushed")
        assert (await side.client.get("/admin/cache/flush", headers=as_("ops"))).status_code == 405


async def test_a_flush_without_a_cache(serve):
    """Without a cache there is nothing to flush, and that is said."""
    async with serve("") as side:
        answer = await side.client.post("/admin/cache/flush")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


# --- shadow mode, load, tests ---------------------------------------------------------------------------------------------


async def test_shadow_mode_serves_nothing_and_counts_what_it_would(serve, behind):
    """`enforce: false`: every call goes upstream, no header, no joining; would-be hits are counted and logged."""
    async with serve(policies({"cache": {"enforce": False}})) as side:
        model = behind.model("first=0.05")
        answers = [await ask(side, model, stream=stream) for stream in (False, True, False)]
        assert [result(answer) for answer in answers] == [None, None, None]
        assert not any("age" in answer.headers for answer in answers)
        assert behind.count() == 3
        metrics = side.side.runtime.metrics
        assert metrics.cache_requests.values == {("miss",): 1, ("hit",): 2}
        assert metrics.decisions.values["cache", "shadow_answer"] == 2
        rows = await side.lines()
        assert [row.get("shadow") for row in rows] == [None, ["cache"], ["cache"]]
        assert all(row["prompt_tokens"] > 0 for row in rows)
        await asyncio.gather(*[ask(side, model, "other") for _ in range(3)])
        assert behind.count() == 6


def problems(text):
    with pytest.raises(ConfigError) as caught:
        load_text(ECHO + text, {}, ".")
    return " / ".join(str(problem) for problem in caught.value.problems)


@pytest.mark.parametrize(("text", "part"), [
    ("policies: [redact: {}, cache: {ttl: 25h}]", "at most 24h"),
    ("policies: [redact: {}, cache: {ttl: 0}]", "more than 0"),
    ("policies: [cache: {}]", "needs the policy `redact`"),
    ("policies: [cache: {unsanitized: false}]", "needs the policy `redact`"),
    ("policies: [cache: {}, redact: {}]", "must stand below `redact`"),
    (f'policies: [redact: {{}}, cache: {{}}, "{REWRITES}": {{}}]', f"must stand below `{REWRITES}`"),
    ("policies: [redact: {}, cache: {scope: everyone}]", "`team`, `user` or `global`"),
    ("policies: [redact: {}, cache: {store: nowhere}]", "a store is memory"),
])  # fmt: skip
def test_what_does_not_load(text, part):
    """More than a day, no redact, the wrong order, unknown words: load errors with a sentence."""
    rows = text.replace("[", "\n  - ").replace(", cache", "\n  - cache").replace(", redact", "\n  - redact")
    rows = rows.replace(f', "{REWRITES}"', f'\n  - "{REWRITES}"').replace("]", "\n")
    assert part in problems(rows)


def test_what_loads():
    """A day, `unsanitized: true` alone, and a store of its own in both forms."""
    config = load_text(ECHO + "policies:\n  - cache: {ttl: 24h, unsanitized: true, store: 'redis://h:1/0'}\n", {}, ".")
    assert config.policies[0].config.store.url == "redis://h:1/0"
    config = load_text(ECHO + "policies:\n  - redact\n  - cache: {store: {url: memory, prefix: 'c:'}}\n", {}, ".")
    assert config.policies[1].config.ttl == 3600


def test_doors_below_a_cache_are_worth_a_look():
    """A hit is served without asking what stands below; `check` says so for what decides who may come in."""
    from policies.cache import Cache

    config = load_text(ECHO + policies("cache", {"allowlist": {"models": ["*"]}}), {}, ".")
    policy = Cache(config.policies[0].config, make_kit(config=config))
    policy.name = "cache"
    assert "allowlist" in policy.warnings()[0]


async def test_policy_tests_can_expect_a_hit():
    """`llm-sidecar test` knows `cache: miss` and `cache: hit`, without a network."""
    from proxy.cli.test import results

    tests = [
        {"name": "first", "request": {"model": "m", "messages": [{"role": "user", "content": "x"}]}, "expect": {"cache": "miss"}},
        {"name": "again", "request": {"model": "m", "messages": [{"role": "user", "content": "x"}]}, "expect": {"cache": "hit"}},
        {"name": "wrong", "request": {"model": "m", "messages": [{"role": "user", "content": "x"}]}, "expect": {"cache": "bypass"}},
    ]  # fmt: skip
    config = load_text(ECHO + policies("cache") + "tests: " + json.dumps(tests) + "\n", {}, ".")
    assert [bool(wrong) async for _, wrong in results(config)] == [False, False, True]


def test_the_hit_window():
    """Hits by look-ups of the last 5 minutes; NaN before the first, and once they are past."""
    from proxy.telemetry.window import HitWindow

    window = HitWindow()
    assert math.isnan(window.ratio(1000.0))
    window.add(1000.0, hit=False)
    for _ in range(3):
        window.add(1100.0, hit=True)
    assert window.ratio(1100.0) == 0.75
    assert window.ratio(1299.0) == 0.75
    assert window.ratio(1311.0) == 1.0
    assert math.isnan(window.ratio(1411.0))
    window.add(4300.0, hit=True)
    assert window.ratio(4300.0) == 1.0
    assert math.isnan(window.ratio(4600.0))
