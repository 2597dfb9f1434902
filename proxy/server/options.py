"""What the server needs to know; it does not depend on llm.yml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MiB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Addresses and limits of one sidecar's listeners. Times are in seconds, sizes in bytes.

    ``listen`` and ``ops_listen`` are ``host:port`` (port 0: any free one), ``[v6]:port`` or ``unix:/path``.
    """

    listen: str = "127.0.0.1:8080"
    ops_listen: str | None = None
    reuse_port: bool = False
    backlog: int = 2048

    receive_timeout: float = 10.0
    """For a request's head; for its body the same plus the time that ``min_rate`` allows."""
    min_rate: int = 1024
    """Bytes a second that a body must keep up, once ``receive_timeout`` is used up."""
    keep_alive_timeout: float = 30.0
    """How long a connection may stay idle between two requests."""
    write_timeout: float = 30.0
    """How long a client may take nothing at all of a reply that waits for it."""
    linger_timeout: float = 5.0
    """How long a refused client may go on sending before the connection is dropped."""

    max_header_bytes: int = 16 * 1024
    """Request line and headers together."""
    max_ahead_bytes: int = 64 * 1024
    """What a client may send beyond the request that is being answered."""
    max_bodies_bytes: int = 256 * MiB
    """Request bodies in flight, all connections together."""
    max_connections: int | None = None
    """None: 10,000, or what the file descriptor limit leaves room for, each call needing two."""
    send_buffer: int = 64 * 1024
    """SO_SNDBUF: what the kernel holds for a slow reader (Linux doubles it)."""
    write_high_water: int = 32 * 1024
    write_low_water: int = 8 * 1024

    drain_delay: float = 3.0
    shutdown_grace: float = 20.0
    lifespan_timeout: float = 5.0
    """How long the application may take to shut down, once no call runs any more."""
