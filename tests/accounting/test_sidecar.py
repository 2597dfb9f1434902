"""Accounting seen from outside: real sidecars, a real upstream that fakes, a real Redis."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Sidecars
from tests.fakes.httpwire import Reply
from tests.fakes.process import Upstream
from tests.fakes.rawclient import AsyncRawClient, chat, request
from tests.fakes.redis import RedisServer
from tests.fakes.sidecar import CLIENT_KEY, OPS_KEY, OTHER_KEY, Sidecar, config
from tests.reliability.load import call, together

Start = Callable[..., Sidecar]
SECRET = {"secret": "accounting-test-secret-0123456789", "drain_delay": "0s", "shutdown_grace": "5s"}
#: Room for 37 calls that hold 1,000 tokens and a prompt of up to 24.
ROOM = 37_900


def quota_of(sidecar: Sidecar, team: str = "platform") -> dict[str, Any]:
    """Return a team's quota as the admin sees it."""
    rows = json.loads(sidecar.ask("GET", "/admin/quotas", key=OPS_KEY).body)["teams"]
    found = [row["quota"] for row in rows if row["team"] == team]
    return found[0] if found else {"used_tokens": 0, "held_tokens": 0, "remaining_tokens": None}


def settled(sidecar: Sidecar, team: str = "platform", seconds: float = 10.0) -> dict[str, Any]:
    """Return a team's quota once nothing is held and it stands still."""
    limit = time.monotonic() + seconds
    while (found := quota_of(sidecar, team))["held_tokens"] and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(0.05)
    return quota_of(sidecar, team) if not found["held_tokens"] else found


def header(reply: Reply, name: str) -> str:
    """Return a reply's header; it must be there once."""
    (value,) = [value for found, value in reply.headers if found == name]
    return value


async def crowd(sidecars: list[Sidecar], model: str, count: int, **more: Any) -> Counter[tuple[int, str]]:
    """Make ``count`` calls at the same time, in turn to each sidecar; return statuses and codes."""
    turns = [sidecars[n % len(sidecars)] for n in range(count)]
    replies = await together([lambda one=one: call(one, model, **more) for one in turns], count)
    return Counter((r.status, json.loads(r.body)["error"]["code"] if r.status != 200 else "") for r in replies)


def store_of(kind: str, folder: Path, redis: RedisServer) -> dict[str, Any]:
    if kind == "memory":
        return {}
    if kind == "file":
        return {"store": f"sqlite://{folder}/store.db", "server": SECRET}
    return {"store": {"url": redis.url, "prefix": f"t{random.randrange(10**9)}:", "deadline": "2s"}, "server": SECRET}


#: A model with a price, of which a call costs half a cent.
PRICED = "gpt-4o-mini;priced;usage=5+5"
FULL = [("memory", 1, 500), ("file", 1, 500), ("redis", 1, 500), ("redis", 2, 500)]


async def exactly(case: tuple[str, int, int], own_sidecar: Start, tmp_path: Path, redis: RedisServer, tag: str) -> None:
    kind, processes, calls = case
    settings = {**store_of(kind, tmp_path, redis), "policies": [{"quota": {"tokens": ROOM}}]}
    with ThreadPoolExecutor() as pool:
        running = list(pool.map(lambda _: own_sidecar(**settings), range(processes)))
    # Many are inside together; and since answers come to about what they hold, those that end make no room.
    first = 0.5 if calls < 100 else 4
    ends = await crowd(running, f"gpt-4o-mini;{tag};first={first};usage=20+1000", calls, max_tokens=1_000)
    assert ends == {(200, ""): 37, (402, "token_quota_exceeded"): calls - 37}
    for one in running:
        assert settled(one)["used_tokens"] == 37 * 1_020


async def test_exactly_as_many_calls_enter_as_there_is_room_for(
    own_sidecar: Start, tmp_path: Path, redis_server: RedisServer, tag: str, upstream: Upstream
) -> None:
    """Concurrent calls to two sidecars against room for 37 holds: 37 get an answer, the others 402."""
    await exactly(("redis", 2, 60), own_sidecar, tmp_path, redis_server, tag)
    assert len(upstream.calls(tag)) == 37


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("case", FULL, ids=str)
async def test_exactly_37_of_500(
    case: tuple[str, int, int],
    own_sidecar: Start,
    tmp_path: Path,
    redis_server: RedisServer,
    tag: str,
    upstream: Upstream,
) -> None:
    """R15 at full size."""
    await exactly(case, own_sidecar, tmp_path, redis_server, tag)
    assert len(upstream.calls(tag)) == 37


async def end_somewhere(sidecar: Sidecar, tag: str, n: int, dice: random.Random) -> None:
    """Make one call that ends in one of many ways."""
    how = dice.choice(["whole", "stream", "leave early", "leave later", "upstream error", "cut", "refused"])
    spec = {"upstream error": "status=500", "cut": "chunks=6;cut=fin@chunk3", "refused": "status=400"}.get(how, "")
    model = f"gpt-4o-mini;{tag};no{n:04d};{spec or f'chunks={dice.randrange(1, 9)};interval=0.01'}"
    body = chat(model, stream=how not in ("whole", "upstream error", "refused"), max_tokens=500)
    client = await AsyncRawClient.open(sidecar.port)
    await client.send(request(body=body, key=CLIENT_KEY))
    if how.startswith("leave"):
        await asyncio.sleep(dice.uniform(0, 0.01 if how == "leave early" else 0.06))
        client.reset() if dice.random() < 0.5 else client.close()
        return
    async with client:
        await client.reply(timeout=30)


@pytest.fixture
def plain(sidecars: Sidecars) -> Sidecar:
    """A sidecar for several tests: ample limits for team `platform`, where they look at differences; few requests
    a second for `default`, little money for `ops`."""
    return sidecars(
        teams={
            "platform": {},
            "default": {"token_quota": 50_000, "rate_limit": {"requests": 2, "per": "1s"}},
            "ops": {"budget_usd": 0.008},
        },
        policies=[
            {"rate_limit": {"concurrent": 500, "by": "team"}},
            {"quota": {"tokens": 10**9, "default_max_tokens": 77}},
            {"budget": {"hard_stop": 100, "throttle": None}},
        ],
        prices={f"openai/{PRICED}": {"input": 500, "output": 500}},
    )


async def ends_at_random(sidecar: Sidecar, upstream: Upstream, tag: str, calls: int) -> None:
    dice = random.Random(calls)
    before = quota_of(sidecar)["used_tokens"]
    reported = await tokens_of(sidecar)
    await together([lambda n=n: end_somewhere(sidecar, tag, n, dice) for n in range(calls)], 50)
    time.sleep(0.2)
    limit = time.monotonic() + 20
    while sidecar.metrics().sum("llm_in_flight") and time.monotonic() < limit:
        time.sleep(0.02)
    lines = [line for line in sidecar.calls() if tag in (line.get("model") or "")]
    produced = sum(line["prompt_tokens"] + line["completion_tokens"] for line in lines)
    found = settled(sidecar)
    assert found["held_tokens"] == 0
    assert found["used_tokens"] - before == produced
    after = await tokens_of(sidecar)
    assert (after[0] - reported[0], after[1] - reported[1]) == (len(lines), produced)


async def tokens_of(sidecar: Sidecar) -> tuple[int, int]:
    """Return the team's calls and tokens in the usage report."""
    report = json.loads(sidecar.ask("GET", "/admin/usage?by=team", key=OPS_KEY).body)
    return next(((row["calls"], row["tokens"]) for row in report["rows"] if row["team"] == "platform"), (0, 0))


async def test_calls_that_end_anywhere_leave_exactly_what_they_used(
    plain: Sidecar, tag: str, upstream: Upstream
) -> None:
    """Whole, streamed, left early or late, cut, failed, refused: quota, ledger and log lines agree, nothing is held."""
    await ends_at_random(plain, upstream, tag, 60)
    limits = json.loads(plain.ask("GET", "/v1/usage", key=CLIENT_KEY).body)["limits"]
    assert limits == [{"by": "team", "type": "concurrent", "limit": 500, "remaining": 500}]


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("kind", ["memory", "file", "redis"])
async def test_a_thousand_calls_that_end_anywhere(
    kind: str, own_sidecar: Start, tmp_path: Path, redis_server: RedisServer, tag: str, upstream: Upstream
) -> None:
    """The same at full size."""
    sidecar = own_sidecar(**store_of(kind, tmp_path, redis_server), policies=[{"quota": {"tokens": 10**9}}])
    await ends_at_random(sidecar, upstream, tag, 1_000)


@pytest.mark.slow
@pytest.mark.alone
async def test_a_killed_sidecars_calls_are_booked_in_full(
    own_sidecar: Start, tmp_path: Path, redis_server: RedisServer, tag: str
) -> None:
    """kill -9 with 5 streams open: after the restart the file holds what ended, and the 5 holds in full."""
    settings = {**store_of("file", tmp_path, redis_server), "policies": [{"quota": {"tokens": 10**6}}]}
    first = own_sidecar(**settings)
    await together([lambda: call(first, f"gpt-4o-mini;{tag};usage=7+3", max_tokens=500)] * 8, 8)
    assert settled(first)["used_tokens"] == 80
    clients = [await AsyncRawClient.open(first.port) for _ in range(5)]
    for client in clients:
        await client.send(
            request(
                body=chat(f"gpt-4o-mini;{tag};chunks=1000;interval=0.02", stream=True, max_tokens=500), key=CLIENT_KEY
            )
        )
        await client.read_until(b" 000002")
    held = quota_of(first)["held_tokens"]
    assert held > 2_500
    first.kill()
    for client in clients:
        client.close()
    second = own_sidecar(**settings)
    found = quota_of(second)
    assert (found["used_tokens"], found["held_tokens"]) == (80 + held, 0)


async def test_limits_are_told_on_success_and_refusal_and_waits_are_true(plain: Sidecar, tag: str) -> None:
    """The headers of a 200 and of a 429; after `retry-after-ms` a lone call succeeds."""
    model = f"gpt-4o-mini;{tag}"
    one = plain.chat(model, key=OTHER_KEY, max_tokens=10)
    assert one.status == 200
    assert header(one, "x-ratelimit-limit-requests") == "2"
    assert header(one, "x-ratelimit-remaining-requests") == "1"
    assert header(one, "x-quota-limit-tokens") == "50000"
    assert header(one, "x-quota-reset").endswith("Z")
    while (refused := plain.chat(model, key=OTHER_KEY, max_tokens=10)).status == 200:
        pass
    assert refused.status == 429
    assert json.loads(refused.body)["error"]["code"] == "rate_limit_exceeded"
    assert header(refused, "x-ratelimit-remaining-requests") == "0"
    assert header(refused, "retry-after") == "1"
    time.sleep(int(header(refused, "retry-after-ms")) / 1000)
    assert plain.chat(model, key=OTHER_KEY, max_tokens=10).status == 200
    assert plain.chat(model, max_tokens=10).status == 200


async def test_an_unbounded_answer_is_bounded_and_the_caller_told(plain: Sidecar, upstream: Upstream, tag: str) -> None:
    """`default_max_tokens` goes upstream and into `x-llm-applied-max-tokens`."""
    reply = plain.chat(f"gpt-4o-mini;{tag}")
    assert header(reply, "x-llm-applied-max-tokens") == "77"
    (seen,) = upstream.calls(tag)
    assert json.loads(seen["body"])["max_completion_tokens"] == 77


async def test_money_is_priced_and_the_hard_stop_stops(plain: Sidecar) -> None:
    """Cost in the report, and 402 once the budget is spent."""
    assert plain.chat(PRICED, key=OPS_KEY, max_tokens=1).status == 200
    own = json.loads(plain.ask("GET", "/v1/usage", key=OPS_KEY).body)["budget"]
    assert (own["limit_usd"], own["used_usd"]) == (0.008, 0.005)
    refused = plain.chat(PRICED, key=OPS_KEY, max_tokens=1)
    assert (refused.status, json.loads(refused.body)["error"]["code"]) == (402, "budget_exceeded")
    assert header(refused, "x-should-retry") == "false"


@pytest.fixture
def own_redis() -> Any:
    server = RedisServer()
    yield server
    server.stop()


async def test_a_frozen_store_refuses_or_allows_as_set_and_comes_back(
    own_sidecar: Start, own_redis: RedisServer, tag: str, upstream: Upstream
) -> None:
    """SIGSTOP: added p99 ≤ 150 ms, 503 or 200 as `store_down` says, counted; then everything as before, no restart."""

    def settings(store_down: str) -> dict[str, Any]:
        return {
            "store": {"url": own_redis.url}, "server": SECRET,
            "policies": [{"quota": {"tokens": 10**6, "store_down": store_down}}],
        }  # fmt: skip

    def degraded() -> float:
        return sidecar.metrics().sum("llm_policy_degraded_total", policy="quota")

    sidecar = own_sidecar(**settings("refuse"))
    sidecar.expect("store_unavailable")
    model = f"gpt-4o-mini;{tag};usage=6+4"
    assert sidecar.chat(model, max_tokens=50).status == 200
    assert settled(sidecar)["used_tokens"] == 10
    own_redis.freeze()
    frozen = time.monotonic()
    try:
        for store_down, status in (("refuse", 503), ("allow", 200)):
            sidecar.write(config(upstream.base(), **settings(store_down)))
            assert sidecar.reload().status == 200
            before = degraded()
            took = []
            for _ in range(20):
                began = time.monotonic()
                reply = sidecar.chat(model, max_tokens=50)
                took.append(time.monotonic() - began)
                assert reply.status == status
                if status == 503:
                    assert json.loads(reply.body)["error"]["code"] == "store_unavailable"
                    assert header(reply, "retry-after")
            assert degraded() - before == 20
            assert max(took) <= 0.15 + 0.1
            assert sorted(took)[10] <= 0.05
            assert sidecar.ask("GET", "/readyz").status == (503 if store_down == "refuse" else 200)
        sidecar.write(config(upstream.base(), **settings("refuse")))
        assert sidecar.reload().status == 200
    finally:
        own_redis.thaw()
    limit = time.monotonic() + 10
    while sidecar.ask("GET", "/readyz").status != 200 and time.monotonic() < limit:
        time.sleep(0.05)
    assert sidecar.chat(model, max_tokens=50).status == 200
    limit = time.monotonic() + 5
    while settled(sidecar)["used_tokens"] != 10 + 20 * 10 + 10 and time.monotonic() < limit:
        time.sleep(0.05)
    assert settled(sidecar)["used_tokens"] == 10 + 20 * 10 + 10
    assert 0 < sidecar.metrics().sum("llm_store_degraded_seconds_total") <= time.monotonic() - frozen


@pytest.mark.slow
@pytest.mark.alone
async def test_two_sidecars_share_a_rate_limit_to_the_call(
    own_sidecar: Start, redis_server: RedisServer, tag: str
) -> None:
    """R29: 20 per minute over two sidecars is 20, not 40."""
    settings = {
        **store_of("redis", Path(), redis_server),
        "policies": [{"rate_limit": {"requests": 20, "per": "10m", "by": "team"}}],
    }
    pair = [own_sidecar(**settings) for _ in range(2)]
    ends = await crowd(pair, f"gpt-4o-mini;{tag}", 60)
    assert ends == {(200, ""): 20, (429, "rate_limit_exceeded"): 40}


def test_names_that_the_provider_does_not_know_mint_no_rows(plain: Sidecar, tag: str) -> None:
    """Refused by the upstream, a model's name is a caller's invention: it counts as `other`."""

    def rows() -> dict[str, int]:
        report = json.loads(plain.ask("GET", "/admin/usage?by=model", key=OPS_KEY).body)
        return {row["model"]: row["calls"] for row in report["rows"] if tag in row["model"] or row["model"] == "other"}

    before = rows().get("other", 0)
    for n in range(3):
        assert plain.chat(f"invented-{n};{tag};status=404", max_tokens=5).status == 404
    assert plain.chat(f"real;{tag}", max_tokens=5).status == 200
    assert rows() == {"other": before + 3, f"real;{tag}": 1}


def test_nonsense_usage_from_an_upstream_moves_nothing_back(plain: Sidecar, tag: str) -> None:
    """T17: claims of negative or absurd usage leave the ledger monotone and plausible."""
    last = settled(plain)["used_tokens"]
    for usage in ("negative", "huge", "words", "null", "zero"):
        plain.chat(f"gpt-4o-mini;{tag};usage={usage}", max_tokens=50)
        used = settled(plain)["used_tokens"]
        assert last <= used <= last + 2_000, usage
        last = used


def test_the_start_says_what_check_warns_of(own_sidecar: Start) -> None:
    """A model without a price under a budget: also who never runs `check` is told, soon after the start."""
    running = own_sidecar(policies=[{"budget": {"usd": 1}}], models={"cheap": "openai/made-up-by-us"})
    limit = time.monotonic() + 10
    while not (found := [n for n in running.log("notice") if "openai/made-up-by-us has no price" in n["message"]]):
        assert time.monotonic() < limit
        time.sleep(0.05)
    assert len(found) == 1
