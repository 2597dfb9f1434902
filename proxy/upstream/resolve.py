"""A provider's addresses: looked up once for all who ask, kept for a while, the old ones used if DNS fails."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any, Final

Address = tuple[int, tuple[Any, ...]]
"""Address family and socket address."""

KEEP: Final = 30.0
STALE: Final = 600.0
MAX_ADDRESSES: Final = 8


class Resolver:
    """Resolve one host, IPv6 and IPv4 in turn (RFC 8305, section 4).

    ``keep`` seconds an answer is used as it is; for ``stale`` seconds it serves while lookups fail.
    """

    __slots__ = ("_answer", "_asked", "_host", "_keep", "_literal", "_lookup", "_port", "_stale")

    def __init__(self, host: str, port: int, *, keep: float = KEEP, stale: float = STALE) -> None:
        self._host = host
        self._port = port
        self._keep = keep
        self._stale = stale
        self._answer: list[Address] = []
        self._asked = 0.0
        self._lookup: asyncio.Task[list[Address]] | None = None
        try:
            ipaddress.ip_address(host)
            self._literal = True
        except ValueError:
            self._literal = False

    async def addresses(self) -> list[Address]:
        """Return the addresses in the order to try them.

        A cancelled caller leaves the lookup running for the others.

        Raises:
            OSError: the name cannot be resolved and no answer young enough is known.
        """
        now = asyncio.get_running_loop().time()
        if self._answer and (self._literal or now - self._asked < self._keep):
            return self._answer
        lookup = self._lookup
        if lookup is None:
            lookup = self._lookup = asyncio.create_task(self._ask())
            lookup.add_done_callback(self._done)
        try:
            return await asyncio.shield(lookup)
        except OSError:
            if self._answer and now - self._asked < self._stale:
                return self._answer
            raise

    async def _ask(self) -> list[Address]:
        loop = asyncio.get_running_loop()
        flags = socket.AI_NUMERICHOST if self._literal else socket.AI_ADDRCONFIG
        asked = loop.time()
        found = await _getaddrinfo(self._host, self._port, flags)
        answer = interleave([(int(family), address) for family, _, _, _, address in found])
        if not answer:
            raise OSError("no address")
        self._answer = answer
        self._asked = asked
        return answer

    def _done(self, lookup: asyncio.Task[list[Address]]) -> None:
        self._lookup = None
        if not lookup.cancelled():
            lookup.exception()  # retrieved: every waiter may have left


async def _getaddrinfo(host: str, port: int, flags: int) -> list[tuple[Any, ...]]:
    try:
        return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))
    except UnicodeError:  # what it raises for a name with an empty or too long part
        raise socket.gaierror(socket.EAI_NONAME, "no host name") from None


def interleave(addresses: list[Address]) -> list[Address]:
    """Return ``addresses`` with the families taking turns, the first one's first, at most eight, none twice."""
    unique = list(dict.fromkeys(addresses))
    if not unique:
        return []
    first = [item for item in unique if item[0] == unique[0][0]]
    other = [item for item in unique if item[0] != unique[0][0]]
    mixed: list[Address] = []
    for n in range(max(len(first), len(other))):
        mixed.extend(first[n : n + 1])
        mixed.extend(other[n : n + 1])
    return mixed[:MAX_ADDRESSES]
