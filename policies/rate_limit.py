"""Requests, tokens and running calls per window, by team, user, key and feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

from pydantic import Field, model_validator

from policies._holds import Holds
from policies._shape import MOST, every, plural, reset_in
from policies.base import ApiError, Call, Caller, Claim, ClaimState, Counter, Kit, Policy, PolicyConfig, Reply
from proxy.config.units import Duration

By = Literal["team", "user", "key", "feature"]
_TYPE: Final = {"rate": "requests", "tokens": "tokens", "slots": "concurrency"}
#: Limit, remaining, reset, by the kind of claim.
_HEADERS: Final = {
    kind: (f"x-ratelimit-limit-{what}", f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}")
    for kind, what in _TYPE.items()
}
_MAX_PLANS: Final = 10_000
#: The stores count time in microseconds; a shorter window than this is no limit.
_SHORTEST: Final = 0.001


class Limit(PolicyConfig):
    """One limit: any of requests and tokens ``per`` window, and calls at the same time."""

    by: By = "user"
    requests: Annotated[int, Field(ge=1, le=MOST)] | None = None
    tokens: Annotated[int, Field(ge=1, le=MOST)] | None = None
    per: Annotated[Duration, Field(ge=_SHORTEST, le=86_400)] = 60.0
    concurrent: Annotated[int, Field(ge=1, le=MOST)] | None = None

    @model_validator(mode="after")
    def _some(self) -> Limit:
        if self.requests is None and self.tokens is None and self.concurrent is None:
            raise ValueError("a rate limit needs `requests`, `tokens` or `concurrent`")
        return self


class RateLimitConfig(PolicyConfig):
    """Several ``limits``, or one limit's keys directly."""

    limits: tuple[Limit, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        direct = {name: value[name] for name in Limit.model_fields if name in value}
        rest = {name: setting for name, setting in value.items() if name not in direct}
        if direct and value.get("limits"):
            raise ValueError("write either `limits` or one limit's keys, not both")
        if direct:
            return {**rest, "limits": [direct]}
        return value if value.get("limits") else {**rest, "limits": [{"requests": 100, "per": 60, "by": "user"}]}

    @model_validator(mode="after")
    def _distinct(self) -> RateLimitConfig:
        seen = set()
        for limit in self.limits:
            for what in ("requests", "tokens", "concurrent"):
                if getattr(limit, what) is not None:
                    name = (limit.by, what, 0.0 if what == "concurrent" else limit.per)
                    if name in seen:
                        raise ValueError(f"two limits of {what} by {limit.by} with the same window; keep one of them")
                    seen.add(name)
        return self


class Spec(NamedTuple):
    """One counter of a caller: what is claimed from it. ``value`` of ``by`` is part of the key, unless it varies by call."""

    kind: Literal["rate", "tokens", "slots"]
    by: By
    key: str
    limit: int
    window: float

    @property
    def fixed(self) -> bool:
        """Tell whether every call of the caller claims the same: one request or slot, of one key."""
        return self.kind != "tokens" and self.by in ("team", "user")


class Row(NamedTuple):
    """A line of a caller's plan: a limit, and the claim that its calls share where it is the same for all of them."""

    spec: Spec
    claim: Claim | None


class RateLimit(Policy[RateLimitConfig]):
    """Refuse calls above any of its limits with 429 and the true wait; every answer tells the tightest limit."""

    Config = RateLimitConfig
    after: ClassVar[tuple[str, ...]] = ("template",)
    keeps_state: ClassVar[bool] = True

    def __init__(self, config: RateLimitConfig, kit: Kit) -> None:
        super().__init__(config, kit)
        self._holds = Holds(kit)
        self._plans: dict[tuple[str, str], tuple[Row, ...]] = {}
        watches_tokens = any(limit.tokens for limit in config.limits) or any(
            one is not None and one.tokens
            for team in kit.teams.values()
            for one in (team.rate_limit, *(user.rate_limit for user in team.users.values()))
        )
        if not watches_tokens:
            self.on_request = super().on_request  # type: ignore[method-assign]  # a prompt's size means nothing here

    async def on_request(self, call: Call) -> Reply | None:
        for spec, _ in self._plan(call.caller.team, call.caller.user):
            if spec.kind == "tokens":
                key = _key(spec, call.caller.key_id, call.feature)
                if self._holds.near(call, key, spec.limit):
                    await self._holds.count(call)
        return None

    def claims(self, call: Call) -> Sequence[Claim]:
        caller = call.caller
        team, key_id = caller.team, caller.key_id
        claims = []
        for spec, claim in self._plan(team, caller.user):
            if claim is None:
                amount = 1 if spec.kind != "tokens" else self._holds.total(call)
                claim = _claim(spec, team, _key(spec, key_id, call.feature), amount)
            claims.append(claim)
        return claims

    def admitted(self, call: Call, claims: Sequence[Claim], states: Sequence[ClaimState]) -> None:
        wait = 0.0
        tightest: dict[str, int] = {}
        for at in range(len(claims)):
            claim, state = claims[at], states[at]
            if state.refused and state.wait > wait:
                wait = state.wait
            kind = claim.kind
            if kind == "slots":
                continue
            if kind == "tokens":
                self._holds.saw(claim.team, claim.key, state.remaining)
            # The less is left the tighter; of equals the one that takes longer to be whole again.
            if kind not in tightest or _left(state) < _left(states[tightest[kind]]):
                tightest[kind] = at
        if wait:
            call.notes[self.name] = wait
        if self.enforce:
            for at in tightest.values():
                claim, state = claims[at], states[at]
                limit, remaining, reset = _HEADERS[claim.kind]
                call.headers += (
                    (limit, str(claim.limit)),
                    (remaining, str(state.remaining)),
                    (reset, reset_in(state.reset)),
                )

    def refusal(self, call: Call, claim: Claim, state: ClaimState) -> ApiError:
        spec: Spec = claim.note
        whose = {"team": "your team", "user": "this user", "key": "this key", "feature": "this feature"}[spec.by]
        if claim.kind == "slots":
            return ApiError(
                "rate_limit_exceeded",
                f"The limit of {plural(spec.limit, 'call')} at the same time for {whose} is reached; "
                "send the request again when one has ended.",
                type="concurrency",
                retry_after=max(state.wait, call.notes.get(self.name, 0.0)),
            )
        what = "request" if claim.kind == "rate" else "token"
        rule = f"{plural(spec.limit, what)} per {every(spec.window)} for {whose}"
        if claim.amount > spec.limit:
            return ApiError(
                "rate_limit_exceeded",
                f"This request may take {claim.amount:,} tokens, more than the limit of {rule}; "
                "lower max_completion_tokens or shorten the prompt.",
                type="tokens",
                headers=(("x-should-retry", "false"),),
                retry_after=state.wait,
            )
        # Of several limits that refuse, the longest wait is the true one.
        wait = max(state.wait, call.notes.get(self.name, 0.0))
        return ApiError(
            "rate_limit_exceeded",
            f"The rate limit of {rule} is reached; try again in {reset_in(wait)}.",
            type=_TYPE[claim.kind],
            retry_after=wait,
        )

    def counters(self, caller: Caller, features: Sequence[str]) -> list[Counter]:
        found = []
        for spec, _ in self._plan(caller.team, caller.user):
            for feature in features if spec.by == "feature" else (None,):
                key = _key(spec, caller.key_id, feature or "")
                found.append(Counter(Claim(spec.kind, caller.team, key, 0, spec.limit, spec.window), spec.by, feature))
        return found

    def describe(self) -> dict[str, Any]:
        return {
            "limits": [limit.model_dump(mode="json", exclude_none=True) for limit in self.config.limits],
            "teams": {
                name: team.rate_limit.model_dump(mode="json", exclude_none=True)
                for name, team in self.kit.teams.items()
                if team.rate_limit is not None
            },
            "users": {
                f"{name}/{user}": settings.rate_limit.model_dump(mode="json", exclude_none=True)
                for name, team in self.kit.teams.items()
                for user, settings in team.users.items()
                if settings.rate_limit is not None
            },
        }

    # --- whose limits -----------------------------------------------------------------------------------
    def _plan(self, team: str, user: str) -> tuple[Row, ...]:
        plan = self._plans.get((team, user))
        if plan is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            plan = self._plans[team, user] = tuple(
                Row(spec, _claim(spec, team, spec.key, 1) if spec.fixed else None) for spec in self._specs(team, user)
            )
        return plan

    def _specs(self, team: str, user: str) -> list[Spec]:
        teams = self.kit.teams
        settings = teams.get(team) or teams.get("default")
        own: dict[str, Any] = {}
        if settings is not None:
            if settings.rate_limit is not None:
                own["team"] = settings.rate_limit
            of_user = settings.users.get(user)
            if of_user is not None and of_user.rate_limit is not None:
                own["user"] = of_user.rate_limit
        specs: list[Spec] = []
        for limit in self.config.limits:
            if limit.by not in own:
                specs += _specs_of(limit, limit.by, user)
        for by, limit in own.items():
            specs += _specs_of(limit, by, user)  # type: ignore[arg-type]
        return specs


def _specs_of(limit: Any, by: By, user: str) -> list[Spec]:
    # The value stands last: whatever a user is called, it cannot end in another counter.
    whose = f":{user}" if by == "user" else ""
    specs = []
    per = max(limit.per, _SHORTEST)  # a team's own limit is not bounded by its type
    if limit.requests is not None:
        specs.append(Spec("rate", by, f"{by}:{per:g}{whose}", min(limit.requests, MOST), per))
    if limit.tokens is not None:
        specs.append(Spec("tokens", by, f"{by}:{per:g}{whose}", min(limit.tokens, MOST), per))
    if limit.concurrent is not None:
        specs.append(Spec("slots", by, f"{by}{whose}", min(limit.concurrent, MOST), 0.0))
    return specs


def _left(state: ClaimState) -> tuple[int, float]:
    return state.remaining, -state.reset


def _claim(spec: Spec, team: str, key: str, amount: int) -> Claim:
    return Claim(spec.kind, team, key, amount, spec.limit, spec.window, note=spec)


def _key(spec: Spec, key_id: str, feature: str) -> str:
    if spec.by == "key":
        return f"{spec.key}:{key_id}"
    if spec.by == "feature":
        return f"{spec.key}:{feature or 'other'}"
    return spec.key
