"""A sidecar in this process with a cache, and the fake upstream behind it."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import asynccontextmanager

import pytest

from tests.core.inline import inline

HERE = "tests.cache.plugins"
STAMP, TRIPS, BELOW, REWRITES, STRIKES = (
    f"{HERE}:{name}" for name in ("Stamp", "Trips", "Below", "Rewrites", "Strikes")
)


def policies(*rows):
    """Return the policies section; a bare ``cache`` is one that needs no redact."""
    listed = [row if isinstance(row, dict) else {row: {}} for row in rows]
    for row in listed:
        if "cache" in row and not any("redact" in other for other in listed):
            row["cache"] = {"unsanitized": True, **row["cache"]}
    return "policies: " + json.dumps(listed) + "\n"


class Behind:
    """The upstream as one test sees it: ``model(spec)`` names a model with that behaviour, ``count()`` its calls."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.tag = f"tag=t{uuid.uuid4().hex[:10]}"

    def model(self, spec=""):
        return ";".join(filter(None, ("gpt-4o", spec, self.tag)))

    def count(self):
        return len(self.upstream.calls(self.tag))

    def calls(self):
        return self.upstream.calls(self.tag)


@pytest.fixture
def behind(upstream):
    return Behind(upstream)


@pytest.fixture
def serve(upstream):
    """Serve a configuration in front of the fake upstream: ``async with serve(policies(…)) as side``."""

    @asynccontextmanager
    async def start(config, folder=None, environ=None):
        providers = {"openai": {"base_url": upstream.base(), "api_key": "sk-1", "max_retries": 0}}
        text = f"providers: {json.dumps(providers)}\ndefault_provider: openai\n{config}"
        async with inline(text, folder, environ) as side:
            side.client.timeout = 20
            yield side

    return start


async def aloft(side, readers=0):
    """Wait until a flight is under way that has so many readers; return it."""
    (cache,) = [policy for policy in side.side.runtime.policies if policy.name == "cache"]
    for _ in range(500):
        for flight in cache._flights.values():
            if len(flight._readers) >= readers:
                return flight
        await asyncio.sleep(0.01)
    raise AssertionError(f"no flight with {readers} readers within 5 s: {cache._flights}")


def events(text):
    """Return a stream's JSON events."""
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def said(response):
    """Return the text of an answer in either form."""
    if "event-stream" in response.headers["content-type"]:
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in events(response.text) if c.get("choices"))
    return response.json()["choices"][0]["message"]["content"]
