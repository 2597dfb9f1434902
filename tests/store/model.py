"""A plain model of accounting: what the stores must agree with, written without looking at how they do it.

It knows no time: windows in these tests are a day long, so that what leaks meanwhile is less than one unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.store.base import Claim

Key = tuple[str, str, str, str]


def key_of(claim: Claim) -> Key:
    """Return the counter that a claim is about."""
    return (claim.kind, claim.team, claim.key, claim.period)


@dataclass
class Model:
    """Booked amounts by counter, and who holds what."""

    booked: dict[Key, int] = field(default_factory=dict)
    holds: dict[str, tuple[str, list[Claim]]] = field(default_factory=dict)
    """Hold id → owner and the claims that it took."""
    tombs: dict[str, list[Claim]] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)

    def held(self, key: Key) -> int:
        """Return what running calls hold of a counter."""
        return sum(
            c.amount for _, claims in self.holds.values() for c in claims if key_of(c) == key and c.kind != "rate"
        )

    def used(self, key: Key) -> int:
        """Return what is booked and held."""
        return self.booked.get(key, 0) + self.held(key)

    def admit(self, owner: str, id: str, claims: Sequence[Claim]) -> tuple[int, list[bool]]:
        """Return the first claim that refuses (-1: admitted) and which of them would refuse."""
        taken: list[Claim] = []
        refused, flags = -1, []
        for i, claim in enumerate(claims):
            mine = sum(c.amount for c in taken if key_of(c) == key_of(claim))
            full = claim.limit is not None and self.used(key_of(claim)) + mine + claim.amount > claim.limit
            flags.append(full)
            if not full:
                taken.append(claim)
            elif claim.enforce and refused < 0:
                refused = i
        if refused < 0:
            for claim in taken:
                if claim.kind == "rate":
                    self.booked[key_of(claim)] = self.booked.get(key_of(claim), 0) + claim.amount
            self.holds[id] = (owner, taken)
        return refused, flags

    def settle(self, id: str, claims: Sequence[Claim], actual: Sequence[int]) -> None:
        """Book what a hold came to: from a live hold, or correcting one that was booked in full."""
        truth: dict[int, int] = dict(zip(map(id_of, claims), actual, strict=True))
        if id in self.holds:
            for claim in self.holds.pop(id)[1]:
                if claim.kind in ("tokens", "quota", "money"):
                    self.booked[key_of(claim)] = self.booked.get(key_of(claim), 0) + truth[id_of(claim)]
        elif id in self.tombs:
            for claim in self.tombs.pop(id):
                more = truth[id_of(claim)] - claim.amount
                if claim.kind in ("quota", "money") or (claim.kind == "tokens" and more > 0):
                    self.booked[key_of(claim)] += more

    def expire(self, owner: str) -> None:
        """Book all of a dead owner's holds in full."""
        for id, (whose, claims) in list(self.holds.items()):
            if whose == owner:
                del self.holds[id]
                self.tombs[id] = claims
                for claim in claims:
                    if claim.kind in ("tokens", "quota", "money"):
                        self.booked[key_of(claim)] = self.booked.get(key_of(claim), 0) + claim.amount


def id_of(claim: Any) -> int:
    """Tell claims of one hold apart, equal ones too."""
    return id(claim)
