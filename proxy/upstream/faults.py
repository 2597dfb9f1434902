"""What can go wrong between us and a provider, named once for both implementations.

Rules: before the reply's head a fault is retryable; after it the retry layer decides by what the caller has
already seen. Framing broken after the head is not retried: the provider has done, and billed, its work.
"""

from __future__ import annotations

import socket
import ssl

from proxy.errors import Truncated, UpstreamError


def unreachable(reason: str) -> UpstreamError:
    """Return the error for a connection that was not made, or was lost before the reply's head."""
    return UpstreamError(
        "upstream_unreachable",
        f"The provider cannot be reached ({reason}); send the request again later.",
        retryable=True,
        counts=True,
    )


def tls(reason: str) -> UpstreamError:
    """Return the error for a handshake that failed: certificate, host name, protocol version."""
    return UpstreamError(
        "upstream_tls",
        f"The TLS handshake with the provider failed ({reason}); ask the sidecar's operator to check its `tls` settings.",
        retryable=False,  # a certificate does not change by asking again; another target may do better
        counts=True,
    )


def handshake_lost() -> UpstreamError:
    """Return the error for a connection lost in the handshake: the server may want another version, or be restarting."""
    error = tls("the provider closed the connection in its middle")
    error.retryable = True
    return error


def timeout(what: str, seconds: float) -> UpstreamError:
    """Return the error for a limit of :class:`~proxy.upstream.base.Timeouts` that passed."""
    return UpstreamError(
        "upstream_timeout",
        f"The provider {what} {seconds:g} s; send the request again later.",
        retryable=True,
        counts=True,
    )


def connect_timeout(seconds: float) -> UpstreamError:
    """Return the error for a connection that was not made in time."""
    return timeout("did not accept a connection within", seconds)


def first_byte_timeout(seconds: float) -> UpstreamError:
    """Return the error for a reply that did not begin in time."""
    return timeout("did not begin to answer within", seconds)


def idle_timeout(seconds: float) -> UpstreamError:
    """Return the error for a reply that stopped in its middle."""
    return timeout("fell silent in the middle of its answer for", seconds)


def total_timeout(seconds: float) -> UpstreamError:
    """Return the error for an exchange that took too long in all."""
    return timeout("did not finish its answer within", seconds)


def invalid(reason: str, *, retryable: bool = False) -> UpstreamError:
    """Return the error for a reply that is not HTTP as we accept it."""
    return UpstreamError(
        "upstream_invalid_response",
        f"The provider's reply cannot be used: {reason}.",
        retryable=retryable,
        counts=True,
    )


def lost() -> Truncated:
    """Return the error for a connection lost after the reply's head and before its end."""
    return Truncated("The connection to the provider broke in the middle of its answer; send the request again.")


def closed() -> UpstreamError:
    """Return the error for reading a reply that was closed: our own mistake, never the provider's."""
    return UpstreamError("upstream_error", "The provider's answer was given up before its end.")


def why_tls(error: ssl.SSLError) -> str:
    """Return a handshake's failure in a few words that hold no secret."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".").lower() or "certificate refused"
    return (error.reason or "protocol error").replace("_", " ").lower()


def why_unreachable(error: OSError) -> str:
    """Return a connection's failure in a few words, without addresses."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return "connection closed by the provider"
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    return "no route to it"
