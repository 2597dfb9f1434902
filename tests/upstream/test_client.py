"""What both clients promise of a single exchange, well-behaved provider or not."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from proxy.errors import ApiError, Truncated, UpstreamError
from proxy.upstream.base import Timeouts, UpstreamRequest
from proxy.upstream.client import RawUpstream
from tests.upstream.conftest import KEY, Connect, ask, pieces, post
from tests.upstream.origin import END, EVENTS, OK, Origin, Peer, chunk, eventually, once, saying, whole


async def test_a_request_arrives_as_written(connect: Connect) -> None:
    """Path prefix, headers, key and body reach the provider, and nothing that was not asked for."""
    seen = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        peer.write(whole(b"{}"))

    async with Origin(script) as origin:
        upstream = connect(origin.url + "/", extra_headers=(("X-Team", "a"),), user_agent="probe/1")
        request = post(b'{"model":"m"}', "/chat/completions?api-version=1")
        assert await ask(upstream, request) == (200, b"{}")
    got = seen[0]
    assert (got.method, got.target, got.body) == ("POST", "/v1/chat/completions?api-version=1", b'{"model":"m"}')
    assert sorted(got.headers) == [
        ("accept", "*/*"),
        ("accept-encoding", "identity"),
        ("authorization", "Bearer sk-canary"),
        ("content-length", "13"),
        ("content-type", "application/json"),
        ("host", f"127.0.0.1:{origin.port}"),
        ("user-agent", "probe/1"),
        ("x-team", "a"),
    ]


async def test_configured_headers_replace_a_requests_own(connect: Connect) -> None:
    """A header under `headers:` goes out once, with the operator's value."""
    seen = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        peer.write(whole(b"{}"))

    async with Origin(script) as origin:
        await ask(connect(origin.url, extra_headers=(("Content-Type", "text/x"), ("user-agent", "mine"))))
    assert seen[0].header("content-type") == ["text/x"]
    assert seen[0].header("user-agent") == ["mine"]


async def test_reply_headers_are_lower_case_and_the_last_wins(connect: Connect) -> None:
    """Reply headers come as a plain dict: names in lower case, the last value of a repeated one."""
    async with Origin(once(whole(b"x", b"X-Request-ID: one", b"X-Twice: 1", b"X-Twice: 2"))) as origin:
        reply = await connect(origin.url).send(post(), KEY)
        assert reply.headers["x-request-id"] == "one"
        assert reply.headers["x-twice"] == "2"
        assert await reply.body(10) == b"x"


@pytest.mark.parametrize(
    ("wire", "status", "body"),
    [
        (whole(b"hello"), 200, b"hello"),
        (OK + b"content-length: 0\r\n\r\n", 200, b""),
        (OK + b"transfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nx-trailer: 1\r\n\r\n", 200, b"hello"),
        (OK + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, b"hello"),
        (OK + b"connection: close\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", 304, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + whole(b"hi"), 200, b"hi"),
        (b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nbusy", 503, b"busy"),
        (OK + b"content-encoding: identity\r\ncontent-length: 2\r\n\r\nhi", 200, b"hi"),
    ],
)
async def test_bodies_in_every_framing(connect: Connect, wire: bytes, status: int, body: bytes) -> None:
    """Content-length, chunks with extensions and trailers, end of connection, no body at all, interim replies."""
    async with Origin(once(wire)) as origin:
        assert await ask(connect(origin.url)) == (status, body)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_a_head_reply_has_no_body(connect: Connect, method: str) -> None:
    """The reply to HEAD ends with its head whatever content-length it names; GET sends no content-length."""
    seen = []

    async def script(peer: Peer) -> None:
        while (got := await peer.request()) is not None:
            seen.append(got)
            peer.write(OK + b"content-length: 5\r\n\r\n" + (b"" if got.method == "HEAD" else b"hello"))

    async with Origin(script) as origin:
        upstream = connect(origin.url)
        want = b"" if method == "HEAD" else b"hello"
        for _ in range(2):
            assert await ask(upstream, UpstreamRequest("/models", b"", method=method)) == (200, want)
    assert seen[0].header("content-length") == []


async def test_redirects_are_replies(connect: Connect) -> None:
    """A 302 is handed back; the place it names is never contacted (T6)."""
    async with Origin(saying(whole(b"stolen"))) as other:
        moved = (
            b"HTTP/1.1 302 Found\r\nlocation: "
            + other.url.encode()
            + b"\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n"
        )
        seen = []

        async def script(peer: Peer) -> None:
            while (got := await peer.request()) is not None:
                seen.append(got)
                peer.write(moved)

        async with Origin(script) as origin:
            upstream = connect(origin.url)
            assert (await ask(upstream))[0] == 302
            assert (await ask(upstream))[0] == 302
        assert not other.peers
        assert seen[1].header("cookie") == []


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "broken"),
        (OK + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "broken"),
        (OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", "broken"),
        (OK + b"content-length: -1\r\n\r\n", "broken"),
        (OK + b"content-length: 1e3\r\n\r\n", "broken"),
        (OK + b"content-length: 99999999999999999999\r\n\r\n", "it|HTTP"),
        (OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "chunked|HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "status 101|broken"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "broken"),
        (b"<html>502</html>\r\n\r\n", "broken"),
        (whole(gzip.compress(b"{}"), b"content-encoding: gzip"), "compressed"),
        (OK + b"content-encoding: br\r\nconnection: close\r\n\r\nx", "compressed"),
    ],
)
async def test_unusable_heads(connect: Connect, wire: bytes, why: str) -> None:
    """Ambiguous framing, other protocols and compression end in upstream_invalid_response, which counts."""
    async with Origin(once(wire)) as origin:
        with pytest.raises(UpstreamError, match=why) as caught:
            await connect(origin.url).send(post(), KEY)
        assert (caught.value.code, caught.value.status, caught.value.counts) == ("upstream_invalid_response", 502, True)
        assert "sk-canary" not in caught.value.message


async def test_equal_content_lengths_twice_are_refused(raw: Connect) -> None:
    """Even two equal content-lengths are an error for our own client."""
    async with Origin(once(OK + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello")) as origin:
        with pytest.raises(UpstreamError, match="duplicate content-length"):
            await raw(origin.url).send(post(), KEY)


@pytest.mark.parametrize("wire", [b"zz\r\nhello\r\n", b"5\r\nhelloXX0\r\n\r\n", b"fffffffffffffffffffff\r\nx"])
async def test_broken_chunks_come_after_what_was_good(connect: Connect, wire: bytes) -> None:
    """Broken framing in a body: the good pieces first, then upstream_invalid_response, not retryable."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(EVENTS + chunk(b"good"))
        await asyncio.sleep(0.02)
        peer.write(wire)
        await peer.gone()

    async with Origin(script) as origin:
        data, error = await pieces(await connect(origin.url).send(post(), KEY))
        assert data.startswith(b"good")
        assert isinstance(error, UpstreamError)
        assert (error.code, error.retryable, error.counts) == ("upstream_invalid_response", False, True)


REPLY = EVENTS + chunk(b"data: \xc3\xa9t\xc3\xa9\n\n") + chunk(b"data: [DONE]\n\n") + END


@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_connection_lost_at_every_byte(connect: Connect, end: str) -> None:
    """R3: at whatever byte the connection ends, what came is delivered and then exactly one error, never an end."""
    cut = 0

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(REPLY[:cut])
        await asyncio.sleep(0)
        getattr(peer, end)()

    head = len(EVENTS)
    bodies = {}
    async with Origin(script) as origin:
        upstream = connect(origin.url)
        for cut in range(len(REPLY) + 1):
            try:
                reply = await upstream.send(post(), KEY)
            except UpstreamError as error:
                assert cut < head
                assert (error.code, error.retryable, error.counts) == ("upstream_unreachable", True, True)
                continue
            assert cut >= head
            bodies[cut], broke = await pieces(reply)
            assert (broke is None) == (cut == len(REPLY)), cut
            assert broke is None or isinstance(broke, Truncated), (cut, broke)
            reply.close()
    full = "data: été\n\ndata: [DONE]\n\n".encode()
    assert bodies[len(REPLY)] == full
    assert all(full.startswith(body) for body in bodies.values())
    assert bodies[len(REPLY) - len(END)] == full


async def test_close_delimited_reset_is_not_an_end(connect: Connect) -> None:
    """A reset in a body without length is a loss; only a proper end completes it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(OK + b"connection: close\r\n\r\nhalf")
        await asyncio.sleep(0.02)
        peer.rst()

    async with Origin(script) as origin:
        data, error = await pieces(await connect(origin.url).send(post(), KEY))
    assert (data, type(error)) == (b"half", Truncated)


async def test_refused_connections_are_unreachable(connect: Connect) -> None:
    """Nobody listens: upstream_unreachable at once."""
    async with Origin(saying(b"")) as origin:
        url = origin.url
    with pytest.raises(UpstreamError) as caught:
        await connect(url).send(post(), KEY)
    assert (caught.value.code, caught.value.retryable, caught.value.counts) == ("upstream_unreachable", True, True)
    assert "refused" in caught.value.message


@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_servers_that_hang_up_at_once(connect: Connect, end: str) -> None:
    """A server that closes every connection as soon as it stands: upstream_unreachable, nothing else, nothing left."""

    async def script(peer: Peer) -> None:
        getattr(peer, end)()

    async with Origin(script) as origin:
        upstream = connect(origin.url)
        for body in (b"{}", b"x" * 300_000) * 10:
            with pytest.raises(UpstreamError) as caught:
                await upstream.send(post(body), KEY)
            assert (caught.value.code, caught.value.retryable) == ("upstream_unreachable", True)
        if isinstance(upstream, RawUpstream):
            await eventually(lambda: upstream.pool.size == 0)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "no-such-host..invalid", "no-such-host" * 6 + ".invalid"])
async def test_unknown_names_are_unreachable(connect: Connect, host: str) -> None:
    """A name that does not resolve, or that none can be: upstream_unreachable, without naming the host to the caller."""
    with pytest.raises(UpstreamError, match="name cannot be resolved") as caught:
        await connect(f"http://{host}/v1").send(post(), KEY)
    assert caught.value.code == "upstream_unreachable"
    assert "no-such-host" not in caught.value.message


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\rb", "a\0b", "snow \u2603"])
async def test_line_breaks_in_header_values_are_never_sent(connect: Connect, value: str) -> None:
    """CR, LF, NUL and what is not Latin-1 are refused with 400 before a connection is made (T7)."""
    async with Origin(saying(whole(b"{}"))) as origin:
        upstream = connect(origin.url)
        for request, key in (
            (UpstreamRequest("/x", b"", [("x-a", value)]), KEY),
            (UpstreamRequest("/x", b""), [("authorization", value)]),
        ):
            with pytest.raises(ApiError) as caught:
                await upstream.send(request, key)
            assert (caught.value.code, caught.value.status) == ("invalid_request", 400)
        assert not origin.peers


@pytest.mark.parametrize("path", ["/a b", "/a\r\nx: y", "no-slash", "/a#b", "/\u2603"])
async def test_paths_that_no_request_line_may_hold(connect: Connect, path: str) -> None:
    """A path with spaces, line breaks, a fragment or other alphabets is our own mistake and never sent."""
    async with Origin(saying(whole(b"{}"))) as origin:
        with pytest.raises(ValueError, match="upstream path"):
            await connect(origin.url).send(post(path=path), KEY)
        assert not origin.peers


async def test_connections_are_reused(connect: Connect) -> None:
    """Whole, chunked and streamed replies read to their end leave the connection for the next call."""
    async with Origin(saying(whole(b"1"), EVENTS + chunk(b"2") + END, whole(b"3"))) as origin:
        upstream = connect(origin.url)
        assert [(await ask(upstream))[1] for _ in range(3)] == [b"1", b"2", b"3"]
        assert len(origin.peers) == 1


async def test_connection_close_is_obeyed(connect: Connect) -> None:
    """A reply with `connection: close` is the connection's last."""
    async with Origin(saying(whole(b"1", b"connection: close"))) as origin:
        upstream = connect(origin.url)
        assert [(await ask(upstream))[1] for _ in range(2)] == [b"1", b"1"]
        assert len(origin.peers) == 2


async def test_abandoned_replies_close_their_connection(connect: Connect) -> None:
    """close() in the middle of a stream closes the socket within 100 ms; it is idempotent."""
    gone = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(EVENTS + chunk(b"data: 1\n\n"))
        gone.set_result(await peer.gone())

    async with Origin(script) as origin:
        reply = await connect(origin.url).send(post(), KEY)
        assert await reply.read() == b"data: 1\n\n"
        reply.close()
        reply.close()
        await asyncio.wait_for(gone, 0.1)
        with pytest.raises(UpstreamError):
            await reply.read()


async def test_a_released_stream_keeps_its_connection(connect: Connect) -> None:
    """release() after the terminal event: the last chunk may still be on its way, the connection is reused."""

    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            peer.write(EVENTS + chunk(b"data: [DONE]\n\n"))
            await asyncio.sleep(0.05)
            peer.write(END)

    async with Origin(script) as origin:
        upstream = connect(origin.url)
        for _ in range(2):
            reply = await upstream.send(post(), KEY)
            assert await reply.read() == b"data: [DONE]\n\n"
            reply.release()
            reply.close()
            await asyncio.sleep(0.1)
        assert len(origin.peers) == 1


async def test_a_released_stream_without_end_is_cut(connect: Connect) -> None:
    """release() of a stream that goes on and on closes the connection after 16 KiB or a second."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(EVENTS)
        while True:
            peer.write(chunk(b"x" * 4096))
            await asyncio.sleep(0.001)
            if peer.reader.at_eof() or peer.reader.exception() is not None:  # gone politely, or by a reset
                peer.gone_at = 1
                return

    async with Origin(script) as origin:
        reply = await connect(origin.url).send(post(), KEY)
        await reply.read()
        reply.release()
        await eventually(lambda: origin.peers[0].gone_at is not None)


async def test_whole_bodies_are_bounded(connect: Connect) -> None:
    """body(limit) refuses a larger one, declared or found out, and drops the connection."""
    async with Origin(saying(whole(b"x" * 100), EVENTS + chunk(b"x" * 60) + chunk(b"x" * 40) + END)) as origin:
        upstream = connect(origin.url)
        for _ in range(2):
            reply = await upstream.send(post(), KEY)
            with pytest.raises(UpstreamError, match="larger than 99 bytes") as caught:
                await reply.body(99)
            assert caught.value.code == "upstream_invalid_response"
        reply = await upstream.send(post(), KEY)
        assert len(await reply.body(100)) == 100


async def test_every_body_has_a_cap(connect: Connect) -> None:
    """max_body bounds a reply whatever its framing: at the limit it passes, above it upstream_invalid_response."""
    body = b"x" * 1000
    async with Origin(saying(whole(body), EVENTS + chunk(body) + END)) as origin:
        assert await ask(connect(origin.url, max_body=1000)) == (200, body)
        with pytest.raises(UpstreamError, match="larger than the sidecar allows"):
            await ask(connect(origin.url, max_body=999))
    async with Origin(once(EVENTS + chunk(body) + END)) as origin:
        _, error = await pieces(await connect(origin.url, max_body=999).send(post(), KEY))
        assert isinstance(error, UpstreamError)
        assert error.code == "upstream_invalid_response"


async def test_big_request_bodies_arrive(connect: Connect) -> None:
    """A request body of several MiB is sent in slices, whole."""
    body = bytes(range(256)) * 16_000
    got = []

    async def script(peer: Peer) -> None:
        while (received := await peer.request()) is not None:
            got.append(received.body)
            peer.write(whole(b"ok"))

    async with Origin(script) as origin:
        upstream = connect(origin.url)
        assert await ask(upstream, post(body)) == (200, b"ok")
        assert await ask(upstream, post(b"small")) == (200, b"ok")
        assert got == [body, b"small"]
        assert len(origin.peers) == 1


@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_an_early_refusal_wins_over_the_write_error(raw: Connect, end: str) -> None:
    """A 413 sent before the body was read, connection closed on top: the caller gets the 413."""

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.write(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 5\r\n\r\nlarge")
        await peer.writer.drain()
        await asyncio.sleep(0.02)
        getattr(peer, end)()

    async with Origin(script) as origin:
        upstream = raw(origin.url)
        for _ in range(5):
            assert await ask(upstream, post(b"x" * 8_000_000)) == (413, b"large")


async def test_writing_stops_at_a_final_head(raw: Connect) -> None:
    """Once the final head is in, no more of the body is written, and the connection is not used again."""
    heads = 0

    async def script(peer: Peer) -> None:
        nonlocal heads
        await peer.head()
        heads += 1
        peer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge")
        rest = 0
        while data := await peer.reader.read(65536):
            rest += len(data)
        assert rest < 20_000_000

    async with Origin(script) as origin:
        upstream = raw(origin.url)
        assert await ask(upstream, post(b"x" * 20_000_000)) == (413, b"large")
        assert await ask(upstream, post(b"x" * 20_000_000)) == (413, b"large")
        assert heads == len(origin.peers) == 2


async def test_many_at_once(connect: Connect) -> None:
    """Sixty calls at a time each get their own answer, again on kept connections."""

    async def script(peer: Peer) -> None:
        while (got := await peer.request()) is not None:
            await asyncio.sleep(0.01)
            peer.write(whole(got.body))

    async with Origin(script) as origin:
        upstream = connect(origin.url)
        for _ in range(2):
            answers = await asyncio.gather(*(ask(upstream, post(b"%d" % n)) for n in range(60)))
            assert [body for _, body in answers] == [b"%d" % n for n in range(60)]
        assert len(origin.peers) <= 70


async def test_closing_spares_replies_in_use(connect: Connect) -> None:
    """aclose() lets a running stream end, then closes its connection."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(EVENTS + chunk(b"1"))
        await go.wait()
        peer.write(chunk(b"2") + END)
        await peer.gone()

    async with Origin(script) as origin:
        upstream = connect(origin.url, Timeouts(1, 1, 1, 5))
        reply = await upstream.send(post(), KEY)
        assert await reply.read() == b"1"
        await upstream.aclose()
        go.set()
        assert await pieces(reply) == (b"2", None)
        await eventually(lambda: origin.peers[0].gone_at is not None)
