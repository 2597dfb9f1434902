"""YAML 1.2 core scalars, positions, and files that are refused."""

from __future__ import annotations

import contextlib

import pytest

from proxy.config.document import MAX_BYTES, read
from proxy.config.problem import ConfigError
from tests.timing import least, slowness


def value(text: str) -> object:
    """Return what ``text`` means as an unquoted scalar."""
    return read(f"key: {text}", "llm.yml").tree["key"]


def reading(text: str | bytes) -> float:
    """Return the CPU seconds until a file is read or refused."""

    def work() -> None:
        with contextlib.suppress(ConfigError):
            read(text, "llm.yml")

    return least(work, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True), ("True", True), ("FALSE", False), ("yes", "yes"), ("no", "no"), ("on", "on"), ("Off", "Off"),
        ("null", None), ("~", None), ("", None), ("12", 12), ("-3", -3), ("+4", 4), ("100_000", 100_000),
        ("1_0.5", 10.5), ("0.7", 0.7), (".5", 0.5), ("1e3", 1000.0), ("010", 10), ("0o10", "0o10"), ("0x10", "0x10"),
        ("1:30", "1:30"), ("2027-01-01", "2027-01-01"), ("2023-06-01T00:00:00Z", "2023-06-01T00:00:00Z"),
        (".inf", ".inf"), (".nan", ".nan"), ("_1", "_1"), ("1__0", "1__0"), ('"12"', "12"), ("'true'", "true"),
        ("!!str 12", "12"), ('!!int "12"', 12), ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, expected: object) -> None:
    """Only true and false are booleans; dates, octals and sexagesimals stay texts."""
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


def test_keys_are_names_as_written() -> None:
    """A key that looks like a number, a boolean or null is the name that stands there."""
    tree = read("null: 1\ntrue: 2\n010: 3\n1_000: 4", "llm.yml").tree
    assert tree == {"null": 1, "true": 2, "010": 3, "1_000": 4}


def test_every_key_and_item_has_its_line() -> None:
    """Positions survive nesting, lists, aliases and merges."""
    text = "a:\n  - one\n  - b: 1\n    c: 2\nx: &m\n  p: 1\n  q: 2\ny:\n  <<: *m\n  q: 3\n"
    document = read(text, "llm.yml")
    assert document.tree["y"] == {"p": 1, "q": 3}
    assert document.line(("a", 0)) == 2
    assert document.line(("a", 1, "c")) == 4
    assert document.line(("y", "p")) == 6
    assert document.line(("y", "q")) == 10
    assert document.line(("y", "nowhere")) == 8


def test_a_merge_never_overwrites_what_stands_there() -> None:
    """Of several merged mappings the first wins, as YAML's merge key says."""
    text = "a: &a {k: 1, l: 1}\nb: &b {k: 2, m: 2}\nc: {<<: [*a, *b], m: 3}"
    assert read(text, "llm.yml").tree["c"] == {"k": 1, "l": 1, "m": 3}


def test_duplicate_keys_are_all_found() -> None:
    """A key given twice is a mistake with both lines; reading goes on."""
    document = read("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n", "llm.yml")
    assert [str(p) for p in document.problems] == [
        "llm.yml:4: b.c: the key stands already in line 3; keep one of them",
        "llm.yml:5: a: the key stands already in line 1; keep one of them",
    ]


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BOMB, "more than 30,000 values"),
        ("a: !!python/object/apply:os.system [id]", "the tag `!!python/object/apply:os.system` is not allowed"),
        ("a: !!python/name:os.system", "is not allowed"),
        ("a: !include x.yml", "the tag `!include` is not allowed"),
        ("a: &a [*a]", "stands inside its own anchor"),
        ("a: *b", "has no anchor `&b` above it"),
        ("[" * 5000, "nested deeper than"),
        ("a: " + "{b: " * 50 + "1" + "}" * 50, "nested deeper than"),
        ("x" * (10 << 20), "the file is 10.0 MiB"),
        ("- a\n- b", "must hold keys with values"),
        ("a: 1\n---\nb: 2", "more than one document"),
        ("a: 1\x00", "control character"),
        ("a:\n\tb: 1", "indented with a tab"),
        ("a: {b: ${X}}", 'write "${X}"'),
        ("a: [${X:-y}, z]", 'write "${X:-y}"'),
        ("a: {b: 1", "the `{` of line 1 is not closed"),
        ("a: 'b", "a quotation mark is not closed"),
        ("a: @b", "a value cannot begin with `@`"),
        ("a: b: c", "quote the value"),
        ("<<: 3", "takes the alias of a mapping"),
        (b"a: \xff", "not UTF-8"),
    ],
)  # fmt: skip
def test_hostile_and_broken_files_are_refused_fast(text: str | bytes, sentence: str) -> None:
    """T24: objects, bombs, depth, size and syntax errors: one sentence, well under a second."""
    with pytest.raises(ConfigError) as caught:
        read(text, "llm.yml")
    assert sentence in str(caught.value)
    assert reading(text) < 1 * slowness()


@pytest.mark.parametrize("line", ["key{i}: {{a: {i}, b: [x, y]}}\n", "- [x,x,x,x,x,x,x,x]\n", "k{i}: *a\n"])
def test_a_file_of_the_largest_size_is_read_in_time(line: str) -> None:
    """Up to a mebibyte, whatever is in it, the answer takes less than a second."""
    text = "k: &a 1\n" + "".join(line.format(i=i) for i in range(60_000))
    assert reading(text[: MAX_BYTES - 1].rsplit("\n", 1)[0]) < 1 * slowness()


def test_merges_of_merges_stay_linear() -> None:
    """Many merges of one large mapping end at the limit of values, not after minutes."""
    base = "base: &b\n" + "".join(f"  k{i}: 1\n" for i in range(500))
    text = base + "".join(f"m{i}:\n  <<: *b\n" for i in range(5_000))
    with pytest.raises(ConfigError, match="more than 30,000 values"):
        read(text, "llm.yml")
    assert reading(text) < 1 * slowness()


def test_an_empty_file_is_an_empty_tree() -> None:
    """Nothing, comments alone and null are the same."""
    assert read("", "llm.yml").tree == {}
    assert read("# nothing\n", "llm.yml").tree == {}
