"""Line breaks, letters and colours that are written as escapes: JSON, source code and terminals in the midst of a text.

In ``"see:\\nAKIA…"`` the key begins a line, but for RE2 it continues the word ``nAKIA…``. So we look at a text in
which every escape gives way to as many bytes of what it stands for: all offsets stay what they were.
"""

from __future__ import annotations

import re
from typing import Final

from policies.redact.detector import CONTEXT

#: What stands for a line break or a tabulator: white space that ends a word, and no quoted value.
_BREAK: Final = b"\f"
_SIMPLE: Final = tuple(b"\\" + letter for letter in (b"n", b"t", b"r"))
_COLOUR: Final = rb"\[[0-9;]{0,16}[A-Za-z]"
_CONTROL: Final = rb"(?:e|x1[bB]|033|u001[bB])"
#: Where JSON stands in JSON, backslashes double: so many may precede an escape's own.
_DOUBLED: Final = 7
_SLASHES: Final = rb"\\{1,8}+"
_ESCAPE: Final = re.compile(
    _SLASHES + rb"(?:" + _CONTROL + _COLOUR + rb"|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})|\x1b" + _COLOUR
)
#: What all of these but the last have, in one quick look.
_OTHER: Final = re.compile(rb"\\(?:[ux][0-9a-fA-F]{2}|e\[|033\[)").search
#: Letters beyond ASCII, most of them: not what is punctuation, half of a pair, or white space.
_LETTER: Final = re.compile(rb"\\u(?!00[0-9abABdD]|20|30[0-3]|[dD][89a-fA-F]|[eEfF])[0-9a-fA-F]{4}")
#: An escape whose end may still come; the longest has 31 bytes.
_BEGUN: Final = re.compile(
    rb"(?:" + _SLASHES + rb"(?:u[0-9a-fA-F]{0,3}|x[0-9a-fA-F]?|03?|" + _CONTROL + rb"(?:\[[0-9;]{0,16})?)?"
    rb"|\x1b(?:\[[0-9;]{0,16})?)\Z"
)
_LONGEST: Final = 32
#: Bytes before a place that say what is seen from it: the context, and what may be the rest of an escape before that.
#: Twice the context, for slashes may be escaped, too, and those backslashes do not count.
MARGIN: Final = 2 * CONTEXT + _LONGEST
#: Where neither of these bytes is, there is nothing to do.
BACKSLASH: Final = 0x5C
ESCAPE: Final = 0x1B
_KNOWN: Final = 4_096


def unescaped(text: bytes, start: int, final: bool) -> bytes:
    """Return ``text`` with the escapes from ``start`` on replaced, each by as many bytes; none that is begun at its end.

    ``final``: nothing follows.
    """
    if not final and (begun := _BEGUN.search(text, max(start, len(text) - _LONGEST))):
        text = text[: begun.start()]
    if start <= 0:
        return _replaced(text)
    return text[:start] + _replaced(text[start:])


def _replaced(text: bytes) -> bytes:
    # No loop in Python over what there are many of: line breaks and letters.
    for simple in _SIMPLE:
        text = text.replace(simple, _BREAK * 2)
    for _ in range(_DOUBLED):
        if b"\\" + _BREAK not in text:
            break
        text = text.replace(b"\\" + _BREAK, _BREAK * 2)
    if ESCAPE in text or _OTHER(text):
        if b"\\\\" not in text:
            text = _LETTER.sub(b"\xc3\xa9\xc3\xa9\xc3\xa9", text)
        return _ESCAPE.sub(_meant, text)
    return text


class _Meanings(dict[bytes, bytes]):
    """What stands in for each escape that was seen."""

    def __missing__(self, escape: bytes) -> bytes:
        if len(self) > _KNOWN:
            self.clear()
        meant = self[escape] = _stand_in(escape)
        return meant


_MEANINGS: Final = _Meanings()


def _meant(match: re.Match[bytes]) -> bytes:
    return _MEANINGS[match[0]]


def _stand_in(escape: bytes) -> bytes:
    """Return as many bytes as ``escape`` has: of the character that it stands for, where that fits."""
    size = len(escape)
    rest = escape.lstrip(b"\\")
    if rest[:1] not in (b"u", b"x") or b"[" in rest:
        return _BREAK * size
    code = int(rest[1:], 16)
    if code < 0x21 or 0x7F <= code <= 0xA0:
        return _BREAK * size
    char = "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)
    if code >= 0x7F:
        letter = _LETTER.match(b"\\u%04x" % code) is not None
        raw = b"\xc3\xa9" if letter else char.encode()
        return (raw * (size // len(raw))).rjust(size, b"a" if letter else _BREAK)
    if char == "@":  # one only, behind what may belong to a name
        return b"@".rjust(size, b"a")
    return escape if char.isalnum() or char in "\"'\\" else char.encode() * size
