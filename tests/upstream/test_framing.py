"""R14, the connection's share: mutated and re-chunked replies; only UpstreamError escapes, and no cut matters."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import UpstreamError
from proxy.upstream.base import Timeouts
from proxy.upstream.connection import Connection
from proxy.upstream.pool import Pool
from proxy.upstream.url import parse_origin
from tests.upstream.origin import END, EVENTS, OK, chunk, whole

CORPUS = [
    whole(b'{"id":"x"}'),
    whole(b""),
    EVENTS + chunk(b"data: \xc3\xa9\n\n") + chunk(b"data: [DONE]\n\n") + END,
    EVENTS + b"5;a=b\r\nhello\r\n0\r\nx-trailer: 1\r\n\r\n",
    OK + b"connection: close\r\n\r\nuntil the end",
    b"HTTP/1.1 100 Continue\r\n\r\n" + whole(b"late"),
    b"HTTP/1.1 429 Slow\r\nretry-after: 3\r\nKeep-Alive: timeout=5, max=2\r\ncontent-length: 2\r\n\r\nno",
    b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nold",
    b"HTTP/1.1 204 No Content\r\n\r\n",
]
PIECES = [b"\r\n", b"\r\n\r\n", b"\n", b"\0", b"0\r\n\r\n", b"transfer-encoding: chunked\r\n", b"content-length: 3\r\n",
          b"content-length: 99999999999999999999\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 X\r\n\r\n", b"ffffffff",
          b"content-encoding: gzip\r\n", b"connection: close\r\n", b"connection: upgrade\r\nupgrade: h2c\r\n", b": x\r\n"]  # fmt: skip


LOOP = asyncio.Runner(loop_factory=uvloop.new_event_loop)
"""One loop for all examples: making one costs more than an exchange."""


@pytest.fixture(scope="module", autouse=True)
def _close_loop() -> Iterator[None]:
    yield
    LOOP.close()


class Wire:
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        self.closed = False

    def write(self, data: bytes) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_extra_info(self, name: str) -> object: ...

    def close(self) -> None:
        self.closed = True

    abort = close


def feed(conn: Connection, data: bytes) -> None:
    buffer = conn.get_buffer(-1)
    buffer[: len(data)] = data
    conn.buffer_updated(len(data))


async def _exchange(parts: list[bytes], method: str, reset: bool) -> Any:
    loop = asyncio.get_running_loop()
    pool = Pool(parse_origin("http://h"), Timeouts(), None)
    conn = Connection(pool, Timeouts(), secure=False)
    wire: Any = Wire()
    conn.ready(wire)
    reply = conn.begin(b"", method, loop.time(), loop.time() + 60, 1 << 20, sent=True)
    for part in parts:
        if wire.closed:
            break
        if part:
            feed(conn, part)
    if not wire.closed and conn not in pool._idle:
        if not reset:
            conn.eof_received()
        conn.connection_lost(ConnectionResetError() if reset else None)
    data = b""
    try:
        if not reply.status:
            assert reply.error is not None
            raise reply.error
        while True:
            piece = reply.read_nowait()
            assert piece is not None, "neither data, end nor error"
            if not piece:
                break
            data += piece
    except UpstreamError as error:
        return reply.status, dict(reply.headers), data, (error.code, error.retryable)
    finally:
        conn.connection_lost(None)
    # A connection is only ever kept after a complete message with nothing behind it.
    return reply.status, dict(reply.headers), data, conn in pool._idle


def _cut(wire: bytes, marks: list[int]) -> list[bytes]:
    places = sorted({mark % (len(wire) + 1) for mark in marks})
    return [wire[a:b] for a, b in zip([0, *places], [*places, len(wire)], strict=True)]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    wire = bytearray(draw(st.sampled_from(CORPUS)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(wire)))
        match draw(st.integers(0, 4)):
            case 0:
                wire[at : at + 1] = draw(st.binary(max_size=3))
            case 1:
                del wire[at : at + draw(st.integers(1, 20))]
            case 2:
                wire[at:at] = draw(st.sampled_from(PIECES))
            case 3:
                wire[at:at] = wire[at : at + draw(st.integers(1, 30))]
            case _:
                wire += draw(st.sampled_from(CORPUS))
    return bytes(wire)


def _same_for_any_cut(wire: bytes, marks: list[int], method: str, reset: bool) -> None:
    async def all_cuts() -> None:
        whole = await _exchange([wire], method, reset)
        ones = [wire[n : n + 1] for n in range(len(wire))]
        for parts in (_cut(wire, marks), ones):
            cut = await _exchange(parts, method, reset)
            # Cut in time, bytes behind a message are seen only on the idle connection, which they discard too.
            assert cut[:3] == whole[:3]
            if not isinstance(whole[3], bool):
                assert cut[3] == whole[3]

    LOOP.run(all_cuts())


CASES = (mutated(), st.lists(st.integers(0, 4000), max_size=10), st.sampled_from(["POST", "HEAD"]), st.booleans())


@given(*CASES)
@settings(max_examples=80, deadline=None)
def test_mutated_replies(wire: bytes, marks: list[int], method: str, reset: bool) -> None:
    """Whatever bytes arrive in whatever pieces: an answer or an UpstreamError, the same for every cut."""
    _same_for_any_cut(wire, marks, method, reset)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@given(*CASES)
@settings(max_examples=20_000, deadline=None)
def test_mutated_replies_at_full_size(wire: bytes, marks: list[int], method: str, reset: bool) -> None:
    """The same, 20,000 times."""
    _same_for_any_cut(wire, marks, method, reset)


@pytest.mark.parametrize("wire", CORPUS, ids=range(len(CORPUS)))
def test_the_corpus_itself(wire: bytes) -> None:
    """Unmutated, every reply of the corpus is an answer, at any cut."""

    async def run() -> None:
        whole = await _exchange([wire], "POST", False)
        assert isinstance(whole[3], bool)
        for at in range(len(wire) + 1):
            assert (await _exchange([wire[:at], wire[at:]], "POST", False)) == whole

    LOOP.run(run())


@pytest.mark.parametrize(
    ("left", "answer"),
    [
        (b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge", (413, b"large", None)),
        (EVENTS + chunk(b"half"), (200, b"half", "upstream_error")),
        (OK + b"\r\nuntil the end", (200, b"until the end", "upstream_error")),
        (b"HTTP/1.1 4", (0, b"", "upstream_unreachable")),
        (b"", (0, b"", "upstream_unreachable")),
    ],
)
async def test_what_the_kernel_still_holds_wins_over_a_write_error(
    left: bytes, answer: tuple[int, bytes, object]
) -> None:
    """A write fails while a reply lies unread in the socket: it is read first; the end after it proves nothing."""
    loop = asyncio.get_running_loop()
    conn = Connection(Pool(parse_origin("http://h"), Timeouts(), None), Timeouts(), secure=False)
    ours, theirs = socket.socketpair()
    wire: Any = Wire()
    wire.get_extra_info = {"socket": ours}.get
    conn.ready(wire)
    reply = conn.begin(b"", "POST", loop.time(), loop.time() + 60, 1 << 20, sent=False)
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(left)
        theirs.close()
        conn.connection_lost(BrokenPipeError())
    data = b""
    while piece := reply.read_nowait() if not reply.error or reply.queued else b"":
        data += piece
    assert (reply.status, data, reply.error and reply.error.code) == answer
