"""What tokens cost: genai-prices' offline data, with llm.yml's ``prices:`` on top. Money in micro-dollars.

A dollar per million tokens is a micro-dollar per token, so prices are used as they are written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from math import ceil
from typing import Any, Final, NamedTuple

from proxy.call import Usage

#: Our kinds of provider → the data package's names.
_IDS: Final = {"openai": "openai", "azure_openai": "azure", "anthropic": "anthropic", "gemini": "google"}
#: Prices may change by date and hour: look again so often, in seconds.
_AGE: Final = 3_600.0
_MAX_KNOWN: Final = 1_000
#: A price such as 0.1 is not exact in binary; what that adds may not become a micro-dollar.
_ROUNDING: Final = 1e-6
#: A dollar a token. What a call costs must stay a number that the stores can add up.
_DEAREST: Final = 1e6


class Tier(NamedTuple):
    """Micro-dollars per token, for prompts of more than ``above`` tokens."""

    above: int
    input: float
    output: float
    cached: float
    cache_write: float


Tariff = tuple[Tier, ...]
FREE: Final[Tariff] = (Tier(-1, 0.0, 0.0, 0.0, 0.0),)


class Prices:
    """Prices of models. ``overrides`` by ``provider/model``, with ``input``, ``output`` and ``cached_input``
    in US dollars per million tokens.

    genai-prices is imported with the first model that is not overridden (about 0.3 s): see :meth:`warm`.
    """

    def __init__(self, overrides: Mapping[str, Any] | None = None, *, time: Callable[[], float] = time.time) -> None:
        self._time = time
        self._overrides: dict[str, Tariff] = {}
        for name, price in (overrides or {}).items():
            read = min(price.input, _DEAREST)
            cached = read if price.cached_input is None else min(price.cached_input, _DEAREST)
            self._overrides[name] = (Tier(-1, read, min(price.output, _DEAREST), cached, read),)
        self._known: dict[tuple[str, str, str], tuple[float, Tariff | None]] = {}

    def tariff(self, kind: str, name: str, model: str) -> Tariff | None:
        """Return the prices of ``model`` at the provider entry ``name`` of ``kind``, None where nobody knows them."""
        key = (kind, name, model)
        known = self._known.get(key)
        if known is None or known[0] <= (now := self._time()):
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            now = self._time()
            known = self._known[key] = (now + _AGE, self._find(kind, name, model, now))
        return known[1]

    def cost(self, kind: str, name: str, model: str, usage: Usage) -> int | None:
        """Return what ``usage`` costs in micro-dollars, rounded up, None without a price."""
        tariff = self.tariff(kind, name, model)
        if tariff is None:
            return None
        tier = tariff[0] if len(tariff) == 1 else _tier(tariff, usage.prompt)
        cached = min(max(0, usage.cached), usage.prompt)
        written = min(max(0, usage.cache_write), usage.prompt - cached)
        return _whole(
            (usage.prompt - cached - written) * tier.input
            + cached * tier.cached
            + written * tier.cache_write
            + usage.completion * tier.output
        )

    def hold(self, kind: str, name: str, model: str, prompt: int, completion: int) -> int | None:
        """Return the most that so many tokens can cost in micro-dollars, None without a price."""
        tariff = self.tariff(kind, name, model)
        if tariff is None:
            return None
        tier = tariff[0] if len(tariff) == 1 else _tier(tariff, prompt)
        return _whole(prompt * max(tier.input, tier.cache_write) + completion * tier.output)

    def unpriced(self, models: Iterable[tuple[str, str, str]]) -> list[str]:
        """Return ``provider/model`` of those (kind, name, model) that have no price, for `check`."""
        return [f"{name}/{model}" for kind, name, model in models if self.tariff(kind, name, model) is None]

    def warm(self) -> None:
        """Import the price data now, so that no call waits for it. Meant for a thread."""
        _snapshot()

    def _find(self, kind: str, name: str, model: str, now: float) -> Tariff | None:
        override = self._overrides.get(f"{name}/{model}")
        if override is not None:
            return override
        if kind == "echo":
            return FREE
        for provider in dict.fromkeys((name, _IDS.get(kind, ""), "openai" if kind == "azure_openai" else "")):
            if provider and (found := _lookup(provider, model, now)) is not None:
                return found
        return None


def _tier(tariff: Tariff, prompt: int) -> Tier:
    found = tariff[0]
    for tier in tariff[1:]:
        if prompt > tier.above:
            found = tier
    return found


def _whole(amount: float) -> int:
    return max(0, ceil(amount - _ROUNDING))


def _snapshot() -> Any:
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot()


def _lookup(provider_id: str, model: str, now: float) -> Tariff | None:
    snapshot = _snapshot()
    provider = next((one for one in snapshot.providers if one.id == provider_id), None)
    if provider is None:
        return None
    try:
        found = provider.find_model(model.lower(), all_providers=snapshot.providers)
    except Exception:
        logging.getLogger("llm_sidecar").debug("price_lookup_failed", exc_info=True)
        return None
    if found is None:
        return None
    prices = found.get_prices(datetime.fromtimestamp(now, UTC))
    names = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
    values = [getattr(prices, name, None) for name in names]
    if values[0] is None:
        return None
    starts = sorted({tier.start for value in values for tier in getattr(value, "tiers", ())})
    return tuple(_row(above, values) for above in (-1, *starts))


def _row(above: int, values: list[Any]) -> Tier:
    price, output, cached, written = (_at(value, above) for value in values)
    assert price is not None
    # Embeddings have no output; a cache without a price of its own costs what input costs.
    return Tier(above, price, output or 0.0, price if cached is None else cached, price if written is None else written)


def _at(value: Any, above: int) -> float | None:
    if value is None:
        return None
    found = getattr(value, "base", value)
    for tier in getattr(value, "tiers", ()):
        if tier.start <= above:
            found = tier.price
    return float(found)
