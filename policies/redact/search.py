"""How one detector's candidates are found and confirmed, within a budget for those that come to nothing."""

from __future__ import annotations

from typing import Final, NamedTuple

from re2 import _re2

from policies.redact.detector import NEAR, Detector, Hit, Span

_ANYWHERE: Final = _re2.RE2.Anchor.UNANCHORED
_HERE: Final = _re2.RE2.Anchor.ANCHOR_START
_NOTHING: Final[list[Span]] = [(-1, -1)]
#: Bytes in which groups are found at once.
_SHORT: Final = 256
#: A text's budget for candidates that are turned down, in bytes: what it starts with, and the most it may save up.
FULL: Final = 1 << 18
#: The bytes of a longer candidate count, too, where no pattern bounds it.
_LONG: Final = 64
#: What is masked unchecked where the budget is spent, in bytes.
REGION: Final = 2_048


class Finding(NamedTuple):
    """A span of the text (UTF-8 offsets) that a detector claims."""

    start: int
    end: int
    detector: Detector


class Unasked(NamedTuple):
    """A candidate that was not checked, since another detector's finding probably takes its place."""

    start: int
    end: int
    detector: Detector
    spans: list[Span]

    def ask(self, text: bytes) -> Finding | None:
        """Check it after all."""
        check = self.detector.check
        hit = Hit(text, self.spans, self.detector.secret)
        verdict = True if check is None else check(hit)
        if verdict is False:
            return None
        return Finding(*(hit.secret if verdict is True else verdict), self.detector)


class Trail:
    """What is remembered of a growing text between two looks; offsets move along with the buffer.

    ``resume``: by detector, where its search goes on, behind a candidate that was turned down. ``levels``: by
    detector, what was left of its budget, and where in the whole text. ``base``: where the buffer begins in it.
    ``need``: how long the buffer must be before another look is worth it. ``refused``: None, or a list that takes
    note of each candidate that was turned down: its detector, where it began behind ``begins``, and what it cost.
    """

    __slots__ = ("base", "begins", "levels", "need", "refused", "resume")

    def __init__(self, levels: dict[str, tuple[int, int]] | None = None, base: int = 0) -> None:
        self.resume: dict[str, int] = {}
        self.levels: dict[str, tuple[int, int]] = {} if levels is None else levels
        self.base = base
        self.begins = base
        self.need = 0
        self.refused: list[tuple[str, int, int]] | None = None

    def shift(self, by: int) -> None:
        """Take note that ``by`` bytes were cut off the buffer's beginning."""
        self.base += by
        self.need -= by
        if self.resume:
            self.resume = {name: at - by for name, at in self.resume.items()}


class Look:
    """One look at a text: the candidates that were confirmed, those turned down, and what is masked unchecked.

    ``found``: where a match began, and what it claims. ``refused``: a match's beginning and end, the detector's
    name, its budget after it, and what it cost. ``unasked``: candidates that begin inside of what another detector found. ``held``:
    the text from there on waits for more.
    """

    __slots__ = ("final", "found", "held", "refused", "regions", "text", "trail", "unasked")

    def __init__(self, text: bytes, decided: int, final: bool, trail: Trail) -> None:
        self.text = text
        self.held = decided
        self.final = final
        self.trail = trail
        self.found: list[tuple[int, Finding]] = []
        self.refused: list[tuple[int, int, str, int, int, int]] = []
        self.regions: list[Finding] = []
        self.unasked: list[Unasked] = []

    def run(self, detector: Detector, at: int) -> None:
        """Find the candidates of one detector that begin before what is held.

        Whoever fills a text with what is nearly a secret makes us check each of them. Each one that is turned down
        costs ``detector.weight`` bytes and more of a budget that grows by a byte with each byte of text; where it is spent,
        the next :data:`REGION` bytes count as found, unchecked. It depends on the text alone, not on its cuts.
        """
        text, decided, found = self.text, self.held, self.found
        match, check, secret, name = detector.match, detector.check, detector.secret, detector.name
        weight, base, size = detector.weight, self.trail.base, len(text)
        level, last = self.trail.levels.get(name, (FULL, 0))
        after, until = detector.after, -1
        literal, back = detector.literal, detector.back
        covers = self._covers(detector) if detector.yields else None
        while at < decided:
            if literal:
                place = text.find(literal, at) - back
                if place < -back:
                    return
                if place > at:
                    at = _whole(text, place) if back else place
            if after is not None and at > until:
                word = after(_ANYWHERE, text, max(0, at - NEAR), size)[0][0]
                if word < 0:
                    return
                # Counted from where it begins: its end would depend on where we began to look for it.
                at, until = max(at, _begun(text, word)), word + NEAR
            spans = match(_ANYWHERE, text, at, size) if detector.bounded else _capped(detector, text, at)
            begin, end = spans[0]
            if begin < 0 or begin >= decided:
                return
            if after is not None and begin > until:
                at = begin
                continue
            if check is None:
                low, high = spans[secret] if spans[secret][0] >= 0 else spans[0]
                found.append((begin, Finding(low, high, detector)))
                at = high if high > begin else end
                continue
            if end >= size - 1 and not self.final:
                self.held = begin  # a check may look at two bytes behind its match
                return
            if covers:
                # Nearly always it would lose to the finding that it begins in: the engine asks where it does not.
                while covers and covers[-1][1] <= begin:
                    covers.pop()
                if covers and covers[-1][0] <= begin:
                    self.unasked.append(Unasked(begin, end, detector, spans))
                    at = end
                    continue
            if level + base + begin - last < 0:
                if (at := self._region(detector, begin)) < 0:
                    self.held = begin
                    return
                level, last = min(FULL, level + base + at - last), base + at
                self.refused.append((begin, at, name, level, last, 0))
                continue
            hit = Hit(text, spans, secret)
            verdict = check(hit)
            if verdict is False:
                cost = weight if detector.bounded or end - begin <= _LONG else weight + 4 * (end - begin)
                level, last = min(FULL, level + base + begin - last) - cost, base + begin
                self.refused.append((begin, end, name, level, last, cost))
                at = end
                continue
            low, high = hit.secret if verdict is True else verdict
            found.append((begin, Finding(low, high, detector)))
            at = high if high > begin else end

    def _covers(self, detector: Detector) -> list[tuple[int, int]]:
        """Return what detectors of higher priority found so far, the last in the text first."""
        spans = [(f.start, f.end) for _, f in self.found if f.detector.priority > detector.priority]
        spans.sort(reverse=True)
        return spans

    def _region(self, detector: Detector, begin: int) -> int:
        """Claim a region from ``begin`` on, up to the end of the first candidate beyond it; -1: it is not all there."""
        text, size = self.text, len(self.text)
        far = begin + REGION
        reach = detector.reach
        most = far + 2 * reach + 4
        if size < most and not self.final:
            self.trail.need = most
            return -1
        end = size
        if far < size:
            far = _whole(text, far)
            low, high = detector.scan(_ANYWHERE, text, far, min(size, most))[0]
            # Without one, the end of what may have begun before: nothing stands half in, half out.
            end = _whole(text, high if low >= 0 else min(size, far + reach))
        self.regions.append(Finding(begin, end, detector))
        return end


#: What words and keys consist of.
_RUN: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_/+~-"


def _begun(text: bytes, at: int) -> int:
    """Return where the run of letters, digits and what joins them begins that ``at`` is in."""
    least = max(0, at - 512)
    return least + len(text[least:at].rstrip(_RUN))


def _whole(text: bytes, at: int) -> int:
    """Return the next place from ``at`` on where a character begins."""
    while at < len(text) and text[at] & 0xC0 == 0x80:
        at += 1
    return at


def _capped(detector: Detector, text: bytes, at: int) -> list[Span]:
    """Return the first match of at most ``cap`` bytes; the work done grows with the text only."""
    scan, cap, longest, size = detector.scan, detector.cap, detector.longest, len(text)
    window = at
    while True:
        until = min(size, window + 2 * cap)
        begin, end = scan(_ANYWHERE, text, at, until)[0]
        if begin < 0 or begin > window + cap:
            if until == size and begin < 0:
                return _NOTHING
            window += cap
            at = max(at, window)
            continue
        last = _reached(text, begin, longest) if longest else min(size, begin + cap)
        if end <= last and (end < until or until == size):
            return _grouped(detector, text, begin, end)
        end = scan(_HERE, text, begin, last)[0][1]
        if end >= 0:
            return _grouped(detector, text, begin, end)
        at = begin + 1
        if detector.core is not None:
            # No match is without its core: what begins too far before the next one is no match.
            core = detector.core(_ANYWHERE, text, at, size)[0][0]
            if core < 0:
                return _NOTHING
            at = max(at, core - cap)
        at = _whole(text, at)
        window = max(window, at)


def _reached(text: bytes, at: int, longest: int) -> int:
    """Return the end of the ``longest`` characters from ``at`` on."""
    return at + len(text[at : at + 4 * longest].decode(errors="ignore")[:longest].encode())


def _grouped(detector: Detector, text: bytes, begin: int, end: int) -> list[Span]:
    """Return the groups of the match that is known to lie there; RE2 takes long over those of a long text."""
    if detector.scan is detector.match:
        return [(begin, end)]
    short = begin + _SHORT
    spans: list[Span]
    if end > short:
        spans = detector.match(_HERE, text, begin, short)
        if spans[0][1] == short == spans[-1][1]:
            # It ends with a run in its last group, which goes on.
            return [(low, end if high == short else high) for low, high in spans]
    spans = detector.match(_HERE, text, begin, end)
    return spans
