"""The policy: answers from the cache, joins a call under way, or leads one and keeps its answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Final

import orjson

from policies.base import ApiError, ApiRequest, Call, Chunk, ChunkFilter, Kit, Outcome, Policy, Reply, Target
from policies.cache.config import CacheConfig
from policies.cache.entry import pack, unpack
from policies.cache.flight import Flight
from policies.cache.key import Keys
from policies.cache.shelf import Shelf
from policies.cache.wish import ANY, wish
from proxy.forward import effective
from proxy.store.base import StoreUnavailable

#: Entries above these in the list are served without asking them; see `Cache.warnings`.
_DOORS: Final = ("opt_out", "rollout", "allowlist", "prompt_limit")
_MAX_NAMES: Final = 10_000
_RESULTS: Final = ("hit", "miss", "coalesced", "bypass")


class Cache(Policy[CacheConfig]):
    """Answer what was answered before, and let identical calls under way share one upstream call.

    What is kept is the upstream's answer to the request as the policies above left it; each call's own filters
    run on it again. A hit and a follower cost no tokens.
    """

    Config = CacheConfig
    after: ClassVar[tuple[str, ...]] = ("template", "redact")
    requires: ClassVar[tuple[str, ...]] = ("redact",)
    after_changes: ClassVar[bool] = True
    keeps_state: ClassVar[bool] = True
    store_down_default: ClassVar[str] = "allow"

    def __init__(self, config: CacheConfig, kit: Kit) -> None:
        super().__init__(config, kit)
        self._keys = Keys(kit.secret("cache"), config.scope)
        self._shelf = Shelf(kit, config.store, config.max_items, config.max_bytes)
        self._flights: dict[str, Flight] = {}
        self._names: dict[tuple[str, str], tuple[str, ...]] = {}
        # Read for each call; fields of a model are slow to read.
        self._max_entry = config.max_entry
        self._warmest = config.temperature_up_to
        self._clock = kit.clock
        self._window = kit.metrics.cache_window
        self._counts = {result: kit.metrics.cache_requests.cell((result,)) for result in _RESULTS}

    # --- the request ----------------------------------------------------------------------------------------
    async def on_request(self, call: Call) -> Reply | None:
        if not call.route:
            return None
        target = call.route[0]
        request = effective(call, target)
        want = wish(call.wants_cache) if call.wants_cache else ANY
        if not want.keep or self._too_warm(request):
            self._count(call, "bypass")
            return None
        try:
            store = self._shelf.store or await self._shelf.open()
            numbers = await store.generation(self._generations(call.caller.team, target.model))
            key = self._keys.key(call, target, request, numbers)
            if not want.read:
                self._count(call, "bypass")
                self._lead(call, Flight(key, call, target, self._max_entry, _nothing))
                return None
            flights = self._flights
            while True:
                flight = flights.get(key) if self.enforce else None
                if flight is not None:
                    reply = await self._join(call, flight)
                    if reply is not None:
                        return reply
                    continue
                value = await store.recall(key)
                entry = unpack(value) if value is not None else None
                if entry is not None:
                    at, chunk = entry
                    age = max(0.0, self._clock.time() - at)
                    # The store forgets by the TTL that held when it was kept; a reload may have shortened it.
                    if age <= want.max_age and age <= self.config.ttl:
                        return self._hit(call, target, chunk, age)
                if self.enforce and key in flights:
                    continue  # somebody has set off while we looked
                self._miss(call, key, target)
                return None
        except StoreUnavailable:
            self._store_down(call)
            return None

    def _hit(self, call: Call, target: Target, chunk: Chunk, age: float) -> Reply:
        self._count(call, "hit")
        if self.enforce:
            call.target = target
        return Reply((chunk,), [("age", str(int(age)))])

    def _miss(self, call: Call, key: str, target: Target) -> None:
        self._count(call, "miss")
        flight = Flight(key, call, target, self._max_entry, self._closed)
        if self.enforce:
            self._flights[key] = flight
            call.audience = flight
            call.on_leave = flight.left
        self._lead(call, flight)

    async def _join(self, call: Call, flight: Flight) -> Reply | None:
        """Return the flight's answer once there is any; None if its leader gave it up before."""
        reader = flight.join()
        call.defer(reader.leave)
        await reader.begun()
        if flight.given_up:
            return None
        self._count(call, "coalesced")
        call.target = flight.leader.target if flight.leader is not None else flight.answered
        return Reply(reader)

    def _lead(self, call: Call, flight: Flight) -> None:
        call.notes[self.name] = flight
        call.defer(partial(self._ended, flight, call))

    def _store_down(self, call: Call) -> None:
        self.kit.metrics.degraded.inc((self.name,))
        if self.store_down == "refuse":
            raise ApiError(
                "store_unavailable", "The cache cannot be reached at the moment; try again shortly.", retry_after=1.0
            )
        self._count(call, "bypass")

    def _count(self, call: Call, result: str) -> None:
        self._counts[result][0] += 1
        if result != "bypass":
            self._window.add(call.started, hit=result != "miss")
        if self.enforce:
            call.cache = result

    def _too_warm(self, request: ApiRequest) -> bool:
        limit = self._warmest
        if limit >= 2 or request.endpoint == "embeddings":
            return False
        temperature = request.body.get("temperature")
        return (1.0 if temperature is None else temperature) > limit

    # --- the reply ------------------------------------------------------------------------------------------
    def on_reply(self, call: Call) -> ChunkFilter | None:
        flight: Flight | None = call.notes.get(self.name)
        return flight

    def _ended(self, flight: Flight, call: Call, outcome: Outcome) -> None:
        """See a leader's call end: keep its answer if it may be kept, tell who waits if there is none."""
        flight.end(call.error if outcome.end in ("upstream_error", "shutdown") else None)
        call.audience = call.on_leave = None
        if (
            flight.complete
            and not flight.full
            and outcome.end in ("completed", "client_gone")
            and outcome.target is flight.target
            and call.store_refused is None
        ):
            value = None
            if not flight.whole or flight.finished:
                value = pack(flight.record, whole=flight.whole, at=self._clock.time(), known=flight.finished)
            store = self._shelf.store
            if value is not None and store is not None:
                store.remember(flight.key, value, self.config.ttl)
                call.kept = True

    def _closed(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    # --- flushing ---------------------------------------------------------------------------------------------
    def _generations(self, team: str, model: str) -> tuple[str, ...]:
        """Return the names whose generations stand in a key: raising one of them orphans its entries."""
        names = self._names.get((team, model))
        if names is None:
            if len(self._names) >= _MAX_NAMES:
                self._names.clear()
            names = (_name(None, None), _name(None, model))
            if self.config.scope != "global":
                names = (*names, _name(team, None), _name(team, model))
            self._names[team, model] = names
        return names

    async def flush(self, team: str | None = None, models: Sequence[str] = ()) -> None:
        """Make entries unreachable at once: those of a team, of upstream models, of both, or all.

        Entries of a global cache belong to no team: with ``team``, those of every team go.

        Raises:
            StoreUnavailable: the store did not answer; nothing is known to be flushed.
        """
        store = await self._shelf.open()
        if self.config.scope == "global":
            team = None
        for model in models or (None,):
            await store.forget(_name(team, model))

    @property
    def store_kind(self) -> str:
        """Return where entries lie: ``memory``, ``sqlite`` or ``redis``."""
        return self._shelf.kind

    # --- what it says of itself -------------------------------------------------------------------------------
    def describe(self) -> dict[str, Any]:
        config = self.config
        facts: dict[str, Any] = {
            "ttl": config.ttl, "scope": config.scope, "store": self.store_kind, "max_entry": config.max_entry
        }  # fmt: skip
        if self.store_kind != "redis":
            facts |= {"max_items": config.max_items, "max_bytes": config.max_bytes}
        if config.temperature_up_to < 2:
            facts["temperature_up_to"] = config.temperature_up_to
        if config.unsanitized:
            facts["unsanitized"] = True
        return facts

    def warnings(self) -> Sequence[str]:
        found = []
        listed = [row.name for row in getattr(self.kit.config, "policies", ())]
        if self.name in listed:
            below = [name for name in listed[listed.index(self.name) :] if name in _DOORS]
            if below:
                found.append(f"answers from the cache are given without asking {', '.join(below)}; list them above it")
        bounds = sorted({"max_items", "max_bytes"} & self.config.model_fields_set)
        if bounds and self.store_kind == "redis":
            found.append(f"Redis bounds itself (maxmemory); {' and '.join(bounds)} of the cache mean nothing there")
        return found

    async def aclose(self) -> None:
        await self._shelf.aclose()


def _name(team: str | None, model: str | None) -> str:
    return orjson.dumps((team, model)).decode()


def _nothing(flight: Flight) -> None:
    """See a flight close that nobody could join."""
