"""The harness itself: the fake does what its script says and writes down what it did; the readers are strict."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest

from proxy import tokens
from tests.fakes.behaviour import Behaviour, parse
from tests.fakes.dialects import TOKENS_PER_CHUNK, Ask
from tests.fakes.httpwire import Broken, ReplyReader, sse, stream
from tests.fakes.process import Upstream
from tests.fakes.rawclient import RawClient, chat, request
from tests.fakes.redis import RedisServer
from tests.fakes.sidecar import config


def say(upstream: Upstream, spec: str, *, as_stream: bool = True, **body: Any) -> tuple[Any, dict[str, Any]]:
    """Ask the fake directly; return the reply as far as it came, and the record."""
    with RawClient(upstream.port) as client:
        client.send(request(body=chat(spec, stream=as_stream, **body), key="k"))
        try:
            reply: Any = client.reply()
        except ConnectionError:
            reply = None
    return reply, upstream.wait_calls(spec, 1)[-1]


@pytest.mark.parametrize("size", [0, 40, 1000])
def test_tokens_of_chunks_are_openai_s(size: int) -> None:
    """A numbered chunk has the tokens it claims, alone and in a row, in OpenAI's vocabulary."""
    pieces = Ask(Behaviour(chunks=20, size=size), "x", "m").pieces()
    encoding = tokens.load("o200k_base")
    assert sum(count for _, count in pieces) == len(encoding.encode("".join(text for text, _ in pieces)))
    assert size or pieces[0][1] == TOKENS_PER_CHUNK
    assert all(size - 8 < len(text) for text, _ in pieces)


def test_scripts_are_read_strictly() -> None:
    """A key or value that means nothing is an error, not a well-behaved call."""
    assert parse("gpt-4o;chunks=7;interval=0.5;gzip;cut=rst@9").chunks == 7
    for wrong in ("chnks=7", "chunks=many", "m;interval=fast"):
        with pytest.raises(ValueError):
            parse(wrong)


def test_a_cut_is_exact(upstream: Upstream, tag: str) -> None:
    """`cut=rst@N` hands N bytes of the body to the kernel, no more; the record counts whole chunks only."""
    # By length, for a reader drops an unfinished chunk of the chunked coding.
    reply, record = say(upstream, f"{tag};chunks=9;framing=length;cut=rst@1000")
    assert record["sent"] == 1000 == len(reply.body) and not reply.complete
    assert record["end"] == "cut" and record["chunks"] == len(stream(reply.body).numbers)
    assert record["tokens"] == record["chunks"] * TOKENS_PER_CHUNK and record["usage"] is None
    assert record["gone"] is None and record["socket"]["by_peer"] is False


def test_a_peer_that_leaves_is_noticed_at_once(upstream: Upstream, tag: str) -> None:
    """The record has the moment of the peer's FIN, to the millisecond."""
    with RawClient(upstream.port) as client:
        client.send(request(body=chat(f"{tag};chunks=1000;interval=0.01", stream=True)))
        client.read_until(b'" 000003"')
        left = client.close()
    (record,) = upstream.wait_calls(tag, 1)
    # The clock is read after the call that closes; on another core the peer may have seen the FIN before.
    assert record["end"] == "gone" and -0.05 < record["gone"] - left < 0.05
    assert 3 <= record["chunks"] < 50 and record["tokens"] == 3 * record["chunks"]
    assert record["received"] < record["replied"] < record["ended"] <= time.monotonic()


def test_headers_and_body_are_kept_as_received(upstream: Upstream, tag: str) -> None:
    """Names in their own case and order, the body byte for byte."""
    data = json.dumps(chat(f"{tag};é")).encode()
    with RawClient(upstream.port) as client:
        client.ask(request(body=data, headers=[("X-Odd", "1"), ("x-odd", "2")]))
    (record,) = upstream.wait_calls(tag, 1)
    assert [pair for pair in record["headers"] if pair[0].lower() == "x-odd"] == [["X-Odd", "1"], ["x-odd", "2"]]
    assert record["body"].encode("latin-1") == data


@pytest.mark.parametrize(
    ("spec", "broken"),
    [
        ("framing=both", True),
        ("bomb=header;bombsize=400000", True),
        ("hdr=hostile", False),
        ("status=503;after=7", False),
    ],
)
def test_the_reader_is_strict(upstream: Upstream, tag: str, spec: str, broken: bool) -> None:
    """What is no proper reply raises in the tests' reader; what only is unpleasant does not."""
    if broken:
        with pytest.raises(Broken):
            say(upstream, f"{tag};{spec}")
    else:
        assert say(upstream, f"{tag};{spec}")[0].complete


def test_the_reader_takes_any_split() -> None:
    """Replies read the same whole and byte by byte; trailing garbage raises."""
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.1 204 No\r\n\r\n"
    whole = ReplyReader().feed(data)
    reader = ReplyReader()
    single = [reply for i in range(len(data)) for reply in reader.feed(data[i : i + 1])]
    assert whole == single and [(reply.status, reply.body) for reply in whole] == [
        (100, b""),
        (200, b"abc"),
        (204, b""),
    ]
    reader.feed(b"HTT")
    with pytest.raises(Broken):
        reader.eof()


def test_events_are_read_as_the_standard_says() -> None:
    """Comments dropped, several data lines joined, an unfinished event left out, CRLF taken."""
    assert list(sse(b": x\n\nevent: a\ndata: 1\ndata:2\n\ndata: 3\r\n\r\ndata: 4")) == [("a", "1\n2"), ("", "3")]


def test_failing_first_then_well(upstream: Upstream, tag: str) -> None:
    """`fails=N` misbehaves N times for one name, then no more."""
    statuses = [say(upstream, f"{tag};status=503;fails=2", as_stream=False)[0].status for _ in range(3)]
    assert statuses == [503, 503, 200]


def test_odd_ports(upstream: Upstream) -> None:
    """Refused, reset, never accepted, silent: each as named."""
    for kind, error in (("refuse", ConnectionRefusedError), ("full", TimeoutError)):
        with pytest.raises(error):
            RawClient(upstream.listen(kind), timeout=0.3)
    with contextlib.suppress(ConnectionResetError), RawClient(upstream.listen("reset")) as client:
        # The reset may come before `connect` has returned, too.
        client.try_send(b"GET / HTTP/1.1\r\n\r\n")
        assert client.closed_within(1) is not None
    with RawClient(upstream.listen("silent")) as client:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert client.closed_within(0.2) is None


def test_configurations_are_merged_by_level() -> None:
    """Changes reach into the tree; None takes a key away; the base is left alone."""
    one = config("http://u", providers={"openai": {"model": None, "timeout": 3}, "x": {"kind": "echo"}}, auth=None)
    assert "auth" not in one and "model" not in one["providers"]["openai"]
    assert one["providers"]["openai"]["timeout"] == 3 and one["providers"]["openai"]["base_url"] == "http://u"
    assert config("http://u")["providers"]["openai"]["model"] == "gpt-4o-mini"


def test_redis_survives_a_kill(redis_server: RedisServer) -> None:
    """What was acknowledged before `kill -9` is there after the restart; frozen it does not answer."""
    redis_server.command("SET", "k", "v")
    redis_server.kill()
    assert not redis_server.answers()
    redis_server.start()
    assert redis_server.command("GET", "k") == b"$1\r\nv\r\n"
    redis_server.freeze()
    assert not redis_server.answers()
    redis_server.thaw()
    assert redis_server.answers()
    redis_server.flush()
