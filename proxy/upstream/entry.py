"""One configured provider at run time: its translator, connections, keys, breakers and health."""

from __future__ import annotations

import time
from collections import deque
from time import monotonic
from typing import Any, Final

from proxy.errors import UpstreamError
from proxy.providers.base import Provider, ProviderSettings, TimeoutSettings
from proxy.upstream.base import Timeouts, Upstream
from proxy.upstream.breaker import CLOSED, Breaker
from proxy.upstream.budget import RetryBudget

HOP: Final = "x-llm-sidecar-hop"
"""The request header that lists the sidecars a call came through: one that finds itself in it refuses."""
_MAX_BREAKERS: Final = 1_000
_SHOWN: Final = 20
_KEY_REST: Final = 30.0
_LONGEST_REST: Final = 300.0
#: Errors that are the operator's to mend: no failure of the upstream, but no health either.
_OURS: Final = ("upstream_auth_error", "upstream_quota_exceeded")


class ProviderEntry:
    """A provider of llm.yml with everything that outlives a single call."""

    __slots__ = (
        "_bad", "_breakers", "_keys", "_marked", "_outcomes", "_secrets", "_words", "budget", "last_error", "last_success",
        "name", "provider", "settings", "single", "upstream",
    )  # fmt: skip

    def __init__(self, name: str, provider: Provider, upstream: Upstream) -> None:
        self.name = name
        self.provider = provider
        self.settings: ProviderSettings = provider.settings
        self.upstream = upstream
        self._secrets = [key.get_secret_value() for key in self.settings.api_key]
        self._keys = [tuple(provider.credentials(key)) for key in self._secrets] or [()]
        self._marked: dict[tuple[int, str], tuple[tuple[str, str], ...]] = {}
        self.single = len(self._keys) == 1
        """There is one key, or none, so that nothing is to choose."""
        self._bad: dict[int, float] = {}
        self._words: set[str] = set()
        self._breakers: dict[str, Breaker] = {}
        self.budget = RetryBudget()
        upstream.allow_retry = self.may_retry
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

    def credentials(self, index: int, hop: str | None = None) -> tuple[tuple[str, str], ...]:
        """Return the headers that carry key ``index`` and, if given, the mark ``hop``: the same tuple each time."""
        if hop is None:
            return self._keys[index]
        found = self._marked.get((index, hop))
        if found is None:
            found = self._marked[index, hop] = (*self._keys[index], (HOP, hop))
        return found

    def rest(self, index: int, now: float, wait: float | None = None) -> None:
        """Let a refused key rest while others are used: ``wait`` seconds where the upstream said so."""
        if len(self._keys) > 1:
            self._bad[index] = now + (_KEY_REST if wait is None else min(max(wait, 1.0), _LONGEST_REST))

    def next_key(self, now: float, tried: set[int]) -> int | None:
        """Return the key to try at once after a refusal, None if there is none.

        A key that has not been refused lately is free to try; one that rests costs of the retry budget, so
        that a provider that limits every key is not asked again by every call for every key.
        """
        index = self.key(now, tried)
        if index is None or (self._bad.get(index, 0.0) > now and not self.budget.take(now)):
            return None
        return index

    def new_word(self, word: str) -> bool:
        """Tell whether ``word`` was not seen before: what is odd is logged once, and not without bound."""
        if word in self._words or len(self._words) >= _SHOWN:
            return False
        self._words.add(word)
        return True

    def may_retry(self) -> bool:
        """Take one retry from the budget: what the connections ask before they send a request again."""
        return self.budget.take(monotonic())

    def hide(self, text: str) -> str:
        """Return ``text`` without any of this provider's keys, whole or in part."""
        for secret in self._secrets:
            if len(secret) < 8:
                continue
            start = text.find(secret[:8])
            while start >= 0:
                end = start
                while end < len(text) and not text[end].isspace() and text[end] not in "\"',;)":
                    end += 1
                text = text[:start] + "[REDACTED]" + text[end:]
                start = text.find(secret[:8], start + 10)
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

    def succeeded(self, model: str, now: float, started: float | None = None) -> None:
        """Book a success: it resets the count of failures.

        ``started`` is the ``now`` of the attempt's :meth:`allow`, here and below: the end of a call that began
        before the breaker opened says nothing about the upstream of now.
        """
        breaker = self._breakers.get(model) if self._breakers else None
        if breaker is not None:
            breaker.success(started)
            if breaker.state(now) == CLOSED:
                del self._breakers[model]
        self.last_success = now
        self._outcomes.append((now, True))

    def failed(self, model: str, error: UpstreamError, now: float, started: float | None = None) -> None:
        """Book a failed attempt; only errors that count move the breaker."""
        self.last_error = (time.time(), error.code)
        if not error.counts:
            if error.code in _OURS:
                self._outcomes.append((now, False))
            return
        self._outcomes.append((now, False))
        breaker = self._breakers.get(model)
        if breaker is None:
            if len(self._breakers) >= _MAX_BREAKERS:
                self._breakers.pop(next(iter(self._breakers)))
            settings = self.settings.breaker
            breaker = self._breakers[model] = Breaker(settings.failures, settings.open)
        breaker.failure(now, started)

    def left(self, model: str, started: float | None = None) -> None:
        """Give a probe's place back without a verdict: the client left, or the upstream said no for another reason."""
        breaker = self._breakers.get(model)
        if breaker is not None:
            breaker.abandon(started)

    def state(self, now: float) -> int:
        """Return the worst breaker's state: 0 closed, 1 half-open, 2 open."""
        return max((breaker.state(now) for breaker in self._breakers.values()), default=0)

    def health(self, now: float) -> dict[str, Any]:
        """Return what real calls say about this provider; ``circuits``: seconds until each model's next probe."""
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
        waiting = {
            model: round(breaker.retry_after(now), 1)
            for model, breaker in self._breakers.items()
            if breaker.state(now) != CLOSED
        }
        if waiting:
            body["circuits"] = dict(list(waiting.items())[:_SHOWN])
        return body


def timeouts(settings: ProviderSettings) -> Timeouts:
    """Return the four deadlines that ``timeout`` means."""
    value = settings.timeout
    if isinstance(value, TimeoutSettings):
        return Timeouts(value.connect, value.first_byte, value.idle, value.total)
    return Timeouts(min(5.0, value), value, value, max(600.0, value))
