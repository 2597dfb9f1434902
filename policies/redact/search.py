"""How one detector's candidates are found and confirmed."""

from __future__ import annotations

from typing import Final, NamedTuple

from re2 import _re2

from policies.redact.detector import Detector, Hit, Span

_ANYWHERE: Final = _re2.RE2.Anchor.UNANCHORED
_HERE: Final = _re2.RE2.Anchor.ANCHOR_START
_NOTHING: Final[list[Span]] = [(-1, -1)]


class Finding(NamedTuple):
    """A span of the text (UTF-8 offsets) that a detector claims."""

    start: int
    end: int
    detector: Detector


#: A candidate that was confirmed: where its match began, and what it claims.
Candidate = tuple[int, Finding]
#: A candidate that was turned down: its match's beginning and end, and the detector's name.
Refused = tuple[int, int, str]


def run(detector: Detector, text: bytes, at: int, decided: int, found: list[Candidate], refused: list[Refused]) -> None:
    """Append the candidates of one detector that begin before ``decided``, and those that were turned down."""
    match = detector.match
    check = detector.check
    secret = detector.secret
    size = len(text)
    while at < decided:
        if detector.lead:
            spans = _anchored(detector, text, at)
        else:
            spans = match(_ANYWHERE, text, at, size) if detector.bounded else _capped(detector, text, at)
        begin, end = spans[0]
        if begin < 0 or begin >= decided:
            return
        hit = Hit(text, spans, secret)
        verdict = True if check is None else check(hit)
        if verdict is False:
            refused.append((begin, end, detector.name))
            at = end
            continue
        low, high = hit.secret if verdict is True else verdict
        found.append((begin, Finding(low, high, detector)))
        at = high if high > begin else end


def _anchored(detector: Detector, text: bytes, at: int) -> list[Span]:
    """Return the first match of a detector whose matches all hold its hint, looking only where that stands."""
    match, find, lead, size = detector.match, detector.find, detector.lead, len(text)
    place = find(_ANYWHERE, text, at, size)[0][0]
    while place >= 0:
        spans: list[Span] = match(_ANYWHERE, text, max(at, place - lead), min(size, place + detector.reach))
        if 0 <= spans[0][0] <= place:
            return spans
        place = find(_ANYWHERE, text, place + 1, size)[0][0]
    return _NOTHING


def _capped(detector: Detector, text: bytes, at: int) -> list[Span]:
    """Return the first match of at most ``cap`` bytes; the work done grows with the text only."""
    match, cap, size = detector.match, detector.cap, len(text)
    window = at
    while True:
        until = min(size, window + 2 * cap)
        spans: list[Span] = match(_ANYWHERE, text, at, until)
        begin, end = spans[0]
        if begin < 0 or begin > window + cap:
            if until == size and begin < 0:
                return spans
            window += cap
            at = max(at, window)
            continue
        if end - begin <= cap and (end < until or until == size):
            return spans
        spans = match(_HERE, text, begin, min(size, begin + cap))
        if spans[0][0] >= 0:
            return spans
        at = begin + 1
        while at < size and text[at] & 0xC0 == 0x80:
            at += 1
        window = max(window, at)
