"""``.env.llm`` and ``.env``."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.dotenv import environment, parse
from proxy.config.problem import ConfigError


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("A=b", "b"), ("A = b", "b"), ("export A=b", "b"), ("A=", ""), ("A=  # nothing", ""), ("A=b  # or c", "b"),
        ("A=b#c", "b#c"), ('A="b # c"  # d', "b # c"), ("A='b # c'", "b # c"), ("A='${X}'", "${X}"), ("A=$X", "$X"),
        (r'A="x\ny\t\"z\" \\"', 'x\ny\t"z" \\'), (r"A='\n'", r"\n"), ('A=["gpt-4","claude-2"]', '["gpt-4","claude-2"]'),
        ("A=a b c", "a b c"), ("A=b=c", "b=c"), ("A=#b", ""), ('A=""', ""),
    ],
)  # fmt: skip
def test_a_line(line: str, expected: str) -> None:
    """Quotes, comments after values, export, and nothing expanded."""
    assert parse(line, ".env") == {"A": expected}


def test_comments_blank_lines_and_repetition() -> None:
    """What is no assignment is skipped; the last of a repeated name counts."""
    assert parse("\n# A=1\n  # B=2\nA=3\r\nA=4\n", ".env") == {"A": "4"}


@pytest.mark.parametrize("line", ["A", "1A=b", "A B=c", 'A="b', "A='b", 'A="b" c', "=b"])
def test_anything_else_is_a_mistake_with_its_line(line: str) -> None:
    """A mistyped line would lose a variable silently, so it stops the start."""
    with pytest.raises(ConfigError) as caught:
        parse(f"X=1\n{line}\nY=2", ".env")
    assert str(caught.value).startswith(".env:2: ")


def test_the_process_wins_then_env_llm_then_env(tmp_path: Path) -> None:
    """Of one variable in three places, the contract's order decides."""
    (tmp_path / ".env").write_text("A=env\nB=env\nC=env\n")
    (tmp_path / ".env.llm").write_text("A=llm\nB=llm\n")
    assert environment({"A": "process"}, str(tmp_path)) == {"A": "process", "B": "llm", "C": "env"}
    assert environment({"A": "process"}, str(tmp_path / "none")) == {"A": "process"}


def test_mistakes_of_both_files_are_told_at_once(tmp_path: Path) -> None:
    """Each file's lines are named."""
    (tmp_path / ".env").write_text("oops\n")
    (tmp_path / ".env.llm").write_bytes(b"A=\xff\n")
    with pytest.raises(ConfigError) as caught:
        environment({}, str(tmp_path))
    assert len(caught.value.problems) == 2
