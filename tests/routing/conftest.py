"""Whole sidecars in this process before providers that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.core.inline import Inline, inline
from tests.fakes.scripted import Play, Scripted, llm_yml, providers

Serve = Callable[..., Awaitable[tuple[Inline, Scripted]]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a provider and a sidecar before it: ``await serve(play, "openai", max_retries=2, models=…)``.

    Names are the vendors; ``config`` holds the top-level keys of llm.yml, ``more`` other providers' entries,
    the rest are keys of each provider.
    Nothing may be reported to the event loop as never retrieved.
    """
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    async with AsyncExitStack() as stack:

        async def start(
            play: Play,
            *names: str,
            config: dict[str, Any] | None = None,
            more: dict[str, Any] | None = None,
            **common: Any,
        ) -> tuple[Inline, Scripted]:
            provider = await stack.enter_async_context(Scripted(play))
            text = llm_yml({**providers(provider.url, *names, **common), **(more or {})}, **(config or {}))
            return await stack.enter_async_context(inline(text)), provider

        yield start
    await asyncio.sleep(0)
    assert not complaints, complaints
