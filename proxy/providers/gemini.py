"""Google's Gemini API: OpenAI chat and embeddings ⇄ generateContent, streamGenerateContent, batchEmbedContents.

Source: https://ai.google.dev/api (v1beta, and v1, which lacks preview models and aliases).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote, urlsplit

import orjson
from pydantic import field_validator

from proxy.chunk import Chunk
from proxy.errors import UpstreamError
from proxy.providers.base import Provider, ProviderSettings, StreamDecoder, Target
from proxy.providers.common import dumps
from proxy.providers.failure import failure, parse_wait, snippet
from proxy.providers.gemini_embeddings import embed_body, embeddings
from proxy.providers.gemini_reply import FINISH_WORDS, Reading, Sent
from proxy.providers.gemini_request import ChatEncoder
from proxy.providers.gemini_stream import GeminiDecoder
from proxy.providers.gemini_whole import whole_reply
from proxy.request import ApiRequest
from proxy.upstream.base import Headers, UpstreamRequest

_CATEGORIES: Final = {
    "HATE_SPEECH": "HATE_SPEECH", "HARASSMENT": "HARASSMENT", "SEXUALLY_EXPLICIT": "SEXUALLY_EXPLICIT",
    "SEXUAL_CONTENT": "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT": "DANGEROUS_CONTENT",
    "CIVIC_INTEGRITY": "CIVIC_INTEGRITY",
}  # fmt: skip
_THRESHOLDS: Final = (
    "BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH", "BLOCK_NONE", "OFF",
    "HARM_BLOCK_THRESHOLD_UNSPECIFIED",
)  # fmt: skip
_BAD_KEY: Final = re.compile(r"api.?key (?:not valid|not found|expired|invalid)|invalid api.?key", re.IGNORECASE)
_NO_CREDIT: Final = re.compile(
    r"prepa(?:y|id)|credits? (?:are|is|have been) (?:depleted|exhausted)|spend(?:ing)? (?:cap|limit)", re.IGNORECASE
)
_RETRY_IN: Final = re.compile(r"retry in ((?:\d+h)?(?:\d+m)?\d+(?:\.\d+)?m?s)", re.IGNORECASE)
_NOT_IN_V1: Final = re.compile(
    r"unknown name|cannot find field|not (?:found|supported|enabled|available)", re.IGNORECASE
)


@lru_cache(maxsize=512)
def _path(version: str, model: str, method: str) -> str:
    collection, _, name = model.rpartition("/")
    if collection not in ("models", "tunedModels"):
        collection, name = "models", model
    return f"/{version}/{collection}/{quote(name, safe='')}:{method}"


class GeminiSettings(ProviderSettings):
    """A ``gemini`` entry of llm.yml."""

    api_version: Literal["v1beta", "v1"] = "v1beta"
    safety_settings: dict[str, str] = {}

    @field_validator("safety_settings", mode="before")
    @classmethod
    def _vendor_words(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value or {}
        words: dict[str, str] = {}
        for category, threshold in value.items():
            name = str(category).upper().removeprefix("HARM_CATEGORY_")
            if name not in _CATEGORIES:
                raise ValueError(f"`{category}` is no harm category; it is one of {', '.join(_CATEGORIES)}.")
            word = str(threshold).upper()
            word = "BLOCK_LOW_AND_ABOVE" if word == "BLOCK" else word
            if word not in _THRESHOLDS:
                raise ValueError(f"`{threshold}` is no threshold; it is one of BLOCK, {', '.join(_THRESHOLDS[:-1])}.")
            words[f"HARM_CATEGORY_{_CATEGORIES[name]}"] = word
        return words


class Gemini(Provider):
    """Gemini by API key."""

    kind: ClassVar[str] = "gemini"
    Settings: ClassVar[type[ProviderSettings]] = GeminiSettings
    endpoints: ClassVar[frozenset[str]] = frozenset(("chat", "embeddings"))
    default_base_url: ClassVar[str] = "https://generativelanguage.googleapis.com"
    finish_words: ClassVar[frozenset[str]] = FINISH_WORDS

    def __init__(self, name: str, settings: ProviderSettings) -> None:
        super().__init__(name, settings)
        self._version: str = getattr(settings, "api_version", "v1beta")
        self._safety = [
            {"category": category, "threshold": threshold}
            for category, threshold in getattr(settings, "safety_settings", {}).items()
        ]
        self._ids = "aiplatform" not in (urlsplit(self.base_url()).hostname or "")
        self._headers = (
            ("content-type", "application/json"),
            *((name.lower(), value) for name, value in settings.headers.items()),
        )

    def credentials(self, key: str) -> list[tuple[str, str]]:
        return [("x-goog-api-key", key)]

    def encode(self, request: ApiRequest, target: Target) -> UpstreamRequest:
        model = target.model
        if request.endpoint == "embeddings":
            body, sent, dropped = embed_body(request.body, model.removeprefix("models/"), self.settings, request.ours)
            return UpstreamRequest(
                _path(self._version, model, "batchEmbedContents"),
                body,
                self._headers,
                dropped=tuple(dropped),
                memo=sent,
            )
        encoder = ChatEncoder(request, model, self.settings, ids=self._ids)
        if self._safety:
            encoder.body["safetySettings"] = self._safety
        return UpstreamRequest(
            _path(self._version, model, "streamGenerateContent?alt=sse" if request.stream else "generateContent"),
            dumps(encoder.body),
            self._headers,
            stream=request.stream,
            dropped=tuple(encoder.dropped),
            applied_max_tokens=request.max_tokens if "max_tokens" in request.ours else None,
            memo=Sent(model.removeprefix("models/"), restore=encoder.restore, single=encoder.single),
        )

    def decode(self, status: int, headers: Headers, body: bytes, sent: UpstreamRequest) -> Chunk:
        reading = self._reading(sent)
        return embeddings(reading, body) if reading.sent.vectors else whole_reply(reading, body)

    def decoder(self, sent: UpstreamRequest) -> StreamDecoder:
        return GeminiDecoder(self._reading(sent))

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        try:
            data = orjson.loads(body)
        except orjson.JSONDecodeError:
            data = None
        if type(data) is list and data:
            data = data[0]
        error = data.get("error") if type(data) is dict else None
        if type(error) is not dict:
            error = {"message": error if type(error) is str else snippet(body)}
        return self._failure(status, headers, error)

    def probe(self) -> UpstreamRequest:
        return UpstreamRequest(f"/{self._version}/models?pageSize=1000", b"", self._headers[1:], method="GET")

    def known_models(self, body: bytes) -> list[str]:
        models = orjson.loads(body).get("models") or ()
        return sorted(
            str(model["name"]).removeprefix("models/") for model in models if type(model) is dict and "name" in model
        )

    def _reading(self, sent: UpstreamRequest) -> Reading:
        return Reading(self.name, sent.memo, int(self.now()), self._in_band)

    def _in_band(self, error: Any) -> UpstreamError:
        """Return the error that a 200 reply or a stream's event carried."""
        if type(error) is not dict:
            error = {"message": str(error)}
        code = error.get("code")
        return self._failure(code if type(code) is int and 400 <= code < 600 else 500, {}, error)

    def _failure(self, status: int, headers: Headers, error: dict[str, Any]) -> UpstreamError:
        message = error.get("message")
        message = message if type(message) is str else dumps(error).decode()
        word = error.get("status")
        wait: float | None = None
        reason = ""
        details = error.get("details")
        for detail in details if type(details) is list else ():
            if type(detail) is not dict:
                continue
            if type(delay := detail.get("retryDelay")) is str:
                wait = parse_wait(delay)
            if type(detail.get("reason")) is str:
                reason = detail["reason"]
        if status == 400 and (reason.startswith("API_KEY") or _BAD_KEY.search(message)):
            status = 401
        if wait is None and status == 429 and (found := _RETRY_IN.search(message)):
            wait = parse_wait(found[1])
        if self._version == "v1" and status in (400, 404) and _NOT_IN_V1.search(message):
            message = (
                message[:350] + " (llm.yml asks for api_version v1, which has no previews and fewer fields: try v1beta)"
            )
        return failure(
            status,
            message,
            headers=headers,
            native_code=word if type(word) is str else None,
            wait=wait,
            vendor=self.name,
            # Every 429 speaks of "plan and billing"; only some are about money.
            limited=status == 429 and not _NO_CREDIT.search(message),
        )
