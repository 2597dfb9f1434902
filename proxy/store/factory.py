"""Open the store that llm.yml's ``store:`` names."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from proxy.clock import Clock
from proxy.store.base import Store
from proxy.store.ledger import user_hasher

SENTENCE = "store: must be memory, sqlite:///path/to/file, redis://host:6379/0, rediss://… or redis+sentinel://host:26379/service"


def open_store(
    url: str = "memory",
    *,
    prefix: str = "llm:",
    deadline: float = 0.1,
    secret: Callable[[str], bytes] | None = None,
    clock: Clock | None = None,
    log: logging.Logger | None = None,
    metrics: Any = None,
    keep_months: int = 13,
    hash_users: bool = False,
) -> Store:
    """Return the store of ``url``, not yet started.

    ``deadline`` in seconds, for each command of a shared store. ``secret(purpose)`` gives the key that
    hashes users' names in the ledger, if ``hash_users``. Nothing is imported that the URL does not need.

    Raises:
        ValueError: the URL is not one that a store can have, or ``hash_users`` lacks ``secret``.
    """
    hash_user = None
    if hash_users:
        if secret is None:
            raise ValueError("usage.hash_users needs server.secret.")
        hash_user = user_hasher(secret("usage"))
    common: dict[str, Any] = {
        "clock": clock, "log": log, "metrics": metrics, "hash_user": hash_user, "keep_months": keep_months
    }  # fmt: skip
    if url == "memory":
        from proxy.store.embedded import EmbeddedStore

        return EmbeddedStore(None, **common)
    if url.startswith("sqlite://"):
        path = url.removeprefix("sqlite://")
        # As in file:///path: what follows the empty host is the whole path.
        if not path.startswith("/") or not path.strip("/") or path.endswith("/"):
            raise ValueError(
                "store: sqlite:/// needs a file, as in sqlite:///var/lib/llm-sidecar/store.db; or say memory."
            )
        path = "/" + path.lstrip("/")
        from proxy.store.embedded import EmbeddedStore

        return EmbeddedStore(path, **common)
    if url.partition("://")[0] in ("redis", "rediss", "redis+sentinel", "rediss+sentinel"):
        from proxy.store.redis import RedisStore

        return RedisStore(url, prefix=prefix, deadline=deadline, **common)
    raise ValueError(SENTENCE)
