"""The ledgers of the shared sidecars."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fakes.ledger import Ledger
from tests.fakes.process import Upstream
from tests.fakes.sidecar import Sidecar
from tests.reliability.load import Strain


@pytest.fixture
async def strain() -> AsyncIterator[Strain]:
    """How busy the machine is while this test runs."""
    async with Strain() as watched:
        yield watched


@pytest.fixture
def books(steady: Sidecar, upstream: Upstream, tag: str) -> Ledger:
    """The accounts of this test's calls through ``steady``."""
    return Ledger(steady, upstream, tag)


@pytest.fixture
def hasty_books(hasty: Sidecar, upstream: Upstream, tag: str) -> Ledger:
    """The accounts of this test's calls through ``hasty``."""
    return Ledger(hasty, upstream, tag)


@pytest.fixture
def tight_books(tight: Sidecar, upstream: Upstream, tag: str) -> Ledger:
    """The accounts of this test's calls through ``tight``."""
    return Ledger(tight, upstream, tag)
