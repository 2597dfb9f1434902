"""The head parser's memory never changes what a head means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ApiError
from proxy.server.head import HeadParser
from tests.server.test_framing import GOOD, HEADS

PLAIN = (
    b"POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n"
    b"Content-Length: %b\r\nX-After: 12\r\n\r\n"
)


def meaning(parser: HeadParser, raw: bytes) -> Any:
    """Return all that a parse tells, or that it refuses."""
    try:
        head = parser.parse(raw)
    except ApiError as error:
        return error.code
    return (
        head.method, head.path, head.raw_path, head.query, head.chunked, head.keep_alive, head.http10, head.expects,
        head.is_head, head.scope, parser.headers, parser.length,
    )  # fmt: skip


def test_a_second_head_with_another_length_is_read_without_llhttp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same head with another content-length, and the same head without one, need no second parse."""
    for first, second, length in (
        (PLAIN % b"1024", PLAIN % b"7", 7),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0),
    ):
        parser = HeadParser({})
        parser.parse(first)
        expected = meaning(HeadParser({}), second)
        monkeypatch.setattr(parser.__class__, "_parse", None)
        assert meaning(parser, second) == expected
        assert parser.length == length
        monkeypatch.undo()


@pytest.mark.parametrize(
    "second",
    [
        (PLAIN % b"1024").replace(b"X-After: 12", b"X-After: 13"),
        (PLAIN % b"1024").replace(b"X-After: 12", b"X-After\x00 12"),
        (PLAIN % b"1024").replace(b"Bearer x", b"Bearer y"),
        (PLAIN % b"1024").replace(b"Host: a", b"Host: b"),
        *(PLAIN % value for value in (b"1x24", b"+102", b" 10", b"10 ", b"", b"9" * 16, b"\xb2", b"1,2", b"5\r\nX: 4")),
        PLAIN % b"5\r\nContent-Length: 4",
        PLAIN % b"5\r\nTransfer-Encoding: chunked",
        (PLAIN % b"1024")[:-2],
    ],
)
def test_a_head_that_is_nearly_the_last_is_parsed_anew(second: bytes) -> None:
    """Only plain digits may differ from the remembered head; anything else means what it means alone."""
    parser = HeadParser({})
    parser.parse(PLAIN % b"1024")
    assert meaning(parser, second) == meaning(HeadParser({}), second)


def test_the_headers_of_one_request_are_not_those_of_the_next() -> None:
    """An application that changes its list of headers changes no other request's."""
    parser = HeadParser({})
    parser.parse(PLAIN % b"1")
    first = parser.headers
    parser.parse(PLAIN % b"2")
    first.clear()
    assert (b"content-length", b"2") in parser.headers
    parser.parse(PLAIN % b"3")
    assert (b"authorization", b"Bearer x") in parser.headers


HEADS_OF = [PLAIN % b"12", *(raw.split(b"\r\n\r\n")[0] + b"\r\n\r\n" for raw in HEADS.values() if b"\r\n\r\n" in raw)]
HEADS_OF += [raw.split(b"\r\n\r\n")[0].lstrip() + b"\r\n\r\n" for raw, _, _ in GOOD.values()]


@given(st.data())
def test_remembering_changes_nothing(data: st.DataObject) -> None:
    """Any sequence of heads, mutated around the remembered number, means the same to a parser with and without memory."""
    parser = HeadParser({"client": None})
    for _ in range(data.draw(st.integers(2, 6))):
        raw = bytearray(data.draw(st.sampled_from([PLAIN % b"1024", PLAIN % b"9", *HEADS_OF])))
        for _ in range(data.draw(st.integers(0, 2))):
            near = raw.find(b"Content-Length")
            at = data.draw(
                st.integers(max(0, near), min(len(raw), near + 24)) if near >= 0 else st.integers(0, len(raw))
            )
            raw[at : at + data.draw(st.integers(0, 2))] = data.draw(
                st.sampled_from(
                    [b"", b"0", b"00", b"5", b"+", b"-", b" ", b"\t", b",", b"\r\n", b"x", b"_", b"\xb2", b"9" * 16]
                )
            )
        whole = bytes(raw).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"  # what the protocol hands over
        assert meaning(parser, whole) == meaning(HeadParser({"client": None}), whole)
