"""One suite for both implementations of ``Upstream``, on the loop of production and on asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop

from proxy.upstream.base import Timeouts, Upstream, UpstreamReply, UpstreamRequest
from proxy.upstream.client import RawUpstream
from proxy.upstream.httpx_twin import HttpxUpstream
from tests.upstream.authority import Authority

QUICK = Timeouts(connect=2, first_byte=2, idle=2, total=10)
Connect = Callable[..., Any]


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Any]:
    # The loop of production; a module that names others in LOOPS runs on those.
    known = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    return {name: known[name] for name in getattr(item.module, "LOOPS", ("uvloop",))}


@pytest.fixture(params=["raw", "httpx"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def _opened(kinds: dict[str, type[Any]], kind: str) -> AsyncIterator[Connect]:
    made: list[Upstream] = []

    def connect(url: str, timeouts: Timeouts = QUICK, **options: Any) -> Upstream:
        upstream: Upstream = kinds[kind](url, timeouts, **options)
        made.append(upstream)
        return upstream

    yield connect
    for upstream in made:
        await upstream.aclose()
    await asyncio.sleep(0.01)


@pytest.fixture
async def connect(kind: str) -> AsyncIterator[Connect]:
    """Make an upstream of either kind; closed at the test's end."""
    async for made in _opened({"raw": RawUpstream, "httpx": HttpxUpstream}, kind):
        yield made


@pytest.fixture
async def raw() -> AsyncIterator[Connect]:
    """Make an upstream on our own client; closed at the test's end."""
    async for made in _opened({"raw": RawUpstream}, "raw"):
        yield made


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that the upstream under test trusts."""
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another authority, which nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))


KEY = [("authorization", "Bearer sk-canary")]


def post(body: bytes = b"{}", path: str = "/chat/completions", **options: Any) -> UpstreamRequest:
    """Return a request as a provider's translator makes it."""
    return UpstreamRequest(path, body, [("content-type", "application/json")], **options)


async def ask(upstream: Upstream, request: UpstreamRequest | None = None) -> tuple[int, bytes]:
    """Send one request; return status and whole body."""
    reply = await upstream.send(request or post(), KEY)
    try:
        return reply.status, await reply.body(1 << 24)
    finally:
        reply.close()


async def pieces(reply: UpstreamReply) -> tuple[bytes, BaseException | None]:
    """Read to the end; return what came and the error that ended it."""
    data = b""
    try:
        while piece := await reply.read():
            data += piece
    except Exception as error:
        return data, error
    return data, None
