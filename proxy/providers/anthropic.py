"""Anthropic's Messages API.

Source: platform.claude.com/docs/en/api/messages. Versions 2023-06-01 and 2026-10-21 (which refuses
sampling parameters).
"""

from __future__ import annotations

from typing import ClassVar

import orjson
from pydantic import Field

from proxy.chunk import Chunk
from proxy.errors import UpstreamError
from proxy.providers.anthropic_reply import FINISH, error_of, whole
from proxy.providers.anthropic_request import encode
from proxy.providers.anthropic_stream import AnthropicDecoder
from proxy.providers.base import Provider, ProviderSettings, StreamDecoder, Target
from proxy.providers.failure import failure, snippet
from proxy.request import ApiRequest
from proxy.upstream.base import Headers, UpstreamRequest


class AnthropicSettings(ProviderSettings):
    """An ``anthropic`` entry of llm.yml."""

    version: str = Field("2023-06-01", pattern=r"^\d{4}-\d\d-\d\d$")
    """The ``anthropic-version`` header."""


class Anthropic(Provider):
    """Anthropic's wire."""

    kind: ClassVar[str] = "anthropic"
    Settings: ClassVar[type[ProviderSettings]] = AnthropicSettings
    default_base_url: ClassVar[str] = "https://api.anthropic.com"
    finish_words: ClassVar[frozenset[str]] = frozenset(FINISH)

    def __init__(self, name: str, settings: ProviderSettings) -> None:
        super().__init__(name, settings)
        self._headers = (
            ("content-type", "application/json"),
            ("anthropic-version", str(self.settings.version)),
            *((header.lower(), value) for header, value in settings.headers.items()),
        )

    def credentials(self, key: str) -> list[tuple[str, str]]:
        return [("x-api-key", key)]

    def encode(self, request: ApiRequest, target: Target) -> UpstreamRequest:
        sent = encode(request, target, self.settings.version)
        sent.headers = self._headers
        return sent

    def decode(self, status: int, headers: Headers, body: bytes, sent: UpstreamRequest) -> Chunk:
        return whole(body, sent.memo, int(self.now()), self.name)

    def decoder(self, sent: UpstreamRequest) -> StreamDecoder:
        return AnthropicDecoder(sent.memo, int(self.now()), self.name)

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        try:
            data = orjson.loads(body)
        except orjson.JSONDecodeError:
            data = None
        error = data.get("error") if isinstance(data, dict) else None
        if isinstance(error, dict):
            return error_of(status, error, self.name, headers)
        return failure(status, error if isinstance(error, str) else snippet(body), headers=headers, vendor=self.name)

    def probe(self) -> UpstreamRequest:
        return UpstreamRequest("/v1/models?limit=1000", b"", self._headers, method="GET")

    def known_models(self, body: bytes) -> list[str]:
        found = orjson.loads(body).get("data") or ()
        return sorted(str(model["id"]) for model in found if isinstance(model, dict) and "id" in model)
