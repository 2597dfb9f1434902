"""Load llm.yml anew while calls run: built whole, swapped in one assignment, or nothing changes."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

from proxy.cli.offline import policies
from proxy.config.environment import SOURCE
from proxy.config.load import load
from proxy.config.problem import ConfigError, Problem
from proxy.runtime import Runtime
from proxy.telemetry.log import describe

if TYPE_CHECKING:
    from proxy.app import Sidecar
    from proxy.config.model import Config

_LOOK_EVERY: Final = 1.0
_MAX_WAIT_FOR_CALLS: Final = 3_600


class Reloader:
    """Reload on request, and when the file changes."""

    def __init__(self, side: Sidecar, path: str | None, listen: str | None) -> None:
        self._side = side
        self._started = side.runtime.config
        if path is None and self._started.source != SOURCE:
            # Who began with a file stays with it: were it gone, the environment alone would know no rules.
            path = self._started.files[0]
        self._path = path
        self._listen = listen
        self._lock = asyncio.Lock()
        self._seen = self._mark()
        self._retired: set[asyncio.Task[None]] = set()

    def _mark(self) -> dict[str, Any]:
        marks: dict[str, Any] = {}
        for name in self._side.runtime.config.files:
            try:
                status = os.stat(name)
                marks[name] = (status.st_mtime_ns, status.st_size, status.st_ino)
            except OSError:
                marks[name] = None
        return marks

    async def __call__(self) -> tuple[list[str], list[str]]:
        """Return the problems (nothing changed then) and the notes of a successful reload."""
        async with self._lock:
            side = self._side
            old = side.runtime
            metrics, log = old.metrics, old.log
            self._seen = self._mark()
            try:
                config = await asyncio.to_thread(load, self._path, listen=self._listen)
                self._closed(config)
                try:
                    new = Runtime(config, old.shared, previous=old)
                except (Exception, SystemExit):
                    # Built one by one, the policies say which of them cannot be, and in which line it stands.
                    if wrong := (await asyncio.to_thread(policies, config))[1]:
                        raise ConfigError(wrong) from None
                    raise
            except ConfigError as error:
                problems = [str(problem) for problem in error.problems]
                metrics.reload_success.set(0)
                log.error("config_reload_failed", extra={"fields": {"problems": problems[:20]}})
                return problems, []
            except (Exception, SystemExit) as error:  # `sys.exit` in somebody's module is not our end
                metrics.reload_success.set(0)
                log.error("config_reload_failed", extra={"fields": describe(error)})
                return [f"The configuration could not be built ({type(error).__name__}); the log says where."], []
            notes = needs_restart(self._started, config)
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

    def _closed(self, config: Config) -> None:
        """Refuse to drop `auth:` while other machines can reach the listener, which only a restart moves."""
        bound = self._started.server.listen
        if config.auth is None and not bound.loopback:
            message = (
                f"other machines can reach {bound}, so that a reload cannot drop this section; keep it, or restart"
            )
            raise ConfigError([Problem(config.source, 0, "auth", message)])

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
            if all(self._seen.get(name, mark) == mark for name, mark in now.items()):
                # Files that the last reload was the first to read are watched from here on.
                self._seen = now
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
    for name in ("store", "usage"):
        if getattr(old, name) != getattr(new, name):
            changed.append(name)
    return [f"`{name}` has changed; restart the sidecar for it to take effect." for name in changed]
