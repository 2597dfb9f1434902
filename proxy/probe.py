"""Ask each provider whether its key works, and for its models: a cheap request, only when somebody wants to know."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Final

from proxy.errors import ApiError

if TYPE_CHECKING:
    from proxy.runtime import Runtime
    from proxy.upstream.entry import ProviderEntry

_MAX_BODY: Final = 16 * 1024 * 1024


async def probe(entry: ProviderEntry, wanted: Collection[str] = ()) -> dict[str, Any]:
    """Return what one provider says to each of its keys.

    ``{"status": "ok", "models": n, "missing": […]}`` (``missing``: those of the ``wanted`` models that its
    list lacks, where it has one) or ``{"status": "failed", "code": …, "message": …}``. With several keys
    ``{"status": …, "keys": [one of these for each]}``, failed if any key is.
    """
    if not entry.provider.needs_key and entry.provider.kind == "echo":
        return {"status": "ok", "models": 0, "missing": []}
    results = await asyncio.gather(*(_ask(entry, index, wanted) for index in range(entry.key_count)))
    if len(results) == 1:
        return results[0]
    good = sum(row["status"] == "ok" for row in results)
    return {"status": "ok" if good == len(results) else "failed", "keys": results}


async def _ask(entry: ProviderEntry, index: int, wanted: Collection[str]) -> dict[str, Any]:
    provider = entry.provider
    try:
        reply = await entry.upstream.send(provider.probe(), entry.credentials(index))
        try:
            body = await reply.body(_MAX_BODY)
            if reply.status != 200:
                raise provider.failure(reply.status, reply.headers, body)
        finally:
            reply.close()
    except ApiError as error:
        return {"status": "failed", "code": error.code, "message": entry.hide(error.message)}
    try:
        listed = provider.known_models(body)
    except (ValueError, KeyError, TypeError, AttributeError):
        message = f"{entry.name} answered with something that is no list of models; check its base_url."
        return {"status": "failed", "code": "upstream_invalid_response", "message": message}
    missing = _missing(wanted, listed) if listed and provider.lists_models else []
    return {"status": "ok", "models": len(listed), "missing": missing}


def _missing(wanted: Iterable[str], listed: Collection[str]) -> list[str]:
    """Return the ``wanted`` names that are not ``listed``; `claude-x` and `claude-x-latest` stand for a dated `claude-x-…`."""
    names = set(listed)
    found = []
    for model in wanted:
        bare = model.rpartition("/")[2] if model.startswith(("models/", "tunedModels/")) else model
        stem = bare.removesuffix("-latest") + "-"
        if bare not in names and model not in names and not any(name.startswith(stem) for name in names):
            found.append(model)
    return sorted(found)


def configured(runtime: Runtime) -> dict[str, set[str]]:
    """Return the upstream models that llm.yml names, by provider: defaults, targets, and names without a glob."""
    names: dict[str, set[str]] = {name: set() for name in runtime.providers}
    for name, entry in runtime.providers.items():
        if entry.settings.model:
            names[name].add(entry.settings.model)
        names[name].update(glob for glob in entry.settings.models if not set(glob) & set("*?["))
    for targets in runtime.router.aliases().values():
        for target in targets:
            names[target.name].add(target.model)
    return names


async def probe_all(runtime: Runtime) -> dict[str, dict[str, Any]]:
    """Return each provider's probe result, asked side by side."""
    wanted = configured(runtime)
    results = await asyncio.gather(*(probe(entry, wanted[name]) for name, entry in runtime.providers.items()))
    return dict(zip(runtime.providers, results, strict=True))
