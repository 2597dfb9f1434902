"""The ledger check: what the upstream produced, what the sidecar wrote down, and what it still holds, agree."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tests.fakes.process import Upstream
from tests.fakes.sidecar import OPS_KEY, Metrics, Sidecar


@dataclass(slots=True)
class Joined:
    """One call: the sidecar's line, and the upstream's record of the attempt that answered (None if none did)."""

    line: dict[str, Any]
    call: dict[str, Any] | None

    @property
    def booked(self) -> tuple[int, int]:
        return self.line["prompt_tokens"], self.line["completion_tokens"]


class Ledger:
    """Opened before a test's calls, checked after them.

    ``tag`` is part of the model's name of every call that counts. ``Σ booked = Σ produced`` is exact where
    the upstream said its numbers, and within ``tolerance`` tokens (per call, for tokenizer differences)
    where they had to be counted.
    """

    def __init__(self, sidecar: Sidecar, upstream: Upstream, tag: str) -> None:
        self.sidecar = sidecar
        self.upstream = upstream
        self.tag = tag
        self.idle()
        self.before: Metrics = sidecar.metrics()
        self.fds = sidecar.fds - sidecar.connected(upstream.port)
        self.rows = self._stored()
        self.since = upstream.last
        self.skip = len(sidecar.calls())

    def idle(self, timeout: float = 10.0) -> None:
        """Wait until no call is in flight; AssertionError if one stays."""
        limit = time.monotonic() + timeout
        while (stuck := self.sidecar.metrics().sum("llm_in_flight")) and time.monotonic() < limit:
            time.sleep(0.02)
        assert not stuck, f"{stuck:.0f} calls stay in flight"

    def lines(self, count: int | None = None, timeout: float = 10.0) -> list[dict[str, Any]]:
        """Return the lines of this ledger's calls, once there are ``count``."""
        limit = time.monotonic() + timeout
        while True:
            found = [line for line in self.sidecar.calls()[self.skip :] if self.tag in (line.get("model") or "")]
            if count is None or len(found) >= count or time.monotonic() > limit:
                return found
            time.sleep(0.02)

    def check(
        self, calls: int, *, upstream: int | None = None, outcome: str | None = None, tolerance: int = 3,
        unread: int = 0, timeout: float = 10.0, spare_fds: int = 4,
    ) -> list[Joined]:  # fmt: skip
        """Assert that all accounts agree; return the calls, joined.

        ``calls`` how many the test made with the tag; ``upstream`` how many attempts the upstream must have
        seen; ``outcome`` how each must have ended; ``unread`` the tokens per call that the upstream may have
        written and the sidecar not yet read when it closed.
        """
        lines = self.lines(calls, timeout)
        self.idle(timeout)
        assert len(lines) == calls, (
            f"{calls} calls, {len(lines)} lines: {[(x['model'], x['outcome']) for x in lines][:10]}"
        )
        ids = [line["request_id"] for line in lines]
        assert len(set(ids)) == len(ids), "two lines for one call"
        if outcome is not None:
            other = [
                (line["outcome"], line["code"], line["upstream_request_id"])
                for line in lines
                if line["outcome"] != outcome
            ]
            assert not other, f"{len(other)} of {calls} did not end as {outcome}: {other[:5]}"
        records = {call["id"]: call for call in self.upstream.calls(self.tag, since=self.since, bodies=0)}
        attempts = sum(1 + line["retries"] for line in lines)
        assert len(records) <= attempts, f"the upstream saw {len(records)} attempts, the lines tell of {attempts}"
        if upstream is not None:
            assert len(records) == upstream, f"the upstream saw {len(records)} attempts, not {upstream}"
        named = [line["upstream_request_id"] for line in lines if line["upstream_request_id"]]
        assert len(set(named)) == len(named), "one upstream call stands in two lines"
        joined = [Joined(line, records.get(line["upstream_request_id"] or "")) for line in lines]
        for row in joined:
            self._booked(row, tolerance, unread)
        self._metrics(lines)
        self._store(timeout)
        self._fds(spare_fds, timeout)
        return joined

    def _stored(self) -> tuple[int, int, int]:
        """Return calls, prompt and completion tokens of this month in the store's own ledger."""
        reply = self.sidecar.ask("GET", "/admin/usage?by=team", key=OPS_KEY)
        assert reply.status == 200, reply
        total = reply.json()["total"]
        return total["calls"], total["prompt_tokens"], total["completion_tokens"]

    def _store(self, timeout: float) -> None:
        """Hold the store's rows against the lines of all calls since the ledger was opened; no hold may be open."""
        limit = time.monotonic() + timeout
        while True:
            # Calls refused before they were any (a bad key, a bad body) have a line, but no row.
            lines = [
                line
                for line in self.sidecar.calls()[self.skip :]
                if line["endpoint"] in ("chat", "completions", "embeddings")
            ]
            told = [sum(line.get(f"{kind}_tokens") or 0 for line in lines) for kind in ("prompt", "completion")]
            stored = [now - then for now, then in zip(self._stored(), self.rows, strict=True)]
            if stored[1:] == told and stored[0] <= len(lines):
                break
            assert time.monotonic() < limit, (
                f"the store grew by {stored} (calls, prompt, completion), the lines by {len(lines)}, {told}"
            )
            time.sleep(0.05)
        for row in self.sidecar.ask("GET", "/admin/quotas", key=OPS_KEY).json()["teams"]:
            assert not row["quota"] or row["quota"]["held_tokens"] == 0, f"an open hold: {row}"

    def _booked(self, row: Joined, tolerance: int, unread: int) -> None:
        line, call = row.line, row.call
        if call is None or call["status"] != 200:
            return
        prompt, completion = row.booked
        assert prompt >= 0 and completion >= 0, line
        claimed = call["usage"]
        if line["outcome"] == "completed" and not line["estimated"] and claimed and not line["retries"]:
            assert [prompt, completion] == claimed, (claimed, line)
        elif line["estimated"] and not line["retries"]:
            # A count is exact where the vocabulary is loaded, else a guess from the text's length: both are fair.
            guess = call["chars"] * 2 // 7 + (call["wide"] - call["chars"]) // 2 + 1
            low, high = sorted((call["tokens"], guess))
            assert low - unread - tolerance <= completion <= high + tolerance, (
                f"{call['tokens']} tokens ({call['chars']} characters) produced, {completion} booked: {line}"
            )
            assert prompt > 0, line

    def _metrics(self, lines: list[dict[str, Any]]) -> None:
        """Hold the counters against the lines of *all* calls since the ledger was opened."""
        every = self.sidecar.calls()[self.skip :]
        after = self.sidecar.metrics()

        def grown(name: str, **labels: str) -> float:
            return after.sum(name, **labels) - self.before.sum(name, **labels)

        if len(every) == len(lines):
            counted = grown("llm_requests_total")
            assert counted == len(lines), f"llm_requests_total grew by {counted}, {len(lines)} lines"
            for kind in ("prompt", "completion"):
                tokens = sum(line.get(f"{kind}_tokens") or 0 for line in lines)
                assert grown("llm_tokens_total", type=kind) == tokens, f"{kind} tokens: lines {tokens}"
        assert not grown("llm_finisher_errors_total"), "a finisher raised"
        assert not grown("llm_log_lines_dropped_total"), "log lines were dropped"

    def _fds(self, spare: int, timeout: float) -> None:
        limit = time.monotonic() + timeout
        while True:
            idle = self.sidecar.connected(self.upstream.port)
            now = self.sidecar.fds
            if now <= self.fds + idle + spare:
                return
            assert time.monotonic() < limit, (
                f"{now} file descriptors, {idle} of them idle upstream connections, {self.fds} others before"
            )
            time.sleep(0.05)
