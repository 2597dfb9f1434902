"""What is there when a sidecar begins to serve."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

#: Serves as the program does, but tells at the point where connections would be taken what is loaded, and stops.
PROGRAM = """
import sys
from pathlib import Path
from proxy import tokens
from proxy.__main__ import main
from proxy.server.serve import Server

async def serve(self):
    print(sorted(tokens._encodings), file=sys.stderr)
    return 0

Server.serve = serve
if len(sys.argv) > 1:
    tokens._VOCABULARY = Path(sys.argv[1])
sys.exit(main(["serve"]))
"""
CONFIG = "providers: {echo: null}\nmodels: {old: echo/gpt-4, new: echo/gpt-4o}\n"


def start(folder: Path, policies: list[str], *vocabulary: str) -> tuple[int, str]:
    """Start a sidecar in ``folder`` up to the moment when it would serve; return its exit code and the last it said."""
    (folder / "llm.yml").write_text(f"{CONFIG}policies: {json.dumps(policies)}\n")
    program = [sys.executable, "-c", PROGRAM, *vocabulary]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("policy", ["prompt_limit", "quota", "rate_limit"])
def test_no_call_waits_for_the_vocabulary(tmp_path: Path, policy: str) -> None:
    """Where a policy counts tokens, the vocabularies of the models are loaded before the first connection is taken."""
    assert start(tmp_path, [policy]) == (0, "['cl100k_base', 'o200k_base']")
    assert start(tmp_path, ["opt_out"]) == (0, "[]")


def test_a_vocabulary_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    """A missing or damaged file ends the start with a sentence, not the first call with a failure."""
    code, said = start(tmp_path, ["quota"], str(tmp_path))
    assert code == 1 and said.startswith("llm-sidecar: The vocabulary") and "missing" in said
    for name in ("cl100k_base", "o200k_base"):
        (tmp_path / f"{name}.tiktoken.gz").write_bytes(b"no gzip")
    code, said = start(tmp_path, ["quota"], str(tmp_path))
    assert code == 1 and said.startswith("llm-sidecar: The vocabulary") and "damaged" in said
