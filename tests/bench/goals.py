"""The goals that the issues set, and whether this run reached them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.bench.measure import Result


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal. ``value`` is None where this run did not measure it."""

    text: str
    bound: float
    value: float | None
    unit: str
    more: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        return "reached" if self.value <= self.bound else "missed"


@dataclass(slots=True)
class Facts:
    """What is measured outside the scenarios."""

    start: list[float] = field(default_factory=list)
    """Seconds from exec to the first 200 of /healthz, one a start."""
    rss: dict[str, int] = field(default_factory=dict)
    """Bytes after all load, by contestant."""
    round_trips: dict[str, dict[str, float]] = field(default_factory=dict)
    """Commands to Redis for one call, by variant and script."""
    findings: dict[str, float] = field(default_factory=dict)
    """What redaction found in one call, by lane."""
    absent: dict[str, str] = field(default_factory=dict)
    """Contestants that could not take part, and why."""

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def judge(results: Mapping[str, Result], facts: Facts) -> list[Goal]:
    """Return every goal with what this run says about it."""
    return [
        *_bare(results),
        _goal("added p50 at one connection", 0.3, _added_p50(results), "ms"),
        _goal("memory of the bare sidecar after the load", 80, _mb(facts), "MB"),
        _goal("from start to serving", 1.0, statistics.median(facts.start) if facts.start else None, "s"),
        *_policies(results, facts),
    ]


def _goal(text: str, bound: float, value: float | None, unit: str, more: str = "") -> Goal:
    return Goal(text, bound, value, unit, more)


def _bare(results: Mapping[str, Result]) -> list[Goal]:
    goals = []
    for name in ("whole16", "whole64"):
        for peer, bound in (("rolter", 1.0), ("tensorzero", 0.5), ("ferrogw", 0.5)):
            ratio = _ratio(results, name, "sidecar", peer)
            goals.append(_goal(f"CPU a call ÷ {peer}'s ({name[5:]} connections)", bound, ratio, "×"))
    ratio = _ratio(results, "stream", "sidecar", "rolter")
    more = f"{ratio:.2f} × rolter's" if ratio is not None else ""
    goals.append(_goal("CPU a streamed chunk", 26, _median(results, "stream", "sidecar"), "µs", more))
    return goals


def _policies(results: Mapping[str, Result], facts: Facts) -> list[Goal]:
    whole, stream, redact = "policies", "policy-streams", "redact"
    trips = facts.round_trips.get("limits-redis", {})
    says = ", ".join(f"{name} {count:.2f}" for name, count in sorted(trips.items()))
    goals = [
        _goal("rate_limit and quota in memory, more a call", 30, _more(results, whole, "limits"), "µs"),
        _goal("rate_limit and quota in Redis, more a call", 100, _more(results, whole, "limits-redis"), "µs"),
        _goal("round trips to Redis for an admission", 1.005, trips.get("admit"), "", says),
    ]
    for vendor in ("anthropic", "gemini"):
        goals.append(_goal(f"translation to {vendor}, more a whole reply", 60, _more(results, whole, vendor), "µs"))
        goals.append(_goal(f"translation to {vendor}, more a chunk", 6, _more(results, stream, vendor), "µs"))
    clean, ten = (f"finds {facts.findings[name]:g}" if name in facts.findings else "" for name in ("clean", "ten"))
    lines = _more(results, "lines", "redact")
    goals += [
        _goal("redact on 4 KB without findings, more a call", 40, _more(results, redact, "redact clean", "sidecar clean"),
              "µs", clean),
        _goal("redact on 4 KB with ten findings, more a call", 200, _more(results, redact, "redact ten", "sidecar ten"),
              "µs", ten),
        _goal("redact on a stream without findings, more a chunk", 3, _more(results, stream, "redact"), "µs"),
        _goal("redact on 1,000 lines with a key and an address", 50, lines / 1000 if lines is not None else None, "ms"),
        _goal("a cache hit from memory, a call", 70, _median(results, whole, "cache hit"), "µs"),
        _goal("a cache miss, more a call", 15, _more(results, whole, "cache miss", "fresh"), "µs"),
    ]  # fmt: skip
    hit = facts.round_trips.get("cache-redis", {})
    says = ", ".join(f"{name} {count:.2f}" for name, count in sorted(hit.items()))
    goals.append(_goal("round trips to Redis for a cache hit", 1.005, sum(hit.values()) if hit else None, "", says))
    return goals


def _median(results: Mapping[str, Result], name: str, lane: str) -> float | None:
    values = results[name].cpu(lane) if name in results else []
    return statistics.median(values) if values else None


def _more(results: Mapping[str, Result], name: str, lane: str, base: str = "sidecar") -> float | None:
    return results[name].more(lane, base, lambda sample: sample.cpu_us) if name in results else None


def _ratio(results: Mapping[str, Result], name: str, lane: str, base: str) -> float | None:
    return results[name].ratio(lane, base) if name in results else None


def _added_p50(results: Mapping[str, Result]) -> float | None:
    if "latency" not in results:
        return None
    more = results["latency"].more("sidecar", "upstream", lambda sample: sample.p50)
    return more / 1000 if more is not None else None


def _mb(facts: Facts) -> float | None:
    return facts.rss["sidecar"] / 1e6 if "sidecar" in facts.rss else None
