"""T9: framing that two parsers could read differently is refused, and the connection with it."""

from __future__ import annotations

import json

import pytest

from tests.fakes.httpwire import openai_error
from tests.fakes.process import Upstream
from tests.fakes.rawclient import chat, request
from tests.fakes.sidecar import CLIENT_KEY, Sidecar

_HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CLIENT_KEY}\r\n".encode()
_INNER = b"GET /v1/models HTTP/1.1\r\nHost: y\r\nAuthorization: Bearer " + CLIENT_KEY.encode() + b"\r\n\r\n"


def body(tag: str) -> bytes:
    return json.dumps(chat(f"m;{tag}")).encode()


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)


#: Header lines (with ``LEN`` for the body's length), then how the body is framed: plain, chunked, or given.
CASES: dict[str, tuple[bytes, str | bytes]] = {
    "CL.TE": (b"Content-Length: LEN\r\nTransfer-Encoding: chunked\r\n", "chunked"),
    "TE.CL": (b"Transfer-Encoding: chunked\r\nContent-Length: LEN\r\n", "chunked"),
    "CL.CL": (b"Content-Length: LEN\r\nContent-Length: 0\r\n", "plain"),
    "CL.CL same": (b"Content-Length: LEN\r\nContent-Length: LEN\r\n", "plain"),
    "CL list": (b"Content-Length: LEN, LEN\r\n", "plain"),
    "CL plus": (b"Content-Length: +LEN\r\n", "plain"),
    "CL minus": (b"Content-Length: -1\r\n", "plain"),
    "CL hex": (b"Content-Length: 0x10\r\n", "plain"),
    "CL float": (b"Content-Length: LEN.0\r\n", "plain"),
    "CL empty": (b"Content-Length:\r\n", "plain"),
    "CL huge": (b"Content-Length: 99999999999999999999999\r\n", "plain"),
    "CL spaces": (b"Content-Length: 1 2\r\n", "plain"),
    "CL name space": (b"Content-Length : LEN\r\n", "plain"),
    "CL leading space": (b" Content-Length: LEN\r\n", "plain"),
    "CL tab": (b"Content-Length\t: LEN\r\n", "plain"),
    "TE x": (b"Transfer-Encoding: xchunked\r\n", "chunked"),
    "TE identity": (b"Transfer-Encoding: identity\r\nContent-Length: LEN\r\n", "plain"),
    "TE gzip chunked": (b"Transfer-Encoding: gzip, chunked\r\n", "chunked"),
    "TE chunked gzip": (b"Transfer-Encoding: chunked, gzip\r\n", "chunked"),
    "TE chunked chunked": (b"Transfer-Encoding: chunked, chunked\r\n", "chunked"),
    "TE TE": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", "chunked"),
    "TE TE same": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "chunked"),
    "TE vertical tab": (b"Transfer-Encoding:\x0bchunked\r\n", "chunked"),
    "TE NUL": (b"Transfer-Encoding: chun\x00ked\r\n", "chunked"),
    "TE folded": (b"Transfer-Encoding:\r\n chunked\r\n", "chunked"),
    "TE quoted": (b'Transfer-Encoding: "chunked"\r\n', "chunked"),
    "TE comma": (b"Transfer-Encoding: ,chunked\r\n", "chunked"),
    "TE name space": (b"Transfer-Encoding : chunked\r\n", "chunked"),
    "fold": (b"X-A: b\r\n c\r\nContent-Length: LEN\r\n", "plain"),
    "bare LF header": (b"X-A: b\nContent-Length: LEN\r\n", "plain"),
    "bare CR": (b"X-A: b\rc\r\nContent-Length: LEN\r\n", "plain"),
    "NUL in name": (b"X\x00A: b\r\nContent-Length: LEN\r\n", "plain"),
    "no colon": (b"X-A\r\nContent-Length: LEN\r\n", "plain"),
    "empty name": (b": b\r\nContent-Length: LEN\r\n", "plain"),
    "high byte name": (b"X-\xc3\xa9: b\r\nContent-Length: LEN\r\n", "plain"),
    "chunk size sign": (b"Transfer-Encoding: chunked\r\n", b"+5\r\nhello\r\n0\r\n\r\n"),
    "chunk size prefix": (b"Transfer-Encoding: chunked\r\n", b"0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk size underscore": (b"Transfer-Encoding: chunked\r\n", b"1_0\r\nhellohellohello1\r\n0\r\n\r\n"),
    "chunk size overflow": (b"Transfer-Encoding: chunked\r\n", b"100000000000000005\r\nhello\r\n0\r\n\r\n"),
    "chunk size empty": (b"Transfer-Encoding: chunked\r\n", b"\r\nhello\r\n0\r\n\r\n"),
    "chunk too long": (b"Transfer-Encoding: chunked\r\n", b"3\r\nhello\r\n0\r\n\r\n"),
    "chunk bare LF": (b"Transfer-Encoding: chunked\r\n", b"5\nhello\n0\n\n"),
    "chunk bare CR": (b"Transfer-Encoding: chunked\r\n", b"5\rXhello\r\n0\r\n\r\n"),
    "chunk extension bomb": (b"Transfer-Encoding: chunked\r\n", b"5;" + b"a" * 100_000 + b"\r\nhello\r\n0\r\n\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_ambiguous_framing_is_refused(sidecar: Sidecar, upstream: Upstream, tag: str, name: str) -> None:
    """T9: 400 (or 413, 431) and close; a request hidden behind it is never answered, and nothing goes upstream."""
    lines, how = CASES[name]
    data = body(tag)
    payload = how if isinstance(how, bytes) else chunked(data) if how == "chunked" else data
    with sidecar.raw() as client:
        client.try_send(_HEAD + lines.replace(b"LEN", b"%d" % len(data)) + b"\r\n" + payload + _INNER)
        reply = client.reply()
        assert reply.status in (400, 413, 431), (name, reply)
        openai_error(reply)
        assert reply.header("connection") == "close"
        assert client.closed_within(7) is not None, "the connection must end"
        assert not client.reader.rest and not client._ready, "a hidden request was answered"
    assert upstream.calls(tag) == []


def test_the_next_caller_is_served(sidecar: Sidecar, upstream: Upstream, tag: str) -> None:
    """T9: after all of that, a good call on a new connection is answered as ever."""
    for lines, how in list(CASES.values())[::5]:
        with sidecar.raw() as client:
            client.try_send(
                _HEAD + lines.replace(b"LEN", b"10") + b"\r\n" + (how if isinstance(how, bytes) else b"x" * 10)
            )
    assert sidecar.chat(f"m;{tag}").status == 200
    assert len(upstream.calls(tag)) == 1


def test_good_framing_of_all_kinds_is_taken(sidecar: Sidecar, upstream: Upstream, tag: str) -> None:
    """Chunked in odd pieces, with extensions, with trailers (dropped), lower case and upper: the same call each time."""
    data = body(tag)
    pieces = b"".join(b"%X;x=1\r\n%b\r\n" % (len(data[i : i + 7]), data[i : i + 7]) for i in range(0, len(data), 7))
    for lines, payload in (
        (b"Content-Length: %d\r\n" % len(data), data),
        (b"content-length:%d\r\n" % len(data), data),
        (b"Transfer-Encoding: chunked\r\n", chunked(data)),
        (b"transfer-encoding: Chunked\r\n", pieces + b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"000" + chunked(data)),
        (
            b"Transfer-Encoding: chunked\r\n",
            chunked(data)[:-2] + b"Authorization: Bearer wrong\r\nContent-Length: 5\r\n\r\n",
        ),
    ):
        with sidecar.raw() as client:
            assert client.ask(_HEAD + lines + b"\r\n" + payload).status == 200, lines
    assert len(upstream.calls(tag)) == 6


def test_heads_have_a_cap(sidecar: Sidecar, upstream: Upstream, tag: str) -> None:
    """T20: more than 16 KiB of headers, or a line without end: 431 at once, OpenAI-shaped."""
    for headers in ({"x-a": "a" * 17_000}, {f"x-{i}": "b" * 100 for i in range(200)}):
        with sidecar.raw() as client:
            client.try_send(request(body=chat(f"m;{tag}"), key=CLIENT_KEY, headers=headers))
            reply = client.reply()
            assert (reply.status, openai_error(reply)["code"]) == (431, "headers_too_large")
    with sidecar.raw() as client:
        client.try_send(b"GET /" + b"a" * 100_000)
        assert client.reply().status == 431
    with sidecar.raw() as client:
        client.try_send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100)
        assert client.reply().status == 400, "TLS to a plain port"
    with sidecar.raw() as client:
        client.try_send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert client.reply().status == 400, "HTTP/2 with prior knowledge"
    assert upstream.calls(tag) == []
