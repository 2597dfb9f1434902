"""One place that turns a vendor's refusal into the contract's error, whatever the vendor's dialect."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import Any, Final

from proxy.errors import UpstreamError
from proxy.upstream.base import Headers

#: Text that looks like a credential: upstreams echo keys in their errors (litellm#22509).
_KEY_LIKE: Final = re.compile(
    r"(?:sk|pk|rk|xai|gsk|AIza|key|hf|org|proj)[-_][A-Za-z0-9*_\-]{6,}|AIza[\w-]{10,}|Bearer\s+\S+", re.ASCII
)
_OVERFLOW: Final = re.compile(
    r"context.?length|maximum context|context.?window|prompt is too long|too many (?:input )?tokens|"
    r"exceeds? the (?:maximum|model'?s?).{0,40}tokens?|input.{0,30}token.{0,20}(?:limit|exceed)|"
    r"input is too long|string too long|exceed.{0,40}context",
    re.IGNORECASE,
)
_NO_MONEY: Final = re.compile(
    r"insufficient.?quota|exceeded your current quota|credit balance|billing|insufficient.?(?:balance|credit|funds)|"
    r"payment required|out of (?:money|credit)",
    re.IGNORECASE,
)


def scrub(text: str, limit: int = 500) -> str:
    """Return ``text`` without control characters or anything that looks like a key, cut to ``limit``."""
    text = "".join(c if c.isprintable() else " " for c in text[: limit * 4])
    return _KEY_LIKE.sub("[REDACTED]", text)[:limit].strip()


def snippet(body: bytes) -> str:
    """Return the start of a body that is not the JSON we expected, fit to show (≤ 200 characters)."""
    text = re.sub(r"<[^>]*>|\s+", " ", body[:2000].decode("utf-8", "replace"))
    return scrub(re.sub(r" +", " ", text), 200)


def outline(body: bytes) -> str:
    """Return what kind of thing a 200 reply's body is, in words: it may hold what redaction would have masked."""
    start = body[:64].lstrip()[:1]
    if not body.strip():
        return "an empty body"
    kind = {b"{": "a JSON object", b"[": "a JSON array", b"<": "an HTML or XML page"}.get(start, "text")
    return f"{kind} of {len(body)} bytes"


def retry_after(headers: Headers, now: float | None = None) -> float | None:
    """Return the seconds to wait that the headers name, in whatever spelling.

    ``retry-after-ms``, ``retry-after`` as seconds or HTTP date (RFC 9110), and the ``…reset…`` headers
    that vendors send with a 429 (``x-ratelimit-reset-requests: 1m2s``, RFC 3339 times).
    """
    if (value := headers.get("retry-after-ms")) and (number := _float(value)) is not None:
        return number / 1000
    if value := headers.get("retry-after"):
        seconds = parse_wait(value, now)
        if seconds is not None:
            return seconds
    waits = [
        wait
        for name, value in headers.items()
        if "ratelimit" in name and "reset" in name and (wait := parse_wait(value, now)) is not None and wait <= 3600
    ]
    return min(waits) if waits else None


def _float(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 <= number < 1e9 else None


_WAIT: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


def parse_wait(value: str, now: float | None = None) -> float | None:
    """Return seconds from ``17``, ``17s``, ``1m2.5s``, ``120ms``, an HTTP date or an RFC 3339 time."""
    value = value.strip()
    if (number := _float(value)) is not None:
        # Some servers put the epoch second of the reset there.
        wall = time.time() if now is None else now
        return number if number < 1e8 else max(0.0, number - wall)
    if value and (match := _WAIT.fullmatch(value)):
        day, hour, minute, second, milli = (float(part or 0) for part in match.groups())
        return day * 86400 + hour * 3600 + minute * 60 + second + milli / 1000
    wall = time.time() if now is None else now
    try:
        if value[4:5] == "-":
            from datetime import datetime

            return max(0.0, datetime.fromisoformat(value).timestamp() - wall)
        return max(0.0, parsedate_to_datetime(value).timestamp() - wall)
    except (ValueError, TypeError, OverflowError):
        return None


def failure(
    status: int,
    message: str,
    *,
    headers: Headers | None = None,
    native_code: str | None = None,
    param: str | None = None,
    wait: float | None = None,
    vendor: str = "the provider",
    limited: bool = False,
    extra: Iterable[tuple[str, str]] = (),
) -> UpstreamError:
    """Return the contract's error for an upstream's ``status`` and ``message``.

    ``native_code`` is the vendor's own word (``insufficient_quota``, ``overloaded_error``,
    ``RESOURCE_EXHAUSTED``); ``wait`` overrides what the headers say. ``limited``: a 429 is about the rate
    whatever its words (Gemini speaks of "plan and billing" in every one).
    """
    headers = headers or {}
    text = scrub(message) or f"HTTP {status}"
    word = native_code or ""
    if wait is None and status in (429, 503, 529):
        wait = retry_after(headers)
    common: dict[str, Any] = {"upstream_status": status, "native_code": native_code}
    if status in (401, 403) or word in ("invalid_api_key", "authentication_error", "permission_error"):
        return UpstreamError(
            "upstream_auth_error",
            f"{vendor} refused the sidecar's own API key; ask its operator to check it.",
            next_key=True,
            **common,
        )
    if (
        status == 402
        or word in ("insufficient_quota", "billing_error")
        or (status in (400, 403, 429) and not limited and _NO_MONEY.search(text))
    ):
        return UpstreamError(
            "upstream_quota_exceeded",
            f"The sidecar's account at {vendor} is out of money; ask its operator to top it up.",
            next_key=True,
            **common,
        )
    if status == 429:
        return UpstreamError(
            "upstream_rate_limited", f"{vendor} limits the rate: {text}", retryable=True, retry_after=wait, next_key=True,
            **common,
        )  # fmt: skip
    if status == 529 or word in ("overloaded_error", "UNAVAILABLE"):
        return UpstreamError(
            "upstream_overloaded", f"{vendor} is overloaded: {text}", retryable=True, counts=True, retry_after=wait,
            **common,
        )  # fmt: skip
    if status == 404:
        return UpstreamError(
            "model_not_found", f"{vendor} answered: {text}", status=404, param=param or "model", **common
        )
    if 400 <= status < 500 and status != 408:
        if word == "context_length_exceeded" or _OVERFLOW.search(text):
            return UpstreamError("context_length_exceeded", f"{vendor} answered: {text}", param=param, **common)
        return UpstreamError(
            "upstream_invalid_request",
            f"{vendor} answered: {text}",
            param=param,
            status=status if status in (400, 413, 422) else 400,
            **common,
        )
    if status == 508 and word == "loop_detected":
        # A sidecar further up found one of us in the request's way: nothing to retry, nobody's failure.
        return UpstreamError("loop_detected", f"{vendor} leads back to this sidecar; check its base_url.", **common)
    if status == 408 or status == 504:
        return UpstreamError("upstream_timeout", f"{vendor} timed out: {text}", retryable=True, counts=True, **common)
    if status == 501:
        # RFC 9110, 15.6.2: it does no such thing for anybody (embeddings of a server that only chats). Nothing is ill.
        never = [("x-should-retry", "false")]
        return UpstreamError("upstream_error", f"{vendor} cannot do this: {text}", headers=never, **common)
    if status == 508:
        return UpstreamError("upstream_error", f"{vendor} failed: {text}", **common)
    if status >= 500:
        return UpstreamError(
            "upstream_error", f"{vendor} failed: {text}", retryable=True, counts=True, retry_after=wait,
            **common,
        )  # fmt: skip
    return UpstreamError(
        "upstream_invalid_response",
        f"{vendor} answered with an unexpected status {status}.",
        counts=True,
        **common,
    )
