"""Request heads and base URLs: what is written, and what is refused before anything is sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ApiError
from proxy.upstream.base import UpstreamRequest
from proxy.upstream.head import HeadWriter
from proxy.upstream.url import parse_origin


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://api.openai.com/v1", (True, "api.openai.com", 443, "api.openai.com", "/v1")),
        ("https://api.openai.com/v1/", (True, "api.openai.com", 443, "api.openai.com", "/v1")),
        ("http://127.0.0.1:8000", (False, "127.0.0.1", 8000, "127.0.0.1:8000", "")),
        ("http://host:80/", (False, "host", 80, "host", "")),
        ("https://host:80/a/b", (True, "host", 80, "host:80", "/a/b")),
        ("http://[::1]:9/x", (False, "::1", 9, "[::1]:9", "/x")),
        ("HTTPS://Host.Example/V1", (True, "host.example", 443, "host.example", "/V1")),
    ],
)
def test_base_urls(url: str, origin: tuple[object, ...]) -> None:
    """Scheme, host, port and path prefix are taken apart once."""
    assert parse_origin(url) == origin


@pytest.mark.parametrize(
    "url",
    ["", "api.openai.com/v1", "ftp://x", "https://", "https:///v1", "https://u:p@host/v1", "https://host/v1?x=1", "https://host/#a",
     "https://ho st", "https://host\r\nx: y", "https://h\u00f6st", "https://host:99999", "https://host:x"],
)  # fmt: skip
def test_unfit_base_urls(url: str) -> None:
    """No scheme, no host, credentials, a query, spaces or an impossible port: refused at load."""
    with pytest.raises(ValueError, match=r"base_url|[Pp]ort"):
        parse_origin(url)


def write(path: str = "/x", body: bytes = b"{}", method: str = "POST", base: str = "https://h/v1") -> bytes:
    return HeadWriter(parse_origin(base)).write(UpstreamRequest(path, body, method=method), [])


def test_the_head_to_the_byte() -> None:
    """Request line, our own headers, the request's, the key's, the length, a blank line."""
    writer = HeadWriter(parse_origin("https://h/v1"), [("X-Org", "o")], "ua")
    request = UpstreamRequest("/x?y=1", b"{}", [("content-type", "application/json")])
    want = (
        b"POST /v1/x?y=1 HTTP/1.1\r\nhost: h\r\naccept-encoding: identity\r\naccept: */*\r\nuser-agent: ua\r\nx-org: o\r\n"
        b"content-type: application/json\r\nauthorization: k\r\ncontent-length: 2\r\n\r\n"
    )
    assert writer.write(request, [("authorization", "k")]) == want
    assert writer.write(request, [("authorization", "k")]) == want


def test_a_requests_own_user_agent_replaces_ours() -> None:
    """Accept and user-agent go out once: a request's own (an operator's `headers:`) instead of the default."""
    writer = HeadWriter(parse_origin("https://h"))
    assert b"user-agent: llm-sidecar\r\n" in writer.write(UpstreamRequest("/", b""), [])
    head = writer.write(UpstreamRequest("/", b"", [("user-agent", "mine"), ("accept", "text/x")]), [])
    assert head.count(b"user-agent: ") == head.count(b"accept: ") == 1
    assert b"user-agent: mine\r\naccept: text/x\r\n" in head


@pytest.mark.parametrize(
    ("path", "base", "line"),
    [
        ("/x", "https://h", b"POST /x HTTP/1.1"),
        ("", "https://h", b"POST / HTTP/1.1"),
        ("", "https://h/v1", b"POST /v1 HTTP/1.1"),
        ("?a=b", "https://h", b"POST /?a=b HTTP/1.1"),
        ("/models/a%2Fb:generate?alt=sse", "https://h/v1beta", b"POST /v1beta/models/a%2Fb:generate?alt=sse HTTP/1.1"),
    ],
)
def test_targets(path: str, base: str, line: bytes) -> None:
    """The base URL's prefix and the request's path make the target, as written."""
    assert write(path, base=base).split(b"\r\n")[0] == line


def test_a_length_where_a_body_may_be() -> None:
    """POST always says its length, even 0; GET says none."""
    assert b"content-length: 0\r\n" in write(body=b"")
    assert b"content-length" not in write(body=b"", method="GET")


@pytest.mark.parametrize(
    "name", ["Host", "Content-Length", "transfer-encoding", "Connection", "Accept-Encoding", "a b", "a:", "", "\u00e9"]
)
def test_headers_that_configuration_may_not_set(name: str) -> None:
    """Framing and connection headers are ours; a name must be a token: refused at load."""
    with pytest.raises(ValueError, match="header"):
        HeadWriter(parse_origin("https://h"), [(name, "x")])
    with pytest.raises(ValueError, match="header"):
        HeadWriter(parse_origin("https://h")).write(UpstreamRequest("/", b"", [(name.lower(), "x")]), [])


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\n", "\0", "\u2603"])
def test_values_that_configuration_may_not_set(value: str) -> None:
    """Line breaks, NUL and other alphabets in a configured header: refused at load."""
    with pytest.raises(ValueError, match="header value"):
        HeadWriter(parse_origin("https://h"), [("x", value)])


@pytest.mark.parametrize("method", ["post", "PO ST", "", "G\r\nET"])
def test_methods_are_words(method: str) -> None:
    """A method is a word in capitals."""
    with pytest.raises(ValueError, match="method"):
        write(method=method)


@given(st.lists(st.text(alphabet=st.sampled_from("ab \t\r\n\0:;é☃"), max_size=8), min_size=1, max_size=4))
def test_no_value_makes_a_line_of_its_own(values: list[str]) -> None:
    """Whatever the values hold: refused, or exactly one line each."""
    writer = HeadWriter(parse_origin("https://h"))
    request = UpstreamRequest("/", b"", [(f"x-{n}", value) for n, value in enumerate(values)])
    try:
        head = writer.write(request, [])
    except ApiError as error:
        assert error.code == "invalid_request"
        assert any(c in value for value in values for c in "\r\n\0☃")
    else:
        lines = head.split(b"\r\n")
        assert len(lines) == 5 + len(values) + 1 + 2
        assert b"\n" not in b"".join(lines)
        assert b"\r" not in b"".join(lines)


def test_many_paths_are_not_all_remembered() -> None:
    """The prefixes kept per path are bounded."""
    writer = HeadWriter(parse_origin("https://h"))
    for n in range(3000):
        writer.write(UpstreamRequest(f"/{n}", b""), [])
    assert len(writer._starts) <= 1024
