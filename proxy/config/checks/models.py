"""``models:`` and ``prices:``: where names lead."""

from __future__ import annotations

from fnmatch import fnmatchcase

from proxy.config.checks.scope import Scope
from proxy.config.problem import Path, did_you_mean


def check(scope: Scope) -> None:
    """Check that every target and every price names a provider that is there."""
    for alias, route in scope.config.models.items():
        path: Path = ("models", alias)
        head, slash, _ = alias.partition("/")
        if slash and head in scope.config.providers:
            scope.bad(
                path, f"this name hides the model `{alias}` itself; an alias must not begin with a provider's name"
            )
        if any(c in alias for c in "*?["):
            scope.bad(path, "an alias is one name, not a glob; a provider's `models` takes globs")
        seen: set[str] = set()
        for i, target in enumerate(route.targets):
            place = _place(scope, path, i)
            _target(scope, target.to, place)
            if target.to in seen:
                scope.bad(place, f"`{target.to}` is among the targets twice; keep one of them")
            seen.add(target.to)
        if route.strategy == "ordered" and any(target.weight != 1.0 for target in route.targets):
            scope.bad(path, "weights mean something only with `strategy: weighted`")
    for name in scope.config.prices:
        _provider_of(scope, name, ("prices", name))


def _place(scope: Scope, path: Path, index: int) -> Path:
    """Return the path of a target, whichever way it is written."""
    for place in ((*path, "targets", index), (*path, index)):
        if place in scope.document.lines:
            return place
    return path


def _target(scope: Scope, to: str, path: Path) -> None:
    name = _provider_of(scope, to, path)
    entry = scope.config.providers.get(name)
    if entry is None:
        return
    if entry.absent:
        scope.bad(path, f"`{to}` needs the provider `{name}`, which is absent: {entry.reason}")
    model = to.partition("/")[2]
    globs = entry.settings.models
    if globs and model != entry.settings.model and not any(fnmatchcase(model, glob) for glob in globs):
        literal = [glob for glob in globs if not set(glob) & set("*?[")]
        near = did_you_mean(model, literal)
        scope.document.add(
            path, f"the provider `{name}` serves no `{model}` by its `models`", near and f"{name}/{near}"
        )


def _provider_of(scope: Scope, name: str, path: Path) -> str:
    """Return the provider part of ``provider/model``, having complained if it leads nowhere."""
    providers = scope.names("providers")
    head, slash, model = name.partition("/")
    if not slash or not head or not model:
        if name in scope.names("models"):
            scope.bad(path, f"`{name}` is an alias itself; a target is `provider/model`")
            return ""
        if name.rstrip("/") in providers:
            name = name.rstrip("/")
            scope.bad(path, f"`{name}` is a provider; write `{name}/` and the name of one of its models")
            return ""
        default = scope.config.default_provider
        if default not in providers:
            default = providers[0] if providers else "openai"
        scope.document.add(path, "this must be `provider/model`", f"{default}/{name}" if name else None)
        return ""
    if head not in providers:
        near = did_you_mean(head, providers)
        advice = "" if near else "; add it under `providers:`"
        scope.document.add(path, f"there is no provider `{head}`{advice}", near and f"{near}/{model}")
        return ""
    return head
