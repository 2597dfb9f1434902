"""Cache entries in memory: bounded in number and bytes, the least recently used going first."""

from __future__ import annotations

from collections import OrderedDict


class Entries:
    """A map of bytes that expire. Times are monotonic seconds, passed in."""

    __slots__ = ("_entries", "bytes", "max_bytes", "max_items")

    def __init__(self, max_items: int = 10_000, max_bytes: int = 256 * 1024 * 1024) -> None:
        self.max_items = max_items
        self.max_bytes = max_bytes
        self.bytes = 0
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str, now: float) -> bytes | None:
        """Return an unexpired entry and count it as used."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= now:
            self.pop(key)
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, key: str, value: bytes, until: float) -> None:
        """Keep an entry; one larger than the whole bound is not kept."""
        entries = self._entries
        if key in entries:
            self.pop(key)
        size = len(value)
        if size > self.max_bytes:
            return
        entries[key] = (until, value)
        self.bytes += size
        while len(entries) > self.max_items or self.bytes > self.max_bytes:
            self.bytes -= len(entries.popitem(last=False)[1][1])

    def pop(self, key: str) -> None:
        """Forget an entry."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= len(entry[1])

    def sweep(self, now: float) -> int:
        """Delete what has expired; return how many entries went."""
        gone = [key for key, (until, _) in self._entries.items() if until <= now]
        for key in gone:
            self.pop(key)
        return len(gone)
