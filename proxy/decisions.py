"""What a policy decided about a call, counted under its name; and a policy that failed, which is never the call's fault."""

from __future__ import annotations

import asyncio
from typing import Any

from policies.base import Policy
from proxy.call import Call
from proxy.errors import ApiError
from proxy.telemetry.log import describe


class Step:
    """One policy, and which of its hooks it, or its class, overrides: what it leaves out costs nothing."""

    __slots__ = ("claims", "counts", "enforce", "foreign", "name", "policy", "replies", "requests", "watches")

    def __init__(self, policy: Policy[Any]) -> None:
        cls = type(policy)
        self.policy = policy
        self.name = policy.name
        self.enforce = policy.enforce
        self.foreign = not cls.__module__.startswith("policies.")
        """Somebody's own: what it makes of a reply is looked at before anybody else reads it."""
        self.requests = getattr(policy.on_request, "__func__", None) is not Policy.on_request
        self.claims = cls.claims is not Policy.claims
        self.replies = cls.on_reply is not Policy.on_reply
        self.watches = policy.changes_request and not policy.enforce
        """It would change the request, and must not."""
        self.counts: dict[str, list[float]] = {}
        """How often it decided what, since the metrics began."""


class PolicyFault(ApiError):
    """A policy raised something that is not an answer: its call is refused, nothing goes upstream."""

    def __init__(self, name: str) -> None:
        super().__init__(
            "policy_unavailable", f"The policy {name} failed; send the request again later.", retry_after=1.0
        )


def stopped(call: Call, step: Step, error: BaseException) -> None:
    """Count what a hook of the policy raised, and raise what the call ends with unless the policy only watches."""
    if step.enforce:
        raise verdict(call, step, error)
    if isinstance(error, ApiError) and error.sound():
        decided(call, step, "shadow_refuse", error)
    else:
        fault(call, step, error)


def verdict(call: Call, step: Step, error: BaseException) -> ApiError:
    """Count what a policy raised; return what its call ends with: its refusal, or, for all else, that it failed."""
    if not isinstance(error, ApiError) or not error.sound():
        return fault(call, step, error)
    decided(call, step, "refuse", error)
    call.log["policy"] = step.name
    return error


def fault(call: Call, step: Step, error: BaseException) -> PolicyFault:
    """Count and log that a policy failed; return what to refuse its call with."""
    decided(call, step, "fail")
    if step.enforce:
        call.log["policy"] = step.name
    call.runtime.log.error(
        "policy_failed", extra={"fields": {"policy": step.name, "request_id": call.id, **describe(error)}}
    )
    return PolicyFault(step.name)


def thrown_in(error: BaseException) -> bool:
    """Tell whether ``error`` ends the call from outside: a cancel that somebody asked for.

    Everything else is the policy's own, `SystemExit` and a stray `CancelledError` included.
    """
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def decided(call: Call, step: Step, decision: str, error: ApiError | None = None) -> None:
    """Count a decision; name it in the log line if it is a shadow's, and to whom asked for explanations."""
    count = step.counts.get(decision)
    if count is None:
        count = step.counts[decision] = call.runtime.metrics.decisions.cell((step.name, decision))
    count[0] += 1
    if decision == "shadow_refuse" or decision == "shadow_answer":
        call.log.setdefault("shadow", []).append(step.name)
    if call.explain is not None:
        row: dict[str, Any] = {"policy": step.name, "decision": decision}
        if error is not None:
            row["code"] = error.code
            row["message"] = error.message
        call.explain.append(row)
