"""What the author of a policy may get wrong: found when the file is loaded, not at the first call."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Final

from policies.base import Kit, Policy, PolicyConfig

_PLAIN: Final = ("claims", "refusal", "admitted", "counters", "on_reply", "describe", "fingerprint", "warnings")


def flaws(cls: type[Policy[Any]]) -> Iterator[str]:
    """Yield what makes ``cls`` a policy that could never work."""
    config: Any = cls.Config
    if not (isinstance(config, type) and issubclass(config, PolicyConfig)):
        yield "`Config` must be a subclass of `policies.base.PolicyConfig`"
    for hook in _PLAIN:
        function = getattr(cls, hook)
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            yield f"`{hook}` must be a plain `def`: nobody awaits it"
    asked: Any = cls.on_request
    # A decorator's own function may well return what can be awaited: one that is no `on_request` by name is not judged.
    if inspect.isfunction(asked) and asked.__name__ == "on_request":
        wrapped = inspect.unwrap(asked)
        if not inspect.iscoroutinefunction(asked) and not inspect.iscoroutinefunction(wrapped):
            yield "`on_request` must be an `async def` without `yield`"
    for name in ("after", "requires"):
        if isinstance(getattr(cls, name), str):
            yield f'`{name}` must be a tuple of names, such as ("template",)'


def make(cls: type[Policy[Any]], config: PolicyConfig, kit: Kit) -> Policy[Any]:
    """Return a policy built, with its ``config`` and ``kit`` even where its own ``__init__`` forgot ours."""
    try:
        policy = cls(config, kit)
    except SystemExit:
        raise RuntimeError("it would end the process: `sys.exit` is no way to refuse a setting") from None
    for name, value in (("config", config), ("kit", kit)):
        if not hasattr(policy, name):
            setattr(policy, name, value)
    return policy


def facts(policy: Policy[Any]) -> dict[str, Any]:
    """Return what a policy says about itself, or that it failed to."""
    try:
        return policy.describe()
    except (Exception, SystemExit) as error:
        return {"error": f"`describe` raised {type(error).__name__}"}


def sentences(policy: Policy[Any]) -> list[str]:
    """Return what a policy warns of; that it failed to is a warning too."""
    try:
        return [str(sentence) for sentence in policy.warnings()]
    except (Exception, SystemExit) as error:
        return [f"`warnings` raised {type(error).__name__}"]
