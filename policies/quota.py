"""Tokens per month or day, held before a call and settled to the truth after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from policies._holds import DEFAULT_MAX_TOKENS, Holds
from policies._shape import MOST, rfc3339
from policies.base import ApiError, Call, Claim, ClaimState, Kit, Outcome, Policy, PolicyConfig
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
        self._tightest: tuple[float, str] = (-1.0, "")
        for name in kit.teams:
            if name != "default":
                kit.metrics.token_quota.set(self.limit(name), (name,))

    def limit(self, team: str) -> int:
        """Return the team's tokens: its own, for unlisted teams the default team's, else the policy's."""
        teams = self.kit.teams
        settings = teams.get(team) or teams.get("default")
        own: int | None = settings.token_quota if settings is not None else None
        return self.config.tokens if own is None else min(own, MOST)

    async def on_request(self, call: Call) -> None:
        if self.enforce:
            self._bound(call)
        await self._holds.exact(
            call, self._key(call.caller.user, call.caller.key_id, call.feature), self.limit(call.caller.team)
        )

    def claims(self, call: Call) -> Sequence[Claim]:
        caller = call.caller
        now = self.kit.clock.time()
        call.notes.setdefault("month", month_of(now))
        return [
            Claim(
                "quota",
                caller.team,
                self._key(caller.user, caller.key_id, call.feature),
                self._holds.total(call),
                self.limit(caller.team),
                period=month_of(now) if self.config.per == "month" else day_of(now),
            )
        ]

    def admitted(self, call: Call, claims: Sequence[Claim], states: Sequence[ClaimState]) -> None:
        claim, state = claims[0], states[0]
        limit = claim.limit or 0
        self._holds.saw(claim.team, claim.key, state.remaining)
        if self.config.by == "team":
            self._gauge(claim.team, limit, state.used)
            if claim.amount * 100 > limit:  # a smaller hold does not show: spare the call the work
                call.defer(lambda outcome: self._settled(call, claim, outcome))
        if self.enforce:
            call.headers += (
                ("x-quota-limit-tokens", str(limit)),
                ("x-quota-remaining-tokens", str(state.remaining)),
                ("x-quota-reset", rfc3339(period_end(claim.period))),
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

    def report(self, team: str, user: str, key_id: str) -> list[Claim]:
        """Return a claim of nothing on the caller's quota, for the usage reports."""
        if self.config.by == "feature":
            return []
        now = self.kit.clock.time()
        period = month_of(now) if self.config.per == "month" else day_of(now)
        return [Claim("quota", team, self._key(user, key_id, ""), 0, self.limit(team), period=period)]

    def describe(self) -> dict[str, Any]:
        teams = {name: team.token_quota for name, team in self.kit.teams.items() if team.token_quota is not None}
        return {**self.config.model_dump(mode="json"), "teams": teams}

    def _key(self, user: str, key_id: str, feature: str) -> str:
        by = self.config.by
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
                    values = self.kit.metrics.token_quota_used.values
                    label = (claim.team if claim.team in self.kit.teams else "other",)
                    if label[0] != "other" or self._tightest[1] == claim.team:
                        values[label] = max(0, values.get(label, 0) + outcome.usage.total - claim.amount)
                    return

    def _gauge(self, team: str, limit: int, used: int) -> None:
        metrics = self.kit.metrics
        if team in self.kit.teams:
            metrics.token_quota.set(limit, (team,))
            metrics.token_quota_used.set(used, (team,))
            return
        # All unlisted teams share one series: it shows the one that is closest to its limit.
        share = used / limit if limit else 1.0
        if share >= self._tightest[0] or team == self._tightest[1]:
            self._tightest = (share, team)
            metrics.token_quota.set(limit, ("other",))
            metrics.token_quota_used.set(used, ("other",))
