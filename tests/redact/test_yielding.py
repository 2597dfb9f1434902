"""A detector that yields is not asked about what another one found, and nothing is lost by it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.redact.checks import repetitive
from policies.redact.detector import Detector, Hit
from policies.redact.engine import DetectorFailed, Engine
from tests.redact.helpers import cut, through

ASKED: list[str] = []


def judge(hit: Hit) -> bool:
    ASKED.append(hit.value)
    if "666" in hit.value:
        raise ZeroDivisionError
    return "0" not in hit.value


def three() -> Engine:
    """Return an engine in which `one` goes before `two`, and `two` before `three`, which yields and is checked."""
    return Engine(
        [
            Detector("three", r"[a-z0-9]{3,8}", group="own", replacement="[3]", priority=40, yields=True, check=judge),
            Detector("one", r"<[a-z0-9]{1,6}=", group="own", replacement="[1]", priority=90),
            Detector("two", r"=[a-z0-9]{1,8}>", group="own", replacement="[2]", priority=80),
        ]
    )


@pytest.mark.parametrize(
    ("text", "wanted", "asked"),
    [
        ("=abc4>", "[2]", []),  # found by another: not asked
        ("=abc0>", "[2]", []),
        ("<x=abc4>", "[1][3]>", ["abc4"]),  # the other one lost to a third: asked after all
        ("<x=abc0>", "[1]abc0>", ["abc0"]),
        ("abc4 =abc4>", "[3] [2]", ["abc4"]),
    ],
)
def test_it_is_asked_only_where_nobody_else_masks(text: str, wanted: str, asked: list[str]) -> None:
    """What a stronger finding masks costs no check; what such a finding leaves open is checked."""
    ASKED.clear()
    assert through([text], own=three()) == wanted
    assert asked == ASKED


def test_a_check_that_fails_late_fails_the_call() -> None:
    """Asked late or at once, a check that raises lets nothing pass."""
    with pytest.raises(DetectorFailed, match="three"):
        through(["<x=abc666>"], own=three())


def test_it_is_asked_late_with_what_stands_behind_it() -> None:
    """Two bytes behind a candidate decide, however a stream is cut: it waits for them though another's finding covers it."""
    own = Engine(
        [
            Detector("three", r"[a-z0-9]{3,8}", group="own", replacement="[3]", priority=40, yields=True,
                     check=lambda hit: hit.text[hit.end : hit.end + 2] != b"!?"),
            Detector("one", r"<[a-z0-9]{1,6}=", group="own", replacement="[1]", priority=90),
            Detector("two", r"=[a-z0-9]{1,8}", group="own", replacement="[2]", priority=80),
        ]
    )  # fmt: skip
    for text, wanted in (("<x=abc4!?", "[1]abc4!?"), ("<x=abc4!.", "[1][3]!.")):
        for at in range(len(text)):
            assert through([text[:at], text[at:]], own=own) == wanted


def ranked(*yielding: str) -> Engine:
    """Return an engine of four detectors whose matches overlap, of which these yield: it must not be seen which."""
    patterns = (
        ("a", r"<[a-z0-9]{1,6}=", 90),
        ("b", r"=[a-z0-9]{1,8}>", 80),
        ("c", r"[a-z0-9]{3,8}", 40),
        ("d", r"[a-z0-9=]{2,5}[>7]", 30),
    )
    return Engine(
        [Detector(name, pattern, group="own", replacement=f"[{name.upper()}]", priority=priority, yields=name in yielding,
                  check=judge if name in "cd" else None) for name, pattern, priority in patterns]
    )  # fmt: skip


PART = st.sampled_from(["<", ">", "=", " ", "abc", "x0", "7", "<x=", "=abc4>", "<x=abc4>", "<x=ab0>"])


@given(parts=st.lists(PART, max_size=12), bits=st.integers(0, 2**40))
def test_a_stream_is_as_the_whole(parts: list[str], bits: int) -> None:
    """However the text is cut, the same is found."""
    text, own = "".join(parts), three()
    assert through(cut(text, bits), own=own) == through([text], own=own)


@given(st.text(st.sampled_from("ab1-Z"), max_size=40) | st.text(max_size=60))
def test_repetition_is_told_by_its_definition(text: str) -> None:
    """The short cut for varied texts changes no verdict."""
    kinds = len(set(text))
    threes = len({text[i : i + 3] for i in range(len(text) - 2)})
    plain = kinds == 1 if len(text) < 8 else kinds * 6 < len(text) or threes * 5 < (len(text) - 2) * 3
    assert repetitive(text) is plain


@settings(deadline=None)
@given(st.lists(st.sampled_from(["<", ">", "=", " ", "abc", "x0", "7", "<x=", "=abc4>", "0b", "ab7"]), max_size=14))
def test_any_number_may_yield(parts: list[str]) -> None:
    """Two detectors that yield find what they find when neither does, in whatever order they are listed."""
    text = "".join(parts)
    wanted = through([text], own=ranked())
    for yielding in ("c", "d", "cd"):
        assert through([text], own=ranked(*yielding)) == wanted
