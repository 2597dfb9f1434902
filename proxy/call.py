"""One call, from its first byte to its end: what everybody along the way shares."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol

from proxy.chunk import Chunk
from proxy.errors import ApiError
from proxy.providers.base import Target
from proxy.request import ApiRequest

if TYPE_CHECKING:
    from proxy.runtime import Runtime

End = Literal["completed", "refused", "upstream_error", "client_gone", "shutdown", "fault"]
#: The metric label of each end.
STATUS: dict[str, str] = {
    "completed": "success",
    "refused": "refused",
    "upstream_error": "error",
    "fault": "error",
    "shutdown": "error",
    "client_gone": "client_closed",
}


class Caller:
    """Who calls: the result of authentication. Cached and shared between calls; never changed."""

    __slots__ = ("key_id", "on_behalf", "permissions", "team", "user")

    def __init__(
        self, key_id: str, team: str, user: str, permissions: frozenset[str], *, on_behalf: bool = False
    ) -> None:
        self.key_id = key_id
        self.team = team
        self.user = user
        self.permissions = permissions
        self.on_behalf = on_behalf


class Usage:
    """Tokens of one upstream call. ``cached``, ``cache_write`` and ``reasoning`` are parts of the first two."""

    __slots__ = ("cache_write", "cached", "completion", "estimated", "prompt", "reasoning")

    def __init__(
        self,
        prompt: int = 0,
        completion: int = 0,
        cached: int = 0,
        cache_write: int = 0,
        reasoning: int = 0,
        *,
        estimated: bool = False,
    ) -> None:
        self.prompt = prompt
        self.completion = completion
        self.cached = cached
        self.cache_write = cache_write
        self.reasoning = reasoning
        self.estimated = estimated

    @property
    def total(self) -> int:
        return self.prompt + self.completion


class Outcome:
    """How a call ended: written once, handed to every finisher.

    ``usage`` is what this call caused upstream (zero for a cache hit or a coalesced follower).
    ``cost`` is in micro-dollars, None where the model has no price or prices are not loaded.
    """

    __slots__ = ("code", "cost", "end", "status", "target", "usage")

    def __init__(
        self, end: End, status: int, usage: Usage, *, code: str | None = None, target: Target | None = None,
        cost: int | None = None,
    ) -> None:  # fmt: skip
        self.end: End = end
        self.status = status
        self.usage = usage
        self.code = code
        self.target = target
        self.cost = cost


class Reply:
    """An answer that a policy gives instead of the upstream.

    ``source`` yields chunks (or lists of them, which are written in one go): one whole chunk, or a stream's
    chunks; the core turns them into the form the client asked for. ``usage_free``: nothing of it is billed to this call.
    """

    __slots__ = ("headers", "source")

    def __init__(
        self,
        source: AsyncIterator[Chunk] | AsyncIterator[list[Chunk]] | Iterable[Chunk],
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.source = source
        self.headers = list(headers)


class Audience(Protocol):
    """Others who read a call's answer as it arrives (single flight). It is also a filter of that call's reply:
    what passes it is what they get.
    """

    def present(self) -> bool:
        """Tell whether anybody is there."""

    def hunger(self) -> asyncio.Future[None]:
        """Return a future that is done once somebody has read everything there is and waits for more."""

    def fail(self, error: ApiError) -> None:
        """End the answer with ``error`` for everybody."""


class Call:
    """A request on a generating route, its caller, route, policies' notes and end.

    ``route``: the targets left, in order; policies may strike some (an empty route is refused by the
    policy that empties it). ``notes``: the policies' scratch space, by policy name. ``headers``: reply
    headers that policies add, on success and refusal alike. ``log``: extra fields of the call's log line.
    """

    __slots__ = (
        "_finishers", "alone", "audience", "cache", "caller", "claimed", "detectors", "endpoint", "error", "estimate",
        "explain", "feature", "gone", "headers", "id", "kept", "leave_reason", "log", "meter", "model", "notes",
        "on_leave", "others_s", "outcome", "policy_s", "request", "retries", "route", "runtime", "started",
        "store_refused", "target", "task", "team_settings", "trace", "upstream_id", "upstream_s", "wants_cache",
    )  # fmt: skip

    def __init__(
        self, id: str, runtime: Runtime, caller: Caller, request: ApiRequest, route: list[Target],
        feature: str, started: float,
    ) -> None:  # fmt: skip
        self.id = id
        """The request id: the client may choose it, so nothing may be keyed by it."""
        self.runtime = runtime
        self.caller = caller
        self.request = request
        self.endpoint = request.endpoint
        self.model = request.model
        """The model as asked for (an alias, perhaps)."""
        self.route = route
        self.feature = feature
        self.started = started
        """Monotonic seconds."""
        self.headers: list[tuple[str, str]] = []
        self.notes: dict[str, Any] = {}
        self.log: dict[str, Any] = {}
        self.detectors: dict[str, int] = {}
        """Names of detectors that found something, with counts: never a value."""
        self.claimed: list[Any] = []
        self._finishers: list[Callable[[Outcome], None]] = []
        self.policy_s = -1.0
        """Seconds that the policies took on the way in; negative until they are through."""
        self.upstream_s = 0.0
        """Seconds spent on the upstream before the first content."""
        self.others_s = 0.0
        """Seconds of the rest that the upstream or the client took."""
        self.trace: str | None = None
        """The W3C traceparent received, passed on upstream."""
        self.wants_cache = ""
        """The request's cache-control header."""
        self.team_settings: Any = None
        """The team's (or the default team's) entry in llm.yml, None without one."""
        self.target: Target | None = None
        """The target that answered."""
        self.meter: Any = None
        self.retries = 0
        self.upstream_id: str | None = None
        self.cache = ""
        """hit, miss, bypass or coalesced; empty without a cache."""
        self.store_refused: str | None = None
        self.explain: list[dict[str, Any]] | None = None
        """Set on a dry run: what each policy did."""
        self.estimate: int | None = None
        """The prompt's estimated tokens, once somebody counted."""
        self.kept = False
        self.task: asyncio.Task[Any] | None = None
        self.gone = False
        self.leave_reason: str | None = None
        self.on_leave: Callable[[], bool] | None = None
        """Asked when the client leaves: True means the call goes on without it (somebody else waits)."""
        self.audience: Audience | None = None
        """Who else reads the answer. The call goes on for them if its own part ends early."""
        self.alone = False
        """The call goes on for its audience only: its client left, or a policy ended its own reply."""
        self.error: ApiError | None = None
        """What the call ended with, None if it was answered."""
        self.outcome: Outcome | None = None

    def defer(self, finisher: Callable[[Outcome], None]) -> None:
        """Run ``finisher`` once at the call's end, last in first out. It must not await; exceptions are counted."""
        self._finishers.append(finisher)

    def no_store(self, reason: str) -> None:
        """Forbid that this call's answer is kept in the cache."""
        if self.store_refused is None:
            self.store_refused = reason

    def strike(self, keep: Callable[[Target], bool]) -> None:
        """Take the targets out of the route for which ``keep`` is false."""
        self.route = [target for target in self.route if keep(target)]

    def leave(self, reason: str = "gone") -> None:
        """Say that the client has left (``gone``), the deadline passed or the sidecar shuts down.

        Called by the server's protocol, synchronously, whenever the connection ends before the reply did.
        """
        if self.outcome is not None or self.gone:
            return
        if reason == "gone" and self.on_leave is not None and self.on_leave():
            self.gone = True
            self.alone = True
            return
        self.gone = reason == "gone"
        self.leave_reason = reason
        if self.task is not None:
            self.task.cancel()

    def desert(self) -> None:
        """End a call that went on for its audience: the last of them has left."""
        if self.alone and self.outcome is None and self.task is not None:
            self.task.cancel()

    def finish(self, outcome: Outcome) -> list[BaseException]:
        """Write the outcome and run the finishers; return what they raised. Does nothing the second time."""
        if self.outcome is not None:
            return []
        self.outcome = outcome
        raised: list[BaseException] = []
        while self._finishers:
            finisher = self._finishers.pop()
            try:
                finisher(outcome)
            except BaseException as error:  # nothing is awaited here: whatever is raised is the finisher's own
                raised.append(error)
        return raised


__all__ = ["STATUS", "ApiError", "Call", "Caller", "End", "Outcome", "Reply", "Usage"]
