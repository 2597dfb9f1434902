"""The usage ledger's rows: what a call adds to the sums of its month, team, user, model and feature."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from proxy.store.base import UsageRecord

RowKey = tuple[str, str, str, str, str]
#: Month, team, user, model, feature.
KEYS: Final = ("month", "team", "user", "model", "feature")
#: What is summed. ``tokens_completed`` are the tokens of calls that ended well; ``duration`` milliseconds.
SUMS: Final = (
    "calls", "success", "refused", "error", "client_closed", "prompt", "completion", "cached", "cost", "duration",
    "tokens_completed", "hits", "misses",
)  # fmt: skip
#: By the call's end or by its metric status.
_STATUS: Final = {
    "success": 1, "completed": 1, "refused": 2, "error": 3, "upstream_error": 3, "fault": 3, "shutdown": 3,
    "client_closed": 4, "client_gone": 4,
}  # fmt: skip
_ZERO: Final = [0] * len(SUMS)


class Ledger:
    """Sums of ended calls by row, in memory: a whole ledger, or what waits to be written to one."""

    __slots__ = ("_hash", "_hashed", "rows")

    def __init__(self, hash_user: Callable[[str], str] | None = None) -> None:
        self.rows: dict[RowKey, list[int]] = {}
        self._hash = hash_user
        self._hashed: dict[str, str] = {}

    def add(self, record: UsageRecord) -> None:
        """Add one ended call."""
        user = record.user
        if self._hash is not None:
            user = self._hashed.get(user) or self._hash_once(user)
        key = (record.month, record.team, user, record.model, record.feature)
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = _ZERO.copy()
        status = _STATUS.get(record.status, 3)
        row[0] += 1
        row[status] += 1
        row[5] += record.prompt
        row[6] += record.completion
        row[7] += record.cached
        row[8] += record.cost
        row[9] += record.duration
        if status == 1:
            row[10] += record.prompt + record.completion
        if record.cache:
            if record.cache == "miss":
                row[12] += 1
            elif record.cache != "bypass":
                row[11] += 1

    def merge(self, rows: Mapping[RowKey, list[int]]) -> None:
        """Add other sums to these."""
        mine = self.rows
        for key, sums in rows.items():
            row = mine.get(key)
            mine[key] = sums.copy() if row is None else [a + b for a, b in zip(row, sums, strict=True)]

    def take(self) -> dict[RowKey, list[int]]:
        """Return all rows and forget them."""
        rows, self.rows = self.rows, {}
        return rows

    def _hash_once(self, user: str) -> str:
        assert self._hash is not None
        if len(self._hashed) >= 10_000:
            self._hashed.clear()
        hashed = self._hashed[user] = self._hash(user)
        return hashed


def user_hasher(key: bytes) -> Callable[[str], str]:
    """Return a function that turns a user's name into 16 hex digits that only this key can reproduce."""

    def hashed(user: str) -> str:
        return hmac.new(key, user.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]

    return hashed


def as_mapping(key: Iterable[str], sums: Iterable[int]) -> dict[str, Any]:
    """Return one row as the store's `usage` gives it."""
    return {**dict(zip(KEYS, key, strict=True)), **dict(zip(SUMS, sums, strict=True))}
