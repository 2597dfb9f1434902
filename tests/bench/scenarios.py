"""What is measured: each scenario has lanes (who, with which request), run in turn, round by round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench import calls
from tests.bench.contestant import Contestant

CHUNKS: Final = 100
VENDORS: Final = {"anthropic": "anthropic/claude-sonnet-4-5", "gemini": "gemini/gemini-2.5-flash"}


@dataclass(frozen=True, slots=True)
class Lane:
    """One contestant with one request. ``upstream``: how many calls reach the provider for one of the callers'."""

    name: str
    who: Contestant
    request: Path
    upstream: float = 1


@dataclass(frozen=True, slots=True)
class Scenario:
    """``unit`` is what the CPU is divided by: `call` or `chunk`. ``base`` is the lane that others are compared with."""

    name: str
    title: str
    lanes: tuple[Lane, ...]
    connections: int
    unit: str = "call"
    base: str = "sidecar"
    pace: int | None = None
    """Microseconds between the chunks of a stream; None where there are no streams."""


def build(who: Mapping[str, Contestant], folder: Path, pace: int) -> list[Scenario]:
    """Return the scenarios for the contestants that run; lanes whose contestant is missing are left out."""
    rivals = [one for name, one in who.items() if name in ("upstream", "sidecar") or one.facts.get("peer")]
    whole = tuple(Lane(one.name, one, one.request(folder, "whole")) for one in rivals)
    stream = tuple(Lane(one.name, one, one.request(folder, "stream", stream=True)) for one in rivals)
    found = [
        Scenario("whole16", "whole replies, 1 KB bodies, 16 connections", whole, 16),
        Scenario("whole64", "whole replies, 1 KB bodies, 64 connections", whole, 64),
        Scenario(
            "stream",
            f"64 streams of {CHUNKS} chunks, one every {pace / 1000:g} ms each",
            stream,
            64,
            "chunk",
            pace=pace,
        ),
        Scenario("flood", f"16 streams of {CHUNKS} chunks, as fast as they are taken", stream, 16, "chunk", pace=0),
        Scenario("latency", "one connection, 1 KB bodies", whole, 1),
        _policies(who, folder),
        _policy_streams(who, folder, pace),
        _redaction(who, folder),
        _lines(who, folder),
    ]
    return [one for one in found if len(one.lanes) > (1 if "sidecar" in who else 0)]


def _lane(
    who: Mapping[str, Contestant], folder: Path, name: str, contestant: str, label: str, *, upstream: float = 1,
    model: str | None = None, prompt: str | None = None, stream: bool = False, serial: bool = False,
) -> tuple[Lane, ...]:  # fmt: skip
    one = who.get(contestant)
    if one is None:
        return ()
    return (
        Lane(name, one, one.request(folder, label, model=model, prompt=prompt, stream=stream, serial=serial), upstream),
    )


def _policies(who: Mapping[str, Contestant], folder: Path) -> Scenario:
    lanes = _lane(who, folder, "sidecar", "sidecar", "whole")
    for variant in ("limits", "limits-redis", "redact"):
        lanes += _lane(who, folder, variant, variant, "whole")
    for name, model in VENDORS.items():
        lanes += _lane(who, folder, name, "sidecar", name, model=model)
    lanes += _lane(who, folder, "fresh", "sidecar", "fresh", serial=True)
    for variant in ("cache", "cache-redis"):
        lanes += _lane(who, folder, f"{variant} miss", variant, "fresh", serial=True)
        lanes += _lane(who, folder, f"{variant} hit", variant, "whole", upstream=0)
    return Scenario(
        "policies", "whole replies, 1 KB bodies, 64 connections, what policies and translation add", lanes, 64
    )


def _policy_streams(who: Mapping[str, Contestant], folder: Path, pace: int) -> Scenario:
    lanes = _lane(who, folder, "sidecar", "sidecar", "stream", stream=True)
    for variant in ("limits", "redact"):
        lanes += _lane(who, folder, variant, variant, "stream", stream=True)
    for name, model in VENDORS.items():
        lanes += _lane(who, folder, name, "sidecar", f"{name}-stream", model=model, stream=True)
    title = f"64 streams of {CHUNKS} chunks, one every {pace / 1000:g} ms each, what policies and translation add"
    return Scenario("policy-streams", title, lanes, 64, "chunk", pace=pace)


def _redaction(who: Mapping[str, Contestant], folder: Path) -> Scenario:
    # Each clean one is another, for redaction knows what it looked at before and found nothing in.
    clean, telling = calls.plain(4096, serial=True), calls.telling(4096, 10)
    lanes: tuple[Lane, ...] = ()
    for variant in ("sidecar", "redact"):
        lanes += _lane(who, folder, f"{variant} clean", variant, "4k", prompt=clean)
        lanes += _lane(who, folder, f"{variant} ten", variant, "4k-ten", prompt=telling)
    lanes += _lane(who, folder, "redact again", "redact", "4k-again", prompt=calls.plain(4096))
    title = "4 KB prompts without anything to find, with ten findings, and a clean one again and again, 16 connections"
    return Scenario("redact", title, lanes, 16, base="sidecar clean")


def _lines(who: Mapping[str, Contestant], folder: Path) -> Scenario:
    lanes: tuple[Lane, ...] = ()
    for variant in ("sidecar", "redact"):
        lanes += _lane(who, folder, variant, variant, "lines", prompt=calls.lines(1000))
    return Scenario("lines", "1,000 lines with a key and a mail address each, one connection", lanes, 1)
