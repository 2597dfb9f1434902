"""Real calls and kits for unit tests of policies: no server, no stub of what is under test."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

from policies.base import Call, Caller, Kit
from proxy.auth import ALL
from proxy.clock import Clock
from proxy.config.load import load_text
from proxy.dryrun import dry_runtime
from proxy.providers.base import Target
from proxy.providers.echo import Echo
from proxy.request import REQUESTS
from proxy.runtime import Runtime
from proxy.telemetry.meter import Meter
from proxy.telemetry.metrics import Metrics

ECHO = "providers: {echo: {kind: echo, model: m}}\ndefault_provider: echo\n"


def target(model: str = "m", name: str = "echo") -> Target:
    """Return a target of the echo provider."""
    return Target(name, model, Echo(name, Echo.Settings()))


def kit(teams: dict[str, Any] | None = None, folder: str = ".", **more: Any) -> Kit:
    """Return a kit without a store."""
    return Kit(
        store=more.get("store"),  # type: ignore[arg-type]
        clock=more.get("clock") or Clock(),
        metrics=Metrics(),
        log=logging.getLogger("test"),
        teams=teams or {},
        secret=lambda purpose: purpose.encode().ljust(32, b"\0")[:32],
        folder=folder,
        background=lambda work: work.close(),  # type: ignore[return-value,arg-type]
        config=more.get("config") or SimpleNamespace(models={}),
    )


def call(
    text: Any = "hi", *, team: str = "default", user: str = "local", feature: str = "", endpoint: str = "chat",
    model: str = "m", route: list[Target] | None = None, runtime: Any = None, **body: Any,
) -> Call:  # fmt: skip
    """Return a call whose last message is ``text``."""
    base: dict[str, Any] = {"model": model, **body}
    if endpoint == "chat":
        base.setdefault("messages", [{"role": "user", "content": text}])
    elif endpoint == "embeddings":
        base.setdefault("input", text)
    else:
        base.setdefault("prompt", text)
    made = Call(
        "req_test", runtime, Caller("key", team, user, ALL), REQUESTS[endpoint](base), route or [target()], feature, 0.0
    )
    made.meter = Meter(made.request)
    return made


async def runtime_of(text: str, folder: str | None = None, environ: dict[str, str] | None = None) -> Runtime:
    """Return a dry runtime for a configuration; the echo provider is added where the text names none."""
    if "providers:" not in text:
        text = ECHO + text
    return await dry_runtime(load_text(text, environ, folder))
