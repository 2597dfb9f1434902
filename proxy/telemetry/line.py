"""A call's one line in the log, as contract 4 lists its fields: composed as text, for it is written on every call.

A dictionary of thirty entries and its encoding took a tenth of a call's instructions; what is the same for all
calls of a kind is encoded once (:func:`who`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

from proxy.call import Usage

_BOOL: Final = {True: "true", False: "false"}


def who(
    endpoint: str | None, team: str | None, user: str | None, key_id: str | None, feature: str | None,
    model: str | None, provider: str | None, upstream_model: str | None,
) -> str:  # fmt: skip
    """Return the fields that say who called what and who answered, to be joined into :func:`line`."""
    fields = {
        "endpoint": endpoint,
        "team": team,
        "user": user,
        "key_id": key_id,
        "feature": feature,
        "model": model or None,  # a request need not name one
        "provider": provider,
        "upstream_model": upstream_model,
    }
    return orjson.dumps(fields)[1:-1].decode()


def line(
    stamp: str, request_id: str, upstream_id: str | None, trace: str | None, who: str, status: int, outcome: str,
    code: str | None, stream: bool, usage: Usage, cost: int | None, duration: float, first: float | None,
    overhead: float | None, cache: str, kept: bool, detectors: Iterable[str], retries: int, extra: dict[str, Any],
) -> bytes:  # fmt: skip
    """Return the line, newline included.

    Times in seconds, ``cost`` in micro-dollars, ``trace`` the traceparent. The ids hold nothing that
    JSON escapes: callers' and providers' own are checked when they come in. ``extra`` fields come last; one of the same name
    replaces the line's own.
    """
    text = (
        f'{{"ts":"{stamp}","level":"info","event":"llm_request_completed","request_id":"{request_id}",'
        f'"upstream_request_id":{_id(upstream_id)},"trace_id":{_id(trace and trace[3:35])},{who},'
        f'"status":{status},"outcome":"{outcome}","code":{_word(code)},"stream":{_BOOL[stream]},'
        f'"prompt_tokens":{usage.prompt},"completion_tokens":{usage.completion},"cached_tokens":{usage.cached},'
        f'"reasoning_tokens":{usage.reasoning},"estimated":{_BOOL[usage.estimated]},'
        f'"cost_usd":{"null" if cost is None else cost / 1_000_000},"duration_ms":{duration * 1000.0:.3f},'
        f'"ttft_ms":{"null" if first is None else f"{first * 1000.0:.3f}"},'
        f'"overhead_ms":{"null" if overhead is None else f"{overhead * 1000.0:.3f}"},"cache":{_word(cache)},'
        f'"stored":{_BOOL[kept]},"detectors":{orjson.dumps(sorted(detectors)).decode() if detectors else "null"},'
        f'"retries":{retries}}}\n'
    )
    if extra:
        fields = {**orjson.loads(text), **extra}
        return orjson.dumps(fields, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE)
    return text.encode()


def _id(value: str | None) -> str:
    return f'"{value}"' if value else "null"


def _word(value: str | None) -> str:
    """Return a code; a policy of somebody's own may have made it of anything."""
    if not value:
        return "null"
    return f'"{value}"' if type(value) is str and value.isidentifier() else orjson.dumps(value, default=str).decode()
