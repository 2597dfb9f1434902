"""One configured provider at run time: its translator, connections, keys, breakers and health."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Final

from proxy.errors import UpstreamError
from proxy.providers.base import Provider, ProviderSettings, TimeoutSettings
from proxy.upstream.base import Timeouts, Upstream
from proxy.upstream.breaker import Breaker
from proxy.upstream.budget import RetryBudget

_MAX_BREAKERS: Final = 1_000
_KEY_REST: Final = 30.0


class ProviderEntry:
    """A provider of llm.yml with everything that outlives a single call."""

    __slots__ = (
        "_bad", "_breakers", "_keys", "_outcomes", "_secrets", "budget", "last_error", "last_success", "name",
        "provider", "settings", "upstream",
    )  # fmt: skip

    def __init__(self, name: str, provider: Provider, upstream: Upstream) -> None:
        self.name = name
        self.provider = provider
        self.settings: ProviderSettings = provider.settings
        self.upstream = upstream
        self._secrets = [key.get_secret_value() for key in self.settings.api_key]
        self._keys = [provider.credentials(key) for key in self._secrets] or [[]]
        self._bad: dict[int, float] = {}
        self._breakers: dict[str, Breaker] = {}
        self.budget = RetryBudget()
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=100)
        self.last_error: tuple[float, str] | None = None
        self.last_success: float | None = None

    # --- keys -----------------------------------------------------------------------------------------
    @property
    def key_count(self) -> int:
        return len(self._keys)

    def key(self, now: float, tried: set[int]) -> int | None:
        """Return the index of the key to use next: the first not resting and not ``tried``; None if all were tried."""
        best: int | None = None
        for index in range(len(self._keys)):
            if index in tried:
                continue
            if self._bad.get(index, 0.0) <= now:
                return index
            if best is None:
                best = index
        return best

    def credentials(self, index: int) -> list[tuple[str, str]]:
        """Return the headers that carry key ``index``."""
        return self._keys[index]

    def rest(self, index: int, now: float) -> None:
        """Let a refused key rest while others are used."""
        if len(self._keys) > 1:
            self._bad[index] = now + _KEY_REST

    def hide(self, text: str) -> str:
        """Return ``text`` without any of this provider's keys, whole or in part."""
        for secret in self._secrets:
            while len(secret) >= 8 and secret[:8] in text:
                start = text.index(secret[:8])
                end = start
                while end < len(text) and not text[end].isspace() and text[end] not in "\"',;)":
                    end += 1
                text = text[:start] + "[REDACTED]" + text[end:]
        return text

    # --- breaker and health -----------------------------------------------------------------------------
    def blocked(self, model: str, now: float) -> bool:
        """Tell whether the model's breaker is open and not yet due for a probe. Changes nothing."""
        breaker = self._breakers.get(model)
        return breaker is not None and breaker.retry_after(now) > 0

    def allow(self, model: str, now: float) -> bool:
        """Ask the model's breaker for passage; half-open it lets one probe through at a time."""
        breaker = self._breakers.get(model)
        return breaker is None or breaker.allow(now)

    def retry_after(self, model: str, now: float) -> float:
        """Return the seconds until the model's breaker lets a probe through."""
        breaker = self._breakers.get(model)
        return breaker.retry_after(now) if breaker is not None else 0.0

    def succeeded(self, model: str, now: float) -> None:
        """Book a success: it resets the count of failures."""
        if self._breakers:
            self._breakers.pop(model, None)
        self.last_success = now
        self._outcomes.append((now, True))

    def failed(self, model: str, error: UpstreamError, now: float) -> None:
        """Book a failed attempt; only errors that count move the breaker."""
        self.last_error = (time.time(), error.code)
        if not error.counts:
            self.left(model)
            return
        self._outcomes.append((now, False))
        breaker = self._breakers.get(model)
        if breaker is None:
            if len(self._breakers) >= _MAX_BREAKERS:
                self._breakers.pop(next(iter(self._breakers)))
            settings = self.settings.breaker
            breaker = self._breakers[model] = Breaker(settings.failures, settings.open)
        breaker.failure(now)

    def left(self, model: str) -> None:
        """Give a probe's place back without a verdict: the client left, or the upstream said no for another reason."""
        breaker = self._breakers.get(model)
        if breaker is not None:
            breaker.abandon()

    def state(self, now: float) -> int:
        """Return the worst breaker's state: 0 closed, 1 half-open, 2 open."""
        return max((breaker.state(now) for breaker in self._breakers.values()), default=0)

    def health(self, now: float) -> dict[str, Any]:
        """Return what real calls say about this provider."""
        recent = [ok for at, ok in self._outcomes if at > now - 300]
        state = self.state(now)
        failures = recent.count(False)
        status = "unknown" if not recent and state == 0 else "healthy"
        if state == 2 or (recent and failures == len(recent)):
            status = "unhealthy"
        elif failures:
            status = "degraded"
        body: dict[str, Any] = {
            "status": status,
            "circuit": ("closed", "half_open", "open")[state],
            "calls_5m": len(recent),
            "failures_5m": failures,
        }
        if self.last_error is not None:
            body["last_error"] = self.last_error[1]
        return body


def timeouts(settings: ProviderSettings) -> Timeouts:
    """Return the four deadlines that ``timeout`` means."""
    value = settings.timeout
    if isinstance(value, TimeoutSettings):
        return Timeouts(value.connect, value.first_byte, value.idle, value.total)
    return Timeouts(min(5.0, value), value, value, max(600.0, value))
