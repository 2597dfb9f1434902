"""Server-sent events: the standard's cases, every cut of them, and bounds that hold."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.errors import UpstreamError
from proxy.upstream.sse import SseParser

Events = list[tuple[str, bytes]]


def parse(*pieces: bytes, flush: bool = True, **options: int) -> Events:
    parser = SseParser(**options)
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + (parser.flush() if flush else [])


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (b'data: {"a":1}\n\n', [("", b'{"a":1}')]),
        (b"data: 1\n\ndata: 2\n\n", [("", b"1"), ("", b"2")]),
        (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [("", b"1"), ("", b"2")]),
        (b"data: 1\r\rdata: 2\r\r", [("", b"1"), ("", b"2")]),
        (b"data: 1\n\r\ndata: 2\r\n\n", [("", b"1"), ("", b"2")]),
        (b"event: ping\ndata: {}\n\n", [("ping", b"{}")]),
        (b"event:ping\r\ndata:{}\r\n\r\n", [("ping", b"{}")]),
        (b"data: {}\nevent: late\n\n", [("late", b"{}")]),
        (b"event: a\nevent: b\ndata: x\n\ndata: y\n\n", [("b", b"x"), ("", b"y")]),
        (b"data: a\ndata: b\ndata:\n\n", [("", b"a\nb\n")]),
        (b"event: x\ndata: a\ndata:  b\n\n", [("x", b"a\n b")]),
        (b": OPENROUTER PROCESSING\n\n: ping\ndata: x\n\n", [("", b"x")]),
        (b"data\n\ndata\ndata\n\n", [("", b""), ("", b"\n")]),
        (b"data:x\n\ndata:  y\n\n", [("", b"x"), ("", b" y")]),
        (b"id: 1\nretry: 5\ndata: x\nunknown: 1\ndata2: no\n\n", [("", b"x")]),
        (b"event: only\n\ndata: x\n\n", [("", b"x")]),
        (b"\n\n\n\ndata: x\n\n\n\n\ndata: y\n\n", [("", b"x"), ("", b"y")]),
        (b"\xef\xbb\xbfdata: x\n\n", [("", b"x")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\ndata: y\n\n", [("", b"y")]),
        ("data: é\u2028ü\n\n".encode(), [("", "é\u2028ü".encode())]),
        (b"data: a\0b\n\n", [("", b"a\0b")]),
        (b"event: \xff\ndata: x\n\n", [("\ufffd", b"x")]),
        (b"", []),
        (b"\n", []),
        # the last event without its blank line
        (b"data: 1\n\ndata: [DONE]", [("", b"1"), ("", b"[DONE]")]),
        (b"data: 1\n\ndata: [DONE]\n", [("", b"1"), ("", b"[DONE]")]),
        (b'data: {"a":{"b":1}}', [("", b'{"a":{"b":1}}')]),
        (b"data: plain\n", [("", b"plain")]),
        (b"event: message_stop\r\ndata: {}\r\n", [("message_stop", b"{}")]),
        # … and cut in its middle: dropped, never half an event
        (b"data: [DON", []),
        (b'data: {"a":{"b":1}', []),
        (b"data: pl", []),
        (b"data: 1\ndata: 2", [("", b"1")]),
        (b"event: x", []),
        (b"\xef\xbb", []),
        (b"\xef\xbb\xbf", []),
    ],
)
def test_events(wire: bytes, events: Events) -> None:
    """Each case gives the same events whole, byte by byte, and cut in two anywhere."""
    assert parse(wire) == events
    assert parse(*(bytes((byte,)) for byte in wire)) == events
    for cut in range(len(wire) + 1):
        assert parse(wire[:cut], wire[cut:]) == events


def test_events_come_as_soon_as_they_are_complete() -> None:
    """An event is handed out with the byte that completes it, not with the next one."""
    parser = SseParser()
    assert parser.feed(b"data: 1\n") == []
    assert parser.feed(b"\nda") == [("", b"1")]
    assert parser.feed(b"ta: 2\r\n\r") == [("", b"2")]
    assert parser.feed(b"\ndata: 3\n\n") == [("", b"3")]


LINE = st.sampled_from(
    [b"data: ", b"data:", b"data", b"event: e", b"event:", b": c", b"id: 1", b"x", b"{}", b"[DONE]", "é€😀".encode(), b"\xff",
     b"\xef\xbb\xbf", b" "]
)  # fmt: skip
BREAK = st.sampled_from([b"", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r"])
WIRE = st.lists(st.tuples(LINE, BREAK), max_size=30).map(lambda parts: b"".join(a + b for a, b in parts))


def cut(wire: bytes, marks: list[int]) -> list[bytes]:
    places = sorted({mark % (len(wire) + 1) for mark in marks})
    return [wire[a:b] for a, b in zip([0, *places], [*places, len(wire)], strict=True)]


@given(WIRE, st.lists(st.integers(0, 10_000), max_size=12), st.integers(6, 40))
@example(b"data: x\n\ndata: yy", [8], 7)
@example(b"data: x\n\ndata: y\n\n", [8], 7)
@settings(max_examples=150, deadline=None)
def test_any_cut_gives_the_same(wire: bytes, marks: list[int], cap: int) -> None:
    """Whole ≡ any chunking, the cap on an event's size included; only UpstreamError escapes."""

    def outcome(pieces: list[bytes]) -> object:
        parser = SseParser(max_event=cap)
        events: Events = []
        try:
            for piece in pieces:
                events += parser.feed(piece)
            return events + parser.flush()
        except UpstreamError as error:
            assert error.code == "upstream_invalid_response"
            return "too large"

    whole = outcome([wire])
    assert outcome(cut(wire, marks)) == whole
    assert outcome([wire[n : n + 1] for n in range(len(wire))]) == whole


@pytest.mark.slow
@pytest.mark.timeout(600)
@given(st.binary(max_size=300) | WIRE, st.lists(st.integers(0, 10_000), max_size=30))
@settings(max_examples=20_000, deadline=None)
def test_any_bytes_at_any_cut(wire: bytes, marks: list[int]) -> None:
    """R14's share: 20,000 streams of arbitrary bytes, cut anywhere, parse as the whole does."""
    assert parse(*cut(wire, marks)) == parse(wire)


@pytest.mark.parametrize("start", [b"data: ", b": ", b"x" * 10, b"data: a\ndata: "])
def test_a_line_without_end_is_refused_at_the_cap(start: bytes) -> None:
    """R6: a line of 100 MiB is refused as soon as the cap is passed, whatever kind of line it is."""
    parser = SseParser(max_event=1_000_000)
    parser.feed(start)
    fed = 0
    with pytest.raises(UpstreamError) as caught:
        while fed < 100 * 1024 * 1024:
            parser.feed(b"x" * 65_536)
            fed += 65_536
    assert caught.value.code == "upstream_invalid_response"
    assert fed <= 1_000_000


def test_a_big_event_costs_linear_time() -> None:
    """An event of 4 MiB in pieces of 16 bytes takes about twice as long as one of 2 MiB, not four times."""

    def took(size: int) -> float:
        parser = SseParser()
        began = time.process_time()
        parser.feed(b"data: ")
        for _ in range(size // 16):
            parser.feed(b"0123456789abcdef")
        assert len(parser.feed(b"\n\n")[0][1]) == size
        return time.process_time() - began

    small = min(took(1 << 19) for _ in range(3))
    large = min(took(1 << 20) for _ in range(3))
    assert large < 3 * small


def test_floods_of_tiny_events() -> None:
    """R6: hundreds of thousands of events in big reads are all seen."""
    parser = SseParser()
    piece = b"data: 1\n\n" * 30_000
    assert sum(len(parser.feed(piece)) for _ in range(10)) == 300_000


def test_many_names_are_not_all_remembered() -> None:
    """A stream that invents a new event name each time grows nothing."""
    parser = SseParser()
    for n in range(1000):
        assert parser.feed(b"event: %d\ndata: x\n\n" % n) == [(str(n), b"x")]
    assert len(parser._names) <= 64


@pytest.mark.bench
def test_the_common_event_costs_little() -> None:
    """An event of 250 bytes, alone in its read or one of ten, stays within a few times 0.6 µs on a busy machine."""
    event = b'data: {"id":"chatcmpl-1","choices":[{"delta":{"content":"' + b"x" * 188 + b'"}}]}\n\n'
    assert 240 <= len(event) <= 260
    for together in (1, 10):
        parser = SseParser()
        piece = event * together
        best = min(_timed(parser, piece) for _ in range(30))
        print(f"{together} a read: {best / together * 1e6:.2f} µs an event")
        assert best / together < 2e-6


def _timed(parser: SseParser, piece: bytes) -> float:
    began = time.perf_counter()
    for _ in range(1000):
        parser.feed(piece)
    return (time.perf_counter() - began) / 1000
