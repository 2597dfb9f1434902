"""Everything the author of a policy imports.

A policy is one class: what it leaves out costs nothing. Its settings are a pydantic model; llm.yml names
it as ``package.module:Class: {settings}``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from proxy.call import Call, Caller, Outcome, Reply, Usage
from proxy.chunk import Chunk, Slot
from proxy.clock import Clock
from proxy.errors import ApiError, Refused
from proxy.providers.base import Target
from proxy.request import ApiRequest, ChatRequest
from proxy.store.base import Claim, ClaimState, Store

if TYPE_CHECKING:
    from proxy.telemetry.metrics import Metrics

__all__ = [
    "ApiError", "ApiRequest", "Call", "Caller", "ChatRequest", "Chunk", "ChunkFilter", "Claim", "ClaimState",
    "Clock", "Counter", "Kit", "Outcome", "Policy", "PolicyConfig", "Refused", "Reply", "Slot", "Store", "Target", "TextFilter", "Usage",
]  # fmt: skip


class PolicyConfig(BaseModel):
    """A policy's settings: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ChunkFilter(Protocol):
    """A per-call filter on the reply, between the upstream and the client."""

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        """Return what goes on for ``chunk``: itself, changed, split, several, or nothing yet. May raise ApiError."""

    def flush(self) -> Iterable[Chunk]:
        """Return what was held back; called once, after the last chunk, unless the call failed."""


class TextFilter(ChunkFilter, Protocol):
    """A filter that also takes a stream's ordinary event, a piece of one choice's content, without a chunk made of it.

    A subclass that changes ``feed`` and not ``hear`` is given chunks only.
    """

    def hear(self, text: str, data: bytes, choice: int) -> str | bytes | None:
        """Return what goes on for an event: bytes as they are, or a text for which an event is made; empty for nothing yet.

        ``data`` is the event as the client gets it, ``choice`` the index of the choice it belongs to, -1 for several
        events of more than one, of which no new text can be made. None: it is given to :meth:`feed` instead; nothing may
        have been taken note of.
        """


class Kit:
    """What a policy may use of the sidecar.

    ``store`` shared counters and cache; ``clock``; ``metrics``; ``log`` (JSON lines; never log text of a
    prompt or an answer); ``teams`` the teams of llm.yml by name; ``secret(purpose)`` a 32-byte key derived
    from ``server.secret``; ``folder`` where llm.yml lies; ``background(coroutine)`` slow work that the
    call need not wait for (bounded and tracked); ``config`` the whole loaded configuration.
    """

    __slots__ = ("_background", "_secret", "clock", "config", "folder", "log", "metrics", "store", "teams")

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        log: logging.Logger,
        teams: Mapping[str, Any],
        secret: Callable[[str], bytes],
        folder: str,
        background: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None] | None],
        config: Any = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.metrics = metrics
        self.log = log
        self.teams = teams
        self.folder = folder
        self.config = config
        self._secret = secret
        self._background = background

    def secret(self, purpose: str) -> bytes:
        """Return the 32-byte key for one purpose; different purposes never share a key."""
        return self._secret(purpose)

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run slow work off the call's path; at shutdown it is awaited within the grace."""
        self._background(work)


class Counter(NamedTuple):
    """One counter of a caller, for the usage reports: a claim of nothing on it, by whom it counts, and its feature."""

    claim: Claim
    by: str
    feature: str | None = None


C = TypeVar("C", bound=PolicyConfig)


class Policy(Generic[C]):
    """A rule every call passes. Override what you need; what you leave out costs nothing.

    ``after`` names policies that must come earlier in llm.yml if both are listed; ``requires`` those that
    must be listed at all. ``changes_request`` is True for a policy that may change the request: its
    `fingerprint` is part of the cache's key. ``after_changes``: it must stand below every one of those.
    ``name`` is the entry's name in llm.yml; ``enforce`` is False in shadow mode, which the core honours: it
    turns refusals into counts and drops changes of the reply. A policy that changes the request has to look
    at ``enforce`` itself.
    """

    Config: ClassVar[type[PolicyConfig]] = PolicyConfig
    after: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[tuple[str, ...]] = ()
    changes_request: ClassVar[bool] = False
    after_changes: ClassVar[bool] = False
    keeps_state: ClassVar[bool] = False
    store_down_default: ClassVar[str] = "refuse"

    name: str = ""
    enforce: bool = True
    store_down: str = "refuse"

    def __init__(self, config: C, kit: Kit) -> None:
        self.config = config
        self.kit = kit

    async def on_request(self, call: Call) -> Reply | None:
        """Change the request, refuse the call (raise), answer it (return a Reply), or let it pass (None)."""
        return None

    def claims(self, call: Call) -> Sequence[Claim]:
        """Return what this call takes from shared limits. Pure: adjacent policies' claims are taken in one step."""
        return ()

    def refusal(self, call: Call, claim: Claim, state: ClaimState) -> ApiError:
        """Return the error for one of this policy's claims that the store refused."""
        return ApiError(
            "rate_limit_exceeded",
            f"The limit of policy {self.name} is reached; try again later.",
            retry_after=state.wait,
        )

    def admitted(self, call: Call, claims: Sequence[Claim], states: Sequence[ClaimState]) -> None:
        """See this policy's claims after they were taken or refused; may add ``call.headers``."""

    def counters(self, caller: Caller, features: Sequence[str]) -> Sequence[Counter]:
        """Return the shared counters that apply to ``caller``, for the usage reports; of a counter by feature, each."""
        return ()

    def on_reply(self, call: Call) -> ChunkFilter | None:
        """Return this call's filter on the reply, or None to leave it alone."""
        return None

    def describe(self) -> dict[str, Any]:
        """Return the facts that `check` and /admin/policies print: limits, costs, delays; no secrets."""
        return self.config.model_dump(mode="json", exclude_defaults=True)

    def fingerprint(self) -> Any:
        """Return, JSON-ready, everything that decides how this policy changes a request: settings, files read."""
        return self.config.model_dump(mode="json")

    def warnings(self) -> Sequence[str]:
        """Return sentences for `check` about settings that load but deserve a look."""
        return ()

    async def aclose(self) -> None:
        """Give up what the policy holds (files, connections) when its configuration is replaced."""
