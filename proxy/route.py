"""Where a model name leads: aliases, ``provider/model``, globs, weights, and breakers that are open."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from proxy.errors import ApiError
from proxy.providers.base import Target

if TYPE_CHECKING:
    from proxy.upstream.entry import ProviderEntry

_MAX_TARGETS: Final = 4_096


class Router:
    """Plan the targets of a call, in the order in which they are tried."""

    __slots__ = ("_aliases", "_default", "_entries", "_random", "_resolved", "_targets", "known")

    def __init__(
        self,
        aliases: Mapping[str, Any],
        entries: Mapping[str, ProviderEntry],
        default: str | None,
        rng: random.Random | None = None,
    ) -> None:
        self._entries = entries
        self._default = default
        self._random = rng or random.Random()
        self._targets: dict[tuple[str, str], Target] = {}
        self._resolved: dict[str, Target] = {}
        self._aliases: dict[str, tuple[tuple[Target, float], ...]] = {}
        weighted = {}
        for name, route in aliases.items():
            targets = []
            for to in route.targets:
                provider, _, model = to.to.partition("/")
                if provider in entries:
                    targets.append((self.target(provider, model), float(to.weight)))
            self._aliases[name] = tuple(targets)
            weighted[name] = route.strategy == "weighted"
        self._aliases = {
            name: tuple((t, w if weighted[name] else -1.0) for t, w in targets)
            for name, targets in self._aliases.items()
        }
        #: Upstream model names that the configuration itself mentions: the only ones fit for a metric's label.
        self.known = frozenset(
            [target.model for targets in self._aliases.values() for target, _ in targets]
            + [entry.settings.model for entry in entries.values() if entry.settings.model]
            + [glob for entry in entries.values() for glob in entry.settings.models if not set(glob) & set("*?[")]
            + list(aliases)
        )

    def target(self, provider: str, model: str) -> Target:
        """Return the target for one provider's model; the same object each time, within reason."""
        found = self._targets.get((provider, model))
        if found is None:
            found = Target(provider, model, self._entries[provider].provider)
            if len(self._targets) < _MAX_TARGETS:
                self._targets[provider, model] = found
        return found

    def aliases(self) -> Mapping[str, Sequence[Target]]:
        """Return each alias with its targets."""
        return {name: [target for target, _ in targets] for name, targets in self._aliases.items()}

    def plan(self, model: str, endpoint: str, now: float) -> list[Target]:
        """Return the targets for ``model``, best first; those with an open breaker only if all have one.

        Raises:
            ApiError: ``model_not_found``, or ``invalid_request`` where no model is named and none is configured.
        """
        known = self._resolved.get(model)
        if known is not None and endpoint in known.provider.endpoints:
            return [known]
        found = self._aliases.get(model)
        if found is not None:
            targets = [target for target, _ in found]
            if len(found) > 1:
                if found[0][1] >= 0:
                    targets = self._draw(found)
                targets = self._healthy(targets, now)
        else:
            targets = [self._resolve(model)]
            if len(self._resolved) < _MAX_TARGETS:
                self._resolved[model] = targets[0]
        able = [target for target in targets if endpoint in target.provider.endpoints]
        if not able:
            if not targets:
                raise _unknown(model)
            raise ApiError(
                "invalid_request",
                f"`{model or targets[0].model}` is served by {targets[0].name}, which has no {endpoint} endpoint.",
                param="model",
            )
        return able

    def _resolve(self, model: str) -> Target:
        entries = self._entries
        default = entries.get(self._default or "")
        if not model:
            if default is None or not default.settings.model:
                raise ApiError(
                    "invalid_request", "`model` is missing and llm.yml names no default; say which one.", param="model"
                )
            return self.target(default.name, default.settings.model)
        provider, slash, rest = model.partition("/")
        if slash and provider in entries:
            if not rest:
                raise _unknown(model)
            return self.target(provider, rest)
        if model in entries and (own := entries[model].settings.model):
            return self.target(model, own)
        for entry in entries.values():
            if any(fnmatchcase(model, glob) for glob in entry.settings.models):
                return self.target(entry.name, model)
        if default is None or (default.settings.models and model != default.settings.model):
            raise _unknown(model)
        return self.target(default.name, model)

    def leads(self, model: str, target: Target) -> bool:
        """Return whether the name ``model``, no alias, leads to ``target``."""
        try:
            return self._resolve(model) == target
        except ApiError:
            return False

    def _draw(self, found: Sequence[tuple[Target, float]]) -> list[Target]:
        """Return all targets in a weighted random order: the rest are the fallbacks of the first."""
        left = [pair for pair in found if pair[1] > 0]
        order = []
        while left:
            pick = self._random.choices(range(len(left)), [weight for _, weight in left])[0]
            order.append(left.pop(pick)[0])
        return order

    def _healthy(self, targets: list[Target], now: float) -> list[Target]:
        closed = [t for t in targets if not self._entries[t.name].blocked(t.model, now)]
        return closed or targets


def _unknown(model: str) -> ApiError:
    shown = model if len(model) <= 80 and model.isprintable() else "that model"
    return ApiError(
        "model_not_found",
        f"The model `{shown}` is not served here; GET /v1/models lists what you may use.",
        param="model",
    )
