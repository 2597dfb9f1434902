"""The one place that chooses between our own client and its httpx2 twin."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from proxy.upstream.base import Timeouts, Upstream
from proxy.upstream.client import MAX_BODY, RawUpstream
from proxy.upstream.head import USER_AGENT


def open_upstream(
    base_url: str,
    timeouts: Timeouts,
    *,
    min_tls: str = "1.3",
    ca_file: str | None = None,
    proxy: str | None = None,
    extra_headers: Iterable[tuple[str, str]] = (),
    max_body: int = MAX_BODY,
    user_agent: str = USER_AGENT,
    allow_retry: Callable[[], bool] | None = None,
) -> Upstream:
    """Return the connections to ``base_url``: our own client, or the httpx2 twin through a forward ``proxy``.

    Raises:
        ValueError: a setting is unfit; the message says which.
    """
    if proxy is None:
        return RawUpstream(
            base_url, timeouts, min_tls=min_tls, ca_file=ca_file, extra_headers=extra_headers, max_body=max_body,
            user_agent=user_agent, allow_retry=allow_retry,
        )  # fmt: skip
    from proxy.upstream.httpx_twin import HttpxUpstream  # 0.1 s to import, for the few who need it

    return HttpxUpstream(
        base_url, timeouts, min_tls=min_tls, ca_file=ca_file, extra_headers=extra_headers, max_body=max_body,
        user_agent=user_agent, allow_retry=allow_retry, proxy=proxy,
    )  # fmt: skip
