"""budget: money held and settled, alerts once, a throttle above its mark, a hard stop where wanted."""

from __future__ import annotations

import asyncio
import json
import logging
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

import policies.budget as module
from policies.budget import Budget
from proxy.config.model import Price
from tests.policies.limits import Limits

#: One dollar per thousand tokens in and out: a token is 1,000 micro-dollars.
PRICES = {"echo/m": Price(input=1_000, output=1_000)}
CONFIG = SimpleNamespace(models={}, prices=PRICES)


def budget(settings: dict[str, Any], teams: dict[str, Any] | None = None, **more: Any) -> Limits:
    return Limits(Budget, settings, teams, config=CONFIG, **more)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_AFTER", 0.0)


async def test_money_is_held_at_the_highest_price_and_settled() -> None:
    """The hold is prompt and bound at the model's price; in the end the cost stands there."""
    limits = budget({"usd": 10})
    call, hold = await limits.enter(max_tokens=100)
    assert hold.claims[0].amount == (call.estimate + 100) * 1_000
    limits.leave((call, hold), 10, 20, cost=30_000)
    (state,) = await limits.store.peek([row.claim for row in limits.policy.counters(call.caller, ())])
    assert (state.used, state.held) == (30_000, 0)


async def test_without_a_hard_stop_nobody_is_refused_below_the_throttle() -> None:
    """A budget that only watches lets calls pass, whatever they may cost."""
    limits = budget({"usd": 0.01})
    for _ in range(5):
        await limits.enter(max_tokens=5_000)


async def test_above_the_mark_calls_are_slowed_down() -> None:
    """At 120 % the throttle's rate applies: 429 of type budget with the true wait; other teams go on."""
    limits = budget({"usd": 1, "throttle": {"at": 120, "requests": 2, "per": "1m"}})
    limits.leave(await limits.enter(), cost=1_199_999)
    for _ in range(5):
        limits.leave(await limits.enter(), cost=0)
    limits.leave(await limits.enter(), cost=1)
    await limits.enter()
    await limits.enter()
    error = await limits.refused()
    assert (error.status, error.code, error.type) == (429, "rate_limit_exceeded", "budget")
    assert error.retry_after == pytest.approx(30, abs=0.01)
    limits.clock.advance(error.retry_after)
    await limits.enter()
    await limits.enter(team="other")


async def test_a_hard_stop_is_402() -> None:
    """With `hard_stop: 100` nothing enters that could cost more than is left."""
    limits = budget({"usd": 1, "hard_stop": 100, "throttle": None})
    first = await limits.enter(max_tokens=800)
    error = await limits.refused(max_tokens=800)
    assert (error.status, error.code) == (402, "budget_exceeded")
    assert dict(error.headers)["x-should-retry"] == "false"
    assert dict(error.headers)["x-quota-reset"] == "2026-12-01T00:00:00Z"
    limits.leave(first, cost=1_000)
    await limits.enter(max_tokens=800)


async def test_teams_have_budgets_of_their_own() -> None:
    """`budget_usd` replaces the policy's; where nobody sets one nothing is claimed."""
    limits = budget({}, {"rich": {"budget_usd": 500}, "default": {"budget_usd": 5}, "none": {}})
    policy = limits.policy
    assert isinstance(policy, Budget)
    assert [policy.usd(team) for team in ("rich", "unlisted", "none")] == [500, 5, None]
    _, hold = await limits.enter(team="none")
    assert not hold.claims
    assert limits.kit.metrics.budget.values == {("rich",): 500}


async def test_each_threshold_alerts_once_over_all_replicas(caplog: pytest.LogCaptureFixture) -> None:
    """50, 80 and 100 % are each told once per team and period, two sidecars and many calls notwithstanding."""
    caplog.set_level(logging.WARNING)
    one = budget({"usd": 1})
    two = budget({"usd": 1}, store=one.store)
    for limits, cost in ((one, 490_000), (two, 20_000), (one, 1_000), (two, 600_000), (one, 1_000), (two, 1_000)):
        limits.leave(await limits.enter(), cost=cost)
        await limits.background()
    told = [record.fields for record in caplog.records if record.msg == "budget_alert"]  # type: ignore[attr-defined]
    assert [alert["threshold"] for alert in told] == [50, 80, 100]
    assert [alert["spent_usd"] for alert in told] == [0.51, 1.111, 1.111]
    counted = [limits.kit.metrics.budget_alerts.values for limits in (one, two)]
    assert sum(sum(values.values()) for values in counted) == 3


async def test_the_call_that_crosses_a_threshold_alerts_although_no_other_follows() -> None:
    """What a call came to is looked at soon after its end."""
    limits = budget({"usd": 1})
    limits.leave(await limits.enter(), cost=900_000)
    await limits.background()
    assert limits.kit.metrics.budget_alerts.values == {("other", "50"): 1, ("other", "80"): 1}


async def test_a_held_sum_is_no_alert() -> None:
    """Only what is booked counts: a bound that nobody used up does not ring."""
    limits = budget({"usd": 1})
    limits.leave(await limits.enter(max_tokens=900), cost=1)
    await limits.enter(max_tokens=900)
    await limits.background()
    assert limits.kit.metrics.budget_alerts.values == {}


class _Hook(BaseHTTPRequestHandler):
    seen: list[dict[str, Any]]
    answers: list[int]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).seen.append(json.loads(body))
        self.send_response(self.answers.pop(0) if self.answers else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        return


async def test_a_webhook_gets_a_sentence_that_slack_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The POST has `text`, and is tried again where the receiver fails."""
    handler = type("Handler", (_Hook,), {"seen": [], "answers": [500]})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    real = asyncio.sleep
    monkeypatch.setattr(module.asyncio, "sleep", lambda seconds: real(0))
    try:
        limits = budget({"usd": 2, "alerts": [50], "webhook": f"http://127.0.0.1:{server.server_port}/hook"})
        limits.leave(await limits.enter(), cost=1_000_000)
        await limits.background()
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
    first, second = handler.seen
    assert first == second
    assert first["text"] == (
        "llm-sidecar: team default has spent $1.00 of its $2.00 for 2026-11 (50 %, alert at 50 %)."
    )
    assert first["spent_usd"] == 1.0


async def test_the_webhooks_address_is_told_nowhere() -> None:
    """It may hold a secret: neither `describe` nor a repr shows it."""
    limits = budget({"usd": 1, "webhook": "https://hooks.example.com/T0/SECRET"})
    assert "SECRET" not in repr(limits.policy.config)
    assert "SECRET" not in str(limits.policy.describe())


async def test_unpriced_models_are_a_warning() -> None:
    """`check` names the targets that a budget cannot see."""
    from proxy.config.model import ModelRoute

    settings = SimpleNamespace(model="no-such-model")
    config = SimpleNamespace(
        prices={}, providers={"openai": SimpleNamespace(absent=False, kind="openai", settings=settings)},
        models={"good": ModelRoute.model_validate({"targets": ["openai/gpt-4o"]})},
    )  # fmt: skip
    limits = Limits(Budget, {"usd": 1}, config=config)
    (warning,) = limits.policy.warnings()
    assert warning.startswith("openai/no-such-model has no price")


@pytest.mark.parametrize("settings", [{"usd": 1e300}, {"usd": 5, "hard_stop": 1e9}, {"throttle": {"requests": 10**20}}])
def test_budgets_that_no_store_could_add_up_are_load_errors(settings: dict[str, Any]) -> None:
    """Micro-dollars stay exact in every store: the policy's budget is bounded, and a team's own."""
    with pytest.raises(ValueError):
        Budget.Config(**settings)
    with pytest.raises(ValueError):
        Limits(Budget, {}, {"a": {"budget_usd": 1e300}})
