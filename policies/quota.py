"""Tokens per month or day, held before a call and settled to the truth after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from policies._gauge import Gauge
from policies._holds import DEFAULT_MAX_TOKENS, Holds
from policies._shape import MOST, rfc3339
from policies.base import ApiError, Call, Caller, Claim, ClaimState, Counter, Kit, Outcome, Policy, PolicyConfig
from proxy.fields import MAX_TOKENS
from proxy.store.period import day_of, month_of, period_end


class QuotaConfig(PolicyConfig):
    """How many ``tokens`` whom ``by`` may use ``per`` month or day (UTC)."""

    tokens: Annotated[int, Field(ge=0, le=MOST)] = 100_000
    per: Literal["month", "day"] = "month"
    by: Literal["team", "user", "key", "feature"] = "team"
    default_max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] = DEFAULT_MAX_TOKENS


class Quota(Policy[QuotaConfig]):
    """Refuse calls that may not fit into what is left with 402; bound answers that the request leaves unbounded."""

    Config = QuotaConfig
    after: ClassVar[tuple[str, ...]] = ("template",)
    keeps_state: ClassVar[bool] = True

    def __init__(self, config: QuotaConfig, kit: Kit) -> None:
        super().__init__(config, kit)
        self._holds = Holds(kit)
        self._holds.default_max_tokens = config.default_max_tokens
        self._gauge = Gauge(kit)
        self._by = config.by
        self._monthly = config.per == "month"
        self._clock = kit.clock
        self._reset = ("", "")
        """A period, and its end as the header tells it."""
        if config.by == "team":
            self._gauge.listed({name: self.limit(name) for name in kit.teams if name != "default"})

    def limit(self, team: str) -> int:
        """Return the team's tokens: its own, for unlisted teams the default team's, else the policy's."""
        teams = self.kit.teams
        settings = teams.get(team) or teams.get("default")
        own: int | None = settings.token_quota if settings is not None else None
        return self.config.tokens if own is None else min(own, MOST)

    async def on_request(self, call: Call) -> None:
        if self.enforce:
            self._bound(call)
        caller = call.caller
        if self._holds.near(call, self._key(caller.user, caller.key_id, call.feature), self.limit(caller.team)):
            await self._holds.count(call)

    def claims(self, call: Call) -> Sequence[Claim]:
        caller = call.caller
        team = caller.team
        now = self._clock.time()
        month = month_of(now)
        call.notes.setdefault("month", month)
        key = self._key(caller.user, caller.key_id, call.feature)
        period = month if self._monthly else day_of(now)
        return (Claim("quota", team, key, self._holds.total(call), self.limit(team), 0.0, period),)

    def admitted(self, call: Call, claims: Sequence[Claim], states: Sequence[ClaimState]) -> None:
        claim, state = claims[0], states[0]
        limit = claim.limit or 0
        self._holds.saw(claim.team, claim.key, state.remaining)
        if self._by == "team":
            self._gauge.saw(claim.team, claim.period, limit, state.used)
            if claim.amount * 100 > limit:  # a smaller hold does not show: spare the call the work
                call.defer(lambda outcome: self._settled(call, claim, outcome))
        if self.enforce:
            period, reset = self._reset
            if period != claim.period:
                reset = rfc3339(period_end(claim.period))
                self._reset = (claim.period, reset)
            call.headers += (
                ("x-quota-limit-tokens", str(limit)),
                ("x-quota-remaining-tokens", str(state.remaining)),
                ("x-quota-reset", reset),
            )

    def refusal(self, call: Call, claim: Claim, state: ClaimState) -> ApiError:
        whose = {"team": "Your team", "user": "This user", "key": "This key", "feature": "This feature"}[self.config.by]
        limit, reset = claim.limit or 0, rfc3339(period_end(claim.period))
        if state.remaining <= 0:
            message = f"{whose} has used its {limit:,} tokens of this {self.config.per}; more come at {reset}."
        else:
            message = (
                f"This request may take {claim.amount:,} tokens and {whose.lower()} has {state.remaining:,} of "
                f"{limit:,} left this {self.config.per}; lower max_completion_tokens, or wait until {reset}."
            )
        return ApiError("token_quota_exceeded", message)

    def counters(self, caller: Caller, features: Sequence[str]) -> list[Counter]:
        by, team, period = self.config.by, caller.team, self._period(self.kit.clock.time())
        found = []
        for feature in features if by == "feature" else (None,):
            key = self._key(caller.user, caller.key_id, feature or "")
            found.append(Counter(Claim("quota", team, key, 0, self.limit(team), period=period), by, feature))
        return found

    def describe(self) -> dict[str, Any]:
        teams = {name: team.token_quota for name, team in self.kit.teams.items() if team.token_quota is not None}
        return {**self.config.model_dump(mode="json"), "teams": teams}

    def _period(self, now: float) -> str:
        return month_of(now) if self._monthly else day_of(now)

    def _key(self, user: str, key_id: str, feature: str) -> str:
        by = self._by
        if by == "team":
            return "team"
        return f"{by}:{user if by == 'user' else key_id if by == 'key' else feature or 'other'}"

    def _bound(self, call: Call) -> None:
        request = call.request
        if request.endpoint == "embeddings" or request.max_tokens is not None:
            return
        if call.route and all(target.settings.max_tokens for target in call.route):
            return  # every provider's own bound is sent
        bound = self._holds.default_for(call)
        request.body["max_completion_tokens" if request.endpoint == "chat" else "max_tokens"] = bound
        request.touch()
        call.notes["applied_max_tokens"] = bound
        call.headers.append(("x-llm-applied-max-tokens", str(bound)))

    def _settled(self, call: Call, claim: Claim, outcome: Outcome) -> None:
        """Take what the call held and did not use out of the gauge; a refused call held nothing."""
        for hold in call.claimed:
            for index, one in enumerate(hold.claims):
                if one is claim and index not in hold.skip:
                    self._gauge.settled(claim.team, claim.period, outcome.usage.total - claim.amount)
                    return
