"""Redaction of a whole text, for tools that have no call: the corpora's score, explain, scripts."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from policies.redact.detector import Detector
from policies.redact.engine import Engine
from policies.redact.groups import BY_NAME, GROUPS
from policies.redact.search import Finding

ALL: tuple[str, ...] = ("secrets", "pii", "network", "project")


def builtin(names: Iterable[str]) -> list[Detector]:
    """Return the built-in detectors of these groups and single names, each once; raise KeyError for another."""
    found: dict[str, Detector] = {}
    for name in names:
        for detector in GROUPS[name] if name in GROUPS else (BY_NAME[name],):
            found[detector.name] = detector
    return list(found.values())


@lru_cache(maxsize=16)
def engine_for(names: tuple[str, ...]) -> Engine:
    """Return the engine of these built-in groups and names; built once each."""
    return Engine(builtin(names))


def find(text: str, names: Iterable[str] = ALL) -> list[tuple[str, int, int]]:
    """Return what is found in ``text``: detector, start and end in characters."""
    raw = text.encode("utf-8", "surrogatepass")
    return [
        (f.detector.name, len(raw[: f.start].decode("utf-8", "surrogatepass")),
         len(raw[: f.end].decode("utf-8", "surrogatepass")))
        for f in engine_for(tuple(names)).decide(raw, 0, True)[1]
    ]  # fmt: skip


def redact_text(text: str, builtin: Iterable[str] = ALL) -> str:
    """Return ``text`` with every finding replaced by its detector's word."""
    raw = text.encode("utf-8", "surrogatepass")
    findings = engine_for(tuple(builtin)).decide(raw, 0, True)[1]
    return substitute(raw, findings) if findings else text


def substitute(raw: bytes, findings: Iterable[Finding]) -> str:
    """Return ``raw`` as text with each finding replaced by its detector's word: one pass."""
    parts: list[bytes] = []
    at = 0
    for start, end, detector in findings:
        parts += (raw[at:start], detector.replacement.encode())
        at = end
    parts.append(raw[at:])
    return b"".join(parts).decode("utf-8", "surrogatepass")
