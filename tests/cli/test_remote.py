"""How commands find the running sidecar."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.cli.conftest import Run


class Answering(BaseHTTPRequestHandler):
    """Answers every request with what the server was told; remembers who asked for what."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append((self.command, self.path, self.headers.get("authorization")))
        self.send_response(server.status)
        self.send_header("content-length", str(len(server.body)))
        self.end_headers()
        self.wfile.write(server.body)

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        """Stay silent."""


@pytest.fixture
def server() -> Iterator[Any]:
    """Run a server on a free port."""
    made: Any = HTTPServer(("127.0.0.1", 0), Answering)
    made.asked, made.status, made.body = [], 200, b"{}"  # such as no sidecar answers
    thread = Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_address_and_key_may_stand_in_the_env_files(server: Any, run: Run, tmp_path: Path) -> None:
    """`.env.llm` and `.env` are read for LLM_SIDECAR_URL and LLM_SIDECAR_KEY, too; the process environment wins."""
    (tmp_path / ".env").write_text(f"LLM_SIDECAR_URL=http://127.0.0.1:{server.server_port}/v1/\nLLM_SIDECAR_KEY=old\n")
    (tmp_path / ".env.llm").write_text("LLM_SIDECAR_KEY=from-file\n")
    server.body = b'{"flushed": true}'
    assert run("flush").code == 0
    assert run("flush", LLM_SIDECAR_KEY="from-process").code == 0
    run("usage", "--month", "2026-10")
    assert server.asked == [
        ("POST", "/admin/cache/flush", "Bearer from-file"), ("POST", "/admin/cache/flush", "Bearer from-process"),
        ("GET", "/admin/usage?by=team%2Cmodel&month=2026-10", "Bearer from-process"),
    ]  # fmt: skip


def test_usage_in_memory_is_asked_of_the_sidecar_where_llm_yml_listens(server: Any, run: Run, tmp_path: Path) -> None:
    """Without LLM_SIDECAR_URL, a memory store's usage comes from the sidecar that holds it, on whatever address."""
    total = {
        "calls": 1,
        "completed": 1,
        "refused": 0,
        "tokens": 5,
        "cost_usd": 0.0,
        "efficiency": None,
        "hit_ratio": None,
    }
    server.body = json.dumps({"month": "2026-10", "by": ["team"], "rows": [], "total": total, "advice": []}).encode()
    for host in ("127.0.0.1", "0.0.0.0"):
        listen = f"server: {{listen: '{host}:{server.server_port}'}}\nauth: {{keys: [{{id: a, key: {'k' * 20}}}]}}\n"
        (tmp_path / "llm.yml").write_text(f"providers: {{echo: null}}\n{listen}")
        result = run("usage", "--month", "2026-10", "--format", "json", LLM_SIDECAR_KEY="k" * 20)
        assert (result.code, json.loads(result.out)["total"]["tokens"]) == (0, 5), result.err
    assert server.asked == [("GET", "/admin/usage?by=team%2Cmodel&month=2026-10", f"Bearer {'k' * 20}")] * 2


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [(403, json.dumps({"error": {"message": "No."}}), "No."), (500, "{}", "The sidecar answered 500."),
     (200, "<html>", "is no llm-sidecar."), (200, "[1]", "is no llm-sidecar."), (200, "{}", "is no llm-sidecar."), (500, '{"error": "x"}', "answered 500.")],
)  # fmt: skip
@pytest.mark.parametrize("command", ["flush", "usage"])
def test_what_goes_wrong_is_one_sentence(
    server: Any, run: Run, command: str, status: int, body: str, said: str
) -> None:
    """A refusal in the sidecar's own words, anything else in ours; never a traceback."""
    server.status, server.body = status, body.encode()
    result = run(command, LLM_SIDECAR_URL=f"http://127.0.0.1:{server.server_port}")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert said in result.err


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://[::1", "ftp://127.0.0.1"])
def test_an_address_where_nobody_answers(run: Run, url: str) -> None:
    """Whatever stands in LLM_SIDECAR_URL, the sentence names it."""
    result = run("usage", LLM_SIDECAR_URL=url)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert url in result.err
