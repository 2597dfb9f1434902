"""Whatever pattern a house writes, a stream gives what the whole text gives."""

from __future__ import annotations

import random
from typing import Any

import pytest
import re2

from policies.redact.config import Pattern
from policies.redact.detector import Detector
from policies.redact.engine import Engine
from tests.redact.helpers import cut, through

_ATOMS = (
    "a", "b", "k", "é", "字", " ", "[ab]", "[^a]", r"[^b\n]", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"\.", ".", "(?s:.)", r"\x41",
    r"\x{5b57}", "[[:alpha:]]", "[[:^digit:]]", r"\pL", r"\PL", r"\p{Greek}", r"\p{^Lu}", r"\Qa.\E", "[]a]", "[^\\x00-\\x7f]", "(?i:K)",
    "^", "$", r"\b", r"\B", r"\A", r"\z", "(?m:^)", "(?m:$)",
)  # fmt: skip
_FLAGS = ("(?i)", "(?s)", "(?m)", "(?U)", "(?-i)", "(?i-s)")
_COUNTS = ("*", "+", "?", "{0}", "{2}", "{0,2}", "{2,}", "{9,}", "{3,20}", "*?", "+?", "??", "{1,3}?")
_TEXT = "aabbAB12.- @éя字\n'\"\\nu{}kKſ\u212a"


def _pattern(rng: random.Random, depth: int) -> str:
    kind = rng.random()
    if depth == 0 or kind < 0.4:
        return rng.choice(_ATOMS)
    if kind < 0.6:
        return _pattern(rng, depth - 1) + _pattern(rng, depth - 1)
    if kind < 0.75:
        return f"(?:{_pattern(rng, depth - 1)}|{_pattern(rng, depth - 1)})"
    if kind < 0.85:
        return rng.choice(_FLAGS) + _pattern(rng, depth - 1)
    return f"({_pattern(rng, depth - 1)}){rng.choice(_COUNTS)}"


def _own(regex: str, **settings: Any) -> Engine:
    return Engine([Pattern(name="own", regex=regex, replacement="<X>", **settings).detector()])


@pytest.mark.parametrize("seed", range(40))
def test_any_pattern_is_found_in_a_stream_as_in_the_whole(seed: int) -> None:
    """Classes of any script, flags, anchors and counters in any mixture: cut anywhere, in text and in JSON."""
    rng = random.Random(seed)
    tried = 0
    while tried < 12:
        try:
            bound = {"max_length": rng.choice((3, 8, 20))} if rng.random() < 0.4 else {}
            made = _own(_pattern(rng, 3), **bound)
        except ValueError:  # it matches nothing, or has nothing to repeat
            continue
        tried += 1
        for json in (False, True):
            text = "".join(rng.choices(_TEXT, k=rng.choice((3, 12, 60))))
            if json:
                text = '["' + text.replace("\\", "\\u").replace('"', '\\"')
            whole = through([text], json=json, own=made)
            for bits in (-1, rng.getrandbits(80), rng.getrandbits(80) & rng.getrandbits(80)):
                assert through(cut(text, bits), json=json, own=made) == whole, made.detectors[0].pattern


@pytest.mark.parametrize("seed", range(10))
def test_any_pattern_finds_what_re2_finds(seed: int) -> None:
    """The prefilters and windows around a pattern hide nothing of what RE2 itself finds, and add nothing."""
    rng = random.Random(seed)
    quiet = re2.Options()
    quiet.log_errors = False
    tried = 0
    while tried < 30:
        regex = _pattern(rng, 3)
        try:
            made = _own(regex)
        except ValueError:
            continue
        tried += 1
        text = "".join(rng.choices(_TEXT.replace("\\", ""), k=50))
        found = re2.compile(regex, quiet).sub(lambda match: "<X>" if match.group() else "", text)
        assert through([text], own=made) == found, regex


@pytest.mark.parametrize(
    ("regex", "text"),
    [
        (r"项目-\d+", "das 项目-4711 ist"),  # ideographs that begin a match
        (r"\p{Greek}{3,}\d", "an αβγ7 b"),
        (r"🔑[a-z]+", "x 🔑abc y"),
        ("é", "aé字"),  # the last character is wider than any match
        (r"\b\s+x", "a \n x"),  # a boundary is where a word ends, too
        (r"(?i)(?-i:k)(?s:.)1", "k\n1"),
        (r"(?-s)(?s:.)1", "a\n1"),  # flags within flags
        (r"(?i)ks-\d", "K\u017f-1 \u212as-2"),  # letters of ASCII that a case makes wider
        (r"a\d(?:bc){0}\B", "x a1b y"),  # nothing, and no brace
    ],
)
def test_what_a_match_may_begin_with(regex: str, text: str) -> None:
    """A match is waited for whatever it begins with: each character by itself gives what the whole gives."""
    made = _own(regex)
    whole = through([text], own=made)
    assert "<X>" in whole
    for size in (1, 2, 3):
        assert through([text[i : i + size] for i in range(0, len(text), size)], own=made) == whole


@pytest.mark.parametrize(
    ("regex", "text", "masked"),
    [
        (r"\Qab\E{3}\d", "x abbb1 y", "x <X> y"),
        (r"\QX-\E+\d", "X--1 X-X-1", "<X> X-<X>"),
        (r"\Qa.\E?\d", "a1 a.1 .1", "<X> <X> .1"),
        (r"\Q\Ea\Q\\E\d", r"a\1", "<X>"),
    ],
)
def test_what_counts_behind_a_quote_counts_its_last_character(regex: str, text: str, masked: str) -> None:
    """`\\Qab\\E{3}` is `abbb`, as RE2 has it, in a whole text and character by character."""
    made = _own(regex)
    assert through([text], own=made) == through(list(text), own=made) == masked


def test_a_long_s_without_case_is_any_s() -> None:
    """A pattern that folds a letter beyond ASCII onto plain words is looked for in plain words, too."""
    for regex in ("(?i)\u017fauce", "(?i)hou\u017fe", "(?i)\u212aiosk"):
        made = _own(regex)
        for text in ("my sauce", "a House", "the kiosk"):
            wanted = re2.sub(regex, "<X>", text)
            assert through([text], own=made) == through(list(text), own=made) == wanted


def test_max_length_counts_characters() -> None:
    """`max_length` is a number of characters in any script, and no stream waits for more of them than `check` prints."""
    for regex, longest, text, masked in (
        ("[一-龥]{8}", 8, "xx这是一个很大的秘密", "xx<X>密"),
        ("秘密[^。]+。", 20, "aa 秘密是张三李四王五。bb", "aa <X>bb"),
        (r"key=\S+", 10, "a key=éééééééé b", "a <X>éé b"),
        (r"key=\S+", 10, "a key=abcdefgh b", "a <X>gh b"),
    ):
        made = _own(regex, max_length=longest)
        assert through([text], own=made) == through(list(text), own=made) == masked
        assert made.detectors[0].delay <= longest
    for letter in "aé字😀":
        made = _own(r"key=[^.]+\.", max_length=30)
        lane = made.front.decided
        held = [n for n in range(1, 60) if lane((b := ("key=" + letter * n).encode()), 0, len(b)) == 0]
        assert held == list(range(1, 27))


def test_a_bound_that_no_match_fits_into_does_not_load() -> None:
    """A pattern whose shortest match is longer than `max_length` would never hold: an error, not silence."""
    with pytest.raises(ValueError, match="shortest match has 16 characters, `max_length` allows 10"):
        Pattern(name="long", regex=r"\d{16}", max_length=10)


def test_sizes_are_told_by_the_pattern_not_by_samples() -> None:
    """One ideograph, a script or a letter whose case makes it wider: each counts with its bytes."""
    for regex, size in (
        ("字", 4),
        (r"\p{Hangul}", 4),
        ("[α-ω]", 4),
        ("(?i)k", 4),
        ("k", 1),
        (r"[^\x{80}-\x{10ffff}]", 1),
    ):
        assert Detector("own", regex).node.size == size, regex
