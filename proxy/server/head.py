"""A request's head: parsed by llhttp, then held to what llhttp lets through.

llhttp (httptools 0.9, strict) already refuses bare LF and CR, obs-fold, NUL and control characters, spaces
before the colon, Content-Length that is empty, signed, listed or doubled, and both framings together. The
rest of RFC 9112's traps is closed here: other protocols and versions, doubled Host, transfer codings other
than exactly ``chunked``, any of them in HTTP/1.0, targets that are not a plain path (an absolute URL is for proxies, and
names a second host).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import unquote

import httptools

from proxy.errors import ApiError

if TYPE_CHECKING:
    from proxy.server.cycle import Cycle

Handler = Callable[["Cycle", dict[bytes, bytes]], Awaitable[None]]

#: reg-name as hosts are really named, IPv4, or an IP literal; then an optional port. RFC 3986, 3.2.2.
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?\Z")
_MAX_LENGTH_DIGITS: Final = 15

#: Framing that is given twice is smuggling; of two credentials, one hop may look at the first and we at the last.
_ONCE: Final = frozenset((b"host", b"content-length", b"transfer-encoding", b"authorization", b"api-key"))
_READ: Final = _ONCE | {b"connection", b"expect"}


def _bad(message: str) -> NoReturn:
    raise ApiError("invalid_request", message)


class Head:
    """One request's line and headers, but for what differs from request to request: see :class:`HeadParser`."""

    __slots__ = (
        "chunked",
        "expects",
        "handler",
        "http10",
        "is_head",
        "keep_alive",
        "method",
        "path",
        "query",
        "raw_path",
        "scope",
    )

    method: str
    path: str
    raw_path: bytes
    query: bytes
    chunked: bool
    keep_alive: bool
    http10: bool
    expects: bool
    is_head: bool
    handler: Handler | None
    """What serves this head's route: the server's memory, None before the first request."""
    scope: dict[str, Any]
    """This head's part of an ASGI scope, ``headers`` left out; to be copied, never changed."""


class HeadParser:
    """Parse the heads that arrive on one connection; ``connection`` joins every scope.

    A client's heads differ in little but their content-length. The last head is remembered as the bytes
    before and after that number; the same bytes need no second parse (measured: 1 µs instead of 7).
    After ``parse``, ``length`` is the body's declared length (0 where there is none, None where it comes
    chunked) and ``table`` the fields by lower-case name, of a repeated one the last; it is written over by the
    next ``parse``.
    """

    __slots__ = (
        "_after", "_before", "_connection", "_fields", "_has_length", "_last", "_length_at", "_url", "length", "table",
    )  # fmt: skip

    def __init__(self, connection: dict[str, Any]) -> None:
        self.length: int | None = 0
        self.table: dict[bytes, bytes] = {}
        self._fields: list[tuple[bytes, bytes]] = []
        self._connection = connection
        self._last: Head | None = None
        self._before = b""
        self._after = b""
        self._has_length = False
        self._length_at = 0
        self._url = b""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the fields with lower-case names, in order, as a list of the caller's own."""
        fields = self._fields.copy()
        if self._has_length:
            fields[self._length_at] = (b"content-length", self.table[b"content-length"])
        return fields

    def parse(self, raw: bytes) -> Head:
        """Return the head that is exactly ``raw``, its empty line included; raise ``invalid_request``."""
        last = self._last
        if last is not None and raw.startswith(self._before):
            start = len(self._before)
            end = len(raw) - len(self._after)
            if not self._after:
                if end == start:
                    return last
            elif start < end <= start + _MAX_LENGTH_DIGITS and raw.endswith(self._after):
                digits = raw[start:end]
                if digits.isdigit():
                    self.table[b"content-length"] = digits
                    self.length = int(digits)
                    return last
        return self._parse(raw)

    # llhttp's callbacks
    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.lower(), value))

    def _parse(self, raw: bytes) -> Head:
        self._last = None
        self._has_length = False
        self._fields = []
        self._url = b""
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            pass  # served as plain HTTP; RFC 9110, 7.8: a server may ignore Upgrade
        except httptools.HttpParserError as error:
            _bad(f"The request is not well-formed HTTP/1.1 ({error}); send it again.")
        head = Head()
        if b" \r\n" in raw or b"\t\r\n" in raw:  # llhttp leaves white space at a value's end
            self._fields = [(name, value.rstrip(b" \t")) for name, value in self._fields]
        self.table = dict(self._fields)
        self._read_line(head, raw, parser.get_method())
        self._read_fields(head)
        head.handler = None
        head.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.0" if head.http10 else "1.1",
            "scheme": "http",
            "root_path": "",
            "method": head.method,
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            **self._connection,
        }
        self._remember(head, raw)
        return head

    def _read_line(self, head: Head, raw: bytes, method: bytes) -> None:
        line = raw.partition(b"\r\n")[0]
        version = line[-9:]
        if version not in (b" HTTP/1.1", b" HTTP/1.0") or line != method + b" " + self._url + version:
            _bad("The request line must be METHOD, one space, target, one space, HTTP/1.1.")
        head.http10 = version == b" HTTP/1.0"
        head.method = method.decode("ascii")
        head.is_head = method == b"HEAD"
        url = self._url
        if method == b"CONNECT" or url[:8].lower().startswith((b"http://", b"https://")):
            _bad("This is not a forward proxy: make its address the client's base_url, and send requests for a path.")
        if url.startswith(b"/") and b"#" not in url:
            head.raw_path, _, head.query = url.partition(b"?")
        else:
            _bad("The request's target must be a path that begins with / and has no fragment.")
        path = head.raw_path.decode("ascii")
        head.path = unquote(path) if "%" in path else path

    def _read_fields(self, head: Head) -> None:
        once: dict[bytes, bytes] = {}
        connection = b""
        head.expects = False
        for name, value in [field for field in self._fields if field[0] in _READ]:
            if name in _ONCE:
                if name in once:
                    _bad(f"The header {name.decode()} is given twice; send it once.")
                once[name] = value
            elif name == b"connection":
                connection += b"," + value.lower()
            elif name == b"expect" and value.lower() == b"100-continue":
                head.expects = not head.http10
        host = once.get(b"host")
        if host is None:
            if not head.http10:
                _bad("The Host header is missing; HTTP/1.1 requires one.")
        elif _HOST.match(host) is None:
            _bad("The Host header is malformed; send the host's name and, if need be, its port.")
        self._read_framing(head, once)
        head.keep_alive = not head.http10 and not (
            b"close" in connection and b"close" in [token.strip(b" \t") for token in connection.split(b",")]
        )

    def _read_framing(self, head: Head, once: dict[bytes, bytes]) -> None:
        coding = once.get(b"transfer-encoding")
        length = once.get(b"content-length")
        head.chunked = coding is not None
        if coding is not None:
            if length is not None:
                _bad("Content-Length and Transfer-Encoding are both given; send one of them.")
            if head.http10 or coding.lower() != b"chunked":
                _bad(
                    "The only transfer coding taken is chunked, in HTTP/1.1; send the body chunked or with its length."
                )
            self.length = None
        elif length is None:
            self.length = 0
        elif length.isdigit() and len(length) <= _MAX_LENGTH_DIGITS:
            self.length = int(length)
        else:
            _bad("The Content-Length must be a plain decimal number of bytes.")

    def _remember(self, head: Head, raw: bytes) -> None:
        """Note what a later head must equal, byte for byte, to be this one again."""
        self._before = raw
        self._after = b""
        digits = self.table.get(b"content-length")
        if digits is not None:
            self._has_length = True
            self._length_at = [name for name, _ in self._fields].index(b"content-length")
            at = raw.index(digits, raw.lower().index(b"\r\ncontent-length:") + 17)
            self._before = raw[:at]
            self._after = raw[at + len(digits) :]
        self._last = head
