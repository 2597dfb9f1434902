"""Ask each provider whether its key works: a cheap request, only when somebody wants to know."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from proxy.errors import ApiError

if TYPE_CHECKING:
    from proxy.runtime import Runtime
    from proxy.upstream.entry import ProviderEntry


async def probe(entry: ProviderEntry) -> dict[str, Any]:
    """Return ``{"status": "ok", "models": n}`` or ``{"status": "failed", "code": …, "message": …}`` for one provider."""
    if not entry.provider.needs_key and entry.provider.kind == "echo":
        return {"status": "ok", "models": 0}
    results = []
    for index in range(entry.key_count):
        try:
            reply = await entry.upstream.send(entry.provider.probe(), entry.credentials(index))
            try:
                body = await reply.body(16 * 1024 * 1024)
                if reply.status != 200:
                    raise entry.provider.failure(reply.status, reply.headers, body)
                results.append({"status": "ok", "models": len(entry.provider.known_models(body))})
            finally:
                reply.close()
        except ApiError as error:
            results.append({"status": "failed", "code": error.code, "message": entry.hide(error.message)})
        except (ValueError, KeyError, TypeError, AttributeError):
            results.append({"status": "ok", "models": 0})
    if len(results) == 1:
        return results[0]
    good = sum(row["status"] == "ok" for row in results)
    return {"status": "ok" if good == len(results) else "failed", "keys": results}


async def probe_all(runtime: Runtime) -> dict[str, dict[str, Any]]:
    """Return each provider's probe result, asked side by side."""
    names = list(runtime.providers)
    results = await asyncio.gather(*(probe(runtime.providers[name]) for name in names))
    return dict(zip(names, results, strict=True))
