"""Linear time on hostile text: promises T15 and R28."""

from __future__ import annotations

import time

import pytest

from policies.redact.detector import Detector
from policies.redact.engine import Engine
from policies.redact.groups import BY_NAME
from policies.redact.lanes import PlainLane
from policies.redact.whole import ALL, builtin
from tests.redact.helpers import word

#: What makes patterns try again and again: beginnings without ends, runs without bounds.
ATTACKS = ("a", "A", "1", "-", "a@", "a.", "eyJ", "token", "-----BEGIN PRIVATE", "0f", "aB3", " ", '"', "//", "bearer ",
           "+1(", "{[", "sk-", "é", "\n", "_", 'key = "', "AKIA", "bc1q", "://", "ghp_", "%", "a=", "@", "[", "(0")  # fmt: skip
MIB = 1 << 20


def attack(unit: str, size: int) -> bytes:
    raw = unit.encode()
    return raw * (size // len(raw))


def spent(engine: Engine, text: bytes) -> float:
    """Return the CPU seconds of one look at ``text``, the best of three."""
    best = 1e9
    for _ in range(3):
        started = time.process_time()
        engine.decide(text, 0, True)
        best = min(best, time.process_time() - started)
    return best


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_a_mebibyte_of_attack(name: str) -> None:
    """Each built-in detector looks through 1 MiB of each attack in 50 ms, and through twice that in 2.5 times."""
    engine = Engine([BY_NAME[name]])
    for unit in ATTACKS:
        one = spent(engine, attack(unit, MIB))
        assert one <= 0.05, (unit, one)
        # Below some milliseconds a shared machine measures itself.
        assert spent(engine, attack(unit, 2 * MIB)) <= max(2.5 * one, 0.02), unit


def test_all_detectors_together_are_linear() -> None:
    """All of them on an attack grow with the text, not faster."""
    engine = Engine(builtin(ALL))
    for unit in ("a@", "token ", "1.1 ", "sk-", "key = x"):
        engine.decide(attack(unit, 50_000), 0, True)
        small, large = spent(engine, attack(unit, 50_000)), spent(engine, attack(unit, 200_000))
        assert large <= 8 * small + 0.01, (unit, small, large)


@pytest.mark.parametrize("regex", ["(a+)+$", "(a|aa)+b", "(?:a*)*c", "a.*a.*a.*z", "([a-z]+)*[0-9]{3}$", "(x+x+)+y"])
def test_own_patterns_cannot_blow_up(regex: str) -> None:
    """What a user may write is matched in linear time, or is refused when it loads."""
    try:
        engine = Engine([Detector("own", regex, group="own", cap=1_024)])
    except ValueError as error:
        assert "empty" in str(error)
        return
    for unit in ("a", "x", "ab"):
        small, large = spent(engine, attack(unit, 20_000)), spent(engine, attack(unit, 80_000))
        assert large <= 8 * small + 0.01, (unit, small, large)


def test_a_stream_of_single_characters_is_linear() -> None:
    """A secret that goes on for ever, character by character, costs the same per character."""
    engine = Engine(builtin(("secrets", "pii")))
    for unit in ("a", "1 ", "-----BEGIN PRIVATE KEY-----"):
        text = attack(unit, 3_000)
        lane, started = PlainLane(engine, word), time.process_time()
        for char in text.decode():
            lane.feed(char)
        assert time.process_time() - started < 1.5, unit


def test_a_prefilter_out_of_memory_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """RE2's sets answer "nothing" when they run out of memory: then every detector is asked singly."""
    engine = Engine(builtin(("pii",)))

    class Broken:
        def Match(self, text: bytes) -> list[int]:
            return []

    monkeypatch.setattr(engine, "_set", Broken())
    found = engine.decide(b"to ann@example.com", 0, True)[1]
    assert [f.detector.name for f in found] == ["email"]
