"""Money per month or day: held like tokens, settled to priced usage, with alerts, a throttle and a hard stop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, field_validator

from policies._holds import Holds
from policies._shape import MOST, MOST_PER_CENT, MOST_USD, every, plural, reset_in, rfc3339
from policies.base import ApiError, Call, Caller, Claim, ClaimState, Counter, Kit, Outcome, Policy, PolicyConfig
from proxy.config.units import Duration
from proxy.prices import Prices
from proxy.store.base import StoreUnavailable
from proxy.store.period import day_of, month_of, period_end

_MICRO: Final = 1_000_000
#: How long after a call's end its money is looked at, so that its settlement has arrived.
_LOOK_AFTER: Final = 0.5
_WEBHOOK_TRIES: Final = 3


class Throttle(PolicyConfig):
    """Above ``at`` per cent of the budget, so many ``requests`` ``per`` window."""

    at: Annotated[float, Field(gt=0, le=MOST_PER_CENT)] = 120
    requests: Annotated[int, Field(ge=1, le=MOST)] = 10
    per: Annotated[Duration, Field(ge=0.001, le=86_400)] = 60.0


class BudgetConfig(PolicyConfig):
    """US dollars for each team ``per`` month or day (UTC). ``alerts`` and ``hard_stop`` are percentages."""

    usd: Annotated[float, Field(ge=0, le=MOST_USD)] | None = None
    per: Literal["month", "day"] = "month"
    alerts: tuple[Annotated[float, Field(gt=0, le=MOST_PER_CENT)], ...] = (50, 80, 100)
    throttle: Throttle | None = Throttle()
    hard_stop: Annotated[float, Field(gt=0, le=MOST_PER_CENT)] | None = None
    webhook: str | None = Field(None, repr=False)

    @field_validator("alerts")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(set(value)))

    @field_validator("webhook")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("https://", "http://")):
            raise ValueError("a webhook is an https:// address")
        return value


class Budget(Policy[BudgetConfig]):
    """Watch what each team spends: tell at thresholds, slow down above one, and stop where told to."""

    Config = BudgetConfig
    after: ClassVar[tuple[str, ...]] = ("template",)
    keeps_state: ClassVar[bool] = True

    def __init__(self, config: BudgetConfig, kit: Kit) -> None:
        super().__init__(config, kit)
        self._holds = Holds(kit)
        self._prices = Prices(getattr(kit.config, "prices", None), time=kit.clock.time)
        self._looking: set[str] = set()
        self._told: set[tuple[str, str, float]] = set()
        for name in kit.teams:
            if name != "default" and (usd := self.usd(name)) is not None:
                kit.metrics.budget.set(usd, (name,))

    def usd(self, team: str) -> float | None:
        """Return the team's budget in US dollars: its own, for unlisted teams the default team's, else the policy's."""
        teams = self.kit.teams
        settings = teams.get(team) or teams.get("default")
        own: float | None = settings.budget_usd if settings is not None else None
        return self.config.usd if own is None else min(own, MOST_USD)

    async def on_request(self, call: Call) -> None:
        stop = self.config.hard_stop
        usd = self.usd(call.caller.team)
        if stop is None or usd is None:
            return
        if self._holds.near(call, "budget", round(usd * _MICRO * stop / 100)):
            await self._holds.count(call)

    def claims(self, call: Call) -> Sequence[Claim]:
        team = call.caller.team
        usd = self.usd(team)
        if usd is None:
            return ()
        config, now = self.config, self.kit.clock.time()
        call.notes.setdefault("month", month_of(now))
        limit = None if config.hard_stop is None else round(usd * _MICRO * config.hard_stop / 100)
        claims = [Claim("money", team, "budget", self._price(call), limit, period=self._period(now))]
        throttle = config.throttle
        if throttle is not None:
            above = round(usd * _MICRO * throttle.at / 100)
            claims.append(
                Claim("rate", team, f"throttle:{throttle.per:g}", 1, throttle.requests, throttle.per, above=above)
            )
        call.defer(lambda outcome: self._look(team, outcome))
        return claims

    def admitted(self, call: Call, claims: Sequence[Claim], states: Sequence[ClaimState]) -> None:
        money = states[0]
        if claims[0].limit is not None:
            self._holds.saw(claims[0].team, "budget", money.remaining)
        self._tell(claims[0].team, claims[0].period, money.used - money.held)

    def refusal(self, call: Call, claim: Claim, state: ClaimState) -> ApiError:
        usd = self.usd(claim.team) or 0.0
        if claim.kind == "rate":
            return ApiError(
                "rate_limit_exceeded",
                f"Your team has spent its budget of ${usd:,.2f} and is slowed down to "
                f"{plural(claim.limit or 0, 'request')} per {every(claim.window)}; try again in {reset_in(state.wait)}.",
                type="budget",
                retry_after=state.wait,
            )
        reset = rfc3339(period_end(claim.period))
        return ApiError(
            "budget_exceeded",
            f"Your team's budget of ${usd:,.2f} per {self.config.per} is spent or would be exceeded by this request; "
            f"it is renewed at {reset}.",
            headers=(("x-quota-reset", reset),),
        )

    def counters(self, caller: Caller, features: Sequence[str]) -> list[Counter]:
        usd = self.usd(caller.team)
        return [] if usd is None else [Counter(self._counter(caller.team, usd), "team")]

    def warnings(self) -> Sequence[str]:
        models = sorted(set(_models(self.kit.config)))
        return [
            f"{name} has no price, so that it costs a budget nothing; give it one under `prices:`"
            for name in self._prices.unpriced(models)
        ]

    def describe(self) -> dict[str, Any]:
        described = self.config.model_dump(mode="json", exclude={"webhook"})
        described["webhook"] = self.config.webhook is not None
        teams = {name: team.budget_usd for name, team in self.kit.teams.items() if team.budget_usd is not None}
        return {**described, "teams": teams}

    # --- money ------------------------------------------------------------------------------------------
    def _period(self, now: float) -> str:
        return month_of(now) if self.config.per == "month" else day_of(now)

    def _counter(self, team: str, usd: float) -> Claim:
        return Claim("money", team, "budget", 0, round(usd * _MICRO), period=self._period(self.kit.clock.time()))

    def _price(self, call: Call) -> int:
        prompt, completion = self._holds.prompt(call), self._holds.completion(call)
        return max(
            (
                self._prices.hold(target.provider.kind, target.name, target.model, prompt, completion) or 0
                for target in call.route
            ),
            default=0,
        )

    # --- alerts -----------------------------------------------------------------------------------------
    def _look(self, team: str, outcome: Outcome) -> None:
        """See to it that what the team has spent is looked at soon, once however many calls end meanwhile."""
        if outcome.cost and team not in self._looking:
            self._looking.add(team)
            self.kit.background(self._look_soon(team))

    async def _look_soon(self, team: str) -> None:
        try:
            await asyncio.sleep(_LOOK_AFTER)
        finally:
            self._looking.discard(team)
        claim = self._counter(team, 0.0)
        try:
            (state,) = await self.kit.store.peek([claim])
        except StoreUnavailable:
            return  # the next call's admission tells as much
        self._tell(team, claim.period, state.used - state.held)

    def _tell(self, team: str, period: str, booked: int) -> None:
        usd = self.usd(team)
        if not booked or not usd:
            return
        for threshold in self.config.alerts:
            if booked * 100 < usd * _MICRO * threshold:
                return
            if (team, period, threshold) not in self._told:
                if len(self._told) >= 10_000:
                    self._told.clear()
                self._told.add((team, period, threshold))
                self.kit.background(self._alert(team, period, threshold, booked, usd))

    async def _alert(self, team: str, period: str, threshold: float, booked: int, usd: float) -> None:
        """Tell of a threshold, unless another sidecar did."""
        store = self.kit.store
        ttl = max(0.0, period_end(period) - self.kit.clock.time()) + 40 * 86400
        try:
            first = await store.once(f"budget:{team}:{period}:{threshold:g}", ttl)
        except StoreUnavailable:
            self._told.discard((team, period, threshold))
            return
        if not first:
            return
        spent = booked / _MICRO
        label = team if team in self.kit.teams else "other"
        self.kit.metrics.budget_alerts.inc((label, f"{threshold:g}"))
        fields = {
            "team": team,
            "period": period,
            "threshold": threshold,
            "spent_usd": round(spent, 6),
            "budget_usd": usd,
        }
        self.kit.log.warning("budget_alert", extra={"fields": fields})
        if self.config.webhook is not None:
            text = (
                f"llm-sidecar: team {team} has spent ${spent:,.2f} of its ${usd:,.2f} for {period} "
                f"({100 * spent / usd:.0f} %, alert at {threshold:g} %)."
            )
            await self._post(self.config.webhook, {"text": text, **fields})

    async def _post(self, url: str, body: dict[str, Any]) -> None:
        import httpx2

        async with httpx2.AsyncClient(timeout=10.0, trust_env=False) as client:
            for attempt in range(_WEBHOOK_TRIES):
                reason = ""
                try:
                    reply = await client.post(url, json=body)
                    if reply.is_success:
                        return
                    reason = f"it answered {reply.status_code}"
                except httpx2.HTTPError as error:
                    reason = type(error).__name__
                if attempt + 1 < _WEBHOOK_TRIES:
                    await asyncio.sleep(2.0**attempt)
        # The address may hold a secret, as Slack's do: it stays out of the log.
        self.kit.log.error("budget_webhook_failed", extra={"fields": {"team": body["team"], "reason": reason}})


def _models(config: Any) -> Iterator[tuple[str, str, str]]:
    """Yield kind, provider and model of every target that llm.yml names."""
    providers = {name: entry for name, entry in (getattr(config, "providers", None) or {}).items() if not entry.absent}
    for name, entry in providers.items():
        if entry.settings.model:
            yield entry.kind, name, entry.settings.model
    for route in (getattr(config, "models", None) or {}).values():
        for target in route.targets:
            name, _, model = target.to.partition("/")
            if name in providers:
                yield providers[name].kind, name, model
