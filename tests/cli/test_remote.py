"""How commands find the running sidecar."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
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


class Six(HTTPServer):
    """The same with IPv6, and nothing else."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()


@pytest.fixture
def server() -> Iterator[Any]:
    """Run a server on a free port."""
    yield from _running(HTTPServer(("127.0.0.1", 0), Answering))


@pytest.fixture
def server6() -> Iterator[Any]:
    """Run one that only IPv6 reaches."""
    yield from _running(Six(("::1", 0), Answering))


def _running(made: Any) -> Iterator[Any]:
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


TOTAL = {
    "calls": 1,
    "completed": 1,
    "refused": 0,
    "tokens": 5,
    "cost_usd": 0.0,
    "mean_seconds": 0.1,
    "efficiency": None,
    "hit_ratio": None,
}
ANSWER = json.dumps(
    {"month": "2026-10", "by": ["team"], "rows": [], "total": TOTAL, "advice": [], "flushed": True}
).encode()
KEY = "k" * 20
ONE_KEY = f"auth: {{keys: [{{id: a, key: {KEY}}}]}}"
ECHO = "providers: {echo: null}"


@pytest.mark.parametrize("listen", ["127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::]"])
def test_every_command_finds_the_sidecar_where_llm_yml_listens(
    server: Any, server6: Any, run: Run, tmp_path: Path, listen: str
) -> None:
    """Without LLM_SIDECAR_URL, `flush` and `usage` ask where `server.listen` says; an address for all is this machine's."""
    asked = server6 if listen.startswith("[") else server
    asked.body = ANSWER
    (tmp_path / "llm.yml").write_text(f"{ECHO}\nserver: {{listen: '{listen}:{asked.server_port}'}}\n{ONE_KEY}\n")
    for command in (("flush",), ("usage", "--month", "2026-10"), ("flush", "--config", "llm.yml")):
        result = run(*command, LLM_SIDECAR_KEY=KEY)
        assert result.code == 0, result.err
    flush, usage = ("POST", "/admin/cache/flush"), ("GET", "/admin/usage?by=team%2Cmodel&month=2026-10")
    assert asked.asked == [(*one, f"Bearer {KEY}") for one in (flush, usage, flush)]


@pytest.mark.parametrize("command", ["flush", "usage"])
def test_without_any_file_the_default_address_is_asked(run: Run, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no llm.yml the sidecar listens on 127.0.0.1:8080, whether or not this shell has its variables."""
    monkeypatch.setattr("proxy.config.load.SYSTEM_PATH", "/nonexistent/llm.yml")
    asked: list[str] = []

    def request(method: str, url: str, **more: Any) -> Any:
        asked.append(url)
        raise httpx2.ConnectError("nobody there")

    monkeypatch.setattr(httpx2, "request", request)
    result = run(command)
    assert result.code == 1 and "http://127.0.0.1:8080 does not answer" in result.err
    assert len(asked) == 1 and asked[0].startswith("http://127.0.0.1:8080/admin/")


@pytest.mark.parametrize("command", ["flush", "usage"])
def test_where_the_address_cannot_be_told_the_variable_is_named(run: Run, command: str) -> None:
    """A port that was any free one, or a file with mistakes: the sentence names LLM_SIDECAR_URL."""
    for config in (f"{ECHO}\nserver: {{listen: '127.0.0.1:0'}}\n", f"{ECHO}\nserver: {{lisen: x}}\n"):
        result = run(command, config=config)
        assert result.code == 1 and "LLM_SIDECAR_URL" in result.err, result.err


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
