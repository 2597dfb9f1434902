"""Where entries lie: the main store, or one of the cache's own, opened with the first call that needs it."""

from __future__ import annotations

import asyncio
from typing import Final

from policies.base import Kit, Store
from proxy.config.model import StoreSettings
from proxy.store.base import StoreUnavailable
from proxy.store.factory import open_store

#: A store that could not be opened is tried again after so many seconds.
_AGAIN: Final = 1.0


class Shelf:
    """Hold the store that a cache uses; ``store`` is None until it is open."""

    def __init__(self, kit: Kit, settings: StoreSettings | None, max_items: int, max_bytes: int) -> None:
        main = getattr(kit.config, "store", None)
        self._own: Store | None = None
        self._task: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._clock = kit.clock
        self._log = kit.log
        self.store: Store | None = None
        if settings is None or (main is not None and settings.url == main.url):
            self.store = kit.store
            if kit.store is not None:
                kit.store.bound_cache(max_items, max_bytes)
        else:
            self._own = open_store(
                settings.url, prefix=settings.prefix, deadline=settings.deadline, clock=kit.clock, log=kit.log,
                metrics=kit.metrics,
            )  # fmt: skip
            self._own.bound_cache(max_items, max_bytes)

    @property
    def kind(self) -> str:
        """Return ``memory``, ``sqlite`` or ``redis``."""
        store = self.store or self._own
        return store.kind if store is not None else ""

    async def open(self) -> Store:
        """Return the store, opened.

        Raises:
            StoreUnavailable: it cannot be opened now.
        """
        own = self._own
        if self.store is not None:
            return self.store
        assert own is not None
        if self._task is None:
            if self._clock.monotonic() < self._not_before:
                raise StoreUnavailable("The cache's store could not be opened.")
            self._task = asyncio.create_task(own.start(), name="cache-store")
        task = self._task
        try:
            # Whoever leaves meanwhile must not take the opening along.
            await asyncio.shield(task)
        except Exception as error:  # whatever a driver raises: without its store the cache does as `store_down` says
            if self._task is task:
                self._task = None
                self._not_before = self._clock.monotonic() + _AGAIN
                self._log.error("cache_store_failed", extra={"fields": {"store": own.kind, "reason": str(error)}})
            raise StoreUnavailable(str(error)) from error
        self.store = own
        return own

    async def aclose(self) -> None:
        """Close a store of the cache's own."""
        if self._task is not None and self._own is not None:
            await asyncio.wait([self._task])
            if self._task.exception() is None:
                await self._own.aclose(1.0)
