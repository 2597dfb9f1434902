"""What the fake upstream remembers of each call, to be held against the sidecar's own account."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Socket:
    """One accepted connection. Times are CLOCK_MONOTONIC seconds, which all processes of one machine share."""

    n: int
    listener: str
    opened: float
    closed: float | None = None
    by_peer: bool | None = None
    received: int = 0


@dataclass(slots=True)
class Record:
    """One call as the upstream saw it.

    ``tokens`` and ``chunks`` count what was handed to the kernel whole, not what was planned. ``usage`` is
    what the answer claimed, and was written: ``[prompt, completion]``. ``end``: answered, refused, cut,
    gone (the peer left first), hung, or empty while it runs.
    """

    id: str
    socket: Socket
    method: str = ""
    path: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    body_size: int = 0
    model: str = ""
    stream: bool = False
    started: float = 0.0
    received: float | None = None
    replied: float | None = None
    ended: float | None = None
    gone: float | None = None
    """When the peer's FIN or RST was seen, if the call still ran."""
    status: int = 0
    sent: int = 0
    chunks: int = 0
    tokens: int = 0
    chars: int = 0
    """Characters of text written in events that were written whole, and their bytes in UTF-8."""
    wide: int = 0
    reached: str = ""
    """The last station of the stream that was written whole: role, part, chunk, finish, usage, done."""
    missing: int = 0
    """Bytes of the event that a cut left unwritten."""
    usage: tuple[int, int] | None = None
    end: str = ""
    problem: str = ""
    """The test's own mistake: a specification that cannot be read."""

    def export(self, keep: int) -> dict[str, Any]:
        """Return the record as JSON; the body as Latin-1 text, so that its exact bytes come back."""
        out = {name: getattr(self, name) for name in self.__slots__ if name not in ("socket", "body")}
        out["socket"] = asdict(self.socket)
        out["body"] = self.body[:keep].decode("latin-1")
        return out
