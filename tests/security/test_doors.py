"""T1, T3, T22: what is open, what is not, and that no spelling of a path or host changes it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest

from tests.fakes.httpwire import ReplyReader, openai_error
from tests.fakes.process import Upstream
from tests.fakes.rawclient import KeptClient, RawClient, chat, request
from tests.fakes.sidecar import CLIENT_KEY, OPS_KEY, OTHER_KEY, Sidecar

ROUTES = [
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models", "/v1/models/gpt-4o", "/v1/usage", "/v1/messages",
    "/v1/messages/count_tokens", "/v1/responses", "/v1/files", "/v1/fine_tuning/jobs", "/openai/deployments/gpt-4o/chat/completions",
    "/openai/deployments/gpt-4o/embeddings", "/metrics", "/health", "/admin", "/admin/usage", "/admin/quotas", "/admin/policies",
    "/admin/config", "/admin/audit", "/admin/cache/flush", "/admin/reload", "/", "/docs", "/openapi.json", "/redoc", "/favicon.ico",
    "/robots.txt", "/.env", "/llm.yml", "/static/x", "/v2/chat/completions", "/debug", "/healthz/x", "/readyzz",
]  # fmt: skip
OPEN = {"/healthz", "/readyz"}
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "PROPFIND"]


def spellings(path: str) -> list[str]:
    """Return other ways to write ``path`` that some servers take for the same."""
    return [
        path, path + "/", "/" + path, path.replace("/", "//", 2), path.replace("/v1", "/./v1"), path.replace("/v1/", "/v1/../v1/"),
        path.upper(), path.title(), path.replace("a", "%61", 1), path.replace("/", "%2f", 2), path.replace("/", "/%2e/", 1), path + "?x=1",
        path + ";a=b", path + "%00", path + "%20", path + "/..;/", "/healthz/.." + path, "/healthz%2f.." + path, path + "%3f", path + "\\",
        "/readyz/../" + path.lstrip("/"), path + "%0d%0aX:y",
    ]  # fmt: skip


def test_every_path_needs_a_key_but_two(sidecar: Sidecar, upstream: Upstream) -> None:
    """T1: routes, methods and spellings without a credential, or with a wrong one: 401, or 400 for what is no path."""
    before = upstream.last
    paths = list(dict.fromkeys(itertools.chain.from_iterable(spellings(path) for path in ROUTES)))
    cases = [(method, path, None) for path in paths for method in ("GET", "POST")]
    cases += [(method, path, None) for path in ROUTES for method in METHODS]
    cases += [("POST", path, "sk-wrong") for path in ROUTES]
    with KeptClient(sidecar.port) as client:
        for method, path, key in cases:
            body = chat("gpt-4o") if method in ("POST", "PUT", "PATCH") else None
            status = client.ask(request(path, body, method=method, key=key), head=method == "HEAD").status
            bare = path.partition("?")[0]
            if bare in OPEN:
                continue
            if unquote(bare) in ("/admin", "/admin/") and method in ("GET", "HEAD"):
                # The live page's shell holds no data; until it exists there is nothing there.
                assert status in (200, 404, 400), path
                continue
            assert status in (401, 400), (method, path, status)
    assert upstream.last == before, "nothing reached the upstream"


STRANGERS = [
    "https://evil.example",
    "http://127.0.0.1.evil.example",
    "http://localhost.evil.example",
    "HTTPS://x@localhost",
    "null",
    "",
]
FRIENDS = [
    "http://localhost:3000",
    "http://127.0.0.1:8080",
    "http://[::1]:5173",
    "http://app.localhost",
    "vscode-webview://abc",
    "app://x",
]


def test_a_web_page_cannot_use_the_open_door_on_loopback(
    sidecars: Callable[..., Sidecar], upstream: Upstream, tag: str
) -> None:
    """Without `auth:`, what a page of another site makes a browser send is refused; whoever sends no Origin is served."""
    sidecar = sidecars(auth=None)
    body = json.dumps(chat(f"m;{tag}")).encode()  # as text/plain a browser sends it without asking first

    def status(path: str, *lines: str) -> int:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        with RawClient(sidecar.port) as client:
            reply = client.ask("".join((head, *(f"{line}\r\n" for line in lines), "\r\n")).encode() + body)
        assert reply.status == 200 or openai_error(reply)["code"] == "permission_denied", reply.body
        return reply.status

    for origin in STRANGERS:
        assert {status(path, f"Origin: {origin}") for path in ("/v1/chat/completions", "/admin/reload")} == {403}, (
            origin
        )
    assert not upstream.calls(tag)
    assert {status("/v1/chat/completions", f"Origin: {origin}") for origin in FRIENDS} == {200}
    assert status("/v1/chat/completions") == 200


FOREIGN = [
    "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "evilinternal.example", "localhost.co:80",
    "internal.evil.example.", "x.notlocalhost", "x.latest", "EVIL.EXAMPLE",
]  # fmt: skip
OURS = [
    "127.0.0.1", "127.0.0.1:8080", "127.1", "localhost", "LOCALHOST:8080", "localhost.", "[::1]", "[::1]:8080", "10.0.0.7", "app.localhost:80",
    "llm-sidecar:8080", "host.docker.internal:8080", "gateway_1", "printer.local", "llm.test:8080",
]  # fmt: skip
READABLE = ["/v1/models", "/v1/usage", "/metrics", "/health", "/admin/usage", "/admin/config", "/admin/policies"]


def test_a_page_whose_name_leads_to_loopback_reads_nothing(sidecars: Callable[..., Sidecar], sidecar: Sidecar) -> None:
    """Without `auth:`, a host name that public DNS may lead here (DNS rebinding) is refused, with what to do; with keys, any passes."""
    keyless = sidecars(auth=None)

    def status(one: Sidecar, path: str, host: str, *lines: str) -> int:
        with RawClient(one.port) as client:
            head = "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", f"Host: {host}", *lines))
            reply = client.ask(f"{head}\r\n".encode())
        if reply.status != 200:
            error = openai_error(reply)
            assert (
                error["code"] == "permission_denied" and "localhost" in error["message"] and "auth:" in error["message"]
            )
        return reply.status

    for path in READABLE:
        assert {status(keyless, path, host) for host in FOREIGN} == {403}, path
        assert {status(keyless, path, host) for host in OURS} == {200}, path
    key = f"Authorization: Bearer {OPS_KEY}"
    assert {status(sidecar, "/admin/usage", host, key) for host in FOREIGN + OURS} == {200}
    with RawClient(keyless.port) as client:  # HTTP/1.0 may do without a host; no browser does
        assert client.ask(b"GET /v1/models HTTP/1.0\r\n\r\n").status == 200


def test_the_two_open_routes_say_little(sidecar: Sidecar) -> None:
    """T1: /healthz and /readyz answer GET and HEAD, and tell nothing about models, keys or teams."""
    for path in sorted(OPEN):
        assert sidecar.ask("GET", path).status == 200
        assert sidecar.ask("HEAD", path).status == 200
        assert sidecar.ask("GET", path + "?key=x").status == 200
        reply = sidecar.ask("POST", path, {"a": 1})
        assert (reply.status, openai_error(reply)["code"]) == (405, "method_not_allowed")
        assert len(sidecar.ask("GET", path).body) < 100


CREDENTIALS: list[tuple[str, Any, int]] = [
    ("bearer", {"authorization": f"Bearer {CLIENT_KEY}"}, 200),
    ("lower case scheme", {"authorization": f"bearer {CLIENT_KEY}"}, 200),
    ("api-key", {"api-key": CLIENT_KEY}, 200),
    ("nothing", {}, 401),
    ("empty", {"authorization": ""}, 401),
    ("bearer only", {"authorization": "Bearer "}, 401),
    ("prefix", {"authorization": f"Bearer {CLIENT_KEY[:-1]}"}, 401),
    ("suffix", {"authorization": f"Bearer {CLIENT_KEY}x"}, 401),
    ("basic", {"authorization": f"Basic {CLIENT_KEY}"}, 401),
    ("no scheme", {"authorization": CLIENT_KEY}, 401),
    ("other header", {"x-api-key": CLIENT_KEY}, 401),
    ("cookie", {"cookie": f"authorization=Bearer {CLIENT_KEY}"}, 401),
    ("injection", {"authorization": "Bearer ' OR '1'='1"}, 401),
    ("hash", {"authorization": "Bearer sha256:" + "0" * 64}, 401),
    ("null", {"authorization": "Bearer null"}, 401),
    ("undefined", {"authorization": "Bearer undefined"}, 401),
    ("utf-8", {"authorization": "Bearer ÿ\xe9"}, 401),
    ("long", {"authorization": "Bearer " + "a" * 8000}, 401),
]


@pytest.mark.parametrize(("name", "headers", "status"), CREDENTIALS)
def test_credentials(sidecar: Sidecar, name: str, headers: Any, status: int) -> None:
    """T1: exactly the whole key opens, in the two headers that the contract names."""
    reply = sidecar.ask("POST", "/v1/chat/completions", chat("gpt-4o"), headers=headers)
    assert reply.status == status
    if status == 401:
        error = openai_error(reply)
        assert (error["code"], reply.header("www-authenticate")) == ("invalid_api_key", "Bearer")
        assert CLIENT_KEY[:12] not in reply.body.decode()


ADMIN = [
    ("GET", "/metrics", "view"), ("GET", "/health", "view"), ("GET", "/admin/usage", "view"), ("GET", "/admin/quotas", "view"),
    ("GET", "/admin/policies", "view"), ("GET", "/admin/config", "view"), ("GET", "/v1/models", "generate"),
    ("GET", "/v1/usage", "generate"), ("POST", "/v1/chat/completions", "generate"), ("POST", "/admin/reload", "manage"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "needs"), ADMIN)
def test_each_route_needs_its_permission(sidecar: Sidecar, method: str, path: str, needs: str) -> None:
    """T22: each route and each role: 403 `permission_denied` without the permission."""
    body = chat("gpt-4o") if path.endswith("completions") else None
    has = {CLIENT_KEY: {"generate"}, OTHER_KEY: {"generate"}, OPS_KEY: {"view", "manage", "generate"}}
    for key, permissions in has.items():
        reply = sidecar.ask(method, path, body, key=key)
        if needs in permissions:
            assert reply.status == 200, (path, reply.status, reply.body)
        else:
            assert (reply.status, openai_error(reply)["code"]) == (403, "permission_denied"), path


def test_the_configuration_shows_no_secret(sidecar: Sidecar) -> None:
    """T22: /admin/config is JSON with every secret masked; hashes of client keys stay inside too."""
    from tests.fakes.sidecar import PROVIDER_KEY, hash_key

    shown = sidecar.ask("GET", "/admin/config", key=OPS_KEY).body.decode()
    assert '"providers"' in shown
    for secret in (PROVIDER_KEY, CLIENT_KEY, hash_key(CLIENT_KEY)[7:]):
        assert secret not in shown


def test_the_ops_listener_serves_three_routes(own_sidecar: Any) -> None:
    """T22: the second listener has health and metrics, nothing else, whatever key is shown."""
    from tests.fakes.ports import free_port

    port = free_port()
    running = own_sidecar(server={"ops_listen": f"127.0.0.1:{port}"})
    for path, status in (
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/v1/models", 404),
        ("/admin/config", 404),
        ("/health", 404),
    ):
        with RawClient(port) as client:
            assert client.ask(request(path, method="GET", key=OPS_KEY)).status == status, path
    with RawClient(port) as client:
        assert client.ask(request(body=chat("gpt-4o"), key=CLIENT_KEY)).status == 404
    assert running.running


HOSTS: list[tuple[str, bytes, set[int]]] = [
    ("fragment", b"GET /v1/models HTTP/1.1\r\nHost: a/#@b\r\n", {400, 401}),
    ("query", b"GET /v1/models HTTP/1.1\r\nHost: a?x\r\n", {400, 401}),
    ("user", b"GET /v1/models HTTP/1.1\r\nHost: u@h\r\n", {400, 401}),
    ("path", b"GET /v1/models HTTP/1.1\r\nHost: x/healthz\r\n", {400, 401}),
    ("space", b"GET /v1/models HTTP/1.1\r\nHost: a b\r\n", {400, 401}),
    ("empty", b"GET /v1/models HTTP/1.1\r\nHost:\r\n", {400, 401}),
    ("two", b"GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n", {400}),
    ("none", b"GET /v1/models HTTP/1.1\r\n", {400}),
    ("absolute", b"GET http://evil/healthz/../v1/models HTTP/1.1\r\nHost: x\r\n", {400, 401}),
    ("absolute with user", b"GET http://a@b/v1/models HTTP/1.1\r\nHost: x\r\n", {400, 401}),
    ("absolute health", b"GET http://evil/v1/models?/healthz HTTP/1.1\r\nHost: x\r\n", {400, 401}),
    ("authority", b"GET evil:80 HTTP/1.1\r\nHost: x\r\n", {400}),
    ("asterisk", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n", {400, 401, 404, 405}),
    ("connect", b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: x\r\n", {400}),
    ("fragment in target", b"GET /v1/models#/healthz HTTP/1.1\r\nHost: x\r\n", {400}),
]


@pytest.mark.parametrize(("name", "head", "statuses"), HOSTS)
def test_no_host_opens_a_door(sidecar: Sidecar, name: str, head: bytes, statuses: set[int]) -> None:
    """T3: no Host header and no form of target makes the path differ from the one that was checked (BadHost)."""
    with sidecar.raw() as client:
        reply = client.ask(head + b"\r\n")
        assert reply.status in statuses, reply
        openai_error(reply)


def test_a_good_key_with_a_bad_host_is_no_call(sidecar: Sidecar, upstream: Upstream, tag: str) -> None:
    """T3: with a malformed Host, or a target that names a host of its own, not even a good key gets through."""
    for host in ("a/#@b", "a?x", "u@h", "a b", "[::1", "h:port"):
        with sidecar.raw() as client:
            assert client.ask(request(body=chat(f"m;{tag}"), key=CLIENT_KEY, host=host)).status == 400, host
    with sidecar.raw() as client:
        absolute = f"http://127.0.0.1:{sidecar.port}/v1/chat/completions"
        assert client.ask(request(absolute, body=chat(f"m;{tag}"), key=CLIENT_KEY)).status == 400
    assert upstream.calls(tag) == []


def test_a_reader_stays_strict() -> None:
    """The tests' own reader refuses what is no reply, so that a smuggled one would be seen."""
    from tests.fakes.httpwire import Broken

    for data in (b"HTTP/2 200 OK\r\n\r\n", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"):
        with pytest.raises(Broken):
            ReplyReader().feed(data)
