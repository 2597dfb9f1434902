"""Ask each provider whether its key works, from the command line."""

from __future__ import annotations

import asyncio
from typing import Any

from proxy.config.model import Config


def probe(config: Config) -> dict[str, dict[str, Any]]:
    """Return each present provider's result: ``{"status": "ok", "models": n}`` or why not."""
    return asyncio.run(_probe(config))


async def _probe(config: Config) -> dict[str, dict[str, Any]]:
    from proxy.cli import offline
    from proxy.probe import probe_all

    async with offline.runtime(config) as runtime:
        return await probe_all(runtime)
