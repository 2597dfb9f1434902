"""rate_limit: which counters a call takes from, what the answers say, who has limits of their own."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from policies._shape import every, reset_in
from policies.rate_limit import RateLimit, RateLimitConfig
from proxy.decisions import Step
from tests.policies.limits import Limits, headers


async def test_a_bare_entry_allows_100_requests_a_minute_by_user() -> None:
    """Without settings: 100 requests per 60 s for each user, the 101st refused with 429."""
    limits = Limits(RateLimit, {})
    for _ in range(100):
        await limits.enter(user="ann")
    error = await limits.refused(user="ann")
    assert (error.status, error.code, error.type) == (429, "rate_limit_exceeded", "requests")
    await limits.enter(user="bob")


async def test_retry_after_is_the_true_wait() -> None:
    """A lone request is let in after `retry-after-ms`, and not a millisecond earlier."""
    limits = Limits(RateLimit, {"requests": 3, "per": "10s", "by": "team"})
    for _ in range(3):
        await limits.enter()
    limits.clock.advance(1.0)
    error = await limits.refused()
    assert error.retry_after == pytest.approx(10 / 3 - 1, abs=1e-3)
    assert dict(error.headers)["retry-after"] == "3"
    limits.clock.advance(error.retry_after - 0.001)
    await limits.refused()
    limits.clock.advance(0.001)
    await limits.enter()


async def test_headers_tell_the_tightest_limit_on_success_and_refusal() -> None:
    """Of several limits of requests the one with least left is told; tokens likewise; in OpenAI's formats."""
    limits = Limits(
        RateLimit,
        {
            "limits": [
                {"by": "team", "requests": 100, "per": "1m"},
                {"by": "user", "requests": 2, "per": "1s"},
                {"by": "team", "tokens": 10_000, "per": "1m"},
            ]
        },
    )
    call, _ = await limits.enter(text="x", max_tokens=100)
    found = headers(call)
    assert found["x-ratelimit-limit-requests"] == "2"
    assert found["x-ratelimit-remaining-requests"] == "1"
    assert found["x-ratelimit-reset-requests"] == "500ms"
    assert found["x-ratelimit-limit-tokens"] == "10000"
    held = call.estimate + 100
    assert found["x-ratelimit-remaining-tokens"] == str(10_000 - held)
    await limits.enter(text="x", max_tokens=100)
    error = await limits.refused(text="x", max_tokens=100)
    refused = headers(error.call)  # type: ignore[attr-defined]
    assert refused["x-ratelimit-remaining-requests"] == "0"
    assert refused["x-ratelimit-reset-requests"] == "1s"


async def test_tokens_are_held_and_the_difference_given_back() -> None:
    """A tokens limit takes prompt and bound at admission; the end leaves only what was used."""
    limits = Limits(RateLimit, {"tokens": 1_000, "per": "1m", "by": "user"})
    entered = await limits.enter(text="x", max_tokens=900)
    error = await limits.refused(text="x", max_tokens=900)
    assert error.type == "tokens"
    limits.leave(entered, 8, 2)
    call, _ = await limits.enter(text="x", max_tokens=900)
    assert int(headers(call)["x-ratelimit-remaining-tokens"]) == 1_000 - 10 - 900 - call.estimate


async def test_a_request_that_can_never_fit_is_told_so() -> None:
    """More tokens than the limit holds: refused, with what to do and no invitation to retry."""
    limits = Limits(RateLimit, {"tokens": 100, "per": "1m", "by": "team"})
    error = await limits.refused(max_tokens=5_000)
    assert "lower max_completion_tokens" in error.message
    assert dict(error.headers)["x-should-retry"] == "false"


async def test_concurrent_calls_are_counted_while_they_run() -> None:
    """`concurrent` frees its place at the end of a call, whatever it came to."""
    limits = Limits(RateLimit, {"concurrent": 2, "by": "team"})
    first = await limits.enter()
    await limits.enter()
    error = await limits.refused()
    assert (error.status, error.type) == (429, "concurrency")
    limits.leave(first)
    await limits.enter()


async def test_by_key_and_by_feature() -> None:
    """Keys and features have counters of their own, inside the team; an unlisted feature is `other`."""
    limits = Limits(RateLimit, {"limits": [{"by": "feature", "requests": 1, "per": "1h"}]})
    await limits.enter(feature="summary")
    await limits.enter(feature="title")
    await limits.refused(feature="summary")
    await limits.enter(team="b", feature="summary")
    by_key = Limits(RateLimit, {"limits": [{"by": "key", "requests": 1, "per": "1h"}]})
    await by_key.enter(user="ann")
    await by_key.refused(user="bob")


async def test_teams_and_users_have_limits_of_their_own() -> None:
    """A team's limit replaces the one by team, a user's the one by user; all levels must pass."""
    limits = Limits(
        RateLimit,
        {"limits": [{"by": "team", "requests": 5, "per": "1h"}, {"by": "user", "requests": 3, "per": "1h"}]},
        {
            "big": {
                "rate_limit": {"requests": 7, "per": "1h"},
                "users": {"ann": {"rate_limit": {"requests": 6, "per": "1h"}}},
            },
            "default": {"rate_limit": {"requests": 2, "per": "1h"}},
        },
    )
    for _ in range(6):
        await limits.enter(team="big", user="ann")
    await limits.refused(team="big", user="ann")
    await limits.enter(team="big", user="bob")
    assert "7 requests per hour for your team" in (await limits.refused(team="big", user="bob")).message
    for team in ("unlisted", "another"):
        await limits.enter(team=team)
        await limits.enter(team=team)
        await limits.refused(team=team)


async def test_a_user_cannot_name_another_counter() -> None:
    """Names that look like parts of a key stay names."""
    limits = Limits(
        RateLimit, {"limits": [{"by": "user", "requests": 1, "per": "1m"}, {"by": "team", "requests": 9, "per": "1h"}]}
    )
    for user in ("a", "a:60", ":a", "60:a", "team:60", ""):
        await limits.enter(user=user)


async def test_the_longest_wait_of_several_is_told() -> None:
    """Where two limits refuse, waiting for the first alone would not do."""
    limits = Limits(
        RateLimit, {"limits": [{"by": "team", "requests": 1, "per": "1s"}, {"by": "user", "requests": 1, "per": "1h"}]}
    )
    await limits.enter()
    error = await limits.refused()
    assert error.retry_after == pytest.approx(3_600, abs=1)


async def test_shadow_mode_refuses_nobody_and_says_nothing() -> None:
    """With `enforce: false` calls pass and carry no limit headers."""
    limits = Limits(RateLimit, {"requests": 1, "per": "1h"})
    limits.policy.enforce = False
    for _ in range(3):
        call, _ = await limits.enter()
        assert call.headers == []


@pytest.mark.parametrize(
    "settings",
    [
        {"by": "user"},
        {"requests": 0},
        {"requests": 1, "limits": [{"requests": 1}]},
        {"limits": [{"by": "team", "requests": 1}, {"by": "team", "requests": 2}]},
        {"limits": [{"requests": 1, "per": 0}]},
        {"requests": 1, "window": 60},
    ],
)
def test_limits_that_mean_nothing_are_load_errors(settings: dict[str, object]) -> None:
    """No limit at all, zero, both forms, the same one twice, no window, an unknown key."""
    with pytest.raises(ValidationError):
        RateLimitConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0004, "1ms"), (0.02, "20ms"), (1, "1s"), (7.66, "7.66s"), (360, "6m0s"), (3723.5, "1h2m3.5s")],
)
def test_resets_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    """Durations in the headers: milliseconds below a second, then h, m and s."""
    assert reset_in(seconds) == text


def test_windows_in_words() -> None:
    """Sentences say `per minute`, not `per 60.0`."""
    assert [every(s) for s in (1, 60, 300, 3600, 86400, 90)] == [
        "second",
        "minute",
        "5 minutes",
        "hour",
        "day",
        "90 seconds",
    ]


@pytest.mark.parametrize("settings", [{"requests": 10**20}, {"requests": 1, "per": 1e-7}, {"concurrent": 10**20}])
def test_limits_that_no_store_could_count_are_load_errors(settings: dict[str, float]) -> None:
    """Numbers stay exact in every store, windows at least a millisecond: the policy's limits are bounded, and a team's own."""
    with pytest.raises(ValueError):
        RateLimit.Config(**settings)
    with pytest.raises(ValueError):
        Limits(RateLimit, {}, {"a": {"rate_limit": settings}})


async def test_only_limits_of_tokens_look_at_the_prompt_beforehand() -> None:
    """A policy that counts no tokens is not asked before its claims; a single team's limit of tokens is enough to be."""
    assert not Step(Limits(RateLimit, {"requests": 3}).policy).requests
    assert Step(Limits(RateLimit, {"tokens": 3}).policy).requests
    assert Step(Limits(RateLimit, {"requests": 3}, {"a": {"rate_limit": {"tokens": 5}}}).policy).requests
