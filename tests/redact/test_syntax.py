"""What is derived from a pattern must hold for every text that it matches."""

from __future__ import annotations

import random

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st
from re2 import _re2

from policies.redact.alphabet import LOUD
from policies.redact.detector import Detector, compile_union
from policies.redact.gates import SIGNS
from policies.redact.groups import BY_NAME
from policies.redact.runs import LONG_RUN, holds_long_run, holds_one_of
from policies.redact.syntax import INFINITY, PatternError, parse
from tests.redact.attacks import drawn

ANYWHERE = _re2.RE2.Anchor.UNANCHORED
ATOMS = st.sampled_from(["a", "b", "[ab]", "[^a]", r"\d", r"\.", "é", r"\w", r"\x41", "[[:alpha:]]", r"\pL"])


def _bigger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda p: f"(?:{p[0]}|{p[1]})"),
        inner.map(lambda p: f"({p}){{1,3}}"),
        inner.map(lambda p: f"(?i:{p})?"),
        inner.map(lambda p: f"(?:{p})*?"),
        inner.map(lambda p: f"{p}\\b"),
        inner.map(lambda p: f"(?:{p}){{9,}}"),
    )


def _compiles(pattern: str) -> bool:
    quiet = re2.Options()
    quiet.log_errors = False
    try:
        re2.compile(pattern, quiet)
        re2.compile(parse(pattern).begun(), quiet)
    except re2.error:
        return False
    return True


PATTERNS = st.recursive(ATOMS, _bigger, max_leaves=5).filter(_compiles)
TEXTS = st.text(alphabet="aabbAB12. é_", max_size=24)


@settings(max_examples=150, deadline=None)
@given(PATTERNS, TEXTS)
def test_every_beginning_of_a_match_is_known_as_one(pattern: str, text: str) -> None:
    """Wherever a match is, each of its beginnings matches the pattern of beginnings: else a stream would leak."""
    match = re2.search(pattern, text)
    begun = re2.compile(parse(pattern).begun())
    if match:
        start, end = match.span()
        for cut in range(start, end + 1):
            assert begun.fullmatch(text[start:cut]), (parse(pattern).begun(), text[start:cut])


@settings(max_examples=150, deadline=None)
@given(PATTERNS, TEXTS)
def test_the_prefilter_is_found_where_the_pattern_is(pattern: str, text: str) -> None:
    """A prefilter that misses a text would hide its findings."""
    node = parse(pattern)
    if match := re2.search(pattern, text):
        assert re2.search(node.hint(), text)
        assert node.least <= len(match.group()) <= node.most
        assert len(match.group().encode()) <= node.size
        if node.loud():
            assert LOUD.search(match.group().encode())
        if node.opening():
            assert re2.match(node.opening(), match.group())
        assert match.group().encode().startswith(node.lead()[0])


@settings(max_examples=150, deadline=None)
@given(PATTERNS, TEXTS)
def test_the_tree_says_the_same_as_the_pattern(pattern: str, text: str) -> None:
    """The pattern written back from its tree matches the same."""
    one, two = re2.search(pattern, text), re2.search(parse(pattern).text(), text)
    assert (one and one.span()) == (two and two.span())


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [
        (r"sk-[a-z]{20,48}", 23, 51),
        (r"(?i)foo(?:bar|quux)?", 3, 7),
        (r"a+b", 2, INFINITY),
        (r"\Qa.b\E{2}", 4, 4),
        ("x{,3}", 5, 5),
        (r"\x{1F600}|\pN\p{Greek}", 1, 2),
        ("[]a-]{3}", 3, 3),
    ],
)
def test_lengths(pattern: str, least: int, most: int) -> None:
    """The longest match is what a stream may have to wait for."""
    node = parse(pattern)
    assert (node.least, node.most) == (least, most)


@pytest.mark.parametrize(
    "pattern",
    ["(", "a)", "[a", "a**b(", "(?=a)b", "(?<!a)b", r"\C", "a\\", "*a", "(?P<x", "a|", "a*", "(?i)", r"\b", "x{1001}",
     "x(?i){2}y", "x(?i)*y", r"x\Q\E{2}y", r"x\Q\E+y"],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(pattern: str) -> None:
    """A pattern with look-around, a mistake, or a match of nothing does not load, in one sentence."""
    with pytest.raises(PatternError) as caught:
        Detector("own", pattern)
    assert "\n" not in str(caught.value)


def test_flags_reach_over_alternatives() -> None:
    """RE2 lets (?i) hold to the end of its group, over the bars; so must the tree."""
    node = parse("x(?i)a|b(?-i)C|d")
    for text in ("xA", "BC", "Bc", "D", "d"):
        assert bool(re2.fullmatch(node.text(), text)) == bool(re2.fullmatch("x(?i)a|b(?-i)C|d", text)), text


def test_the_built_in_detectors_keep_the_fast_path() -> None:
    """They begin at words or signs and are loud, so that plain words cost nearly nothing."""
    assert [d.name for d in BY_NAME.values() if d.first] == []
    assert [d.name for d in BY_NAME.values() if not d.node.loud()] == []
    # What may go on for pages begins with a sign: else every word of the last pages would be asked.
    assert [d.name for d in BY_NAME.values() if d.reach > 2_048 and not d.node.opening()] == []


@pytest.mark.parametrize(
    ("pattern", "lead"),
    [(r"\bsk-(?:a|b)", "sk-"), ("tok_[a-z]|tok-", "tok"), ("(?:abc|abc)d+", "abc"), (r"(?i)tok\d", ""), (r"ab?c", "a"),
     (r"\x41\.[b]c|A\.b", "A.b"), ("ab(?i)cd", "ab"), ("é", ""), ("a|ab", "a"), ("(?:a|ab)c", "a"), ("^a$b", "ab")],
)  # fmt: skip
def test_what_every_match_begins_with(pattern: str, lead: str) -> None:
    """A search leaps to the next place where the characters stand that every match begins with."""
    assert parse(pattern).lead()[0].decode() == lead


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_detector_is_asked_wherever_it_matches(name: str) -> None:
    """Every match holds its detector's hint and gate: else other words in the text, and a stream's cuts, decide what is found.

    What is turned down counts, too: it is what a budget is spent on.
    """
    detector = BY_NAME[name]
    hint, gate = compile_union([detector.hint]), compile_union([detector.gate or "."])
    rng = random.Random(name)
    for _ in range(250):
        raw = drawn(detector.node, rng, rng.choice((0, 2, 10, 40))).encode()
        low = detector.scan(ANYWHERE, raw, 0, len(raw))[0][0]
        for needed in (hint, gate):
            assert low < 0 or needed(ANYWHERE, raw, 0, len(raw))[0][0] >= 0, raw


@pytest.mark.parametrize(
    ("pattern", "held"),
    [
        ("[a-z]{15}", True), ("[a-z]{14}", False), ("[a-z]{14,}", False), (r"ab-[0-9a-f]{8}-[0-9]{4}", True),
        (r"abcdefgh\.abcdefgh", False), (r"abcdefgh\.?abcdefgh", False), ("(?:abcdefgh|0123456)-[a-z]{7}", True),
        ("(?:abcdefgh|012345)-[a-z]{7}", False), (r"(?:[a-z]{20}\.)?[a-z]", False), (r"(?:[a-z]{20}\.)+", True),
        (r"(?:[a-z]{7}\.[a-z]{8}){2}", True), (r"(?:[a-z]{7}\.[a-z]{7}){2}", False), (r"a{7}\b_?b{7}\d*c", True),
        ("(?i)[0-9a-f]{32}", True), ("(?i)[a-z]{32}", False), ("(?:a|b|.){40}", False),
    ],
)  # fmt: skip
def test_which_patterns_need_a_long_run(pattern: str, held: bool) -> None:
    """A pattern is gated by a long run only if each of its matches holds one; a wide s or k breaks it where case is none."""
    assert holds_long_run(parse(pattern)) is held
    raw = re2.compile(LONG_RUN)
    rng = random.Random(pattern)
    short = [not raw.search(drawn(parse(pattern), rng, 0)) for _ in range(300)]
    assert not (held and any(short))


@pytest.mark.parametrize(
    ("pattern", "held"),
    [("a=b", True), ("a=?b", False), ("(?:a=|b_)c", True), ("(?:a=|b)c", False), ("(?:a=)*b", False), ("(?:a=)+b", True),
     ("[=:]", True), ("[=x]", False), ("(?i:k:)", True), (".", False)],
)  # fmt: skip
def test_which_patterns_need_a_sign(pattern: str, held: bool) -> None:
    """A pattern is gated by a sign only if each of its matches holds one of them."""
    assert holds_one_of(parse(pattern), SIGNS) is held
