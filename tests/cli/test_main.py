"""The program as a whole: help, exit codes, start-up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proxy.cli import COMMANDS
from proxy.cli.terminal import Style
from tests.cli.conftest import Run

ROOT = Path(__file__).resolve().parents[2]


def test_help_names_every_command(run: Run) -> None:
    """`--help` lists the commands, examples, where the configuration comes from, and the exit codes."""
    result = run("--help")
    assert result.code == 0
    for word in (*COMMANDS, "examples:", "LLM_SIDECAR_CONFIG", "Exit codes"):
        assert word in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_examples(command: str, run: Run) -> None:
    """Whoever asks one command for help sees how it is used."""
    result = run(command, "--help")
    assert result.code == 0
    assert "example" in result.out


@pytest.mark.parametrize(
    "argv", [(), ("chek",), ("check", "--jsn"), ("keys",), ("serve", "--port", "many"), ("explain",)]
)
def test_wrong_usage_is_two(argv: tuple[str, ...], run: Run) -> None:
    """A mistyped command, option or value exits 2 and shows the usage."""
    result = run(*argv)
    assert result.code == 2
    assert "usage:" in result.err


def test_version(run: Run) -> None:
    """`--version` is one line."""
    assert run("--version").out.startswith("llm-sidecar ")


def test_python_m_proxy_is_the_same_program(tmp_path: Path) -> None:
    """`python -m proxy` works from anywhere, and a command loads no part of the server that it does not need."""
    code = (
        "import sys; sys.argv = ['llm-sidecar', '--version']; import runpy\n"
        "try: runpy.run_module('proxy', run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'pydantic', 'uvicorn', 'yaml', 'cryptography', 'starlette'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class Terminal:
    """A stream that says whether it is a terminal."""

    def __init__(self, yes: bool) -> None:
        self.yes = yes

    def isatty(self) -> bool:
        return self.yes


@pytest.mark.parametrize(
    ("tty", "environ", "coloured"),
    [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False)],
)
def test_colour_is_for_terminals(
    tty: bool, environ: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No escape codes in pipes, under NO_COLOR, or on a dumb terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    text = Style(Terminal(tty))("hi", "red", "bold")  # type: ignore[arg-type]
    assert text == ("\x1b[31;1mhi\x1b[0m" if coloured else "hi")
