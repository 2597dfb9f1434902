"""`make run`: what the repository's llm.yml leads to decides whether a model is fetched, and all ends together."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "demo" / "run.py"
KEYS = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "LLM_SIDECAR_CONFIG")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The script as a module, in an environment without keys, beside a copy of llm.yml and no .env file."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("make_run", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shutil.copy(ROOT / "llm.yml", tmp_path)
    module.ROOT = tmp_path
    return module


@pytest.mark.parametrize(
    ("file", "environment", "answer"),
    [
        (None, {}, False),
        (None, {"OPENAI_API_KEY": "k"}, True),
        (None, {"ANTHROPIC_API_KEY": "k"}, False),
        ('providers: {openai: {api_key: "${OPENAI_API_KEY}"}}', {}, False),
        ("providers: {ollama: {kind: openai, base_url: 'http://127.0.0.1:11434/v1', model: m}}", {}, True),
        ('providers: {anthropic: {api_key: "${ANTHROPIC_API_KEY}", model: m}}', {"ANTHROPIC_API_KEY": "k"}, True),
        ("provider: {}", {}, True),
    ],
    ids=["nothing", "openai", "a key that no provider uses", "only a key is missing", "no key needed", "anthropic", "mistake"],
)  # fmt: skip
def test_a_model_is_fetched_only_where_nothing_else_would_answer(
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    file: str | None,
    environment: dict[str, str],
    answer: bool,
) -> None:
    """What llm.yml makes of the environment counts, not which variables there are; a mistake is said before a fetch."""
    words = []
    if file is not None:
        (tmp_path / "own.yml").write_text(file)
        words = ["--config", str(tmp_path / "own.yml"), "--port", "9000"]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run.served(words) is answer


def test_without_a_key_and_a_model_it_echoes_and_ends_well() -> None:
    """`DEMO=0 make run` serves echo, names a key that nothing uses, and a Ctrl-C ends it with exit code 0."""
    port = free_port()
    bare = {name: value for name, value in os.environ.items() if name not in KEYS}
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--port", str(port)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**bare, "DEMO": "0", "OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": "k"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert f'"address":"http://127.0.0.1:{port}"' in process.stdout.readline()
        body = b'{"messages": [{"role": "user", "content": "hello"}]}'
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/chat/completions", body, 10) as reply:
            assert b'"content":"hello"' in reply.read()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert "ANTHROPIC_API_KEY is set, but no provider in llm.yml uses it" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_fetch_that_is_interrupted_ends_with_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM while something is fetched: one sentence, no traceback, and nothing goes on behind it."""
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    child = f"import time; pipe = open({str(alive)!r}, 'w'); pipe.write('x'); pipe.flush(); time.sleep(60)"
    program = (
        f"import runpy, sys; names = runpy.run_path({str(SCRIPT)!r}); names = names['main'].__globals__; "
        f"names |= {{'served': lambda words: False, 'fetch': lambda: names['finished']([sys.executable, '-c', {child!r}])}}; "
        "raise SystemExit(names['run']())"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    try:
        with alive.open() as pipe:  # ends when nobody can write any more
            assert pipe.read(1) == "x"
            process.send_signal(number)
            assert pipe.read() == ""
        _, said = process.communicate(timeout=10)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert said.strip() == "Stopped; `make run` begins again where this ended."
