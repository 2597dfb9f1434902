"""Replies that the server itself gives, in the shape of the endpoint's own errors."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from proxy.errors import ApiError


def _line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


#: Status lines, by status.
STATUS_LINE: Final = tuple(_line(status) for status in range(600))


def refusal(error: ApiError, request_id: str) -> tuple[int, bytes, bytes]:
    """Return status, header lines and body of an error that no endpoint dresses up."""
    lines = [b"content-type: application/json\r\nx-request-id: %b\r\n" % request_id.encode()]
    for name, value in error.headers:
        lines.append(f"{name}: {value}\r\n".encode("latin-1"))
    return error.status, b"".join(lines), error.body()
