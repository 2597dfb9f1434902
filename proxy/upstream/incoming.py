"""The reply that comes in on a connection, as httptools' parser tells of it: its head checked, its body in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn

import httptools

from proxy.errors import UpstreamError
from proxy.ticker import Watched
from proxy.upstream import faults
from proxy.upstream.base import Timeouts
from proxy.upstream.reply import RawReply

MAX_INTERIM: Final = 16
_MAX_NAMES: Final = 512
_NAMES: Final[dict[bytes, str]] = {}


class Incoming(Watched):
    """What is known of the exchange that the parser reads. Nothing here touches a socket."""

    __slots__ = (
        "_body_end", "_doubt", "_finished", "_interim", "_interims", "_keep", "_limits", "_method", "_now", "_parser",
        "_pieces", "_raw", "_refusal", "_reply", "_room", "_until", "_until_eof", "on_body", "on_header",
    )  # fmt: skip

    # Of the exchange: set as it begins.
    _method: str
    _until: float
    """The time by which all must be over."""
    _room: int
    """How much larger the body may get."""
    _interims: int

    def __init__(self, limits: Timeouts, now: Callable[[], float]) -> None:
        super().__init__()
        self._limits = limits
        self._now = now
        self._reply: RawReply | None = None
        self._refusal: UpstreamError | None = None
        self._doubt = False
        self._finished = True
        self._keep = False
        self._interim = False
        self._body_end = 0
        self._pieces: list[bytes] = []
        self._raw: dict[bytes, bytes] = {}
        # The parser calls these two without a Python frame. Of a header given twice the last value stays;
        # of those that frame the message the parser itself allows one only.
        self.on_body = self._pieces.append
        self.on_header = self._raw.__setitem__
        self._parser: Any = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        if self._finished:
            self._doubt = True

    def on_headers_complete(self) -> None:
        if self._finished:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._interims += 1
            if status == 101 or status < 100:
                self._refuse(f"the unexpected status {status}")
            if self._interims > MAX_INTERIM:
                self._refuse("interim replies without end")
            self._interim = True
            return
        head = {
            _NAMES.get(name) or _remember(name): value.strip().decode("latin-1") for name, value in self._raw.items()
        }
        self._raw.clear()
        coding = head.get("transfer-encoding")
        if coding is not None:
            if coding.lower() != "chunked":
                self._refuse("a transfer-encoding other than chunked")
        elif "content-length" in head:
            if int(head["content-length"]) > self._room:
                self._refuse("its body is larger than the sidecar allows", retryable=False)
        else:
            self._until_eof = True  # unless the status allows no body: then the parser ends the message itself
        if "content-encoding" in head and head["content-encoding"].lower() not in ("", "identity"):
            self._refuse("it is compressed, which was not asked for", retryable=False)
        reply = self._reply
        assert reply is not None
        reply.status = status
        reply.headers = head
        if self._method == "HEAD":
            self._finished = self._doubt = True
            self._until_eof = self._keep = False
            self._body_end = 0

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            self._raw.clear()
            self._arm(self._limits.first_byte)
        elif not self._finished:
            self._finished = True
            self._body_end = len(self._pieces)
            self._keep = self._parser.should_keep_alive()

    def _arm(self, seconds: float) -> None:
        limit = self._now() + seconds
        until = self._until
        self.deadline = limit if limit < until else until  # noqa: FURB136 - a third of min's time

    def _refuse(self, reason: str, *, retryable: bool = True) -> NoReturn:
        self._refusal = faults.invalid(reason, retryable=retryable)
        raise self._refusal

    def _parser_failed(self, reply: RawReply, broken: Exception) -> UpstreamError | None:
        if self._finished:
            self._doubt = True  # bytes after the message: the reply itself is whole
            return None
        if self._refusal is not None:
            return self._refusal
        if isinstance(broken, httptools.HttpParserCallbackError) or not isinstance(broken, httptools.HttpParserError):
            raise broken  # our own mistake, not the provider's
        return faults.invalid(f"broken HTTP ({str(broken).lower()})", retryable=not reply.status)


def _remember(name: bytes) -> str:
    key = name.decode("latin-1").lower()
    if len(_NAMES) < _MAX_NAMES and len(name) <= 64:
        _NAMES[name] = key
    return key
