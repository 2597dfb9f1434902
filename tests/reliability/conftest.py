"""Sidecars for faults: no retries, a breaker that stays shut, short timeouts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Sidecars
from tests.fakes.ledger import Ledger
from tests.fakes.process import Upstream
from tests.fakes.sidecar import PROVIDER_KEY, Sidecar

NEVER_OPEN: dict[str, Any] = {"failures": 1_000_000}
#: The limits of the `patient` sidecar, in seconds.
LIMIT = 0.4


def providers(upstream: Upstream, **common: Any) -> dict[str, Any]:
    """Return one provider of each wire, all at the fake upstream."""
    shared: dict[str, Any] = {"api_key": PROVIDER_KEY, "max_retries": 0, "breaker": NEVER_OPEN, **common}
    return {
        "openai": {**shared, "base_url": upstream.base()},
        "anthropic": {**shared, "base_url": upstream.url, "max_tokens": 1000},
        "gemini": {**shared, "base_url": upstream.url},
    }


@pytest.fixture
def steady(sidecars: Sidecars, upstream: Upstream) -> Sidecar:
    """Three wires, long timeouts: for upstreams that break and clients that leave."""
    return sidecars(providers=providers(upstream))


@pytest.fixture
def hasty(sidecars: Sidecars, upstream: Upstream) -> Sidecar:
    """Three wires, timeouts of ``LIMIT``: for upstreams that hang."""
    limits = {"connect": LIMIT, "first_byte": LIMIT, "idle": LIMIT, "total": 20}
    return sidecars(providers=providers(upstream, timeout=limits))


@pytest.fixture
def books(steady: Sidecar, upstream: Upstream, tag: str) -> Ledger:
    """The accounts of this test's calls through ``steady``."""
    return Ledger(steady, upstream, tag)


@pytest.fixture
def hasty_books(hasty: Sidecar, upstream: Upstream, tag: str) -> Ledger:
    """The accounts of this test's calls through ``hasty``."""
    return Ledger(hasty, upstream, tag)
