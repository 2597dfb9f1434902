"""Mutated raw requests never hang, crash or confuse the server (R13)."""

from __future__ import annotations

import itertools
import json
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.harness import request
from tests.server.test_framing import BODIES, GOOD, HEADS, POST

SEEDS = [
    request("/echo", b'{"a": 1}', "Authorization: Bearer x", "Content-Type: application/json"),
    request("/echo?q", b"", method="GET"),
    request("/echo", b"{}", "Expect: 100-continue"),
    request("/echo", b"{}", "Connection: close") + request("/echo", b"{}"),
    request("/refuse", b"x" * 300),
    request("/stream", b"") + request("/echo", b"{}"),
    POST + b"Transfer-Encoding: chunked\r\n\r\n4;a=b\r\nabcd\r\n0\r\nX-T: v\r\n\r\n" + request("/echo", b"{}"),
    *(raw for raw, _, _ in GOOD.values()),
    *HEADS.values(),
    *(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body for body in BODIES.values()),
]
TOKENS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\r\n\r\n", b"0\r\n\r\n", b"Content-Length: 3\r\n", b"chunked",
    b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1", b"HTTP/1.0", b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"\xff", b"%",
    b"99999999999", b"-1", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"#", b"?", b"//",
]  # fmt: skip

edits = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace", "double"]),
        st.floats(0, 1),
        st.integers(1, 40),
        st.sampled_from(TOKENS),
    ),
    min_size=1,
    max_size=5,
)
cuts = st.lists(st.floats(0, 1), max_size=3)


def mutate(raw: bytes, changes: list[tuple[str, float, int, bytes]]) -> bytes:
    """Return ``raw`` after the given edits."""
    for kind, where, length, token in changes:
        at = int(where * len(raw))
        if kind == "insert":
            raw = raw[:at] + token + raw[at:]
        elif kind == "delete":
            raw = raw[:at] + raw[at + length :]
        elif kind == "replace":
            raw = raw[:at] + token + raw[at + len(token) :]
        else:
            raw = raw[: at + length] + raw[at:]
    return raw


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server process with short deadlines; it must be alive at the end."""
    options = {"receive_timeout": 0.3, "keep_alive_timeout": 0.3, "linger_timeout": 0.3, "drain_delay": 0}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.server.child", json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        number = int(json.loads(process.stdout.readline())["urls"][0].rpartition(":")[2])
        yield number
        assert process.poll() is None
        process.terminate()
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        assert errors == b""
    finally:
        process.kill()
        process.wait()


def attack(port: int, raw: bytes, places: list[float], *, half: bool) -> None:
    """Send ``raw`` in pieces; the server must answer or close in time, without a 5xx."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        answer = b""
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            marks = [0, *sorted(int(place * len(raw)) for place in places), len(raw)]
            for begin, end in itertools.pairwise(marks):
                client.sendall(raw[begin:end])
            if half:
                client.shutdown(socket.SHUT_WR)
            while data := client.recv(65536):
                answer += data
        except TimeoutError:
            pytest.fail(f"hangs: {raw!r}")
        except OSError:
            pass  # reset, or closed before our half was
    for status in re.findall(rb"^HTTP/1\.1 (\d+) ", answer):
        assert int(status) in (100, 200, 400, 401, 404, 405, 408, 413, 431), answer
    assert not answer or answer.startswith(b"HTTP/1.1 ")


def probe(port: int) -> None:
    """The next good call is served."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(request("/echo", b"{}"))
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SEEDS), edits, cuts)
def test_mutated_requests_are_answered_or_closed(
    port: int, seed: bytes, changes: list[tuple[str, float, int, bytes]], places: list[float]
) -> None:
    """Whatever arrives, the server answers below 500 or closes, and serves the next good call."""
    attack(port, mutate(seed, changes), places, half=True)
    probe(port)


@pytest.mark.slow
@pytest.mark.alone
def test_20_000_mutated_requests(port: int) -> None:
    """The same at full size, some without an end of their half, so that deadlines decide."""
    source = random.Random(20_000)
    for number in range(20_000):
        changes = [
            (
                source.choice(["insert", "delete", "replace", "double"]),
                source.random(),
                source.randint(1, 40),
                source.choice(TOKENS),
            )
            for _ in range(source.randint(1, 5))
        ]
        places = [source.random() for _ in range(source.randint(0, 3))]
        attack(port, mutate(source.choice(SEEDS), changes), places, half=number % 200 != 0)
        if number % 20 == 0:
            probe(port)
    probe(port)
