"""quota: tokens per month, held and settled; bounds for answers without one; who has a quota of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from policies.quota import Quota
from proxy.providers.base import Target
from proxy.providers.echo import Echo
from proxy.store.base import Hold
from tests.policies import build
from tests.policies.limits import Limits, headers


async def test_a_call_holds_its_prompt_and_bound_and_settles_to_the_truth() -> None:
    """What is left falls by the hold at admission and by the usage in the end."""
    limits = Limits(Quota, {"tokens": 10_000})
    call, hold = await limits.enter(max_tokens=500, n=2)
    held = call.estimate + 1_000
    assert hold.claims[0].amount == held
    found = headers(call)
    assert found["x-quota-limit-tokens"] == "10000"
    assert found["x-quota-remaining-tokens"] == str(10_000 - held)
    assert found["x-quota-reset"] == "2026-12-01T00:00:00Z"
    limits.leave((call, hold), 20, 30)
    again, _ = await limits.enter(max_tokens=500, n=2)
    assert headers(again)["x-quota-remaining-tokens"] == str(10_000 - 50 - held)


async def test_a_spent_month_is_402_and_not_to_be_retried() -> None:
    """402 token_quota_exceeded with the reset, on which the official SDKs do not retry."""
    limits = Limits(Quota, {"tokens": 100})
    limits.leave(await limits.enter(max_tokens=80), 60, 50)
    error = await limits.refused(max_tokens=1)
    assert (error.status, error.code, error.type) == (402, "token_quota_exceeded", "insufficient_quota")
    assert dict(error.headers)["x-should-retry"] == "false"
    assert headers(error.call)["x-quota-reset"] == "2026-12-01T00:00:00Z"  # type: ignore[attr-defined]
    assert headers(error.call)["x-quota-remaining-tokens"] == "0"  # type: ignore[attr-defined]
    assert "has used its 100 tokens of this month" in error.message


async def test_a_call_too_large_for_the_rest_is_told_how_much_is_left() -> None:
    """The sentence names what the call may take, what is left, and what to lower."""
    limits = Limits(Quota, {"tokens": 1_000})
    error = await limits.refused(max_tokens=2_000)
    assert "1,000 of 1,000 left" in error.message
    assert "max_completion_tokens" in error.message


async def test_an_unbounded_answer_gets_a_bound() -> None:
    """Without max_tokens the default goes upstream, so that the hold is a bound; the caller's own stays."""
    limits = Limits(Quota, {"default_max_tokens": 300})
    call, hold = await limits.enter()
    assert call.request.body["max_completion_tokens"] == 300
    assert call.request.changed
    assert call.notes["applied_max_tokens"] == 300
    assert headers(call)["x-llm-applied-max-tokens"] == "300"
    assert hold.claims[0].amount == call.estimate + 300
    own, _ = await limits.enter(max_tokens=7)
    assert "max_completion_tokens" not in own.request.body
    assert "applied_max_tokens" not in own.notes
    embedded, hold = await limits.enter(endpoint="embeddings")
    assert "max_tokens" not in embedded.request.body
    assert hold.claims[0].amount == embedded.estimate
    old, hold = await limits.enter(endpoint="completions", text=["a", "b"], n=3)
    assert old.request.body["max_tokens"] == 16
    assert hold.claims[0].amount == old.estimate + 16 * 6


@pytest.mark.parametrize(("newer", "older", "bound"), [(1, 900, 900), (900, 1, 900), (None, 5, 5), (5, None, 5)])
async def test_of_two_bounds_the_larger_is_held(newer: int | None, older: int | None, bound: int) -> None:
    """Which of its two names for a bound a compatible server reads is unknown: the hold covers either."""
    limits = Limits(Quota, {"tokens": 10_000})
    call, hold = await limits.enter(max_completion_tokens=newer, max_tokens=older)
    assert hold.claims[0].amount == call.estimate + bound


async def test_a_providers_own_bound_is_left_to_it() -> None:
    """Where every target has `max_tokens` in llm.yml nothing is added, and the largest is held."""
    limits = Limits(Quota, {})
    route = [Target(name, "m", Echo(name, Echo.Settings(max_tokens=most))) for name, most in (("a", 100), ("b", 900))]
    call, hold = await limits.enter(route=route)
    assert "max_completion_tokens" not in call.request.body
    assert hold.claims[0].amount == call.estimate + 900


async def test_shadow_mode_changes_nothing() -> None:
    """With `enforce: false` no bound is set, no header given, nobody refused."""
    limits = Limits(Quota, {"tokens": 1})
    limits.policy.enforce = False
    call, _ = await limits.enter()
    assert "max_completion_tokens" not in call.request.body
    assert call.headers == []


async def test_teams_have_quotas_of_their_own() -> None:
    """A listed team its own, an unlisted one the default team's with a counter of its own."""
    limits = Limits(
        Quota, {"tokens": 50}, {"big": {"token_quota": 5_000}, "plain": {}, "default": {"token_quota": 700}}
    )
    quota = limits.policy
    assert isinstance(quota, Quota)
    assert [quota.limit(team) for team in ("big", "plain", "unlisted")] == [5_000, 50, 700]
    await limits.enter(team="x", max_tokens=600)
    await limits.enter(team="y", max_tokens=600)
    await limits.refused(team="x", max_tokens=600)


async def test_by_user_counts_inside_the_team() -> None:
    """`by: user` gives each user of each team a quota."""
    limits = Limits(Quota, {"tokens": 100, "by": "user"})
    await limits.enter(team="a", user="ann", max_tokens=60)
    await limits.refused(team="a", user="ann", max_tokens=60)
    await limits.enter(team="a", user="bob", max_tokens=60)
    await limits.enter(team="b", user="ann", max_tokens=60)


async def test_the_month_ends_in_utc_and_a_call_settles_where_it_began() -> None:
    """A call begun in the last second of November is booked in November; December is whole."""
    limits = Limits(Quota, {"tokens": 1_000})
    limits.clock.wall = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp()
    late = await limits.enter(max_tokens=900)
    assert late[0].notes["month"] == "2026-11"
    limits.clock.advance(2)
    early, hold = await limits.enter(max_tokens=900)
    assert hold.claims[0].period == "2026-12"
    limits.leave(late, 100, 800)
    assert headers(early)["x-quota-reset"] == "2027-01-01T00:00:00Z"
    limits.leave((early, hold), 1, 1)
    third, _ = await limits.enter(max_tokens=900)
    assert int(headers(third)["x-quota-remaining-tokens"]) == 1_000 - 2 - 900 - third.estimate


async def test_the_leap_day_has_a_day_of_its_own() -> None:
    """`per: day` knows the 29th of February."""
    limits = Limits(Quota, {"per": "day"})
    limits.clock.wall = datetime(2028, 2, 29, 13, tzinfo=UTC).timestamp()
    call, hold = await limits.enter()
    assert hold.claims[0].period == "2028-02-29"
    assert headers(call)["x-quota-reset"] == "2028-03-01T00:00:00Z"


async def test_prompts_are_counted_exactly_when_the_limit_is_near() -> None:
    """Far from the limit an estimate will do; near it the hold is the exact count."""
    text = "antidisestablishmentarianism " * 50
    far = Limits(Quota, {"tokens": 100_000_000})
    await far.enter(text=text, max_tokens=1)
    estimated, _ = await far.enter(text=text, max_tokens=1)
    near = Limits(Quota, {"tokens": 3_000})
    counted, _ = await near.enter(text=text, max_tokens=1)
    from proxy import tokens

    assert estimated.estimate == tokens.estimate(estimated.request, "m")
    assert counted.estimate == await tokens.count(counted.request, "m")
    assert counted.estimate != estimated.estimate


async def test_gauges_show_each_listed_team_and_all_others_together() -> None:
    """Label values come from the file only; `other` is a sum, as in every metric: of what is used and of the limits."""
    limits = Limits(Quota, {"tokens": 1_000}, {"a": {"token_quota": 9_000}})
    quota, used = limits.kit.metrics.token_quota.values, limits.kit.metrics.token_quota_used.values
    assert (quota, used) == ({("a",): 9_000}, {})
    held = {}
    for team, most in (("a", 100), ("x", 500), ("y", 5), ("y", 7)):
        _, hold = await limits.enter(team=team, max_tokens=most)
        held[team] = held.get(team, 0) + hold.claims[0].amount
    assert used == {("a",): held["a"], ("other",): held["x"] + held["y"]}
    assert quota == {("a",): 9_000, ("other",): 2_000}


async def test_gauges_begin_anew_with_the_period() -> None:
    """In a new month nobody has used anything yet, whether or not its first call has come."""
    limits = Limits(Quota, {"tokens": 1_000}, {"a": {}, "b": {}})
    quota, used = limits.kit.metrics.token_quota.values, limits.kit.metrics.token_quota_used.values
    made = {}
    for team in ("a", "b", "x"):
        made[team], hold = await limits.enter(team=team, max_tokens=500)
        made[team].claimed.append(hold)
    limits.clock.advance(20 * 86_400)
    _, hold = await limits.enter(team="b", max_tokens=20)
    now = {("a",): 0, ("b",): hold.claims[0].amount}
    assert used == now
    assert quota == {("a",): 1_000, ("b",): 1_000}
    for team, call in made.items():  # they settle in the month in which they began
        limits.leave((call, call.claimed[0]), 400, 500)
        assert used == now, team


async def test_other_sums_are_right_however_many_teams_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Teams beyond those remembered leave the sums; one that calls again comes back with what it has used."""
    monkeypatch.setattr("policies._gauge._MOST_OTHERS", 3)
    limits = Limits(Quota, {"tokens": 1_000})
    quota, used = limits.kit.metrics.token_quota.values, limits.kit.metrics.token_quota_used.values
    for n in range(1, 6):
        limits.leave(await limits.enter(team=f"t{n}", max_tokens=1), n * 10, 0)
    _, hold = await limits.enter(team="t5", max_tokens=1)
    each = hold.claims[0].amount
    assert quota == {("other",): 3_000}
    assert used == {("other",): each + each + 50 + each}


async def test_a_quota_that_is_not_the_teams_shows_no_team() -> None:
    """`by: user`, `key` or `feature`: a team has no figure of its own."""
    for by in ("user", "key", "feature"):
        limits = Limits(Quota, {"tokens": 1_000, "by": by}, {"a": {}})
        await limits.enter(team="a", max_tokens=5)
        assert not limits.kit.metrics.token_quota.values
        assert not limits.kit.metrics.token_quota_used.values


async def test_the_gauge_gives_back_what_a_call_held_and_did_not_use() -> None:
    """After the last call it shows what is booked, not that call's hold; a refused call changes nothing."""
    limits = Limits(Quota, {"tokens": 1_000}, {"a": {}})
    used = limits.kit.metrics.token_quota_used.values
    for team, label in (("a", "a"), ("x", "other")):
        made, hold = await limits.enter(team=team, max_tokens=500)
        made.claimed.append(hold)
        assert used[label,] > 500
        error = await limits.refused(team=team, max_tokens=900)
        limits.leave((error.call, Hold("none", [])))  # type: ignore[attr-defined]
        assert used[label,] > 500
        limits.leave((made, hold), 20, 30)
        assert used[label,] == 50


@pytest.mark.parametrize("settings", [{"tokens": 10**30}, {"default_max_tokens": 10**12}])
def test_limits_that_no_store_could_add_up_are_load_errors(settings: dict[str, int]) -> None:
    """Above 10**15 neither Lua nor SQLite counts exactly: the policy's quota is bounded, and a team's own."""
    with pytest.raises(ValueError):
        Quota.Config(**settings)
    with pytest.raises(ValueError):
        Limits(Quota, {}, {"a": {"token_quota": 10**30}})


async def test_the_default_bound_of_quota_holds_for_other_limits_too() -> None:
    """A rate limit above quota holds what quota is going to send."""
    from policies._holds import Holds

    entry = SimpleNamespace(config=SimpleNamespace(default_max_tokens=77))
    kit = build.kit(config=SimpleNamespace(models={}, policy=lambda name: entry if name == "quota" else None))
    call = build.call()
    assert Holds(kit).completion(call) == 77


def test_the_settings_have_the_contracts_defaults() -> None:
    """100,000 tokens per month by team, 4,096 for an unbounded answer."""
    assert Quota.Config().model_dump() == {"tokens": 100_000, "per": "month", "by": "team", "default_max_tokens": 4096}
    with pytest.raises(ValueError):
        Quota.Config(tokens=-1)
