"""A provider's base URL, taken apart and checked once."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

_PRINTABLE = re.compile(r"[\x21-\x7e]+")


class Origin(NamedTuple):
    """Where a provider lives. ``authority`` is the Host header, ``prefix`` the path before every request's own."""

    secure: bool
    host: str
    port: int
    authority: str
    prefix: str


def parse_origin(base_url: str) -> Origin:
    """Take ``base_url`` (``https://host[:port][/prefix]``) apart.

    Raises:
        ValueError: it is no http(s) URL, or holds a user name, a query or a fragment.
    """
    if not _PRINTABLE.fullmatch(base_url):
        raise ValueError(
            "base_url must be printable ASCII without spaces; write a host in punycode and escape the path"
        )
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("base_url must begin with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("base_url must not hold a user name or password; use api_key or headers")
    if "?" in base_url or "#" in base_url:
        raise ValueError("base_url must not hold a query or a fragment")
    host = parts.hostname
    if not host:
        raise ValueError("base_url names no host")
    secure = parts.scheme == "https"
    standard = 443 if secure else 80
    port = parts.port if parts.port is not None else standard
    name = f"[{host}]" if ":" in host else host
    authority = name if port == standard else f"{name}:{port}"
    return Origin(secure, host, port, authority, parts.path.rstrip("/"))
