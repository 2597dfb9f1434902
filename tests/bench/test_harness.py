"""The benchmark's own instruments: what they count is what happened."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench import build, calls
from tests.bench.measure import Result, Sample
from tests.bench.procs import OTHER_CORE, Process
from tests.bench.scenarios import Scenario
from tests.bench.wire import Load, Provider, load

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc, like `make bench`")
PATHS = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
}
#: Events of a stream beside its chunks: first and last ones, and OpenAI's [DONE].
AROUND = {"openai": 3, "anthropic": 6, "gemini": 1}


@pytest.fixture(scope="module")
def program() -> Path:
    return build.wire()


@pytest.fixture(scope="module")
def provider(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    running = Provider(program, tmp_path_factory.mktemp("bench"))
    yield running
    running.process.stop()


def ask(folder: Path, port: int, path: str = PATHS["openai"], **options: Any) -> Path:
    content = calls.body(model="gpt-4o-mini", **options)
    return calls.write(folder / "request", content, path=path, port=port, key="k" * 16)


def test_whole_replies_are_counted_alike_on_both_ends(program: Path, provider: Provider, tmp_path: Path) -> None:
    """As many calls as were asked for reach the provider, and each is counted once with all its bytes."""
    before = provider.stats()
    seen = load(program, provider.port, ask(tmp_path, provider.port), connections=8, seconds=20, requests=500)
    assert (seen.requests, seen.ok, seen.failures, seen.reconnects) == (500, 500, 0, 0)
    after = provider.stats()
    assert after["requests"] - before["requests"] == 500
    assert 900 < seen.bytes / 500 < 1300, "a reply of about 1 KB"
    assert 0 < seen.p50_us <= seen.p99_us <= seen.max_us


@pytest.mark.parametrize("wire", PATHS)
@pytest.mark.parametrize("pace", [0, 2000])
def test_streams_are_counted_alike_on_both_ends(
    program: Path, provider: Provider, tmp_path: Path, wire: str, pace: int
) -> None:
    """Every chunk that the provider sends is an event that the callers see, on each vendor's wire."""
    provider.set(pace=pace, chunks=20)
    before = provider.stats()
    request = ask(tmp_path, provider.port, PATHS[wire], stream=True)
    seen = load(program, provider.port, request, connections=10, seconds=20, requests=30, events=20)
    after = provider.stats()
    assert (seen.ok, seen.failures) == (30, 0)
    assert after["chunks"] - before["chunks"] == 30 * 20
    assert after["ended"] - before["ended"] == 30
    assert after["aborted"] == before["aborted"]
    assert seen.events == 30 * (20 + AROUND[wire])
    if pace:
        assert seen.seconds > 3 * 19 * pace / 1e6, "three streams after one another on each connection"


def test_usage_comes_to_those_who_ask(program: Path, provider: Provider, tmp_path: Path) -> None:
    """A stream with ``include_usage`` has one event more: the counts."""
    provider.set(pace=0, chunks=20)
    content = {**calls.body(model="gpt-4o-mini", stream=True), "stream_options": {"include_usage": True}}
    request = calls.write(tmp_path / "request", content, path=PATHS["openai"], port=provider.port, key="k" * 16)
    seen = load(program, provider.port, request, connections=1, seconds=20, requests=5)
    assert seen.events == 5 * (20 + AROUND["openai"] + 1)


def test_a_cut_stream_is_no_success(program: Path, provider: Provider, tmp_path: Path) -> None:
    """A stream with fewer events than expected counts as short, never as ok."""
    provider.set(pace=0, chunks=20)
    request = ask(tmp_path, provider.port, stream=True)
    seen = load(program, provider.port, request, connections=2, seconds=20, requests=10, events=100)
    assert (seen.ok, seen.short) == (0, 10)
    assert "10 short" in seen.complaint()


@contextlib.contextmanager
def server(answer: Callable[[socket.socket, bytes], None]) -> Iterator[int]:
    """A server for one connection: ``answer`` gets each request whole."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)

    def serve() -> None:
        with contextlib.suppress(OSError):
            peer, _ = listener.accept()
            peer.settimeout(20)
            with peer:
                data = b""
                while more := peer.recv(65536):
                    data += more
                    while (size := whole(data)) is not None:
                        answer(peer, data[:size])
                        data = data[size:]

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        thread.join(20)


def whole(data: bytes) -> int | None:
    head, blank, _ = data.partition(b"\r\n\r\n")
    if not blank:
        return None
    found = re.search(rb"content-length: (\d+)", head.lower())
    assert found
    size = len(head) + 4 + int(found[1])
    return size if len(data) >= size else None


def test_refusals_are_counted_and_shown(program: Path, tmp_path: Path) -> None:
    """A status other than 2xx is a failure, and the first one's text is told."""
    reply = b'HTTP/1.1 429 Too Many\r\nContent-Length: 16\r\n\r\n{"error":"slow"}'
    with server(lambda peer, _: peer.sendall(reply)) as port:
        seen = load(program, port, ask(tmp_path, port), connections=1, seconds=20, requests=7)
    assert (seen.ok, seen.non2xx) == (0, 7)
    assert "7 non2xx" in seen.complaint()
    assert "429 {'error':'slow'}" in seen.complaint()


def fifty(program: Path, folder: Path, **options: Any) -> list[list[str]]:
    """Send a request fifty times; return the texts of each one's messages, as they arrived."""
    got: list[bytes] = []

    def answer(peer: socket.socket, request: bytes) -> None:
        got.append(request)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with server(answer) as port:
        assert load(program, port, ask(folder, port, **options), connections=1, seconds=20, requests=50).ok == 50
    bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in got]
    return [[message["content"] for message in body["messages"]] for body in bodies]


def test_serial_requests_differ(program: Path, tmp_path: Path) -> None:
    """The mark in a request becomes a number that no other request has; all else stays, and stays valid JSON."""
    systems, prompts = zip(*fifty(program, tmp_path, serial=True), strict=True)
    assert (len(systems), len(set(systems)), len(set(prompts))) == (50, 50, 1)


def test_prompts_in_words_differ(program: Path, tmp_path: Path) -> None:
    """The other mark becomes words that no other prompt has, and nothing that a detector could take for a number."""
    systems, prompts = zip(*fifty(program, tmp_path, prompt=calls.plain(300, serial=True)), strict=True)
    assert (len(prompts), len(set(prompts)), len(set(systems))) == (50, 50, 1)
    assert {len(prompt) for prompt in prompts} == {300}
    assert all(re.fullmatch("[a-z]{4} [a-z]{4} [a-z]{4} [a-z]", prompt[-16:]) for prompt in prompts)


@pytest.mark.parametrize("step", [1, 7])
def test_events_are_counted_however_they_are_cut(program: Path, tmp_path: Path, step: int) -> None:
    """Bytes that trickle in give the same events as bytes that come at once."""
    events = b'event: x\ndata: {"a":"data: no event"}\n\n: data: a comment\n\ndata:2\n\ndata: [DONE]\n\n'
    cut = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (events[:11], events[11:45], events[45:]))
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + cut + b"0\r\n\r\n"

    def answer(peer: socket.socket, _: bytes) -> None:
        for at in range(0, len(reply), step):
            peer.sendall(reply[at : at + step])

    with server(answer) as port:
        seen = load(program, port, ask(tmp_path, port), connections=1, seconds=20, requests=2, events=3)
    assert (seen.ok, seen.events, seen.failures) == (2, 6, 0)


def test_a_connection_lost_in_mid_reply_is_broken(program: Path, tmp_path: Path) -> None:
    """A reply that ends before its length is a failure."""

    def answer(peer: socket.socket, _: bytes) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        peer.close()

    with server(answer) as port:
        seen = load(program, port, ask(tmp_path, port), connections=1, seconds=20, requests=1)
    assert (seen.ok, seen.broken) == (0, 1)


def test_cpu_of_the_whole_tree_is_seen_and_ended(tmp_path: Path) -> None:
    """A grandchild's CPU time counts for the process, and ``stop`` ends it too."""
    burn = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint('done'); time.sleep(60)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-u', '-c', {burn!r}])"
    process = Process([sys.executable, "-u", "-c", outer], tmp_path / "log", core=OTHER_CORE)
    try:
        limit = time.monotonic() + 20
        while "done" not in (tmp_path / "log").read_text() and time.monotonic() < limit:
            time.sleep(0.01)
        members = process.members()
        assert len(members) == 2
        assert 0.3e9 <= process.cpu() < 5e9
        assert process.rss() > 5_000_000
    finally:
        process.stop()
    limit = time.monotonic() + 5
    while any(Path(f"/proc/{pid}/cmdline").exists() and alive(pid) for pid in members) and time.monotonic() < limit:
        time.sleep(0.01)
    assert not any(alive(pid) for pid in members)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def sample(cpu: float | None) -> Sample:
    return Sample(cpu, 1.0, Load(1, 1, 0, 0, 0, 0, 0, 0, 0, 1.0, 1, 1, 1, 1, 1, 0, ""), "")


def test_lanes_are_compared_within_their_round() -> None:
    """Differences and ratios pair the samples of one round, and leave out a round in which one lane failed."""
    result = Result(Scenario("s", "s", (), 1), {"a": [], "b": []})
    result.samples["a"] = [sample(11), sample(None), sample(120), sample(230)]
    result.samples["b"] = [sample(10), sample(50), sample(100), sample(200)]
    assert result.more("a", "b", lambda one: one.cpu_us) == 20
    assert result.ratio("a", "b") == pytest.approx(1.15)
    assert result.more("a", "missing", lambda one: one.cpu_us) is None


def test_requests_have_the_size_they_say() -> None:
    """The body of a plain request is 1 KB, a prompt is as long as asked for, findings included."""
    for options in ({}, {"stream": True}, {"serial": True}):
        body = calls.body(model="gpt-4o-mini", **options)
        assert len(json.dumps(body, separators=(",", ":"))) == 1024
    assert len(calls.plain(4096)) == len(calls.telling(4096, 10)) == 4096
    assert calls.telling(4096, 10).count("@example.com") == 5
    assert len(calls.lines(1000).splitlines()) == 1000
