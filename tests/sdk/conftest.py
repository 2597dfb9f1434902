"""The clients: through the sidecar, sync and async, and straight to the fake provider to compare."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import openai
import pytest

from tests.conftest import Sidecars
from tests.fakes.clients import async_openai_client, openai_client
from tests.fakes.process import Upstream
from tests.fakes.sidecar import CLIENT_KEY, PROVIDER_KEY, Sidecar, config, hash_key

LEAVER_KEY = "sk-side-leaver-CANARY55"
VIEWER_KEY = "sk-side-viewer-CANARY56"


@pytest.fixture
def client(sidecar: Sidecar) -> Iterator[openai.OpenAI]:
    """The sync client through the plain sidecar, without retries of its own."""
    with openai_client(sidecar.base_url, CLIENT_KEY) as found:
        yield found


@pytest.fixture
async def aclient(sidecar: Sidecar) -> AsyncIterator[openai.AsyncOpenAI]:
    """The async client through the plain sidecar."""
    async with async_openai_client(sidecar.base_url, CLIENT_KEY) as found:
        yield found


@pytest.fixture
def direct(upstream: Upstream) -> Iterator[openai.OpenAI]:
    """The sync client straight to the fake provider."""
    with openai_client(upstream.base(), PROVIDER_KEY) as found:
        yield found


@pytest.fixture
def strict(sidecars: Sidecars, upstream: Upstream) -> Sidecar:
    """A sidecar that refuses a lot: small bodies, few models, a prompt limit, teams that opted out, a feature at 0 %."""
    settings = config(
        upstream.base(),
        server={"max_body": "64KiB"},
        features=["beta"],
        providers={"openai": {"models": ["gpt-*", "slow-*"]}},
        policies=[
            {"opt_out": {"teams": ["leavers"]}},
            {"rollout": {"features": {"beta": {"percent": 0}}}},
            {"allowlist": {"models": ["gpt-*"]}},
            {"prompt_limit": {"max_tokens": 200}},
        ],
    )
    settings["auth"]["keys"] += [
        {"id": "leaver", "hash": hash_key(LEAVER_KEY), "team": "leavers", "roles": ["generate"]},
        {"id": "viewer", "hash": hash_key(VIEWER_KEY), "team": "ops", "roles": ["view"]},
    ]
    return sidecars(settings)
