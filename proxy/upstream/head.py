"""The bytes before a request's body, from a prefix built once per path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from proxy.errors import ApiError
from proxy.upstream.base import UpstreamRequest
from proxy.upstream.url import Origin

USER_AGENT: Final = "llm-sidecar"
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
_PATH: Final = re.compile(r"(?:/[\x21-\x22\x24-\x7e]*)?(?:\?[\x21-\x22\x24-\x7e]*)?")
_OURS: Final = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect",
     "accept-encoding", "proxy-connection", "proxy-authorization")
)  # fmt: skip
_DEFAULTS: Final = frozenset(("accept", "user-agent"))
_KEPT_PATHS: Final = 1024
_KEPT_LINES: Final = 64


def check_name(name: str) -> str:
    """Return ``name``; raise ValueError unless it is a lower-case header name that a caller may set."""
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a header name in lower case")
    if name in _OURS:
        raise ValueError(f"the header {name} is set by the connection itself")
    return name


def check_value(value: str) -> str:
    """Return ``value``; raise ValueError if it would end the header line or is not Latin-1."""
    if "\r" in value or "\n" in value or "\0" in value:
        raise ValueError("a header value must not hold CR, LF or NUL")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError("a header value must be Latin-1 text") from None
    return value


class HeadWriter:
    """Write request heads for one origin.

    ``extra_headers`` go with every request and replace a request's own of the same name.
    """

    __slots__ = ("_authority", "_constant", "_last", "_lines", "_names", "_prefix", "_starts", "_taken")

    def __init__(
        self, origin: Origin, extra_headers: Iterable[tuple[str, str]] = (), user_agent: str = USER_AGENT
    ) -> None:
        extra = [(check_name(name.lower()), check_value(value)) for name, value in extra_headers]
        self._taken = frozenset(name for name, _ in extra)
        if "user-agent" not in self._taken:
            extra.insert(0, ("user-agent", check_value(user_agent)))
        if "accept" not in self._taken:
            extra.insert(0, ("accept", "*/*"))
        self._authority = origin.authority
        self._prefix = origin.prefix
        self._constant = extra
        self._names: set[str] = set()
        self._lines: dict[tuple[tuple[str, str], ...], bytes] = {}
        self._last: tuple[object, object, bytes] = (None, None, b"")
        self._starts: dict[tuple[str, str], bytes] = {}

    def target(self, path: str) -> str:
        """Return the request target for ``path``; raise ValueError for what no request line may hold."""
        if not _PATH.fullmatch(path):
            raise ValueError("an upstream path must begin with / and hold only printable ASCII without spaces")
        return (self._prefix + path if not path.startswith("?") else (self._prefix or "/") + path) or "/"

    def write(self, request: UpstreamRequest, credentials: Sequence[tuple[str, str]]) -> bytes:
        """Return the head, blank line included.

        Raises:
            ApiError: ``invalid_request`` where a header value holds CR, LF, NUL or is not Latin-1.
            ValueError: a header name or the path is unfit (our own mistake).
        """
        headers, own, lines = self._last
        if headers is not request.headers or own is not credentials:
            lines = self.lines(request, credentials)
            if type(request.headers) is tuple and type(credentials) is tuple:  # nobody can change what is in them
                self._last = (request.headers, credentials, lines)
        key = (request.method, request.path)
        start = self._starts.get(key)
        if start is None:
            start = self._start(key)
        body = request.body
        if body or request.method not in ("GET", "HEAD", "DELETE"):
            return b"%b%bcontent-length: %d\r\n\r\n" % (start, lines, len(body))
        return start + lines + b"\r\n"

    def lines(self, request: UpstreamRequest, credentials: Sequence[tuple[str, str]]) -> bytes:
        """Return the header lines of this request alone, checked."""
        names, taken = self._names, self._taken
        pairs = [*request.headers, *credentials]
        key = tuple(pairs)
        known = self._lines.get(key)
        if known is not None:
            return known
        if taken:
            pairs = [pair for pair in pairs if pair[0] not in taken]
        text = ""
        for name, value in pairs:
            if name not in names:
                self._meet(name)
            text += f"{name}: {value}\r\n"
        # One line end per header and not one more: nothing was smuggled in, whatever the values hold.
        count = len(pairs)
        if text.count("\n") != count or text.count("\r") != count or "\0" in text:
            raise ApiError("invalid_request", "A header value holds a line break or NUL; send it without.")
        try:
            lines = text.encode("latin-1")
            if len(self._lines) >= _KEPT_LINES:
                self._lines.clear()
            self._lines[key] = lines
            return lines
        except UnicodeEncodeError:
            raise ApiError("invalid_request", "A header value holds characters outside Latin-1; send ASCII.") from None

    def _meet(self, name: str) -> None:
        """Check a header name seen for the first time; where it is one of our defaults, a request's own replaces it."""
        self._names.add(check_name(name))
        if name in _DEFAULTS:
            self._constant = [pair for pair in self._constant if pair[0] != name]
            self._starts.clear()

    def _start(self, key: tuple[str, str]) -> bytes:
        method, path = key
        if not method.isascii() or not method.isalpha() or not method.isupper():
            raise ValueError(f"{method!r} is not an HTTP method")
        line = f"{method} {self.target(path)} HTTP/1.1\r\nhost: {self._authority}\r\naccept-encoding: identity\r\n"
        start = line.encode("ascii") + "".join(f"{name}: {value}\r\n" for name, value in self._constant).encode(
            "latin-1"
        )
        if len(self._starts) >= _KEPT_PATHS:
            self._starts.clear()
        self._starts[key] = start
        return start
