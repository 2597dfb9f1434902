"""Replies that the server itself gives, in the shape of the endpoint's own errors."""

from __future__ import annotations

import secrets
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


def refusal(error: ApiError) -> tuple[int, bytes, bytes]:
    """Return status, header lines and body of an error that no endpoint dresses up; with a request id of its own."""
    lines = [b"content-type: application/json\r\nx-request-id: req_%b\r\n" % secrets.token_hex(12).encode()]
    for name, value in error.headers:
        lines.append(f"{name}: {value}\r\n".encode("latin-1"))
    return error.status, b"".join(lines), error.body()
