"""Load llm.yml anew while calls run: built whole, swapped in one assignment, or nothing changes."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

from proxy.cli.offline import policies
from proxy.config.load import load
from proxy.config.problem import ConfigError
from proxy.runtime import Runtime
from proxy.telemetry.log import describe

if TYPE_CHECKING:
    from proxy.app import Sidecar

_LOOK_EVERY: Final = 1.0
_MAX_WAIT_FOR_CALLS: Final = 3_600


class Reloader:
    """Reload on request, and when the file changes."""

    def __init__(self, side: Sidecar, path: str | None, listen: str | None) -> None:
        self._side = side
        self._path = path
        self._listen = listen
        self._lock = asyncio.Lock()
        self._seen = self._mark()
        self._retired: set[asyncio.Task[None]] = set()

    def _mark(self) -> tuple[Any, ...]:
        marks: list[Any] = []
        for name in self._side.runtime.config.files:
            try:
                status = os.stat(name)
                marks.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError:
                marks.append(None)
        return tuple(marks)

    async def __call__(self) -> tuple[list[str], list[str]]:
        """Return the problems (nothing changed then) and the notes of a successful reload."""
        async with self._lock:
            side = self._side
            old = side.runtime
            metrics, log = old.metrics, old.log
            self._seen = self._mark()
            try:
                config = await asyncio.to_thread(load, self._path, listen=self._listen)
                try:
                    new = Runtime(config, old.shared, previous=old)
                except Exception:
                    # Built one by one, the policies say which of them cannot be, and in which line it stands.
                    if wrong := (await asyncio.to_thread(policies, config))[1]:
                        raise ConfigError(wrong) from None
                    raise
            except ConfigError as error:
                problems = [str(problem) for problem in error.problems]
                metrics.reload_success.set(0)
                log.error("config_reload_failed", extra={"fields": {"problems": problems[:20]}})
                return problems, []
            except Exception as error:
                metrics.reload_success.set(0)
                log.error("config_reload_failed", extra={"fields": describe(error)})
                return [f"The configuration could not be built ({type(error).__name__}); the log says where."], []
            notes = needs_restart(old.config, config)
            side.configure(new)
            log.setLevel(config.telemetry.log_level)
            metrics.reload_success.set(1)
            log.info(
                "config_reloaded",
                extra={"fields": {"policies": [policy.name for policy in new.policies], "needs_restart": notes}},
            )
            task = asyncio.get_running_loop().create_task(self._retire(old, new))
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)
            return [], notes

    async def _retire(self, old: Runtime, new: Runtime) -> None:
        """Close what only the old configuration used, once its last call has ended."""
        for _ in range(_MAX_WAIT_FOR_CALLS):
            if not any(call.runtime is old for call in self._side.calls):
                break
            await asyncio.sleep(1)
        await old.aclose(successor=self._side.runtime)

    async def watch(self) -> None:
        """Reload whenever the file (or a .env file) has changed and stayed the same for one look."""
        pending = None
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            now = self._mark()
            if now == self._seen:
                pending = None
            elif now == pending:
                pending = None
                await self()
            else:
                pending = now


def needs_restart(old: Any, new: Any) -> list[str]:
    """Return one sentence for each changed setting that a running sidecar cannot take up."""
    changed = []
    for name in ("listen", "ops_listen", "secret", "reuse_port", "receive_timeout", "drain_delay", "shutdown_grace"):
        if getattr(old.server, name) != getattr(new.server, name):
            changed.append(f"server.{name}")
    if old.store != new.store:
        changed.append("store")
    return [f"`{name}` has changed; restart the sidecar for it to take effect." for name in changed]
