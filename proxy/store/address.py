"""Where a Redis is: the URL's parts, and how a connection to the master is made from them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from proxy.store.base import StoreUnavailable
from proxy.store.resp import Connection, RedisError

SCHEMES: Final = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")


@dataclass(frozen=True, slots=True)
class Address:
    """A Redis URL's parts. ``service`` is the master's name where ``hosts`` are sentinels."""

    hosts: tuple[tuple[str, int], ...]
    db: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    service: str = ""
    tls: bool = False
    ca_file: str = ""
    sentinel_user: str = ""
    sentinel_password: str = field(default="", repr=False)

    def __str__(self) -> str:
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{'rediss' if self.tls else 'redis'}{'+sentinel' if self.service else ''}://{hosts}"


def parse(url: str) -> Address:
    """Return the address in ``redis[s]://[user:password@]host[:port][/db]``, or with ``+sentinel``
    ``redis[s]+sentinel://[user:password@]host[:port],…/service[/db]``.

    The query may hold ``ca_file`` (TLS), ``sentinel_user`` and ``sentinel_password``.

    Raises:
        ValueError: with a sentence that tells what is wrong; it holds no password.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES or not rest:
        raise ValueError(f"The store's URL must begin with one of {', '.join(f'{name}://' for name in SCHEMES)}.")
    tail = urlsplit(f"//{rest}")
    login, _, places = tail.netloc.rpartition("@")
    user, _, password = login.partition(":")
    query = {name: values[-1] for name, values in parse_qs(tail.query).items()}
    unknown = sorted(set(query) - {"ca_file", "sentinel_user", "sentinel_password"})
    if unknown:
        raise ValueError(f"The store's URL has an unknown parameter `{unknown[0]}`; it may have ca_file.")
    sentinel = scheme.endswith("+sentinel")
    path = [unquote(part) for part in tail.path.split("/") if part]
    if sentinel and not path:
        raise ValueError("A sentinel URL names the master's service: redis+sentinel://host:26379/mymaster.")
    service = path.pop(0) if sentinel else ""
    if len(path) > 1 or (path and not path[0].isdigit()):
        raise ValueError("The store's URL may end in the number of a database, such as /0.")
    return Address(
        hosts=tuple(_host(place, 26379 if sentinel else 6379) for place in places.split(",")),
        db=int(path[0]) if path else 0,
        user=unquote(user),
        password=unquote(password),
        service=service,
        tls=scheme.startswith("rediss"),
        ca_file=query.get("ca_file", ""),
        sentinel_user=query.get("sentinel_user", ""),
        sentinel_password=query.get("sentinel_password", ""),
    )


def _host(place: str, default: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname, parts.port or default
    except ValueError as error:
        raise ValueError("The store's URL has a port that is no number.") from error
    if not host:
        raise ValueError("The store's URL names no host.")
    return host, port


async def connect(address: Address, make: Callable[[], Connection], timeout: float = 1.0) -> Connection:
    """Return a connection to the master, logged in and on its database.

    Raises:
        StoreUnavailable: nobody answered, or nobody is the master.
    """
    failure = "no host answered"
    for host, port in address.hosts:
        try:
            async with asyncio.timeout(timeout):
                if not address.service:
                    return await _open(address, host, port, make)
                master = await _ask_sentinel(address, host, port, make)
                if master is None:
                    failure = f"the sentinel at {host}:{port} knows no master named {address.service}"
                    continue
                return await _open(address, *master, make)
        except (OSError, TimeoutError, StoreUnavailable, RedisError) as error:
            failure = f"{host}:{port}: {error or type(error).__name__}"
    raise StoreUnavailable(f"The store {address} cannot be reached ({failure}).")


async def _open(
    address: Address, host: str, port: int, make: Callable[[], Connection], *, sentinel: bool = False
) -> Connection:
    connection = await _dial(address, host, port, make)
    try:
        user = address.sentinel_user if sentinel else address.user
        password = address.sentinel_password if sentinel else address.password
        first: list[asyncio.Future[Any]] = []
        if password:
            first.append(connection.send("AUTH", *((user, password) if user else (password,))))
        if not sentinel:
            if address.db:
                first.append(connection.send("SELECT", address.db))
            first.append(connection.send("ROLE"))
        answers = await asyncio.gather(*first)
        if not sentinel and bytes(answers[-1][0]) != b"master":
            raise StoreUnavailable("it is a replica, not the master")
    except BaseException:
        connection.close()
        raise
    return connection


async def _dial(address: Address, host: str, port: int, make: Callable[[], Connection]) -> Connection:
    context = None
    if address.tls:
        context = ssl.create_default_context(cafile=address.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    _, connection = await asyncio.get_running_loop().create_connection(
        make, host, port, ssl=context, server_hostname=host if context else None
    )
    return connection


async def _ask_sentinel(
    address: Address, host: str, port: int, make: Callable[[], Connection]
) -> tuple[str, int] | None:
    connection = await _open(address, host, port, lambda: Connection(1.0), sentinel=True)
    try:
        answer = await connection.send("SENTINEL", "get-master-addr-by-name", address.service)
        return (answer[0].decode(), int(answer[1])) if answer else None
    finally:
        connection.close()
