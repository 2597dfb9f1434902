"""What a caller may use, as OpenAI's model list shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.call import Caller
from proxy.errors import ApiError
from proxy.providers.base import Target

if TYPE_CHECKING:
    from proxy.runtime import Runtime


def _visible(runtime: Runtime, caller: Caller) -> dict[str, Target]:
    """Return every model name that llm.yml mentions and this caller may ask for, with its first target."""
    names: dict[str, Target] = {}
    aliases = runtime.router.aliases()
    for alias, targets in aliases.items():
        if targets:
            names[alias] = targets[0]
    for entry in runtime.providers.values():
        listed = [entry.settings.model] if entry.settings.model else []
        listed += [glob for glob in entry.settings.models if not set(glob) & set("*?[")]
        for model in listed:
            if model in aliases:
                continue
            target = runtime.router.target(entry.name, model)
            # Under its bare name only where that leads there, and not to the default provider.
            names[model if runtime.router.leads(model, target) else f"{entry.name}/{model}"] = target
    for policy in runtime.policies:
        allowed = getattr(policy, "allows", None)
        if allowed is not None and policy.enforce:
            names = {
                name: target
                for name, target in names.items()
                if any(allowed(caller, name, one) for one in aliases.get(name) or [target])
            }
    return names


def _row(name: str, target: Target) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": target.name}


def list_models(runtime: Runtime, caller: Caller) -> dict[str, Any]:
    """Return the body of ``GET /v1/models``."""
    return {
        "object": "list",
        "data": [_row(name, target) for name, target in sorted(_visible(runtime, caller).items())],
    }


def one_model(runtime: Runtime, caller: Caller, name: str) -> dict[str, Any]:
    """Return the body of ``GET /v1/models/{id}``; raise ``model_not_found`` where the caller may not use it."""
    target = _visible(runtime, caller).get(name)
    if target is None:
        raise ApiError(
            "model_not_found",
            "There is no such model for you here; GET /v1/models lists what you may use.",
            param="model",
        )
    return _row(name, target)
