"""A runtime that serves nobody: for commands that ask the policies what they would do."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from proxy.config.custom import make
from proxy.config.model import Config
from proxy.config.problem import Problem, key_path

if TYPE_CHECKING:
    from policies.base import Kit, Policy
    from proxy.runtime import Runtime


def kit(config: Config) -> Kit:
    """Return what policies need to be built, with a store in memory and nothing behind the rest."""
    from policies.base import Kit
    from proxy.clock import Clock
    from proxy.store.embedded import EmbeddedStore
    from proxy.telemetry.metrics import Metrics

    def drop(work: Coroutine[Any, Any, None]) -> None:
        work.close()

    return Kit(
        store=EmbeddedStore(),
        clock=Clock(),
        metrics=Metrics(),
        log=_silent(),
        teams=dict(config.teams),
        secret=lambda purpose: bytes(32),
        folder=config.folder,
        background=drop,
        config=config,
    )


def policies(config: Config) -> tuple[list[Policy[Any]], list[Problem]]:
    """Return the policies built as `serve` would, and a problem for each that cannot be."""
    shared = kit(config)
    built: list[Policy[Any]] = []
    problems: list[Problem] = []
    for index, entry in enumerate(config.policies):
        try:
            policy = make(entry.cls, entry.config, shared)
        except Exception as error:
            text = str(error) or type(error).__name__
            if isinstance(error, OSError) and error.filename:
                text = f"the file {error.filename} cannot be read ({error.strerror})"
            problems.append(
                Problem(
                    config.source,
                    entry.line,
                    key_path(("policies", index, entry.name)),
                    f"{text[:1].lower()}{text[1:]}",
                )
            )
            continue
        policy.name, policy.enforce, policy.store_down = entry.name, entry.enforce, entry.store_down
        built.append(policy)
    return built, problems


@asynccontextmanager
async def runtime(config: Config) -> AsyncIterator[Runtime]:
    """Yield a :class:`Runtime` with a store in memory, and close it."""
    from proxy.dryrun import dry_runtime

    made = await dry_runtime(config)
    try:
        yield made
    finally:
        await made.aclose()
        await made.store.aclose(1.0)


def _silent() -> logging.Logger:
    log = logging.getLogger("llm_sidecar.offline")
    log.handlers[:] = [logging.NullHandler()]
    log.propagate = False
    return log
