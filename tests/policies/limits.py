"""Run one limit policy as the core runs it: ask, claim, admit, tell, settle."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

from policies.base import Call, Kit, Outcome, Policy, Usage
from proxy.config.model import TeamSettings
from proxy.errors import ApiError
from proxy.store.base import Hold, Store
from proxy.store.embedded import EmbeddedStore
from tests.fakes.clock import StillClock
from tests.policies import build

_ids = itertools.count()


class Limits:
    """A policy with its store and clock."""

    def __init__(
        self, cls: type[Policy[Any]], settings: dict[str, Any], teams: dict[str, Any] | None = None,
        store: Store | None = None, **more: Any,
    ) -> None:  # fmt: skip
        self.clock = StillClock()
        self.store = store or EmbeddedStore(clock=self.clock)
        self.tasks: list[asyncio.Task[None]] = []
        listed = {name: TeamSettings(**team) for name, team in (teams or {}).items()}
        self.kit: Kit = build.kit(listed, store=self.store, clock=self.clock, **more)
        self.kit._background = self._background
        self.policy = cls(cls.Config(**settings), self.kit)
        self.policy.name = "limit"

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        return task

    async def background(self) -> None:
        """Wait for the policy's background work."""
        while self.tasks:
            await self.tasks.pop()

    async def enter(self, **call: Any) -> tuple[Call, Hold]:
        """Let a call in; raise the policy's refusal."""
        made = build.call(**call)
        await self.policy.on_request(made)
        claims = self.policy.claims(made)
        hold = Hold(f"h{next(_ids)}", claims)
        if not claims:
            return made, hold
        for claim in claims:
            claim.enforce = self.policy.enforce
        verdict = await self.store.admit(hold)
        self.policy.admitted(made, claims, verdict.states)
        if not verdict.admitted:
            error = self.policy.refusal(made, claims[verdict.refused], verdict.states[verdict.refused])
            error.call = made  # type: ignore[attr-defined]
            raise error
        return made, hold

    async def refused(self, **call: Any) -> ApiError:
        """Return the refusal that a call must get."""
        try:
            await self.enter(**call)
        except ApiError as error:
            return error
        raise AssertionError("the call was let in")

    def leave(self, entered: tuple[Call, Hold], prompt: int = 0, completion: int = 0, cost: int = 0) -> None:
        """End a call with what it came to."""
        made, hold = entered
        actual = [cost if claim.kind == "money" else prompt + completion for claim in hold.claims]
        if hold.claims:
            self.store.settle(hold, actual)
        made.finish(Outcome("completed", 200, Usage(prompt, completion), cost=cost))


def headers(call: Call) -> dict[str, str]:
    """Return the headers that the policies added."""
    found = dict(call.headers)
    assert len(found) == len(call.headers), "a header was given twice"
    return found
