"""What `/v1/usage`, `/admin/usage` and `/admin/quotas` answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from policies.base import ApiError, Caller
from proxy.admin.usage import admin_quotas, admin_usage, own_usage
from proxy.auth import ALL
from proxy.runtime import Runtime
from proxy.store.base import Claim, Hold, StoreUnavailable, UsageRecord
from proxy.store.period import month_of
from tests.policies.build import call as call_of
from tests.policies.build import runtime_of
from tests.timing import slowness, stalls

TEXT = """
prices: {echo/m: {input: 1000, output: 1000}}
teams:
  platform: {token_quota: 5000, budget_usd: 20}
  plain: {}
policies:
  - rate_limit: {limits: [{by: user, requests: 10, per: 1m}, {by: team, tokens: 9000, per: 1h, concurrent: 4}]}
  - quota: {tokens: 1000}
  - budget
"""


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    found = await runtime_of(TEXT)
    yield found
    await found.aclose()
    await found.store.aclose()


async def test_a_caller_sees_its_own_limits_quota_and_budget(runtime: Runtime) -> None:
    """What is left, what is booked and held, and when it is renewed."""
    month = month_of(runtime.clock.time())
    store = runtime.store
    hold = Hold(
        "h",
        [
            Claim("quota", "platform", "team", 300, 5_000, period=month),
            Claim("money", "platform", "budget", 7_000_000, None, period=month),
        ],
    )
    await store.admit(hold)
    store.settle(hold, [120, 2_500_000])
    await store.admit(Hold("i", [Claim("quota", "platform", "team", 80, 5_000, period=month)]))
    found = await own_usage(runtime, Caller("k", "platform", "ann", ALL))
    assert (found["team"], found["user"]) == ("platform", "ann")
    quota = found["quota"]
    assert (quota["limit_tokens"], quota["used_tokens"], quota["held_tokens"], quota["remaining_tokens"]) == (
        5_000,
        120,
        80,
        4_800,
    )
    assert quota["reset"].endswith("-01T00:00:00Z")
    assert (found["budget"]["limit_usd"], found["budget"]["used_usd"], found["budget"]["remaining_usd"]) == (
        20,
        2.5,
        17.5,
    )
    assert [(row["by"], row["type"], row["limit"], row["remaining"]) for row in found["limits"]] == [
        ("user", "requests", 10, 10), ("team", "tokens", 9_000, 9_000), ("team", "concurrent", 4, 4)
    ]  # fmt: skip


FEATURES = """
features: [summary, epic_title]
policies:
  - rate_limit: {limits: [{by: feature, requests: 10, tokens: 900, per: 1m}, {by: user, concurrent: 4}]}
  - quota: {tokens: 1000, by: feature}
"""


async def test_limits_by_feature_are_shown_for_every_feature() -> None:
    """A caller may use any listed feature, or none of them: each has counters of its own."""
    runtime = await runtime_of(FEATURES)
    caller = Caller("k", "platform", "ann", ALL)
    (rate, quota) = runtime.policies
    call = call_of(team="platform", user="ann", feature="summary", max_tokens=100)
    spent = Hold("h", [*rate.claims(call), *quota.claims(call)])
    await runtime.store.admit(spent)
    nameless = call_of(team="platform", user="ann", max_tokens=100)
    await runtime.store.admit(Hold("i", rate.claims(nameless)[:1]))
    found = await own_usage(runtime, caller)
    held = spent.claims[-1].amount
    assert [(row["by"], row.get("feature"), row["type"], row["remaining"]) for row in found["limits"]] == [
        ("feature", "summary", "requests", 9), ("feature", "epic_title", "requests", 10), ("feature", "other", "requests", 9),
        ("feature", "summary", "tokens", 900 - held), ("feature", "epic_title", "tokens", 900), ("feature", "other", "tokens", 900),
        ("user", None, "concurrent", 3),
    ]  # fmt: skip
    assert [(row["feature"], row["remaining_tokens"]) for row in found["quotas"]] == [
        ("summary", 1_000 - held), ("epic_title", 1_000), ("other", 1_000)
    ]  # fmt: skip
    assert found["quota"] == found["quotas"][0]
    admins = (await admin_quotas(runtime))["teams"]
    assert admins == []
    runtime.store.record(UsageRecord(month_of(runtime.clock.time()), "platform", "ann", "m", "f", "completed", 5))
    (row,) = (await admin_quotas(runtime))["teams"]
    assert (row["quota"], row["quotas"]) == (found["quota"], found["quotas"])
    await runtime.aclose()
    await runtime.store.aclose()


async def test_many_counters_are_asked_for_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many features there are, nobody holds a shared store up; each row is its own counter's."""
    names = [f"f{n}" for n in range(150)]
    runtime = await runtime_of(
        f"features: {names}\npolicies: [{{rate_limit: {{by: feature, requests: 9}}}}]".replace("'", "")
    )
    (rate,) = runtime.policies
    for n in (0, 70, 149):
        await runtime.store.admit(Hold(f"h{n}", rate.claims(call_of(team="a", feature=names[n]))))
    sizes = []
    peek = runtime.store.peek

    async def counting(claims: list[Claim]) -> object:
        sizes.append(len(claims))
        return await peek(claims)

    monkeypatch.setattr(runtime.store, "peek", counting)
    rows = (await own_usage(runtime, Caller("k", "a", "ann", ALL)))["limits"]
    assert [row["feature"] for row in rows if row["remaining"] == 8] == ["f0", "f70", "f149"]
    assert len(rows) == sum(sizes) == 151
    assert max(sizes) <= 64
    await runtime.aclose()
    await runtime.store.aclose()


async def test_asking_takes_nothing(runtime: Runtime) -> None:
    """Looking at limits is free."""
    caller = Caller("k", "plain", "ann", ALL)
    first = await own_usage(runtime, caller)
    assert await own_usage(runtime, caller) == first
    assert first["budget"] is None


async def test_admins_see_every_team_that_is_listed_or_called(runtime: Runtime) -> None:
    """Listed teams first, then unlisted ones with calls this month."""
    month = month_of(runtime.clock.time())
    runtime.store.record(UsageRecord(month, "stranger", "u", "m", "f", "completed", 5))
    found = await admin_quotas(runtime)
    assert [(row["team"], row["listed"], row["quota"]["limit_tokens"]) for row in found["teams"]] == [
        ("platform", True, 5_000), ("plain", True, 1_000), ("stranger", False, 1_000)
    ]  # fmt: skip
    assert found["teams"][0]["budget"]["limit_usd"] == 20


async def test_callers_without_a_team_of_their_own_are_seen_too() -> None:
    """The team `default` counts like any unlisted one, whether or not llm.yml has an entry for the unlisted."""
    for teams in ("teams: {default: {token_quota: 70}, platform: {}}", "teams: {platform: {}}"):
        runtime = await runtime_of(f"{teams}\npolicies: [quota]")
        runtime.store.record(UsageRecord(month_of(runtime.clock.time()), "default", "u", "m", "f", "completed", 5))
        found = {row["team"]: row["quota"]["limit_tokens"] for row in (await admin_quotas(runtime))["teams"]}
        own = 70 if "70" in teams else 100_000
        assert found == {"platform": 100_000, "default": own}
        await runtime.aclose()
        await runtime.store.aclose()


async def test_the_usage_report_is_grouped_as_asked(runtime: Runtime) -> None:
    """By any of team, user, model, feature; anything else is 400."""
    month = month_of(runtime.clock.time())
    runtime.store.record(UsageRecord(month, "a", "u", "m", "f", "completed", 5, 6))
    found = await admin_usage(runtime, by="feature")
    assert (found["rows"][0]["feature"], found["rows"][0]["tokens"]) == ("f", 11)
    assert (await admin_usage(runtime, month="2020-01"))["rows"] == []
    for wrong in ({"by": "colour"}, {"month": "yesterday"}, {"month": "2026-13"}, {"month": "2026-00"}):
        with pytest.raises(ApiError) as refusal:
            await admin_usage(runtime, **wrong)
        assert refusal.value.status == 400


async def test_reports_on_many_users_keep_no_call_waiting(runtime: Runtime) -> None:
    """20,000 teams' and users' rows are reported on beside the calls, not before them: nothing waits for 50 ms."""
    month = month_of(runtime.clock.time())
    for n in range(20_000):
        runtime.store.record(UsageRecord(month, f"t{n}", f"u{n}", "m", "f", "completed", 5, 6))
    for ask in (admin_usage, admin_quotas):
        worst, _ = await stalls(lambda ask=ask: ask(runtime))  # type: ignore[misc]
        assert worst < 0.05 * slowness(), ask


async def test_a_store_that_is_down_is_503(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a retry-after, in a sentence."""

    async def down(*_: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(runtime.store, "peek", down)
    with pytest.raises(ApiError) as refusal:
        await own_usage(runtime, Caller("k", "plain", "ann", ALL))
    assert (refusal.value.status, refusal.value.code) == (503, "store_unavailable")
