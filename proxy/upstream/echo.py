"""The transport of the echo provider: the reply is made on the spot, whole or as a stream."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.providers.echo import Echo
from proxy.shape import unfold
from proxy.upstream.base import Headers, Upstream, UpstreamReply, UpstreamRequest


class EchoUpstream(Upstream):
    """Answer without a network."""

    def __init__(self, provider: Echo) -> None:
        self._provider = provider

    async def send(self, request: UpstreamRequest, credentials: Sequence[tuple[str, str]]) -> UpstreamReply:
        request.began = True
        whole = self._provider.answer(request)
        if not request.stream:
            return EchoReply({"content-type": "application/json"}, [whole.encode()])
        parts = [b"data: " + chunk.encode() + b"\n\n" for chunk in unfold(whole, words=True)]
        return EchoReply({"content-type": "text/event-stream"}, [*parts, b"data: [DONE]\n\n"])

    async def aclose(self) -> None:
        return


class EchoReply(UpstreamReply):
    """A reply that is all there already."""

    def __init__(self, headers: Headers, parts: list[bytes]) -> None:
        self.status = 200
        self.headers = headers
        self._parts = parts

    async def read(self) -> bytes:
        return self._parts.pop(0) if self._parts else b""

    async def body(self, limit: int) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)

    def close(self) -> None:
        self._parts = []
