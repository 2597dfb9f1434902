"""Standard output that cannot be written: one sentence, a status that is not zero, and no traceback."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "providers: {echo: {kind: echo}}\n"
COMMANDS = ("check", "keys new", "--help")
#: With PYTHONUNBUFFERED: what fails at a write in one way fails at the flush in the other.
BUFFERED = pytest.mark.parametrize(
    ("command", "unbuffered"), [("check", ""), ("check", "1"), ("keys new", ""), ("--help", "1")]
)


def shell(command: str, folder: Path, unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``command`` in bash, where `sidecar` is the program; the status is the program's even in a pipe."""
    (folder / "llm.yml").write_text(CONFIG)
    program = f"{shlex.quote(sys.executable)} -m proxy"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command.replace('sidecar', program)}"],
        cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "PYTHONUNBUFFERED": unbuffered},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@BUFFERED
def test_a_full_disk_is_one_sentence(command: str, unbuffered: str, tmp_path: Path) -> None:
    """Nobody takes half a report for a whole one: the status says that it was lost, and standard error why."""
    done = shell(f"sidecar {command} > /dev/full", tmp_path, unbuffered)
    name = "" if command.startswith("-") else f" {command.split()[0]}"
    assert done.stderr == f"llm-sidecar{name}: standard output cannot be written (No space left on device)\n"
    assert done.returncode == 1


@BUFFERED
def test_a_reader_that_has_had_enough_ends_the_command_quietly(command: str, unbuffered: str, tmp_path: Path) -> None:
    """`| head` is no failure to talk about; the status is what a shell reports of SIGPIPE."""
    # Only a reader that has gone before the first byte is one whose going is always seen.
    done = shell(f"( sleep 0.1; sidecar {command} ) | exec true", tmp_path, unbuffered)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("command", [*COMMANDS, "serve --port 0"])
def test_a_closed_output_is_one_sentence(command: str, tmp_path: Path) -> None:
    """`>&-`: also of `serve`, whose log would go to whatever got that number next."""
    done = shell(f"sidecar {command} >&-", tmp_path)
    assert done.stderr.endswith(": standard output cannot be written (it is closed)\n")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_what_cannot_be_said_on_standard_error_is_no_success(tmp_path: Path) -> None:
    """`keys encrypt` tells the new key there; a mistake keeps its own status."""
    assert shell("echo secret | sidecar keys encrypt 2> /dev/full", tmp_path).returncode == 1
    assert shell("sidecar chek 2> /dev/full", tmp_path).returncode == 2
    assert shell("sidecar check 2> /dev/full", tmp_path).returncode == 0
    assert "is good" in shell("sidecar check 2>&-", tmp_path).stdout


def test_a_closed_input_holds_nothing(tmp_path: Path) -> None:
    """`<&-` is an input without a secret, in a sentence."""
    done = shell("sidecar keys hash <&-", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "standard input must hold one secret" in done.stderr
