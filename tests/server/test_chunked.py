"""The chunked decoder: any cut is the same, and llhttp never sees another body in the same bytes."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.server.body import Body
from proxy.server.chunked import BadChunk, ChunkedDecoder

SEED = b"5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nX-T: v\r\n\r\nGET /"


def decode(pieces: list[bytes]) -> tuple[bytes, bool, bytes]:
    """Return body, whether it is over, and what follows it."""
    decoder = ChunkedDecoder()
    out = b""
    for number, piece in enumerate(pieces):
        out += decoder.feed(piece)
        if decoder.done:
            return out, True, decoder.rest + b"".join(pieces[number + 1 :])
    return out, False, b""


def outcome(pieces: list[bytes]) -> object:
    """Return what decoding gives; every error is the same error."""
    try:
        return decode(pieces)
    except BadChunk:
        return "refused"


@pytest.mark.parametrize("size", range(1, len(SEED)))
def test_every_cut_gives_the_same_body(size: int) -> None:
    """The body, its end and the rest do not depend on how the bytes arrive."""
    pieces = [SEED[at : at + size] for at in range(0, len(SEED), size)]
    assert decode(pieces) == (b"hello0123456789", True, b"GET /")


@given(st.data())
def test_what_is_accepted_llhttp_reads_alike(data: st.DataObject) -> None:
    """Mutated bodies: refused, or the same data that llhttp's strict parser finds; whole and byte by byte alike."""
    raw = bytearray(SEED)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"0", b"5", b"f", b";", b" ", b"x", b"0\r\n\r\n", b"\0"])
        )
    whole = outcome([bytes(raw)])
    assert whole == outcome([bytes([byte]) for byte in raw])
    if whole == "refused":
        return
    assert isinstance(whole, tuple)
    found: list[bytes] = []
    ends: list[bool] = []

    class Target:
        def on_body(self, body: bytes) -> None:
            if not ends:
                found.append(body)

        def on_message_complete(self) -> None:
            ends.append(True)

    parser = httptools.HttpRequestParser(Target())
    try:
        parser.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + bytes(raw))
    except httptools.HttpParserError:
        if not ends:
            assert not whole[1]  # llhttp may see sooner that an unfinished body is broken, never that a whole one is
            return
    assert b"".join(found) == whole[0]
    assert bool(ends) == whole[1]


def test_a_body_of_single_bytes_costs_no_object_each() -> None:
    """A million one-byte pieces are held in a handful of blocks."""
    body = Body(200_000)
    for _ in range(200_000):
        assert body.feed(b"x") == b""
    assert body.done
    assert len(body._parts) <= 4
    assert body.take() == b"x" * 200_000


def test_a_counted_body_gives_back_what_is_behind_it() -> None:
    """Bytes beyond the length belong to the next request."""
    body = Body(5)
    assert body.feed(b"hel") == b""
    assert body.feed(b"loGET") == b"GET"
    assert (body.done, body.take()) == (True, b"hello")
