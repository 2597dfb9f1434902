"""Finds what detectors look for, in a whole text or in a text that is still growing.

All patterns match the original text. :mod:`policies.redact.sieve` says which patterns can occur at all; those run singly.
Overlaps are settled once. How far a growing text is decided is :mod:`policies.redact.front`'s to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, itemgetter
from typing import Final

from policies.redact.alphabet import LOUD
from policies.redact.detector import Detector
from policies.redact.escapes import BACKSLASH, ESCAPE, MARGIN, unescaped
from policies.redact.front import SHORT, Front
from policies.redact.search import Finding, Look, Trail, Unasked
from policies.redact.sieve import Sieve
from policies.redact.slashes import ESCAPED, without

_START: Final = itemgetter(0)


class DetectorFailed(Exception):
    """A detector's check raised; ``args[0]`` is the detector's name."""


class Engine:
    """A set of detectors, compiled together. Immutable and shared by all calls."""

    __slots__ = ("_quiet", "_sieve", "detectors", "front")

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self.detectors = tuple(sorted(detectors, key=attrgetter("yields")))
        self._sieve = Sieve(self.detectors)
        self.front = Front(self.detectors)
        self._quiet = self.front.quiet

    def decide(self, text: bytes, start: int, final: bool, trail: Trail | None = None) -> tuple[int, Sequence[Finding]]:
        """Return how far ``text`` is decided, from ``start`` on, and the findings up to there.

        ``text`` holds at least :data:`CONTEXT` bytes before ``start`` where there were any. ``final``: nothing
        follows. ``trail`` is kept by the caller from one call to the next and moved along with ``text``. Raise
        :class:`DetectorFailed` if a check fails.
        """
        if BACKSLASH in text or ESCAPE in text:
            text = unescaped(text, start - MARGIN, final)
            if ESCAPED in text:
                return without(self._decide, text, start, final, trail)
        return self._decide(text, start, final, trail)

    def _decide(self, text: bytes, start: int, final: bool, trail: Trail | None) -> tuple[int, Sequence[Finding]]:
        size = len(text)
        decided = size
        if not final:
            if trail is not None and size < trail.need:
                return start, ()
            decided = self.front.decided(text, start, size)
            if decided <= start:
                return start, ()
        if self._quiet and size - start < SHORT and LOUD.search(text, start) is None:
            return decided, ()
        places = self._sieve.pass_on(text, start, size)
        if not places:
            return decided, ()
        look = Look(text, decided, final, trail or Trail())
        self._candidates(look, start, places)
        decided, findings = self._settle(look)
        if trail is not None:
            # Turned down candidates are not looked into: not even when the text is cut inside them.
            kept = {name: at for name, at in trail.resume.items() if at > decided}
            for begin, end, name, level, last, cost in look.refused:
                if begin < decided:
                    trail.levels[name] = level, last
                    if trail.refused is not None:
                        trail.refused.append((name, last - trail.begins, cost))
                    if decided < end:
                        kept[name] = end
            trail.resume = kept
        return decided, findings

    def _candidates(self, look: Look, start: int, places: Sequence[int]) -> None:
        resume = look.trail.resume
        for place in places:
            detector = self.detectors[place]
            try:
                look.run(detector, max(start, resume.get(detector.name, 0)) if resume else start)
            except Exception as error:
                raise DetectorFailed(detector.name) from error

    def _settle(self, look: Look) -> tuple[int, Sequence[Finding]]:
        decided = look.held
        if not (look.found or look.regions or look.unasked):
            return decided, ()
        if not look.final or decided < len(look.text):
            candidates: list[tuple[int, Finding | Unasked]] = [
                *look.found,
                *((region.start, region) for region in look.regions),
                *((one.start, one) for one in look.unasked),
            ]
            candidates.sort(reverse=True, key=_START)
            for start, finding in candidates:  # the decided part must not end inside a candidate
                if start < decided < finding.end:
                    decided = start
        accepted = [finding for start, finding in look.found if start < decided]
        if look.unasked:
            findings = _asked([one for one in look.unasked if one.start < decided], accepted, look.text)
        else:
            findings = _resolved(accepted)
        regions = [region for region in look.regions if region.start < decided]
        if regions:
            findings = _around(sorted(regions, key=_START), findings)
        return decided, findings


def _resolved(accepted: list[Finding]) -> list[Finding]:
    """Return the winners among all findings, in the text's order."""
    findings: list[Finding] = []
    cluster: list[Finding] = []
    reach = 0
    for finding in sorted(accepted, key=_START):
        if finding.start < reach:
            # It overlaps the one before, or what that overlaps.
            if not cluster:
                cluster.append(findings.pop())
            cluster.append(finding)
            if finding.end > reach:
                reach = finding.end
            continue
        if cluster:
            _resolve(cluster, findings)
            cluster = []
        findings.append(finding)
        reach = finding.end
    if cluster:
        _resolve(cluster, findings)
    return findings


def _resolve(cluster: list[Finding], findings: list[Finding]) -> None:
    """Append the winners among overlapping findings, in the text's order."""
    cluster.sort(key=lambda f: (-f.detector.priority, f.start - f.end, f.start))
    winners: list[Finding] = []
    for finding in cluster:
        if all(finding.start >= w.end or finding.end <= w.start for w in winners):
            winners.append(finding)
    winners.sort(key=_START)
    findings.extend(winners)


def _asked(candidates: list[Unasked], accepted: list[Finding], text: bytes) -> list[Finding]:
    """Return what is found in all, now that those are asked which nothing of a higher priority masks after all.

    What covered them lost itself. One priority after the other, the highest first: whom a candidate meets has been
    settled by then, however many detectors yield.
    """
    findings = _resolved(accepted)
    for priority in sorted({one.detector.priority for one in candidates}, reverse=True):
        stronger = [finding for finding in findings if finding.detector.priority > priority]
        added: list[Finding] = []
        at, count = 0, len(stronger)
        for one in sorted((c for c in candidates if c.detector.priority == priority), key=_START):
            while at < count and stronger[at].end <= one.start:
                at += 1
            if at < count and stronger[at].start < one.end:
                continue
            try:
                finding = one.ask(text)
            except Exception as error:
                raise DetectorFailed(one.detector.name) from error
            if finding is not None:
                added.append(finding)
        if added:
            accepted = accepted + added
            findings = _resolved(accepted)
    return findings


def _around(regions: list[Finding], findings: list[Finding]) -> list[Finding]:
    """Add what regions leave of themselves between findings: none of them may uncover the rest. One pass."""
    kept: list[Finding] = []
    at = seen = 0
    for region in regions:
        at = max(at, region.start)
        while seen < len(findings) and findings[seen].start < region.end:
            finding = findings[seen]
            if finding.start > at:
                kept.append(Finding(at, finding.start, region.detector))
            kept.append(finding)
            at = max(at, finding.end)
            seen += 1
        if at < region.end:
            kept.append(Finding(at, region.end, region.detector))
            at = region.end
    return kept + findings[seen:]
