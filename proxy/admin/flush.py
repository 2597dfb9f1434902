"""POST /admin/cache/flush: what the cache holds is gone at once, for every sidecar on the same store in a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from proxy.errors import ApiError, bad
from proxy.request import parse_object
from proxy.store.base import StoreUnavailable

if TYPE_CHECKING:
    from policies.cache.policy import Cache
    from proxy.call import Caller
    from proxy.runtime import Runtime

_FIELDS: Final = ("team", "model")


async def flush_cache(runtime: Runtime, caller: Caller, raw: bytes) -> dict[str, Any]:
    """Flush what ``raw`` (a JSON object with ``team`` and ``model``, both optional; or nothing) asks for.

    Raises:
        ApiError: ``invalid_request`` for anything else or without a cache, ``store_unavailable``.
    """
    asked = _asked(raw)
    team, model = asked.get("team"), asked.get("model")
    policy = next((p for p in runtime.policies if hasattr(p, "flush")), None)
    if policy is None:
        raise ApiError("invalid_request", "There is nothing to flush: llm.yml lists no `cache` policy.")
    cache: Cache = policy  # type: ignore[assignment]
    models = upstream_models(runtime, model) if model is not None else ()
    try:
        await cache.flush(team, models)
    except StoreUnavailable:
        raise ApiError(
            "store_unavailable",
            "The cache's store does not answer, so that nothing is known to be flushed; try again shortly.",
            retry_after=1.0,
        ) from None
    fields = {"team": team, "models": list(models) or None, "store": cache.store_kind}
    runtime.log.warning("cache_flushed", extra={"fields": {**fields, "by": caller.key_id}})
    notes = []
    if team is not None and cache.config.scope == "global":
        notes.append("The cache is shared by all teams (`scope: global`), so that every team's entries were flushed.")
    if cache.store_kind != "redis":
        notes.append(f"This sidecar's own cache ({cache.store_kind}) was flushed; others have theirs.")
    return {"flushed": True, **fields, "notes": notes}


def upstream_models(runtime: Runtime, name: str) -> tuple[str, ...]:
    """Return the upstream models that ``name`` may stand for: an alias's targets, ``provider/model``, or itself."""
    route = runtime.config.models.get(name)
    if route is not None:
        return tuple(dict.fromkeys(target.to.partition("/")[2] for target in route.targets))
    provider, slash, model = name.partition("/")
    return (model,) if slash and provider in runtime.providers else (name,)


def _asked(raw: bytes) -> dict[str, str]:
    body = parse_object(raw) if raw.strip() else {}
    for name, value in body.items():
        if name not in _FIELDS:
            bad(
                f"`{name[:64]}` is not known here; a flush takes `team` and `model`, or nothing for everything.",
                name[:64],
            )
        if value is not None and (type(value) is not str or not value or len(value) > 256):
            bad(f"`{name}` must be a text of at most 256 characters.", name)
    return {name: value for name, value in body.items() if value is not None}
