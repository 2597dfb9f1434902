"""The arithmetic of limits, for one process: pure, synchronous, the time passed in.

Rates and tokens per window are a meter that leaks ``limit`` per ``window`` (GCRA in the unit of the
limit): at most ``limit`` at once, ``limit`` more per window. Tokens of running calls do not leak: what
is held counts in full until the call ends, then its true amount begins to leak, so that giving back the
difference can never make room that was already used. Quota and money are sums per period.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Any, Final

from proxy.store.base import Claim, ClaimState, Hold, Verdict
from proxy.store.period import period_end

#: Rounding of the leak may not refuse a request that waited exactly as long as it was told.
SLACK: Final = 1e-6
#: How long a counter of an ended period is kept, for calls that began in it and for the reports.
KEEP_PERIOD: Final = 45 * 86400.0
KEEP_TOMB: Final = 86400.0
#: The wait told where only the end of running calls can make room, and nobody knows when that is.
UNKNOWN_WAIT: Final = 1.0

CounterKey = tuple[str, str, str, str]


class Counter:
    """One shared limit's state. ``used``: booked (an int), or the meter's level at time ``at`` (a float); ``held`` by running calls."""

    __slots__ = ("at", "held", "key", "limit", "used", "window")

    def __init__(self, key: CounterKey, used: float = 0, at: float = 0.0) -> None:
        self.key = key
        self.used: Any = used
        self.at = at
        self.held = 0
        self.limit = 0
        self.window = 0.0

    def leak(self, limit: int | None, window: float, now: float) -> None:
        """Bring a meter's level to ``now``."""
        if limit is None:
            if not self.used:
                self.at = now
            return
        if self.used:
            used = self.used - (now - self.at) * limit / window
            self.used = used if used > 0.0 else 0.0  # noqa: FURB136 - a fifth of max's time
        self.at = now
        self.limit = limit
        self.window = window


#: What a hold has taken for one of its claims: which of them, its kind, from which counter, how much.
Part = tuple[int, str, Counter, int]


class Book:
    """All counters and holds of one process, with `admit` all or nothing and `settle` idempotent."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.counters: dict[CounterKey, Counter] = {}
        self.holds: dict[str, Sequence[Part]] = {}
        self.tombs: dict[str, tuple[float, Sequence[Part]]] = {}
        self.done: dict[str, float] = {}
        self.dirty: set[Counter] = set()
        """Counters whose booked state changed; a persistent store writes and clears it."""

    def counter(self, key: CounterKey) -> Counter:
        """Return the counter of ``key``, a fresh one if there is none."""
        counter = self.counters.get(key)
        if counter is None:
            counter = self.counters[key] = Counter(key)
        return counter

    def admit(self, hold: Hold, now: float, wall: float) -> Verdict:
        """Take all of ``hold``'s claims or none; ``now`` is monotonic, ``wall`` seconds since 1970."""
        counters = self.counters
        seen: list[tuple[Claim, Counter, float | None, float, int]] = []
        parts: list[Part] = []
        skip: tuple[int, ...] = ()
        refused = -1
        lasting = False
        booked = 0.0
        for i, claim in enumerate(hold.claims):
            kind, amount, limit = claim.kind, claim.amount, claim.limit
            key = (kind, claim.team, claim.key, claim.period)
            counter = counters.get(key) or self.counter(key)
            slack = 0.0
            if kind == "rate" or kind == "tokens":
                counter.leak(limit, claim.window, now)
                slack = SLACK
            elif kind != "slots":
                booked = counter.used
            used, held = counter.used, counter.held
            wait = None
            if claim.above is not None and booked < claim.above:
                skip += (i,)
            elif limit is not None and used + held + amount > limit + slack:
                wait = _wait(claim, counter, wall)
                if not claim.enforce:
                    skip += (i,)
                elif refused < 0:
                    refused = i
            elif kind == "rate":
                counter.used = used + amount
                self.dirty.add(counter)
            else:
                counter.held = held + amount
                parts.append((i, kind, counter, amount))
            if kind != "rate":
                lasting = True
            seen.append((claim, counter, wait, used, held))
        if refused >= 0:
            hold.settled = True
            for _, counter, _, used, held in reversed(seen):
                counter.used = used
                counter.held = held
        else:
            hold.epoch = self.epoch
            hold.skip = skip
            if parts:
                self.holds[hold.id] = parts
            elif not lasting:
                hold.settled = True
        states = [_state(claim, counter, wait, wall) for claim, counter, wait, _, _ in seen]
        return Verdict(refused < 0, states, refused, self.epoch)

    def settle(self, hold: Hold, actual: Sequence[int], now: float, wall: float) -> bool:
        """Book the truth for ``hold`` once; return False if that had happened before."""
        parts = self.holds.pop(hold.id, None)
        if parts is not None:
            for index, kind, counter, amount in parts:
                counter.held -= amount
                if kind != "slots" and actual[index] > 0:
                    self._book(counter, kind, actual[index], now)
            return True
        tomb = self.tombs.pop(hold.id, None)
        if tomb is not None:
            for index, kind, counter, amount in tomb[1]:
                more = max(0, actual[index]) - amount
                # A meter may have leaked what was booked: giving it back could be giving it twice.
                if kind != "slots" and (more > 0 or kind != "tokens"):
                    self._book(counter, kind, more, now)
            return True
        if hold.epoch == self.epoch or hold.id in self.done:
            return False
        self.done[hold.id] = wall
        for index, claim in enumerate(hold.claims):
            if claim.kind in ("tokens", "quota", "money") and index not in hold.skip and actual[index] > 0:
                counter = self.counter((claim.kind, claim.team, claim.key, claim.period))
                if claim.kind == "tokens":
                    counter.leak(claim.limit, claim.window, now)
                self._book(counter, claim.kind, actual[index], now)
        return True

    def _book(self, counter: Counter, kind: str, amount: int, now: float) -> None:
        if amount:
            if kind == "tokens":
                counter.leak(counter.limit or None, counter.window, now)
            counter.used += amount
            self.dirty.add(counter)

    def bury(self, ids: Sequence[str], now: float, wall: float) -> None:
        """Book the holds of a dead owner in full; a settlement that still comes within a day corrects them."""
        for id in ids:
            parts = self.holds.pop(id)
            for _, kind, counter, amount in parts:
                counter.held -= amount
                if kind != "slots":
                    self._book(counter, kind, amount, now)
            self.tombs[id] = (wall, parts)

    def peek(self, claims: Sequence[Claim], now: float, wall: float) -> list[ClaimState]:
        """Return the counters' states without taking anything."""
        states = []
        for claim in claims:
            key = (claim.kind, claim.team, claim.key, claim.period)
            counter = self.counters.get(key) or Counter(key)
            if claim.kind in ("rate", "tokens"):
                counter.leak(claim.limit, claim.window, now)
            full = claim.limit is not None and counter.used + counter.held + claim.amount > claim.limit + SLACK
            states.append(_state(claim, counter, _wait(claim, counter, wall) if full else None, wall))
        return states

    def sweep(self, now: float, wall: float) -> list[CounterKey]:
        """Forget what no longer matters: empty meters, ended periods, old tombs; return the counters that went."""
        gone = []
        for key, counter in self.counters.items():
            if counter.held:
                continue
            kind, _, _, period = key
            if kind == "rate" or kind == "tokens":
                counter.leak(counter.limit or None, counter.window, now)
                if not (counter.used and counter.limit):
                    gone.append(key)
            elif kind == "slots" or (period and wall > period_end(period) + KEEP_PERIOD):
                gone.append(key)
        for key in gone:
            self.dirty.discard(self.counters.pop(key))
        for id in [id for id, (at, _) in self.tombs.items() if wall - at > KEEP_TOMB]:
            del self.tombs[id]
        for id in [id for id, at in self.done.items() if wall - at > KEEP_TOMB]:
            del self.done[id]
        return gone


def _wait(claim: Claim, counter: Counter, wall: float) -> float:
    limit = claim.limit or 0
    if claim.kind in ("quota", "money"):
        return max(0.0, period_end(claim.period) - wall)
    if claim.kind == "slots":
        return UNKNOWN_WAIT
    if not limit:
        return claim.window
    room = limit - counter.held - claim.amount
    if room < 0:
        return max(UNKNOWN_WAIT, float(counter.used * claim.window / limit))
    return float((counter.used - room) * claim.window / limit)


def _state(claim: Claim, counter: Counter, wait: float | None, wall: float) -> ClaimState:
    limit, used, held = claim.limit, counter.used, counter.held
    if claim.kind == "rate" or claim.kind == "tokens":
        reset = (used + held) * claim.window / limit if limit else 0.0
        left = 0 if limit is None else floor(limit - used - held + SLACK)
        used = ceil(used - SLACK)
    else:
        reset = period_end(claim.period) - wall if claim.period else 0.0
        if reset < 0.0:
            reset = 0.0
        left = 0 if limit is None else limit - used - held
    if left < 0:
        left = 0
    if wait is None:
        return ClaimState(False, left, used + held, reset, 0.0, held)
    return ClaimState(True, left, used + held, reset, wait, held)
