"""`llm-sidecar usage`: from a store's file, from Redis' place in the file, from a running sidecar."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from proxy.cli import parser
from proxy.cli.usage import register, run
from proxy.store.base import UsageRecord
from proxy.store.factory import open_store
from tests.accounting.test_report import MONTH, call
from tests.store.servers import RedisServer, valkey_binary

BASE = "providers: {echo: {kind: echo, model: m}}\ndefault_provider: echo\n"


def ask(*arguments: str) -> int:
    """Run the command."""
    top = parser()
    commands = next(action for action in top._actions if hasattr(action, "choices") and action.dest == "command")
    if "usage" not in commands.choices:
        register(commands)
    return run(top.parse_args(["usage", *arguments]))


def keep(url: str, *records: UsageRecord, prefix: str = "llm:") -> None:
    """Put calls into a store's ledger."""

    async def work() -> None:
        store = open_store(url, prefix=prefix)
        await store.start()
        for record in records:
            store.record(record)
        await store.aclose()

    asyncio.run(work())


@pytest.fixture(autouse=True)
def _no_sidecar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_SIDECAR_URL", raising=False)
    monkeypatch.delenv("LLM_SIDECAR_KEY", raising=False)


def config(folder: Path, store: str) -> str:
    """Write an llm.yml with this store; return its path."""
    file = folder / "llm.yml"
    server = "{listen: 127.0.0.1:9, secret: 0123456789abcdef0123456789abcdef}"  # where nobody listens
    file.write_text(f"{BASE}store: {store}\nserver: {server}\n")
    return str(file)


def test_a_file_is_read_while_its_sidecar_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report reads the file that another process owns, what is not folded in yet included; csv and json."""
    url = f"sqlite://{tmp_path}/store.db"
    keep(url, call(prompt=10, completion=5, cost=1_500_000), call(team="b", prompt=7))

    async def work() -> None:
        store = open_store(url)
        await store.start()
        store.record(call(prompt=1_000))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(
            ask, "--month", MONTH, "--config", config(tmp_path, url), "--format", "json", "--by", "team"
        )
        await store.aclose()

    asyncio.run(work())
    found = json.loads(capsys.readouterr().out)
    assert [(row["team"], row["tokens"], row["cost_usd"]) for row in found["rows"]] == [
        ("a", 1_015, 1.5),
        ("b", 7, 0.0),
    ]
    assert ask("--month", MONTH, "--config", config(tmp_path, url), "--format", "csv") == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["team"] for row in table] == ["a", "b"]
    assert ask("--month", MONTH, "--config", config(tmp_path, url)) == 0
    assert "$1.50" in capsys.readouterr().out


def test_redis_is_read_directly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report of a shared store needs no sidecar."""
    server = RedisServer(valkey_binary(), tmp_path / "redis").start()
    try:
        keep(server.url, call(prompt=42))
        assert ask("--month", MONTH, "--config", config(tmp_path, server.url), "--format", "json") == 0
    finally:
        server.kill()
    assert json.loads(capsys.readouterr().out)["total"]["tokens"] == 42


@pytest.mark.parametrize(
    ("arguments", "store", "sentence"),
    [
        (("--month", "11-2026"), "memory", "YYYY-MM"),
        (("--by", "colour"), "memory", "not by colour"),
        ((), "memory", "127.0.0.1:9 does not answer (ConnectError); LLM_SIDECAR_URL names another"),
        ((), "sqlite://{folder}/none.db", "no store at"),
        ((), "redis://127.0.0.1:1", "is down"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], store: str, sentence: str
) -> None:
    """Exit code 1, one line, no traceback."""
    assert ask("--config", config(tmp_path, store.format(folder=tmp_path)), *arguments) == 1
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1


class _Sidecar(BaseHTTPRequestHandler):
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("authorization")))
        status = 200 if self.headers.get("authorization") == "Bearer good" else 401
        total: dict[str, Any] = {"calls": 1, "completed": 1, "refused": 0, "tokens": 5, "cost_usd": 0.0,
                                 "mean_seconds": 0.0, "efficiency": None, "hit_ratio": None}  # fmt: skip
        body: dict[str, Any] = {"month": MONTH, "by": ["team"], "rows": [], "total": total, "advice": []}
        raw = json.dumps(body if status == 200 else {"error": {"message": "Send a key."}}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: Any) -> None:
        return


def test_the_running_sidecar_is_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With LLM_SIDECAR_URL and LLM_SIDECAR_KEY; a refusal is told in the sidecar's words."""
    handler = type("Handler", (_Sidecar,), {"asked": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        monkeypatch.setenv("LLM_SIDECAR_URL", f"http://127.0.0.1:{server.server_port}/v1")
        monkeypatch.setenv("LLM_SIDECAR_KEY", "good")
        assert ask("--month", MONTH, "--by", "team") == 0
        assert "total" in capsys.readouterr().out
        monkeypatch.setenv("LLM_SIDECAR_KEY", "bad")
        assert ask() == 1
        assert capsys.readouterr().err == "llm-sidecar usage: Send a key.\n"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert handler.asked[0] == (f"/admin/usage?by=team&month={MONTH}", "Bearer good")
