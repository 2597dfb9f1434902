"""The store that sidecars share: Redis 6.2 or later, or Valkey.

One script admits a call; what a call came to waits in memory and goes out in batches, each numbered, so
that a batch whose answer was lost can be sent again and counts once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import orjson

from proxy.clock import Clock
from proxy.store.address import parse
from proxy.store.base import Claim, ClaimState, Hold, Store, StoreUnavailable, UsageRecord, Verdict
from proxy.store.ledger import SUMS, Ledger, as_mapping
from proxy.store.link import Link
from proxy.store.outbox import Outbox
from proxy.store.period import period_end
from proxy.store.resp import RedisError

BEAT_EVERY: Final = 5.0
GENERATION_AGE: Final = 1.0
_KIND: Final = {"rate": 1, "tokens": 2, "slots": 3, "quota": 4, "money": 5}
#: How long Redis keeps a sum of a period after its last change, and a meter beyond its window.
_KEEP_PERIOD_MS: Final = 75 * 86_400_000
_KEEP_METER_MS: Final = 7 * 86_400_000
Row = tuple[int, str, int, int, int, int, int, int]


class RedisStore(Store):
    """Counters, cache and ledger in a Redis that other sidecars use too."""

    kind = "redis"

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "llm:",
        deadline: float = 0.1,
        clock: Clock | None = None,
        log: logging.Logger | None = None,
        metrics: Any = None,
        hash_user: Callable[[str], str] | None = None,
        keep_months: int = 13,
    ) -> None:
        self._prefix = prefix
        self._clock = clock or Clock()
        self._log = log or logging.getLogger("llm_sidecar.store")
        self.owner = secrets.token_hex(8)
        self._link = Link(parse(url), deadline, log=self._log, metrics=metrics, on_up=self._on_up)
        self._admit = self._link.script("admit")
        self._settle = self._link.script("settle")
        self._beat = self._link.script("beat")
        self._outbox = Outbox(self._send, self._keep, self._log, Ledger(hash_user), keep_months)
        # A team's epoch must never come back after its keys were lost, so each admission brings a new one.
        self._epochs = itertools.count()
        self._bases: dict[str, str] = {}
        self._open: dict[str, int] = {}
        self._generations: dict[str, tuple[float, int]] = {}
        self._beats: asyncio.Task[None] | None = None

    @property
    def down(self) -> bool:  # type: ignore[override]
        return self._link.down

    async def start(self) -> None:
        await self._link.start()
        self._outbox.start()
        self._beats = asyncio.create_task(self._heartbeat(), name="store-heartbeat")

    async def aclose(self, deadline: float = 5.0) -> None:
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.wait([self._beats])
        await self._outbox.aclose(deadline)
        await self._link.aclose()

    # --- limits -----------------------------------------------------------------------------------------
    async def admit(self, hold: Hold) -> Verdict:
        if self._link.down:
            raise StoreUnavailable(f"The store {self._link.address} is down.")
        claims = hold.claims
        team = claims[0].team
        rows = [_row(claim) for claim in claims]
        hold.sent = True
        holding = any(claim.kind != "rate" for claim in claims)
        if holding:
            # Before the answer, for the answer may be lost: a hold that may exist needs its heartbeat.
            self._open[team] = self._open.get(team, 0) + 1
        reply = await self._run(team, rows, hold.id, "1")
        states = self._states(claims, reply)
        if reply[1] == -2:
            self._ended(team, 1)
            raise StoreUnavailable("The admission was given up before the store saw it.")
        if reply[1] >= 0 or not holding:
            hold.settled = True
            if holding:
                self._ended(team, 1)
        else:
            hold.epoch = reply[0].decode()
            hold.skip = tuple(i for i in range(len(claims)) if reply[2 + 6 * i])
        return Verdict(reply[1] < 0, states, reply[1], hold.epoch)

    async def peek(self, claims: Sequence[Claim]) -> Sequence[ClaimState]:
        by_team: dict[str, list[int]] = {}
        for i, claim in enumerate(claims):
            by_team.setdefault(claim.team, []).append(i)
        found: dict[int, ClaimState] = {}
        replies = await asyncio.gather(
            *[self._run(team, [_row(claims[i]) for i in at], "", "0") for team, at in by_team.items()]
        )
        for at, reply in zip(by_team.values(), replies, strict=True):
            found.update(zip(at, self._states([claims[i] for i in at], reply), strict=True))
        return [found[i] for i in range(len(claims))]

    def settle(self, hold: Hold, actual: Sequence[int], record: UsageRecord | None = None) -> None:
        if record is not None:
            self._outbox.ledger.add(record)
        if not hold.settled:
            hold.settled = True
            truth = [max(0, amount) for amount in actual]
            if hold.sent or hold.epoch:
                mask = "".join("0" if i in hold.skip else "1" for i in range(len(hold.claims)))
                team = hold.claims[0].team
                item = (hold.id, hold.epoch, [_row(claim) for claim in hold.claims], truth, mask)
                self._outbox.settle(team, item)
            else:
                for claim, amount in zip(hold.claims, truth, strict=True):
                    if amount and claim.kind in ("tokens", "quota", "money"):
                        self._outbox.book(claim.team, _row(claim), amount)
        self._outbox.wake()

    def record(self, record: UsageRecord) -> None:
        self._outbox.ledger.add(record)
        self._outbox.wake()

    async def usage(self, month: str, team: str | None = None) -> list[Mapping[str, Any]]:
        if team is None:
            teams = [name.decode() for name in await self._ask("SMEMBERS", f"{self._prefix}teams")]
        else:
            teams = [team]
        replies = await asyncio.gather(*[self._ask("HGETALL", f"{self._base(name)}usage:{month}") for name in teams])
        # A month may have as many rows as there are users: in a thread, calls go on meanwhile.
        return await asyncio.to_thread(_rows, month, teams, replies)

    # --- cache ------------------------------------------------------------------------------------------
    async def recall(self, key: str) -> bytes | None:
        value: bytes | None = await self._ask("GET", f"{self._prefix}cache:{key}")
        return value

    def remember(self, key: str, value: bytes, ttl: float) -> None:
        self._outbox.remember(f"{self._prefix}cache:{key}", value, max(1, int(ttl * 1000)))

    async def generation(self, names: Sequence[str]) -> Sequence[int]:
        now = self._clock.monotonic()
        known = self._generations
        if any(name not in known or now - known[name][0] >= GENERATION_AGE for name in names):
            if len(known) >= 10_000:
                known.clear()
            numbers = await self._ask("MGET", *[f"{self._prefix}generation:{name}" for name in names])
            found = [int(number or 0) for number in numbers]
            known.update((name, (now, number)) for name, number in zip(names, found, strict=True))
            return found
        return [known[name][1] for name in names]

    async def forget(self, name: str) -> int:
        number = int(await self._ask("INCR", f"{self._prefix}generation:{name}"))
        self._generations[name] = (self._clock.monotonic(), number)
        return number

    # --- small things -----------------------------------------------------------------------------------
    async def once(self, key: str, ttl: float) -> bool:
        return (
            await self._ask("SET", f"{self._prefix}once:{key}", self.owner, "NX", "PX", max(1, int(ttl * 1000)))
            is not None
        )

    async def ping(self) -> bool:
        try:
            await self._ask("PING")
        except StoreUnavailable:
            return False
        return True

    # --- inside -----------------------------------------------------------------------------------------
    def _base(self, team: str) -> str:
        base = self._bases.get(team)
        if base is None:
            if len(self._bases) >= 10_000:
                self._bases.clear()
            # Whatever a team is called, its tag is one word without braces or colons.
            base = self._bases[team] = f"{self._prefix}{{{quote(team, safe='')}}}:"
        return base

    async def _ask(self, *command: str | bytes | int) -> Any:
        try:
            return await self._link.command(*command)
        except RedisError as error:
            raise StoreUnavailable(f"The store refused a command: {error}") from error

    async def _run(self, team: str, rows: list[Row], id: str, take: str) -> Any:
        base = self._base(team)
        arguments = (base, self.owner, id, f"{self.owner}-{next(self._epochs)}", orjson.dumps(rows), take)
        try:
            return await self._link.run(self._admit, base + "epoch", *arguments)
        except RedisError as error:
            raise StoreUnavailable(f"The store refused a command: {error}") from error

    def _states(self, claims: Sequence[Claim], reply: list[Any]) -> list[ClaimState]:
        states = []
        wall = self._clock.time()
        for i, claim in enumerate(claims):
            flag, remaining, used, held, wait, reset = reply[2 + 6 * i : 8 + 6 * i] or (0, 0, 0, 0, 0, 0)
            if claim.period:
                left = max(0.0, period_end(claim.period) - wall)
                states.append(ClaimState(flag == 1, remaining, used, left, left if flag == 1 else 0.0, held))
            else:
                states.append(ClaimState(flag == 1, remaining, used, reset / 1e6, wait / 1e6, held))
        return states

    async def _send(self, team: str, number: int, batch: bytes, settled: int) -> None:
        """Send one team's batch; raise :class:`StoreUnavailable` where it has to be sent again."""
        base = self._base(team)
        try:
            known = self._link.command("SADD", f"{self._prefix}teams", team)
            booked = self._link.run(self._settle, f"{base}w:{self.owner}", base, self.owner, number, batch)
            await asyncio.gather(known, booked)
        except RedisError as error:
            raise StoreUnavailable(f"The store refused a batch: {error}") from error
        self._ended(team, settled)

    async def _keep(self, entries: list[tuple[str, bytes, int]]) -> None:
        await asyncio.gather(*[self._ask("SET", key, value, "PX", ttl) for key, value, ttl in entries])

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_EVERY)
            for team in list(self._open):
                base = self._base(team)
                try:
                    await self._link.run(self._beat, base + "owners", base, self.owner)
                except (StoreUnavailable, RedisError) as error:
                    self._log.debug("store_heartbeat_failed", extra={"fields": {"reason": str(error)}})
                    break

    def _ended(self, team: str, count: int) -> None:
        left = self._open.get(team, 0) - count
        if left > 0:
            self._open[team] = left
        else:
            self._open.pop(team, None)

    def _on_up(self) -> None:
        self._outbox.wake()


def _row(claim: Claim) -> Row:
    key = f"{claim.key}:{claim.period}" if claim.period else claim.key
    return (
        _KIND[claim.kind],
        key,
        claim.amount,
        -1 if claim.limit is None else claim.limit,
        int(claim.window * 1e6),
        1 if claim.enforce else 0,
        -1 if claim.above is None else claim.above,
        _KEEP_PERIOD_MS
        if claim.period
        else int(claim.window * 1000) + (0 if claim.kind == "rate" else _KEEP_METER_MS) + 1,
    )


def _rows(month: str, teams: Sequence[str], replies: Sequence[Sequence[bytes]]) -> list[Mapping[str, Any]]:
    """Return the ledger's rows from what Redis holds of each team: a field for every sum of every row."""
    rows: list[Mapping[str, Any]] = []
    for name, flat in zip(teams, replies, strict=True):
        sums: dict[bytes, dict[str, int]] = {}
        for field, value in zip(flat[::2], flat[1::2], strict=True):
            row, _, what = field.rpartition(b"]")
            sums.setdefault(row, {})[what.decode()] = int(value)
        for row, found in sums.items():
            rows.append(as_mapping((month, name, *orjson.loads(row + b"]")), [found.get(what, 0) for what in SUMS]))
    return rows
