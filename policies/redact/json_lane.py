"""The JSON text of a tool call's arguments on its way through the engine: escapes seen through, its structure kept."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

import orjson

from policies.redact.escapes import MARGIN
from policies.redact.lanes import CODEC, KEEP, Looks, PlainLane, Replace
from policies.redact.search import Finding, Trail

_PIECE: Final = re.compile(r'[^"\\]+|"|\\(?:u[0-9a-fA-F]{4}|[^u])', re.DOTALL)
#: The longest escape that may be cut: a surrogate pair, twelve characters.
_CUT: Final = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?$|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?$")
#: Characters of a piece at most: each finding looks through those that it touches.
_RUN: Final = 512
#: What JSON does not have outside of strings.
_STRAY: Final = re.compile(r"[^ \t\n\r{}\[\]:,0-9+.Eaeflnrstu-]")
#: An escaped quote stands for an apostrophe while we look: as a quote it would seem to end its string.
_ESCAPES: Final = {'"': "'", "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class Piece:
    """A run of JSON text. ``size``: UTF-8 bytes of what it means; ``inside`` a string, so that it may change."""

    __slots__ = ("inside", "plain", "raw", "size")

    def __init__(self, raw: str, size: int, inside: bool, plain: bool) -> None:
        self.raw = raw
        self.size = size
        self.inside = inside
        self.plain = plain


class JsonLane:
    """A lane for the JSON text of a tool call's arguments.

    Escapes are decoded before we look, names of members are context for their values, and only what stands
    inside strings is replaced, escaped again: JSON stays JSON. A text that does not begin like JSON is plain, and
    one that turns out to be none is replaced outside of strings, too, from the first character that says so.
    """

    __slots__ = (
        "_buffer",
        "_engine",
        "_inside",
        "_pending",
        "_pieces",
        "_plain",
        "_replace",
        "_start",
        "_stray",
        "_trail",
    )

    def __init__(self, engine: Looks, replace: Replace, trail: Trail | None = None) -> None:
        self._engine = engine
        self._replace = replace
        self._trail = Trail() if trail is None else trail
        self._buffer = b""
        self._start = 0
        #: From where on in the buffer the text is no JSON.
        self._stray: int | None = None
        self._pieces: list[Piece] = []
        self._inside = False
        self._pending = ""
        self._plain: PlainLane | bool | None = None

    def feed(self, text: str, final: bool = False) -> str:
        if self._plain is not False:
            if self._plain is None:
                text = self._pending + text
                first = text.lstrip()[:1]
                if not first and not final:
                    self._pending = text
                    return ""
                self._pending = ""
                self._plain = False if first in ("{", "[", '"') else PlainLane(self._engine, self._replace, self._trail)
            if isinstance(self._plain, PlainLane):
                return self._plain.feed(text, final)
        self._read(text, final)
        buffer, start = self._buffer, self._start
        decided, findings = self._engine.decide(buffer, start, final, self._trail)
        if decided == start and not final:
            return ""
        starts = list(accumulate((piece.size for piece in self._pieces), initial=start))
        out = self._emit(decided, self._words(findings, starts) if findings else [], starts)
        if decided > KEEP:
            self._buffer = buffer[decided - MARGIN :]
            self._trail.shift(decided - MARGIN)
            if self._stray is not None:
                self._stray -= decided - MARGIN
            decided = MARGIN
        self._start = decided
        return out

    def _read(self, text: str, final: bool) -> None:
        text = self._pending + text
        self._pending = ""
        if not final and "\\" in text[-12:]:
            at = max(0, len(text) - 12)
            while cut := _CUT.search(text, at):
                # `\\` before the cut makes its backslash an escaped one: count from the run's beginning.
                run = at = cut.start()
                while run > 0 and text[run - 1] == "\\":
                    run -= 1
                if (at - run) % 2 == 0:
                    self._pending = text[at:]
                    text = text[:at]
                    break
                at += 1
        meant: list[str] = []
        high: Piece | None = None
        at = 0
        for match in _PIECE.finditer(text):
            if match.start() > at:
                self._add(text[at : match.start()], meant)
            at = match.end()
            raw = match.group()
            if raw[0] == '"':
                self._pieces.append(Piece(raw, 1, False, False))
                meant.append(raw)
                self._inside = not self._inside
                high = None
            elif raw[0] == "\\" and (self._inside or self._stray is not None) and len(raw) > 1:
                high = self._escape(raw, meant, high)
            else:
                self._add(raw, meant)
                high = None
        if at < len(text):
            self._add(text[at:], meant)
        self._buffer += "".join(meant).encode(*CODEC)

    def _add(self, raw: str, meant: list[str]) -> None:
        meant.append(raw)
        if not self._inside and self._stray is None and (stray := _STRAY.search(raw)):
            at = stray.start()
            self._pieces.append(Piece(raw[:at], at, False, True))
            self._stray = self._start + sum(piece.size for piece in self._pieces)
            raw = raw[at:]
        inside = self._inside or self._stray is not None
        for at in range(0, len(raw), _RUN):
            run = raw[at : at + _RUN]
            self._pieces.append(Piece(run, len(run.encode(*CODEC)), inside, True))

    def _escape(self, raw: str, meant: list[str], high: Piece | None) -> Piece | None:
        if raw[1] != "u":
            char = _ESCAPES.get(raw[1], raw[1])
        else:
            code = int(raw.removeprefix("\\u"), 16)
            if high is not None and 0xDC00 <= code < 0xE000:
                first = int(high.raw.removeprefix("\\u"), 16)
                high.raw += raw
                meant[-1] = chr(0x10000 + (first - 0xD800 << 10) + code - 0xDC00)
                high.size = 4
                return None
            char = "\ufffd" if 0xD800 <= code < 0xE000 else "'" if code == 0x22 else chr(code)
            piece = Piece(raw, len(char.encode()), True, False)
            self._pieces.append(piece)
            meant.append(char)
            return piece if 0xD800 <= code < 0xDC00 else None
        self._pieces.append(Piece(raw, len(char.encode(*CODEC)), True, False))
        meant.append(char)
        return None

    def _words(self, findings: Sequence[Finding], starts: Sequence[int]) -> list[tuple[int, int, str]]:
        """Return what replaces which part of the buffer, for the findings that touch a string."""
        words = []
        for low, high, detector in findings:
            raw = "".join(
                part for part, inside, _ in self._parts(low, high, starts) if inside or self._gone(part, high)
            )
            if not raw:
                continue
            try:
                original = orjson.loads(f'"{raw}"')
            except orjson.JSONDecodeError:
                original = raw
            word = self._replace(detector, original)
            if word is not None:
                words.append((low, high, escape(word)))
        return words

    def _gone(self, part: str, high: int) -> bool:
        """Tell whether a part outside of strings goes, too, with a finding that ends at ``high``: never a quote."""
        return self._stray is not None and high > self._stray and part != '"'

    def _parts(self, low: int, high: int, starts: Sequence[int]) -> Iterator[tuple[str, bool, int]]:
        """Yield the raw text between two offsets of the buffer, piece by piece, with each part's offset.

        ``starts``: where each piece begins.
        """
        for n in range(max(0, bisect_right(starts, low) - 1), len(self._pieces)):
            piece, at = self._pieces[n], starts[n]
            if at >= high:
                return
            end = at + piece.size
            if end > low:
                if piece.plain and (at < low or end > high):
                    raw = piece.raw.encode(*CODEC)[max(0, low - at) : high - at].decode(*CODEC)
                    yield raw, piece.inside, max(at, low)
                else:
                    yield piece.raw, piece.inside, at

    def _emit(self, decided: int, words: list[tuple[int, int, str]], starts: Sequence[int]) -> str:
        out: list[str] = []
        at = self._start
        for low, high, word in words:
            out += (raw for raw, _, _ in self._parts(at, low, starts))
            put = False
            for raw, inside, _ in self._parts(low, high, starts):
                if not inside and not self._gone(raw, high):
                    out.append(raw)
                elif not put:
                    out.append(word)
                    put = True
            at = high
        out += (raw for raw, _, _ in self._parts(at, decided, starts))
        self._drop(decided)
        return "".join(out)

    def _drop(self, decided: int) -> None:
        """Forget the pieces before ``decided``."""
        at = self._start
        for i, piece in enumerate(self._pieces):
            end = at + piece.size
            if end > decided:
                if at < decided:
                    rest = piece.raw.encode(*CODEC)[decided - at :]
                    piece.raw = rest.decode(*CODEC)
                    piece.size = len(rest)
                del self._pieces[:i]
                return
            at = end
        self._pieces.clear()


def escape(text: str) -> str:
    """Return ``text`` as it stands inside a JSON string."""
    try:
        return orjson.dumps(text)[1:-1].decode()
    except orjson.JSONEncodeError:  # half a surrogate pair
        return "".join(c if not 0xD800 <= ord(c) < 0xE000 else f"\\u{ord(c):04x}" for c in text)
