"""OpenAI and every server that speaks its API: bytes pass as they are where nothing changes them.

Source: https://platform.openai.com/docs/api-reference/chat. What compatible servers get wrong (missing
ids, tool calls without index, usage on the finish chunk, no ``[DONE]``) is repaired here.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import orjson

from proxy.chunk import Chunk
from proxy.errors import UpstreamError
from proxy.providers.base import Provider, ProviderSettings, StreamDecoder, Target
from proxy.providers.failure import failure, outline, snippet
from proxy.providers.openai_history import FOREIGN, NOT_OPENAIS, foreign, plain
from proxy.providers.openai_mend import mend_whole
from proxy.providers.openai_stream import OpenAIDecoder
from proxy.request import ApiRequest
from proxy.upstream.base import Headers, UpstreamRequest

_PATHS: Final = {"chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings"}
#: Fields of ours, or of other dialects, that OpenAI answers with "Unrecognized request argument".
_OURS: Final = ("template", "variables", "thinking_blocks")


class OpenAISettings(ProviderSettings):
    """An ``openai`` entry of llm.yml."""

    organization_id: str | None = None


class OpenAI(Provider):
    """OpenAI's own wire."""

    kind: ClassVar[str] = "openai"
    Settings: ClassVar[type[ProviderSettings]] = OpenAISettings
    endpoints: ClassVar[frozenset[str]] = frozenset(_PATHS)
    default_base_url: ClassVar[str] = "https://api.openai.com/v1"

    def __init__(self, name: str, settings: ProviderSettings) -> None:
        super().__init__(name, settings)
        self.stream_usage = settings.stream_usage != "never"
        """Ask for usage in streams; cleared for good once the server refuses the parameter (`auto`)."""
        host = urlsplit(self.base_url()).hostname or ""
        self._modern = host == "api.openai.com" or host.endswith(".openai.azure.com")
        self._own = self._modern
        """It is OpenAI's own API (or Azure's), which refuses what it does not know."""
        self._foreign = NOT_OPENAIS if self._own else FOREIGN
        if host == "generativelanguage.googleapis.com":
            self._foreign -= {"extra_content"}  # Google's own compatible endpoint asks for it back
        organization = getattr(settings, "organization_id", None)
        self._headers = (
            ("content-type", "application/json"),
            *([("openai-organization", organization)] if organization else []),
            *((name.lower(), value) for name, value in settings.headers.items()),
        )

    def path(self, endpoint: str, target: Target) -> str:
        """Return the path below the base URL."""
        return _PATHS[endpoint]

    def encode(self, request: ApiRequest, target: Target) -> UpstreamRequest:
        body = dict(request.body)
        body["model"] = target.model
        for name in _OURS:
            body.pop(name, None)
        applied = None
        ours = request.ours
        if ours:
            if "max_tokens" in ours:
                if request.endpoint == "embeddings":
                    del body["max_tokens"]
                else:
                    applied = body["max_tokens"]
                    if self._modern and request.endpoint == "chat":
                        body["max_completion_tokens"] = body.pop("max_tokens")
            if "temperature" in ours and (request.endpoint == "embeddings" or _reasons(target.model)):
                del body["temperature"]
        if request.stream and self.stream_usage and request.endpoint != "embeddings":
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        elif not self.stream_usage:
            body.pop("stream_options", None)
        raw = orjson.dumps(body)
        # Elsewhere than in a chat, `messages` and `tools` are fields that nobody has checked.
        if not request.simple and request.endpoint == "chat" and foreign(raw, own=self._own):
            raw = orjson.dumps(plain(body, self._foreign))
        return UpstreamRequest(
            self.path(request.endpoint, target),
            raw,
            self._headers,
            stream=request.stream,
            applied_max_tokens=applied,
            memo=(request.endpoint, target.model),
        )

    def decode(self, status: int, headers: Headers, body: bytes, sent: UpstreamRequest) -> Chunk:
        try:
            data = orjson.loads(body)
        except orjson.JSONDecodeError:
            data = None
        if type(data) is not dict:
            raise UpstreamError(
                "upstream_invalid_response",
                f"{self.name} answered with something that is not a JSON object: {outline(body)}",
                counts=True,
                retryable=True,
            )
        if data.get("error") and not data.get("choices") and "data" not in data:
            raise self.in_band(data["error"])
        if data.get("object") == "error":
            raise self.in_band(data)
        endpoint, model = sent.memo
        chunk = Chunk(data, body, whole=True)
        if endpoint == "embeddings":
            if type(data.get("data")) is not list:
                raise self._unlike("data", body)
            return chunk
        choices = data.get("choices")
        if type(choices) is not list or not choices:
            raise self._unlike("choices", body)
        for choice in choices:
            if type(choice) is not dict:
                raise self._unlike("choices", body)
            if choice.get("finish_reason") == "error" or choice.get("error"):
                raise self.in_band(choice.get("error") or "the model failed while it answered")
        mend_whole(chunk, endpoint, model, int(self.now()))
        return chunk

    def decoder(self, sent: UpstreamRequest) -> StreamDecoder:
        endpoint, model = sent.memo
        return OpenAIDecoder(self, endpoint, model)

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        try:
            data = orjson.loads(body)
        except orjson.JSONDecodeError:
            data = None
        if type(data) is list and data and type(data[0]) is dict:
            data = data[0]
        error = data.get("error", data) if type(data) is dict else None
        if type(error) is dict:
            code = error.get("code")
            if type(code) is not str:
                code = error.get("type") if type(error.get("type")) is str else None
            message = error.get("message") or error.get("detail") or error.get("title") or ""
            param = error.get("param")
            return failure(
                status,
                message if type(message) is str else orjson.dumps(message).decode(),
                headers=headers,
                native_code=code,
                param=param if type(param) is str else None,
                vendor=self.name,
            )
        text = error if type(error) is str else snippet(body)
        return failure(status, text, headers=headers, vendor=self.name)

    def known_models(self, body: bytes) -> list[str]:
        data = orjson.loads(body).get("data") or ()
        return sorted(str(model["id"]) for model in data if type(model) is dict and "id" in model)

    def _unlike(self, field: str, body: bytes) -> UpstreamError:
        return UpstreamError(
            "upstream_invalid_response",
            f"{self.name} answered without `{field}`: {outline(body)}",
            counts=True,
            retryable=True,
        )

    def in_band(self, error: Any) -> UpstreamError:
        """Return the error that a 200 reply or a stream's event carried."""
        if type(error) is not dict:
            return failure(500, str(error), vendor=self.name)
        code = error.get("code")
        status = _status(code) or _status(error.get("status")) or _BY_TYPE.get(str(error.get("type"))) or 500
        word = code if type(code) is str and not code.isdigit() else error.get("type")
        return failure(
            status,
            str(error.get("message") or error),
            native_code=word if type(word) is str else None,
            vendor=self.name,
        )


def _status(value: Any) -> int | None:
    if type(value) is str and value.isdecimal() and len(value) == 3:
        value = int(value)
    return value if type(value) is int and 400 <= value < 600 else None


_BY_TYPE: Final = {
    "invalid_request_error": 400, "rate_limit_error": 429, "rate_limit_exceeded": 429, "insufficient_quota": 429,
    "requests": 429, "tokens": 429, "authentication_error": 401, "permission_error": 403, "not_found_error": 404,
    "overloaded_error": 529,
}  # fmt: skip


def _reasons(model: str) -> bool:
    """Tell whether the model takes no sampling parameters (OpenAI's o-series and gpt-5)."""
    name = model.rsplit("/", 1)[-1]
    return name[:2] in ("o1", "o3", "o4") or (name.startswith("gpt-5") and "chat" not in name)
