"""Everything a call needs, built from one configuration and never changed: a reload builds another.

What outlives a configuration (store, metrics, log, connections of unchanged providers) is in
:class:`Shared`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from policies.base import Kit, Policy
from proxy.auth import Authenticator
from proxy.call import Call, Outcome
from proxy.clock import Clock
from proxy.config.custom import make
from proxy.config.globs import literal
from proxy.decisions import Step, thrown_in
from proxy.pipeline import build_steps
from proxy.providers.base import Provider, ProviderSettings, Target
from proxy.route import Router
from proxy.store.base import Store, UsageRecord
from proxy.telemetry.line import who
from proxy.telemetry.log import describe
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.series import Series
from proxy.upstream.entry import ProviderEntry, timeouts

if TYPE_CHECKING:
    from proxy.prices import Prices

_MAX_BACKGROUND: Final = 1_000
_LONGEST_CLOSE: Final = 2.0
_MAX_SERIES: Final = 2_048


def derive(secret: bytes, purpose: str) -> bytes:
    """Return the 32-byte key for one purpose (HKDF-SHA256, RFC 5869, one block)."""
    extracted = hmac.digest(b"llm-sidecar", secret, hashlib.sha256)
    return hmac.digest(extracted, purpose.encode() + b"\x01", hashlib.sha256)


class Background:
    """Slow work that no call waits for: bounded, tracked, its failures logged."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Start ``work``; drop it, saying so, if too much is under way already."""
        if len(self._tasks) >= _MAX_BACKGROUND:
            work.close()
            self._log.warning("background_work_dropped")
            return None
        task = asyncio.get_running_loop().create_task(self._run(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except BaseException as error:  # a task that lets SystemExit through ends the process
            if thrown_in(error):
                raise
            self._log.warning("background_work_failed", extra={"fields": describe(error)})

    async def aclose(self, deadline: float) -> None:
        """Wait for what is under way, at most ``deadline`` seconds."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=deadline)
            for task in late:
                task.cancel()


@dataclass(slots=True)
class Shared:
    """What reloads keep."""

    store: Store
    metrics: Metrics
    log: logging.Logger
    clock: Clock
    secret: bytes
    background: Background
    hop: str = field(default_factory=lambda: secrets.token_hex(8))

    def derive(self, purpose: str) -> bytes:
        """Return the key for one purpose."""
        return derive(self.secret, purpose)


class Runtime:
    """One configuration, ready to serve."""

    __slots__ = (
        "_month", "_series", "auth", "clock", "config", "features", "filters", "hop", "label_models", "log", "metrics", "policies", "prices",
        "providers", "router", "secret", "shared", "steps", "store", "teams",
    )  # fmt: skip

    def __init__(self, config: Any, shared: Shared, previous: Runtime | None = None) -> None:
        self.config = config
        self._series: dict[tuple[Target | None, str, str, str, str, str, str], Series] = {}
        self._month = (0.0, 0.0, "")
        self.shared = shared
        self.store = shared.store
        self.metrics = shared.metrics
        self.log = shared.log
        self.clock = shared.clock
        self.hop = shared.hop
        self.teams = dict(config.teams)
        self.features = frozenset(config.features)
        self.auth = Authenticator(config.auth, self.teams, shared.clock)
        self.providers: dict[str, ProviderEntry] = {}
        for entry in config.providers.values():
            if not entry.absent:
                self.providers[entry.name] = _provider(entry, previous)
        self.router = Router(config.models, self.providers, config.default_provider)
        self.label_models = self.router.known | literal(_allowed(config)) | literal(config.prices)
        kit = Kit(
            store=shared.store,
            clock=shared.clock,
            metrics=shared.metrics,
            log=shared.log,
            teams=self.teams,
            secret=shared.derive,
            folder=str(config.folder or "."),
            background=shared.background,
            config=config,
        )
        self.policies: list[Policy[Any]] = []
        for row in config.policies:
            policy = make(row.cls, row.config, kit)
            policy.name = row.name
            policy.enforce = row.enforce
            policy.store_down = row.store_down or policy.store_down_default
            self.policies.append(policy)
        self.steps: tuple[Step, ...] = build_steps(self.policies)
        self.filters = any(step.replies for step in self.steps)
        self.prices: Prices | None = None
        if config.prices or any(row.name == "budget" for row in config.policies):
            from proxy.prices import Prices

            self.prices = Prices(config.prices)

    # --- labels ---------------------------------------------------------------------------------------
    def series(self, target: Target | None, call: Call) -> Series:
        """Return where a call of this kind is counted, and its words in the log; built once for each kind."""
        caller = call.caller
        key = (target, call.model, call.feature, call.endpoint, caller.user, caller.team, caller.key_id)
        found = self._series.get(key)
        if found is None:
            if len(self._series) >= _MAX_SERIES:
                self._series.clear()  # names that callers make up must not keep others out
            name = target.name if target is not None else None
            model = target.model if target is not None else None
            found = self._series[key] = Series(
                self.metrics,
                name or "",
                self.model_label(model if model is not None else call.model),
                self.team_label(caller.team),
                call.feature or "other",
                who(
                    call.endpoint, caller.team, caller.user, caller.key_id, call.feature or None, call.model[:256],
                    name, model and model[:256],
                ),
            )  # fmt: skip
        return found

    def feature_label(self, feature: str) -> str:
        """Return ``feature`` if llm.yml lists it, else ``other``."""
        return feature if feature in self.features else "other"

    def team_label(self, team: str) -> str:
        """Return ``team`` if llm.yml lists it, else ``other``."""
        return team if team in self.teams else "other"

    def model_label(self, model: str) -> str:
        """Return ``model`` if llm.yml mentions it, else ``other``."""
        return model if model in self.label_models else "other"

    # --- the end of a call ----------------------------------------------------------------------------
    def cost(self, call: Call, outcome: Outcome) -> int | None:
        """Return the call's price in micro-dollars, None without a price."""
        target = outcome.target
        if self.prices is None or target is None or not outcome.usage.total:
            return None
        cost = self.prices.cost(target.provider.kind, target.name, target.model, outcome.usage)
        if cost is None:
            self.metrics.unpriced.inc()
        return cost

    def month(self, moment: float) -> str:
        """Return the month of ``moment`` (monotonic seconds) in UTC, as ``2026-11``; worked out once a minute."""
        begin, end, month = self._month
        if not begin <= moment < end:
            clock = self.clock
            wall = clock.time() - (clock.monotonic() - moment)
            month = datetime.fromtimestamp(wall, UTC).strftime("%Y-%m")
            self._month = (moment, moment + 60.0 - wall % 60.0, month)
        return month

    def usage_record(self, call: Call, outcome: Outcome) -> UsageRecord:
        """Return the call's row for the usage ledger: it counts in the month in which it began."""
        usage = outcome.usage
        target = outcome.target
        caller = call.caller
        model = target.model if target is not None else call.model
        if outcome.end != "completed" and not usage.total:
            model = self.model_label(model)  # a name that only the caller knows mints no rows
        month = call.notes.get("month") or self.month(call.started)
        return UsageRecord(
            month, caller.team, caller.user, model, call.feature, outcome.end, usage.prompt, usage.completion,
            usage.cached, outcome.cost or 0, int((self.clock.monotonic() - call.started) * 1000), call.cache, outcome.code or "",
        )  # fmt: skip

    async def aclose(self, successor: Runtime | None = None) -> None:
        """Close what the successor does not use any more."""
        kept = {id(entry) for entry in successor.providers.values()} if successor else set()
        for entry in self.providers.values():
            if id(entry) not in kept:
                await entry.upstream.aclose()
        for policy in self.policies:
            try:
                async with asyncio.timeout(_LONGEST_CLOSE):
                    await policy.aclose()
            except BaseException as error:
                if thrown_in(error):
                    raise
                self.log.warning("policy_not_closed", extra={"fields": {"policy": policy.name, **describe(error)}})


def _allowed(config: Any) -> Iterator[str]:
    """Yield what llm.yml allows: who lists a model by its name wants to see it in the metrics by that name."""
    for entry in config.policies:
        if entry.name == "allowlist":
            yield from entry.config.models
    for team in config.teams.values():
        yield from team.allowed_models or ()


def _provider(entry: Any, previous: Runtime | None) -> ProviderEntry:
    """Return the provider's run-time entry: the running one, with its connections, where nothing changed."""
    if previous is not None:
        old = previous.providers.get(entry.name)
        if old is not None and type(old.provider) is entry.cls and old.settings == entry.settings:
            return old
    provider: Provider = entry.cls(entry.name, entry.settings)
    return ProviderEntry(entry.name, provider, _upstream(provider, entry.settings))


def _upstream(provider: Provider, settings: ProviderSettings) -> Any:
    from proxy.providers.echo import Echo

    if isinstance(provider, Echo):
        from proxy.upstream.echo import EchoUpstream

        return EchoUpstream(provider)
    from proxy.upstream.factory import open_upstream

    return open_upstream(
        provider.base_url(),
        timeouts(settings),
        min_tls=settings.tls.min_version,
        ca_file=settings.tls.ca_file,
        proxy=settings.proxy,
    )
