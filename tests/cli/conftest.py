"""Run the program in this process, as a shell would."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from proxy.__main__ import main


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs ``llm-sidecar`` in an empty folder with no variables but those given."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("LLM_", "OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_", "AZURE_")):
            monkeypatch.delenv(name)

    def call(*argv: str, config: str | None = None, stdin: str = "", **environ: str) -> Result:
        if config is not None:
            (tmp_path / "llm.yml").write_text(config)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        try:
            code = main(argv)
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return call
