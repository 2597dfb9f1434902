"""Hostile texts: for each detector, what nearly is what it looks for, made from its own pattern.

From the tree of a pattern we draw random texts that match it; those that the detector's check turns down are the
best near misses there are. The rest is made by cutting, doubling and changing them. Every repetition is drawn anew,
so that no memory of candidates seen before can hide what one costs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from re2 import _re2

from policies.redact.alphabet import characters
from policies.redact.atoms import Assertion, Atom, Node
from policies.redact.detector import Detector, Hit
from policies.redact.nodes import INFINITY, Choice, Flags, Repeat, Sequence

#: What makes patterns try again and again: beginnings without ends, runs without bounds.
GENERIC: Final = (
    "a", "A", "1", "0", "-", "a@", "a@b.", "@b.", "a.", "eyJ", "token", "-----BEGIN ", "-----BEGIN PRIVATE", "0f", "aB3", " ",
    '"', "/", "//", "http://", "bearer ", "+1(", "{[", "sk-", "é", "\n", "_", 'key = "', "AKIA", "bc1q", "://", "ghp_", "%",
    "a=", "@", "[", "(0", "\\u", "\\", "\\\"", "中", "中 ", "中@", "😀", "user@", "a:b@", "://a:b", "x\n", "a1 ", "aaaaaaaaaaaaaaa ",
    "1.1.", "::", "a:", "1-", "1 ", "key:", "pass: x y ", "token=str ", "000-00-0000 ", "a@b.js ", "password=x ", "key=", "<a>",
    "${x}", "x x=", "secret: ", "'token', ", '"password": "', "ab-cd-", "0123456789abcdef ", "Password is ", "--token ",
    "4111111111111112 ", "DE89370400440532013001 ", "1.1.1.999 ", "password = get_password()\n", "api_key: str\n",
    "2024-01-02T03:04:05Z,", "api_key=self.api_key\n", "sha256:e3b0c44298fc1c149afbf4c8996fb924 ",
)  # fmt: skip
_ANYWHERE: Final = _re2.RE2.Anchor.UNANCHORED
_GAPS: Final = (" ", "\n", ", ", "", ";", '"')
_WORDS: Final = ("token ", "key: ", "call ", "tel ", "password: ", "ssn ")


@lru_cache(maxsize=4_096)
def _alphabet(raw: str) -> tuple[str, ...]:
    found = [chr(byte) for byte in characters(raw) if byte < 128 and (byte >= 32 or byte == 10)]
    return tuple(found) or (raw[-1:],)


def drawn(node: Node, rng: random.Random, most: int, fold: bool = False) -> str:
    """Return a random text of the pattern, runs without a need kept below ``most`` characters beyond their least."""
    match node:
        case Assertion():
            return ""
        case Atom():
            char = rng.choice(_alphabet(node.raw))
            return rng.choice((char.lower(), char.upper())) if fold else char
        case Sequence():
            return "".join(drawn(part, rng, most, fold) for part in node.parts)
        case Choice():
            return drawn(rng.choice(node.options), rng, most, fold)
        case Flags():
            return drawn(node.node, rng, most, fold or "i" in node.flags.partition("-")[0])
        case Repeat():
            high = min(node.high if node.high < INFINITY else node.low + most, node.low + most)
            return "".join(drawn(node.node, rng, most, fold) for _ in range(rng.randint(node.low, high)))
    raise TypeError(node)


def refused(detector: Detector, text: str) -> bool:
    """Tell whether the detector's pattern matches ``text`` somewhere, and its check turns that down."""
    if detector.check is None:
        return False
    raw = text.encode()
    spans = detector.match(_ANYWHERE, raw, 0, len(raw))
    return spans[0][0] >= 0 and detector.check(Hit(raw, spans, detector.secret)) is False


class Attack:
    """A way to fill a text: ``unit(rng)`` gives its next piece."""

    def __init__(self, name: str, pieces: list[str]) -> None:
        self.name = name
        self.pieces = pieces

    def text(self, size: int) -> bytes:
        """Return ``size`` bytes, about."""
        blob = "".join(self.pieces).encode()
        return (blob * (size // max(1, len(blob)) + 1))[:size]


def attacks(detector: Detector, seed: int = 1, count: int = 4_000, quick: bool = False) -> Iterator[Attack]:
    """Yield the attacks on one detector: its near misses in several densities; ``quick``: a few of them."""
    rng = random.Random(f"{detector.name}{seed}")
    for most, tag in ((0, "short"), (3, "varied"), (24, "long"))[: 1 if quick else 3]:
        near = _near(detector, rng, most, count)
        for gap in _GAPS if most == 0 and not quick else (" ", "\n"):
            if near:
                yield Attack(f"{tag} refused {gap!r}", [text + gap for text in near])
        if near and most < 24:
            word = rng.choice(_WORDS)
            yield Attack(f"{tag} refused after {word!r}", [word + text + " " for text in near])
        whole = [drawn(detector.node, rng, most) for _ in range(min(count, 400))]
        yield Attack(f"{tag} cut", [text[:-1] + " " for text in whole])
        yield Attack(f"{tag} cut, glued", [text[:-1] for text in whole])
        yield Attack(f"{tag} beginning", [text[: max(2, len(text) // 2)] + " " for text in whole])
        yield Attack(f"{tag} half, glued", [text[: max(2, len(text) // 2)] for text in whole])
        yield Attack(f"{tag} swapped", [_swap(text, rng) + " " for text in whole])


def _swap(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text))
    return text[:at] + rng.choice("0a-. _Z") + text[at + 1 :]


def _near(detector: Detector, rng: random.Random, most: int, count: int) -> list[str]:
    """Return random texts that match the pattern and that the check turns down."""
    found: list[str] = []
    if detector.check is None:
        return found
    for i in range(count * 3):
        text = drawn(detector.node, rng, most)
        if refused(detector, text):
            found.append(text)
        if len(found) >= count or (i > 300 and len(found) < i // 40):
            break
    return found
