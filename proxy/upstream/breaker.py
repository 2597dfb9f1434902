"""A circuit breaker: after enough failures in a row a target is left alone for a while."""

from __future__ import annotations

from typing import Final

CLOSED: Final = 0
HALF_OPEN: Final = 1
OPEN: Final = 2
PROBE_SECONDS: Final = 60.0


class Breaker:
    """Closed, open after ``failures`` in a row, half-open after ``open_seconds``: pure, time passed in.

    Half-open lets one probe through at a time; its success closes, its failure opens anew. A probe that
    never reports back frees its place after ``probe_seconds``. Only 5xx, timeouts and connection errors
    are failures: whoever calls decides (``UpstreamError.counts``).

    ``started``, where given to a verdict, is the ``now`` of the call's ``allow``: verdicts of calls that
    began before the breaker opened say nothing about now and are not heard.
    """

    __slots__ = ("_count", "_failures", "_open_seconds", "_opened", "_probe", "_probe_seconds")

    def __init__(self, failures: int = 5, open_seconds: float = 300.0, probe_seconds: float = PROBE_SECONDS) -> None:
        self._failures = failures
        self._open_seconds = open_seconds
        self._probe_seconds = probe_seconds
        self._count = 0
        self._opened: float | None = None
        self._probe: float | None = None

    def allow(self, now: float) -> bool:
        """Tell whether a call may go out; half-open, the call that is told so is the probe."""
        if self._opened is None:
            return True
        if self.retry_after(now) > 0:
            return False
        self._probe = now
        return True

    def retry_after(self, now: float) -> float:
        """Return the seconds until :meth:`allow` may say yes: 0 now, at most 1 while a probe is on its way."""
        if self._opened is None:
            return 0.0
        wait = self._opened + self._open_seconds - now
        if wait > 0:
            return wait
        if self._probe is not None and (left := self._probe + self._probe_seconds - now) > 0:
            return min(1.0, left)
        return 0.0

    def success(self, started: float | None = None) -> None:
        """Note that a call was answered."""
        if self._heard(started):
            self._count = 0
            self._opened = self._probe = None

    def failure(self, now: float, started: float | None = None) -> None:
        """Note that a call failed by the upstream's fault."""
        if self._opened is None:
            self._count += 1
            if self._count >= self._failures:
                self._opened = now
        elif self._heard(started):
            self._opened = now
            self._probe = None

    def abandon(self, started: float | None = None) -> None:
        """Note that a call ended without a verdict (its client left): a probe's place is free again."""
        if self._opened is not None and self._heard(started):
            self._probe = None

    def state(self, now: float) -> int:
        """Return 0 closed, 1 half-open, 2 open."""
        if self._opened is None:
            return CLOSED
        return OPEN if self._opened + self._open_seconds > now else HALF_OPEN

    def _heard(self, started: float | None) -> bool:
        """Tell whether a verdict is the probe's own, or nothing is open that an old one could disturb."""
        if self._opened is None:
            return True
        return self._probe is not None and (started is None or started >= self._probe)
