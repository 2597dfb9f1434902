"""Broken and smuggled framing is refused before anything reaches the application (R13, T3, T9)."""

from __future__ import annotations

import asyncio

import pytest

from tests.server.harness import on_uvloop, request, serving

GET = b"GET /echo HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

#: Each must be answered 400 by the server itself, closed, and never reach the application.
HEADS = {
    "content-length and chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked and content-length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two equal content-lengths": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "two different content-lengths": POST + b"Content-Length: 0\r\nContent-Length: 36\r\n\r\n" + SMUGGLED,
    "a list of content-lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "content-length with a plus": POST + b"Content-Length: +5\r\n\r\nhello",
    "content-length with a minus": POST + b"Content-Length: -5\r\n\r\nhello",
    "content-length in hex": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "content-length with a space inside": POST + b"Content-Length: 5 5\r\n\r\nhello",
    "content-length empty": POST + b"Content-Length: \r\n\r\n",
    "content-length beyond 64 bits": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "content-length of 16 digits": POST + b"Content-Length: 1000000000000000\r\n\r\n",
    "content-length with underscore": POST + b"Content-Length: 1_0\r\n\r\n0123456789",
    "content-length in other digits": POST + "Content-Length: ٥\r\n\r\nhello".encode(),
    "two credentials": POST + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\nContent-Length: 0\r\n\r\n",
    "two Azure credentials": POST + b"api-key: a\r\nApi-Key: a\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "tab before the colon": POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "identity coding": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "gzip then chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked then identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice in a list": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked quoted": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunked behind a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "obs-fold": GET + b"X-A: b\r\n c\r\n\r\n",
    "obs-fold of a framing header": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "obs-fold by tab": GET + b"X-A: b\r\n\tc\r\n\r\n",
    "bare LF after the request line": b"GET /echo HTTP/1.1\nHost: a\r\n\r\n",
    "bare LF between headers": GET + b"X-A: b\nX-C: d\r\n\r\n",
    "bare LF at the end": b"GET /echo HTTP/1.1\nHost: a\n\n",
    "bare CR in a value": GET + b"X-A: b\rX-C: d\r\n\r\n",
    "NUL in a value": GET + b"X-A: b\0c\r\n\r\n",
    "NUL in a name": GET + b"X\0A: b\r\n\r\n",
    "control character in a value": GET + b"X-A: \x01\r\n\r\n",
    "no colon": GET + b"nonsense\r\n\r\n",
    "empty name": GET + b": b\r\n\r\n",
    "space first": b"GET /echo HTTP/1.1\r\n Host: a\r\n\r\n",
    "parenthesis in a name": GET + b"X(A): b\r\n\r\n",
    "non-ASCII name": GET + b"X\xe9: b\r\n\r\n",
    "two hosts": GET + b"Host: b\r\n\r\n",
    "two equal hosts": GET + b"Host: a\r\n\r\n",
    "no host": b"GET /echo HTTP/1.1\r\n\r\n",
    "empty host": b"GET /echo HTTP/1.1\r\nHost:\r\n\r\n",
    "host with a path and fragment": b"GET /echo HTTP/1.1\r\nHost: a/#@b\r\n\r\n",
    "host with a query": b"GET /echo HTTP/1.1\r\nHost: a?x\r\n\r\n",
    "host with a user": b"GET /echo HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "host with a space": b"GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n",
    "host with a bad port": b"GET /echo HTTP/1.1\r\nHost: a:80:81\r\n\r\n",
    "host list": b"GET /echo HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "absolute target": b"GET http://a/echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute target without a path": b"GET HTTPS://a HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute target with a user": b"GET http://u@a/echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute target of another scheme": b"GET ftp://a/echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment in the target": b"GET /echo#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "relative target": b"GET echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "control character in the target": b"GET /e\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "non-ASCII in the target": b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces": b"GET  /echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces before the version": b"GET /echo  HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab in the request line": b"GET\t/echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /echo\r\n\r\n",
    "HTTP/1.2": b"GET /echo HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/2.0": b"GET /echo HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "RTSP": b"PLAY /echo RTSP/1.0\r\nHost: a\r\n\r\n",
    "lower case version": b"GET /echo http/1.1\r\nHost: a\r\n\r\n",
    "lower case method": b"get /echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "unknown method": b"BREW /echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "two empty lines first": b"\r\n\r\n\r\nGET /echo HTTP/1.1\nHost: a\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "JSON alone": b'{"model": "gpt-4o"}',
}

#: The head is good, the body's framing is not: the application may see the head, its body never comes.
BODIES = {
    "no hex digit": b"zz\r\nhello\r\n0\r\n\r\n",
    "chunk size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "chunk size signed": b"+5\r\nhello\r\n0\r\n\r\n",
    "chunk size with a space": b"5 \r\nhello\r\n0\r\n\r\n",
    "chunk size beyond 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "chunk size empty": b"\r\nhello\r\n0\r\n\r\n",
    "chunk longer than its size": b"4\r\nhello\r\n0\r\n\r\n",
    "chunk shorter than its size": b"6\r\nhello\r\n0\r\n\r\n",
    "chunk ends in bare LF": b"5\nhello\r\n0\r\n\r\n",
    "data ends in bare LF": b"5\r\nhello\n0\r\n\r\n",
    "data ends in bare CR": b"5\r\nhello\r0\r\n\r\n",
    "extension with a bare CR": b"5;a=\rb\r\nhello\r\n0\r\n\r\n",
    "extension without end": b"5;" + b"a" * 5000,
    "trailer without a colon": b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n",
    "trailer folded": b"5\r\nhello\r\n0\r\nX-A: b\r\n c\r\n\r\n",
    "trailers without end": b"5\r\nhello\r\n0\r\n" + b"X-A: b\r\n" * 2000,
}


@pytest.mark.parametrize("case", HEADS)
@on_uvloop
async def test_a_broken_head_is_refused_and_closed_and_reaches_nobody(case: str) -> None:
    """Every ambiguous or malformed head gets 400 in OpenAI's shape and the end of its connection."""
    async with serving() as site:
        async with await site.raw() as client:
            reply = await client.ask(HEADS[case])
            reply.check_error(400, "invalid_request")
            assert reply.headers["connection"] == "close"
            assert reply.headers["x-request-id"].startswith("req_")
            assert await client.closed() == b""  # one reply, not two
        assert site.app.seen == []
        await site.probe()


@pytest.mark.parametrize("case", BODIES)
@on_uvloop
async def test_a_broken_chunked_body_is_refused_and_closed(case: str) -> None:
    """Every malformed chunk gets 400, and what follows on the connection is not taken for a request."""
    async with serving() as site:
        async with await site.raw() as client:
            reply = await client.ask(POST + b"Transfer-Encoding: chunked\r\n\r\n" + BODIES[case] + SMUGGLED)
            reply.check_error(400, "invalid_request")
            assert reply.headers["connection"] == "close"
            assert await client.closed() == b""
        assert site.app.seen == [("POST", "/echo")]
        await site.probe()


@pytest.mark.parametrize("case", ["content-length and chunked", "two hosts", "bare LF at the end", "HTTP/2.0"])
@on_uvloop
async def test_a_broken_head_behind_a_good_request_is_refused_after_its_reply(case: str) -> None:
    """Framing is checked anew for every request of a connection, the memory of the last head notwithstanding."""
    async with serving() as site, await site.raw() as client:
        await client.send(request("/echo", b"{}") + HEADS[case])
        assert (await client.response()).status == 200
        (await client.response()).check_error(400, "invalid_request")
        assert await client.closed() == b""
        assert site.app.seen == [("POST", "/echo")]


GOOD = {
    "two slashes": (b"GET //a/echo HTTP/1.1\r\nHost: a\r\n\r\n", "//a/echo", ""),
    "percent": (b"GET /%65cho?%20 HTTP/1.1\r\nHost: a\r\n\r\n", "/echo", "%20"),
    "IPv6 host": (b"GET /echo HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", "/echo", ""),
    "white space around values": (b"GET /echo HTTP/1.1\r\nHost: \t a \t\r\n\r\n", "/echo", ""),
    "an empty line first": (b"\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n", "/echo", ""),
    "upgrade to websocket": (GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "/echo", ""),
    "upgrade to h2c": (GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n", "/echo", ""),
    "chunked": (POST + b"transfer-encoding: Chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nX-T: v\r\n\r\n", "/echo", ""),
    "upgrade with a body": (POST + b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\n{}", "/echo", ""),
}


@pytest.mark.parametrize("case", GOOD)
@on_uvloop
async def test_what_is_legal_is_served_and_the_path_is_the_targets(case: str) -> None:
    """The path comes from the request's target alone, and the connection serves the next request."""
    raw, path, query = GOOD[case]
    async with serving() as site, await site.raw() as client:
        reply = await client.ask(raw)
        assert reply.status == 200
        assert f'"path":"{path}"'.encode() in reply.body
        assert f'"query":"{query}"'.encode() in reply.body
        assert (await client.ask(request("/echo", b"{}"))).status == 200


@on_uvloop
async def test_http_1_0_is_answered_and_closed() -> None:
    """HTTP/1.0 needs no Host, gets no chunks, and its connection ends, keep-alive or not."""
    async with serving() as site:
        async with await site.raw() as client:
            reply = await client.ask(b"GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert reply.status == 200
            assert reply.headers["connection"] == "close"
            assert await client.closed() == b""
        async with await site.raw() as client:
            streamed = await client.ask(b"GET /stream HTTP/1.0\r\n\r\n")
            assert "transfer-encoding" not in streamed.headers
            assert streamed.body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


@on_uvloop
async def test_a_request_may_arrive_byte_by_byte() -> None:
    """Any cut of the bytes gives the same requests, head and body, counted or chunked."""
    wire = (
        request("/echo?a", b"hello") + POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + GET + b"\r\n"
    )
    async with serving() as site, await site.raw() as client:
        for at in range(len(wire)):
            client.writer.write(wire[at : at + 1])
            await asyncio.sleep(0)
        sizes = [(await client.response()).body for _ in range(3)]
        assert [b'"size":%d' % size in body for size, body in zip((5, 3, 0), sizes, strict=True)] == [True] * 3
