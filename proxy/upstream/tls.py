"""One TLS context per provider."""

from __future__ import annotations

import ssl
from typing import Final

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def client_context(min_version: str = "1.3", ca_file: str | None = None) -> ssl.SSLContext:
    """Return a context that checks chain and host name, speaks at least ``min_version`` and offers http/1.1 only.

    ``ca_file`` (PEM) replaces the system's authorities.

    Raises:
        ValueError: an unknown version, or a ``ca_file`` that cannot be read.
    """
    if min_version not in _VERSIONS:
        raise ValueError(f"tls.min_version is {min_version!r}; use 1.2 or 1.3")
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        # OpenSSL's own word for it ("PEM lib") helps nobody.
        why = "it holds none" if isinstance(error, ssl.SSLError) else str(error.strerror).lower()
        raise ValueError(f"tls.ca_file {ca_file} cannot be read as PEM certificates: {why}") from None
    context.minimum_version = _VERSIONS[min_version]
    context.set_alpn_protocols(["http/1.1"])
    return context
