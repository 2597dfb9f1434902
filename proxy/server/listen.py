"""Sockets to listen on, and how many connections they may bring."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import stat
from typing import Final

from proxy.server.options import ServerOptions

MAX_CONNECTIONS: Final = 10_000
_RESERVED: Final = 64
"""File descriptors for everything that is not a connection: listeners, store, logs, libraries."""
_WANTED: Final = 2 * MAX_CONNECTIONS + 1024


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[v6]:port``; raise ValueError with a sentence."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"The address {address!r} must be host:port, such as 127.0.0.1:8080.")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"The IPv6 address in {address!r} must stand in brackets, such as [::1]:8080.")
    return host, int(port)


def bind(address: str, options: ServerOptions) -> list[socket.socket]:
    """Return sockets bound to ``address``, not listening yet; raise OSError or ValueError with a sentence.

    A name that resolves to IPv4 and IPv6 gives one of each, on the same port.
    """
    if address.startswith("unix:"):
        return [_bind_unix(address.removeprefix("unix:"), options)]
    host, port = split_address(address)
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, where in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if options.reuse_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Accepted sockets inherit these: no system calls per connection.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, options.send_buffer)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _find_vanished_peers(listener)
            listener.setblocking(False)
            listener.bind((where[0], port, *where[2:]))
            port = listener.getsockname()[1]
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise OSError(error.errno, f"Cannot listen on {address}: {os.strerror(error.errno or 0)}.") from None
    return sockets


def _find_vanished_peers(listener: socket.socket) -> None:
    """Let the kernel probe silent connections: a peer that lost power sends no FIN."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _bind_unix(path: str, options: ServerOptions) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode) and not _answers(path):
                os.unlink(path)  # left behind by a sidecar that was killed
        listener.bind(path)
        os.chmod(path, 0o660)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, options.send_buffer)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"Cannot listen on unix:{path}: {os.strerror(error.errno or 0)}.") from None
    return listener


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def url(listener: socket.socket) -> str:
    """Return where a client finds ``listener``."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if listener.family == socket.AF_INET6 else name[0]
    return f"http://{host}:{name[1]}"


def close(sockets: list[socket.socket], *addresses: str | None) -> None:
    """Close listeners, and remove the files of UNIX sockets among ``addresses``."""
    for listener in sockets:
        listener.close()
    for address in addresses:
        if address is not None and address.startswith("unix:"):
            with contextlib.suppress(OSError):
                os.unlink(address.removeprefix("unix:"))


def connection_cap(options: ServerOptions) -> int:
    """Return how many connections to take: each call needs one here and one upstream.

    Raises the soft limit of file descriptors towards the hard one, as Go's runtime does.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    if soft != infinite and soft < _WANTED:
        target = _WANTED if hard == infinite else min(hard, _WANTED)
        if target > soft:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
                soft = target
    if options.max_connections is not None:
        return options.max_connections
    return MAX_CONNECTIONS if soft == infinite else min(MAX_CONNECTIONS, max(8, (soft - _RESERVED) // 2))
