"""What the endpoint sees of a connection: the narrow waist between the server's protocol and the call."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.call import Call


class Wire(ABC):
    """One request and its reply on a client's connection.

    ``scope["extensions"]["llm_sidecar"]`` of the ASGI scope holds it. Writes are synchronous and never
    block: after each, ``await drain()`` while ``paused``. ``call``, once set, is told by
    ``call.leave("gone")`` when the connection ends (either half) before the reply did.
    """

    call: Call | None = None
    gone: bool = False
    paused: bool = False
    started: bool = False
    """The reply's head has been written."""

    @property
    def task(self) -> asyncio.Task[None] | None:
        """Return the task that serves the request. (`asyncio.current_task` costs a system call before Python 3.12.)"""
        return asyncio.current_task()

    @abstractmethod
    async def read_body(self, limit: int) -> bytes:
        """Return the request's body; sends 100 Continue only now.

        Raises:
            ApiError: ``request_too_large`` above ``limit`` bytes (declared or received),
                ``request_timeout`` past the deadline or below the minimum rate, ``invalid_request`` for
                broken framing.
            ConnectionError: the client left.
        """

    @abstractmethod
    def reply(self, status: int, headers: bytes, body: bytes) -> None:
        """Write a whole reply in one go. ``headers`` are finished lines, each ending in CRLF, without content-length.

        If the request's body was not read, the connection closes after the reply, lingering so that the
        client can read it.
        """

    @abstractmethod
    def start(self, status: int, headers: bytes) -> None:
        """Write the head of a streamed (chunked) reply."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Write a piece of a streamed reply. Nothing is written once ``gone``."""

    @abstractmethod
    def end(self) -> None:
        """End a streamed reply properly."""

    def last(self) -> None:  # noqa: B027 - a wire without a connection has nothing to close
        """Close the connection once the reply has ended: its request keeps us busy beyond that."""

    @abstractmethod
    def abort(self) -> None:
        """Drop the connection without a proper end."""

    @abstractmethod
    async def drain(self) -> None:
        """Wait until the client has read enough. Past the write deadline the connection is dropped."""
