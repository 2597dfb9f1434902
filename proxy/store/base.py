"""The store speaks whole intentions, each one atomic step; callers cannot race, for they never see the parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

ClaimKind = Literal["rate", "tokens", "slots", "quota", "money"]


class StoreUnavailable(Exception):
    """The store did not answer within its deadline, or is known to be down."""


@dataclass(slots=True)
class Claim:
    """What a call takes from one shared limit.

    ``rate``: ``amount`` requests of ``limit`` per ``window`` seconds, taken for good.
    ``tokens``: the same with tokens: held at admission, the difference given back at the end.
    ``slots``: one of ``limit`` concurrent calls, released at the end.
    ``quota``: tokens, ``money``: micro-dollars, out of ``limit`` for ``period`` (``2026-11`` or
    ``2026-11-22``, UTC); held at admission, settled to the truth at the end. ``limit`` None only counts.
    ``key`` names the counter inside the team: it never contains the period (the store adds it).
    """

    kind: ClaimKind
    team: str
    key: str
    amount: int
    limit: int | None
    window: float = 0.0
    period: str = ""
    enforce: bool = True
    note: Any = None
    """The policy's own, to tell its claims apart in `refusal` and `admitted`."""
    above: int | None = None
    """A rate claim with ``above`` applies only once the nearest ``quota`` or ``money`` claim before it has at
    least ``above`` booked (holds aside): a throttle, decided in the same step as everything else."""


@dataclass(slots=True)
class ClaimState:
    """One claim's counter after (or, if refused, at) admission.

    ``remaining`` in the claim's unit; ``used`` what is booked or held, this call included when admitted;
    ``reset`` seconds until the counter is whole again; ``wait`` seconds after which this claim alone
    would be admitted, 0.0 if it was.
    """

    refused: bool
    remaining: int
    used: int
    reset: float
    wait: float = 0.0
    held: int = 0
    """The part of ``used`` that running calls hold; ``used - held`` is booked."""


@dataclass(slots=True)
class Verdict:
    """The answer to `admit`: all claims taken, or none. ``refused`` is the index of the first that refused."""

    admitted: bool
    states: Sequence[ClaimState]
    refused: int = -1
    epoch: str = ""


@dataclass(slots=True)
class Hold:
    """An admission that must be settled exactly once. ``id`` is the caller's own, made before `admit`."""

    id: str
    claims: Sequence[Claim]
    epoch: str = ""
    """The store's epoch at admission; empty while the admission's result is unknown."""
    skip: tuple[int, ...] = ()
    """Claims admitted without being taken: shadow claims that would have refused, throttles that did not apply."""
    sent: bool = False
    """The admission may have reached the store."""
    settled: bool = False
    """Nothing is left to settle: it was, or the admission was refused or took only rates. `settle` then only records."""


@dataclass(slots=True)
class UsageRecord:
    """One ended call, for the ledger. Times in milliseconds, money in micro-dollars; month as ``2026-11``."""

    month: str
    team: str
    user: str
    model: str
    feature: str
    status: str
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cost: int = 0
    duration: int = 0
    cache: str = ""
    code: str = ""


class Store(ABC):
    """Shared counters, cache entries and the usage ledger of one or many sidecars."""

    kind: str = ""
    down: bool = False
    """True while the store is known not to answer; `admit` and its like then raise at once."""

    @abstractmethod
    async def start(self) -> None:
        """Open files or connections and start the writer; raise :class:`StoreUnavailable` or OSError."""

    @abstractmethod
    async def aclose(self, deadline: float = 5.0) -> None:
        """Write what is queued, within ``deadline`` seconds, and close."""

    # --- limits -------------------------------------------------------------------------------------
    @abstractmethod
    async def admit(self, hold: Hold) -> Verdict:
        """Take all of ``hold``'s claims or none, atomically; sets ``hold.epoch``.

        Raises:
            StoreUnavailable: the result is unknown; the hold is released by id as soon as possible.
        """

    @abstractmethod
    def settle(self, hold: Hold, actual: Sequence[int], record: UsageRecord | None = None) -> None:
        """Book the truth for each claim of ``hold``, in its unit, and give back the rest. Queued, idempotent by id.

        ``actual`` runs parallel to ``hold.claims``; for ``rate`` it is ignored, for ``slots`` too.
        """

    @abstractmethod
    def record(self, record: UsageRecord) -> None:
        """Add a call that held nothing to the usage ledger. Queued."""

    @abstractmethod
    async def peek(self, claims: Sequence[Claim]) -> Sequence[ClaimState]:
        """Return the counters' states without taking anything."""

    @abstractmethod
    async def usage(self, month: str, team: str | None = None) -> list[Mapping[str, Any]]:
        """Return the ledger's rows of ``month``: the fields of `UsageRecord` summed, with ``calls``."""

    async def prune(self, before: str) -> int:
        """Delete the ledger's months earlier than ``before`` (``2026-11``); return how many months went."""
        return 0

    # --- cache --------------------------------------------------------------------------------------
    @abstractmethod
    async def recall(self, key: str) -> bytes | None:
        """Return an unexpired cache entry."""

    @abstractmethod
    def remember(self, key: str, value: bytes, ttl: float) -> None:
        """Keep a cache entry for ``ttl`` seconds. Queued; may be lost, never late."""

    @abstractmethod
    async def generation(self, names: Sequence[str]) -> Sequence[int]:
        """Return the current generation numbers of ``names`` (0 if never flushed); may be a second old."""

    @abstractmethod
    async def forget(self, name: str) -> int:
        """Make every entry under ``name`` unreachable at once by raising its generation; return the new one."""

    def bound_cache(self, max_items: int, max_bytes: int) -> None:  # noqa: B027 - only a store of its own bounds
        """Bound this sidecar's own cache entries, the least recently used going first; a shared store has its own bound."""

    # --- small things -------------------------------------------------------------------------------
    @abstractmethod
    async def once(self, key: str, ttl: float) -> bool:
        """Return True for exactly one caller over all sidecars until ``ttl`` seconds have passed."""

    @abstractmethod
    async def ping(self) -> bool:
        """Tell whether the store answers within its deadline."""
