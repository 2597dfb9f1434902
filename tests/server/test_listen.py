"""Addresses and sockets."""

from __future__ import annotations

import socket

import pytest

from proxy.server import listen
from proxy.server.options import ServerOptions


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0)), (":8080", ("", 8080)), ("name:1", ("name", 1))],
)
def test_addresses_are_host_and_port(address: str, expected: tuple[str, int]) -> None:
    """host:port, [v6]:port and :port are understood."""
    assert listen.split_address(address) == expected


@pytest.mark.parametrize("address", ["8080", "a", "a:", "a:b", "::1:80", "a:65536", "a:-1"])
def test_other_addresses_are_refused_with_a_sentence(address: str) -> None:
    """What is no address says how one looks."""
    with pytest.raises(ValueError, match="must"):
        listen.split_address(address)


def test_an_occupied_port_says_so() -> None:
    """Two listeners on one port need reuse_port; without it the second says why it cannot."""
    first = listen.bind("127.0.0.1:0", ServerOptions())
    try:
        first[0].listen()
        where = f"127.0.0.1:{first[0].getsockname()[1]}"
        with pytest.raises(OSError, match=f"Cannot listen on {where}: Address already in use"):
            listen.bind(where, ServerOptions())
    finally:
        listen.close(first)


def test_reuse_port_shares_a_port() -> None:
    """With reuse_port two sidecars listen on the same port."""
    options = ServerOptions(reuse_port=True)
    first = listen.bind("127.0.0.1:0", options)
    second = listen.bind(f"127.0.0.1:{first[0].getsockname()[1]}", options)
    assert first[0].getsockname() == second[0].getsockname()
    listen.close(first + second)


def test_accepted_sockets_inherit_what_the_listener_was_given() -> None:
    """TCP_NODELAY and a bounded SO_SNDBUF hold for every connection without a call each."""
    listener = listen.bind("127.0.0.1:0", ServerOptions(send_buffer=32768))[0]
    listener.setblocking(True)
    listener.listen()
    with listener, socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 32768
