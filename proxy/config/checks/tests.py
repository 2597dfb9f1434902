"""``tests:``: requests that are requests, and expectations that can come true."""

from __future__ import annotations

from proxy.config.checks.scope import Scope
from proxy.config.checks.teams import known_team
from proxy.config.problem import Path, did_you_mean
from proxy.errors import TABLE, ApiError
from proxy.request import REQUESTS


def check(scope: Scope) -> None:
    """Check the names and codes that the tests mention."""
    names: dict[str, int] = {}
    providers = scope.names("providers")
    for i, test in enumerate(scope.config.tests):
        path: Path = ("tests", i)
        if test.name in names:
            scope.bad((*path, "name"), f"tests[{names[test.name]}] has this name already; each test has its own")
        names.setdefault(test.name, i)
        if "team" in test.as_.model_fields_set:
            known_team(scope, test.as_.team, (*path, "as", "team"))
        # A feature that is not listed counts as `other`, which a test may want; a slip of one that is, it does not.
        if (feature := test.as_.feature) and feature not in scope.config.features:
            near = did_you_mean(feature, scope.config.features, 0.8)
            if near is not None:
                scope.document.add((*path, "as", "feature"), f"`{feature}` is not listed under `features:`", near)
        expect = test.expect
        if expect.provider is not None and expect.provider not in providers:
            scope.bad((*path, "expect", "provider"), f"there is no provider `{expect.provider}`", expect.provider,
                      providers)  # fmt: skip
        # A code that is not in the table may be a policy's own.
        if expect.refused is not None and expect.refused not in TABLE:
            near = did_you_mean(expect.refused, TABLE, 0.8)
            if near is not None:
                scope.document.add((*path, "expect", "refused"), f"there is no error `{expect.refused}`", near)
        endpoint = endpoint_of(test.request)
        try:
            REQUESTS[endpoint](test.request)
        except ApiError as error:
            if expect.refused != error.code:
                scope.bad((*path, "request"), f"this is no request: {error.message.rstrip('.')}")


def endpoint_of(request: dict[str, object]) -> str:
    """Return which endpoint a request is for, by its fields."""
    if "messages" in request:
        return "chat"
    return "embeddings" if "input" in request else "completions" if "prompt" in request else "chat"
