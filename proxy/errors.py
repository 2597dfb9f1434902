"""Every way a call can be refused or fail, in one table.

``code`` is public API: the same word in the reply's body, the log line and the metrics. The
README's copy of this table is tested against it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, NoReturn

import orjson


class Situation(NamedTuple):
    """What one code answers with: HTTP status, OpenAI error type, and headers that always go along."""

    status: int
    type: str
    headers: tuple[tuple[str, str], ...] = ()


_NO_RETRY: Final = (("x-should-retry", "false"),)
_BEARER: Final = (("www-authenticate", "Bearer"),)
_BAD_TOKEN: Final = (("www-authenticate", 'Bearer error="invalid_token"'),)

TABLE: Final[dict[str, Situation]] = {
    # the caller's request
    "invalid_request": Situation(400, "invalid_request_error"),
    "request_timeout": Situation(408, "invalid_request_error"),
    "unsupported_media_type": Situation(415, "invalid_request_error"),
    "route_not_found": Situation(404, "invalid_request_error"),
    "method_not_allowed": Situation(405, "invalid_request_error"),
    "headers_too_large": Situation(431, "invalid_request_error"),
    "request_too_large": Situation(413, "invalid_request_error"),
    # who calls
    "invalid_api_key": Situation(401, "invalid_request_error", _BEARER),
    "invalid_token": Situation(401, "invalid_request_error", _BAD_TOKEN),
    "unknown_team": Situation(403, "permission_error"),
    "auth_unavailable": Situation(503, "server_error"),
    "permission_denied": Situation(403, "permission_error"),
    # what may be called
    "model_not_allowed": Situation(403, "permission_error"),
    "model_not_found": Situation(404, "invalid_request_error"),
    "opted_out": Situation(403, "permission_error"),
    "feature_disabled": Situation(403, "permission_error"),
    # limits
    "token_quota_exceeded": Situation(402, "insufficient_quota", _NO_RETRY),
    "budget_exceeded": Situation(402, "insufficient_quota", _NO_RETRY),
    "rate_limit_exceeded": Situation(429, "requests"),
    "context_length_exceeded": Situation(400, "invalid_request_error"),
    # content
    "unsupported_parameter": Situation(400, "invalid_request_error"),
    "unsupported_image_url": Situation(400, "invalid_request_error"),
    "content_policy_violation": Situation(400, "invalid_request_error", _NO_RETRY),
    # ourselves
    "policy_unavailable": Situation(503, "server_error"),
    "store_unavailable": Situation(503, "server_error"),
    "circuit_open": Situation(503, "server_error"),
    "overloaded": Situation(503, "server_error"),
    "loop_detected": Situation(508, "server_error"),
    "internal_error": Situation(500, "server_error"),
    # the upstream
    "upstream_auth_error": Situation(502, "server_error", _NO_RETRY),
    "upstream_quota_exceeded": Situation(502, "server_error", _NO_RETRY),
    "upstream_rate_limited": Situation(429, "rate_limit_error"),
    "upstream_overloaded": Situation(503, "server_error"),
    "upstream_invalid_request": Situation(400, "invalid_request_error"),
    "upstream_unreachable": Situation(502, "server_error"),
    "upstream_tls": Situation(502, "server_error"),
    "upstream_timeout": Situation(504, "server_error"),
    "upstream_invalid_response": Situation(502, "server_error"),
    "upstream_error": Situation(502, "server_error"),
}

_TYPE_BY_STATUS: Final = {
    401: "invalid_request_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "requests",
}


class ApiError(Exception):
    """End a call with an error in OpenAI's shape.

    ``message`` is one sentence that tells the caller what to do; it must hold no secret.
    ``status`` is that of the code unless given, from 400 to 599.
    ``retry_after`` is in seconds and becomes ``retry-after`` (rounded up) and ``retry-after-ms``.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        status: int | None = None,
        type: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        if status is not None and (not isinstance(status, int) or not 400 <= status <= 599):
            raise ValueError(f"{status!r} is not the status of a refusal")
        situation = TABLE.get(code)
        self.code = code
        self.message = message
        self.param = param
        self.status = int(status) if status is not None else situation.status if situation else 500
        self.type = type or (
            situation.type
            if situation
            else _TYPE_BY_STATUS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        )
        extra = list(situation.headers) if situation else []
        extra.extend((str(name), str(value)) for name, value in headers)
        if retry_after is not None:
            retry_after = max(0.0, retry_after)
            extra.append(("retry-after", str(max(1, -int(-retry_after // 1)))))
            extra.append(("retry-after-ms", str(max(1, -int(-retry_after * 1000 // 1)))))
        self.headers = tuple(extra)
        self.retry_after = retry_after

    def sound(self) -> bool:
        """Tell whether it can be sent: a subclass may do without our ``__init__``, and anybody may assign anything."""
        try:
            return (
                type(self.status) is int
                and 400 <= self.status <= 599
                and isinstance(self.code, str)
                and (self.message, self.param, self.type, self.retry_after) is not None
                and all(isinstance(name, str) and isinstance(value, str) for name, value in self.headers)
            )
        except (AttributeError, TypeError, ValueError):
            return False

    def body(self) -> bytes:
        """Return the JSON body of the error reply."""
        said = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        try:
            return orjson.dumps({"error": said})
        except TypeError:  # a policy's words: no text, or no Unicode
            fit = {
                name: value if value is None else str(value).encode("utf-8", "replace").decode()
                for name, value in said.items()
            }
            return orjson.dumps({"error": fit})


class Refused(ApiError):
    """A policy's own refusal: ``raise Refused(403, "outside_office_hours", "Open 8:00-18:00 UTC.")``."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        type: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code, message, param=param, status=status, type=type, headers=headers, retry_after=retry_after)


def bad(message: str, param: str | None = None) -> NoReturn:
    """Refuse the request as malformed."""
    raise ApiError("invalid_request", message, param=param)


class UpstreamError(ApiError):
    """The upstream failed, or answered with an error.

    ``retryable``: another attempt (same or next target) may succeed.
    ``counts``: a failure for the breaker (5xx, 529, timeouts, connection errors, error events; never 4xx or 429).
    ``next_key``: the provider's next API key may succeed at once (401, account out of money).
    ``upstream_status`` is what the upstream said, None where it said nothing.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        counts: bool = False,
        next_key: bool = False,
        upstream_status: int | None = None,
        native_code: str | None = None,
        param: str | None = None,
        status: int | None = None,
        headers: Iterable[tuple[str, str]] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code, message, param=param, status=status, headers=headers, retry_after=retry_after)
        self.retryable = retryable
        self.counts = counts
        self.next_key = next_key
        self.upstream_status = upstream_status
        self.native_code = native_code

    @property
    def elsewhere(self) -> bool:
        """Whether another target may answer: what is wrong is this one, not the request."""
        return self.retryable or self.next_key or self.counts or self.upstream_status == 501


class Truncated(UpstreamError):
    """The upstream's stream ended without the vendor's terminal event: never a success."""

    def __init__(
        self, message: str = "The provider's answer ended before it was complete; send the request again."
    ) -> None:
        super().__init__("upstream_error", message, retryable=True, counts=True)
