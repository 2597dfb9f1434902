"""Certificates for tests, good and bad."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme


class Authority:
    """A throw-away authority and what it can sign."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.file = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def context(
        self, name: str = "localhost", *, expired: bool = False, newest: ssl.TLSVersion | None = None
    ) -> ssl.SSLContext:
        after = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC) if expired else None
        before = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC) if expired else None
        cert = self._ca.issue_cert(name, not_after=after, not_before=before)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cert.configure_cert(context)
        context.set_alpn_protocols(["h2", "http/1.1"])
        if newest is not None:
            context.maximum_version = newest
        return context

    def write_pem(self, path: Path, name: str = "localhost") -> None:
        """Write a key with its chain, as nginx reads it."""
        self._ca.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(path))
