"""Texts that were looked at before and held nothing. A chat sends all that was said before with each new turn."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from itertools import islice
from secrets import token_bytes
from typing import Final

from policies.redact.search import FULL

Levels = dict[str, tuple[int, int]]
#: A candidate that was turned down: its detector, where it began in the text, and what it cost.
Refused = tuple[str, int, int]
#: Shorter texts are looked at as quickly as they are recognised; hashing longer ones would hold the loop. In bytes.
_SHORTEST: Final = 256
LONGEST: Final = 1 << 20
_MOST: Final = 10_000
#: A text in which more was turned down is looked at again.
_REFUSED: Final = 32


class Known:
    """Marks of texts that hold nothing, at most :data:`_MOST`; of a text nothing but a keyed hash is kept.

    The budget of a request is spent on candidates that come to nothing. So with each text goes what it cost: it is as
    though it had been looked at.
    """

    __slots__ = ("_key", "_texts")

    def __init__(self) -> None:
        self._key = token_bytes(16)
        self._texts: dict[bytes, tuple[Refused, ...]] = {}

    def mark(self, text: bytes, kind: str) -> bytes | None:
        """Return what a text of this kind is known by, None for one that is too short or too long to be kept."""
        if not _SHORTEST <= len(text) <= LONGEST:
            return None
        return blake2b(text, digest_size=16, key=self._key, person=kind[:16].encode()).digest()

    def recall(self, mark: bytes, levels: Levels, base: int) -> bool:
        """Tell whether the text, which begins at ``base`` of the request, holds nothing; ``levels`` then pay for it."""
        refused = self._texts.get(mark)
        if refused is None:
            return False
        if not refused:
            return True
        after = _paid(levels, refused, base)
        if after is None:
            return False
        levels.update(after)
        return True

    def keep(self, mark: bytes, before: Levels, after: Levels, refused: list[Refused], base: int) -> None:
        """Remember a text in which nothing was found, if its cost can be told from ``refused``."""
        if len(refused) > _REFUSED:
            return
        if before != after or refused:
            paid = _paid(before, refused, base)
            if paid is None or {**before, **paid} != after:
                return  # its offsets were not the text's own: behind escapes they are others
        texts = self._texts
        if len(texts) >= _MOST:
            for old in list(islice(texts, _MOST // 4)):
                del texts[old]
        texts[mark] = tuple(refused)


def _paid(levels: Levels, refused: Iterable[Refused], base: int) -> Levels | None:
    """Return what is left where a text that begins at ``base`` is paid for, None where it would be too dear.

    It is what :meth:`policies.redact.search.Look.run` does, one candidate after the other.
    """
    after: Levels = {}
    for name, at, cost in refused:
        level, last = after.get(name) or levels.get(name, (FULL, 0))
        level += base + at - last
        if level < 0:
            return None
        after[name] = min(FULL, level) - cost, base + at
    return after
