"""The way in: policies top to bottom, their claims taken together, and settled at the call's end.

One coroutine owns a call from its first byte to its last; policies are asked at fixed points and never
own the flow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import orjson

from policies.base import Policy
from proxy.call import Call, Outcome, Reply
from proxy.decisions import Step, decided, fault, stopped, thrown_in, verdict
from proxy.errors import ApiError
from proxy.ids import new_id
from proxy.store.base import Claim, ClaimState, Hold, StoreUnavailable


async def ask(call: Call, steps: Sequence[Step]) -> tuple[Reply | None, int]:
    """Ask each policy in order; return an answer that one of them gave, and how many policies stand above it.

    Raises:
        ApiError: a policy refused, failed (:class:`PolicyFault`), or the store is down and it is set to refuse.
    """
    if "template" in call.request.body:
        _check_template(call, steps)
    pending: list[tuple[Step, Sequence[Claim]]] = []
    for step in steps:
        if pending and not step.claims:
            await _admit(call, pending)
            pending = []
        if step.requests:
            try:
                reply = await (_unchanged(call, step) if step.watches else step.policy.on_request(call))
            except BaseException as error:
                if thrown_in(error):
                    raise
                stopped(call, step, error)
            else:
                if call.leave_reason is not None:  # it was told by a cancel, which the policy swallowed
                    raise asyncio.CancelledError
                if reply is None:
                    if not step.claims:
                        decided(call, step, "pass")
                elif not isinstance(reply, Reply):
                    stopped(call, step, TypeError("on_request returned neither a Reply nor None"))
                elif step.enforce:
                    decided(call, step, "answer")
                    if pending:
                        await _admit(call, pending)
                    return reply, steps.index(step)
                else:
                    decided(call, step, "shadow_answer")
        if step.claims:
            try:
                claims = tuple(step.policy.claims(call) or ())  # a generator's, too: they are looked at more than once
            except BaseException as error:
                stopped(call, step, error)
                continue
            if claims:
                pending.append((step, claims))
            else:
                decided(call, step, "pass")
    if pending:
        await _admit(call, pending)
    return None, len(steps)


def _check_template(call: Call, steps: Sequence[Step]) -> None:
    """Refuse a template that nobody would fill in: sent on, it would be a request without its prompt."""
    if call.request.body["template"] is not None and not any(s.name == "template" and s.enforce for s in steps):
        raise ApiError(
            "invalid_request",
            "This sidecar serves no templates: its llm.yml lists no `template` policy; send `messages` instead.",
            param="template",
        )


async def _unchanged(call: Call, step: Step) -> Reply | None:
    """Ask a policy that only watches, whatever its author thought of, and undo what it did to the call."""
    body, route = orjson.dumps(call.request.body), list(call.route)
    try:
        return await step.policy.on_request(call)
    finally:
        call.request.body = orjson.loads(body)
        call.route = route


async def _admit(call: Call, pending: list[tuple[Step, Sequence[Claim]]]) -> None:
    """Take the claims of adjacent policies in one atomic step."""
    claims: list[Claim] = []
    hold = Hold(new_id(), claims)
    try:
        for step, some in pending:
            if not step.enforce:
                for claim in some:
                    claim.enforce = False
            claims += some
        call.claimed.append(hold)
        verdict = await call.runtime.store.admit(hold)
    except StoreUnavailable:
        _unadmitted(call, pending)
        return
    except Exception as error:
        await _admit_others(call, pending, hold, error)
        return
    states, refusing = verdict.states, None
    if not verdict.admitted:
        call.claimed.remove(hold)  # nothing was taken
    at = 0
    for step, some in pending:
        begin = at
        decision = "pass"
        for claim in some:
            if at == verdict.refused:
                refusing = step
            if states[at].refused and not claim.enforce:
                decision = "shadow_refuse"
            at += 1
        if step is not refusing:
            decided(call, step, decision)
        try:
            step.policy.admitted(call, some, states[begin:at])
        except BaseException as error:
            stopped(call, step, error)
    if refusing is not None:
        raise _wording(call, refusing, claims[verdict.refused], states[verdict.refused])


async def _admit_others(call: Call, pending: list[tuple[Step, Sequence[Claim]]], hold: Hold, error: Exception) -> None:
    """Refuse the call of the policy whose claims are none, or leave it out if it only watches; else raise ``error``."""
    for step, some in pending:
        if not all(isinstance(claim, Claim) for claim in some):
            if hold in call.claimed:
                call.claimed.remove(hold)
            stopped(call, step, error)
            others = [pair for pair in pending if pair[0] is not step]
            if others:
                await _admit(call, others)
            return
    raise error


def _wording(call: Call, step: Step, claim: Claim, state: ClaimState) -> ApiError:
    """Return the policy's own words for the claim that the store refused."""
    try:
        error = step.policy.refusal(call, claim, state)
        if not isinstance(error, ApiError):
            raise TypeError("refusal returned no ApiError")
    except BaseException as raised:
        return fault(call, step, raised)
    return verdict(call, step, error)


def _unadmitted(call: Call, pending: list[tuple[Step, Sequence[Claim]]]) -> None:
    """Decide without the store, as each policy's ``store_down`` says."""
    for step, some in pending:
        call.runtime.metrics.degraded.inc((step.name,))
        if step.policy.store_down == "refuse" and any(claim.enforce for claim in some):
            call.notes["unadmitted"] = True
            decided(call, step, "store_down")
            raise ApiError(
                "store_unavailable", "The limits cannot be checked at the moment; try again shortly.", retry_after=1.0
            ) from None
        decided(call, step, "pass")


def settle_claims(call: Call, outcome: Outcome) -> None:
    """Settle every hold of the call to the truth, and put the call into the usage ledger."""
    runtime = call.runtime
    record: Any = runtime.usage_record(call, outcome)
    if not call.claimed:
        runtime.store.record(record)
        return
    tokens = outcome.usage.total
    cost = outcome.cost or 0
    for hold in call.claimed:
        actual = [tokens if claim.kind in _TOKENS else cost if claim.kind == "money" else 0 for claim in hold.claims]
        runtime.store.settle(hold, actual, record)
        record = None


_TOKENS: Final = frozenset(("tokens", "quota"))


def build_steps(policies: Sequence[Policy[Any]]) -> tuple[Step, ...]:
    """Return the running order."""
    return tuple(Step(policy) for policy in policies)
