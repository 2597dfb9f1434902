"""What a caller's request headers say: the request's id, the trace it belongs to, the feature it serves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from proxy.ids import new_id

_ID: Final = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_UNFIT: Final = re.compile(r"[^\t\x20-\x7e]")
#: Version ff and ids of nothing but zeros are invalid.
_TRACE: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def request_id(headers: Mapping[bytes, bytes]) -> str:
    """Return the caller's ``x-request-id`` if it is fit to be kept, else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _ID.fullmatch(given):
        return given.decode("ascii")
    return "req_" + new_id()


def traceparent(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the W3C trace context (https://www.w3.org/TR/trace-context/, version-id-parent-flags), None without one."""
    trace = headers.get(b"traceparent")
    return trace.decode("ascii") if trace is not None and _TRACE.fullmatch(trace) else None


def feature(headers: Mapping[bytes, bytes]) -> str:
    """Return the ``x-llm-feature`` as sent, "" without one."""
    given = headers.get(b"x-llm-feature")
    return given.decode("utf-8", "replace") if given else ""


def hops(headers: Mapping[bytes, bytes]) -> str:
    """Return the marks of the sidecars that the request came through, separated by commas, "" without any."""
    given = headers.get(b"x-llm-sidecar-hop")
    return _UNFIT.sub("", given.decode("latin-1")[:512]) if given is not None else ""


def clean(value: str) -> str:
    """Return ``value`` as a reply header can hold it: printable ASCII, anything else a question mark."""
    return value if value.isascii() and value.isprintable() else _UNFIT.sub("?", value)
