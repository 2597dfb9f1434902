"""The transport side of one client connection: writing, reading, and every way to close."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.errors import ApiError
from proxy.server.refusal import STATUS_LINE
from proxy.ticker import NEVER, Watched

if TYPE_CHECKING:
    from proxy.server.hub import Hub

_LINGER_BYTES: Final = 64 * 1024 * 1024


class Connection(asyncio.Protocol, Watched):
    """What HTTP needs of a socket. ``closing``: nothing more is written, what is read is dropped; ``lost``: it is gone.

    ``ahead`` holds received bytes that belong to no request yet; ``eof``: the client ended its half.
    """

    __slots__ = (
        "_discarded", "_read_paused", "_stuck", "ahead", "closing", "eof", "hub", "lost", "transport", "write",
        "write_paused",
    )  # fmt: skip

    transport: asyncio.Transport
    write: Callable[[bytes], None]

    def __init__(self, hub: Hub) -> None:
        Watched.__init__(self)
        self.hub = hub
        self.lost = False
        self.closing = False
        self.eof = False
        self.ahead = b""
        self.write_paused = False
        self._read_paused = False
        self._discarded = 0
        self._stuck = 0

    def attach(self, transport: asyncio.Transport) -> None:
        """Take the transport in use."""
        options = self.hub.options
        self.transport = transport
        self.write = transport.write
        transport.set_write_buffer_limits(options.write_high_water, options.write_low_water)

    # --- reading ---

    def read_no_more(self) -> None:
        """Let the client wait. Its leaving is not noticed meanwhile."""
        if not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()

    def read_on(self) -> None:
        """Read again."""
        if self._read_paused:
            self._read_paused = False
            self.transport.resume_reading()

    def discard(self, data: bytes) -> None:
        """Drop what a refused client still sends."""
        self._discarded += len(data)
        if self._discarded > _LINGER_BYTES:
            self.drop()

    # --- writing ---

    def unsent(self) -> bool:
        """Tell whether part of a reply has not been handed to the kernel."""
        return not self.lost and self.transport.get_write_buffer_size() > 0

    def expect_progress(self) -> None:
        """Start the write deadline."""
        self._stuck = self._outstanding()
        self.deadline = self.hub.loop.time() + self.hub.options.write_timeout

    def check_progress(self) -> None:
        """Drop a client that has taken nothing for a whole write deadline; a slow one may go on."""
        outstanding = self._outstanding()
        if outstanding >= self._stuck:
            self.drop()
            return
        self._stuck = outstanding
        self.deadline = self.hub.loop.time() + self.hub.options.write_timeout

    def _outstanding(self) -> int:
        """Return the bytes that the client has not acknowledged: ours, and where the system tells, the kernel's."""
        size = self.transport.get_write_buffer_size()
        try:
            raw = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        except (OSError, AttributeError):
            return size
        queued: int = struct.unpack("i", raw)[0]
        return size + queued

    # --- closing ---

    def refuse(self, error: ApiError) -> None:
        """Reply with the server's own error and close; what the client still sends is read and dropped."""
        status, headers, body = self.hub.refusal(error)
        self.write(
            b"".join(
                (STATUS_LINE[status], headers, b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body), body)
            )
        )
        self.finish_closing(linger=True)

    def finish_closing(self, *, linger: bool) -> None:
        """Close once everything is written. With ``linger``, close our half first, and read and drop for a while.

        A socket closed with unread bytes sends RST, which takes the reply from the client's hands.
        """
        if self.closing or self.lost:
            return
        self.closing = True
        options = self.hub.options
        self._stuck = self._outstanding() if self.unsent() else 0
        if (linger or self.ahead) and not self.eof:
            self.ahead = b""
            self.transport.write_eof()
            self.read_on()
            self.deadline = self.hub.loop.time() + options.linger_timeout
        else:
            self.transport.close()
            self.deadline = self.hub.loop.time() + options.write_timeout

    def drop(self) -> None:
        """End the connection at once, and tell the call."""
        self.closing = True
        self.deadline = NEVER
        self.transport.abort()
        self.ended_early()

    def ended_early(self) -> None:
        """Be told that the connection ends, whatever was in work."""
        raise NotImplementedError
