"""What a vendor's translator is: pure functions between OpenAI's shapes and the vendor's wire.

No sockets, no clocks (but :attr:`Provider.now`, injected), no globals in here or in any vendor's file: the
same input gives the same output, however often it is retried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from proxy.chunk import Chunk
from proxy.config.units import Duration
from proxy.errors import ApiError, Truncated, UpstreamError
from proxy.headers import clean
from proxy.request import ApiRequest
from proxy.shortcut import stands
from proxy.upstream.base import Headers, UpstreamRequest
from proxy.upstream.head import check_name, check_value

__all__ = ["Provider", "ProviderSettings", "StreamDecoder", "Target"]


class Strict(BaseModel):
    """A part of llm.yml: unknown keys refused, immutable once loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class TimeoutSettings(Strict):
    """The long form of ``timeout``."""

    connect: Duration = 5.0
    first_byte: Duration = 30.0
    idle: Duration = 30.0
    total: Duration = 600.0


class TlsSettings(Strict):
    """How the provider's certificate is checked."""

    min_version: Literal["1.2", "1.3"] = "1.3"
    ca_file: str | None = None


class BreakerSettings(Strict):
    """When a failing target is left alone, and for how long."""

    failures: int = Field(5, ge=1)
    open: Duration = 300.0


class ProviderSettings(Strict):
    """The keys that an entry under ``providers:`` may have, whatever its kind (contract 3.2)."""

    kind: str | None = None
    model: str | None = None
    base_url: str | None = None
    api_key: tuple[SecretStr, ...] = ()
    timeout: Duration | TimeoutSettings = 30.0
    max_retries: int = Field(3, ge=0, le=10)
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    models: tuple[str, ...] = ()
    proxy: str | None = None
    headers: dict[str, str] = {}
    tls: TlsSettings = TlsSettings()
    unsupported: Literal["error", "drop"] = "error"
    stream_usage: Literal["auto", "always", "never"] = "auto"
    breaker: BreakerSettings = BreakerSettings()
    key_created: str | None = None
    key_rotation_interval: Duration = 7_776_000.0

    @field_validator("headers")
    @classmethod
    def _sendable(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            check_name(name.lower())
            check_value(text)
        return value

    @field_validator("api_key", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if value is None:
            return ()
        if isinstance(value, str | SecretStr):
            return (value,)
        return value


class Target:
    """Where a call may go: one model of one configured provider."""

    __slots__ = ("lines", "model", "name", "provider", "settings")

    def __init__(self, name: str, model: str, provider: Provider) -> None:
        self.name = name
        """The provider entry's name in llm.yml."""
        self.model = model
        """The upstream's own name of the model."""
        self.provider = provider
        self.settings = provider.settings
        self.lines = f"x-llm-provider: {name}\r\nx-llm-model: {clean(model)}\r\n"
        """The reply headers that name it."""

    def __repr__(self) -> str:
        return f"{self.name}/{self.model}"


class StreamDecoder:
    """Turn one vendor stream's events into chunks in OpenAI's shape.

    The first chunk carries ``delta.role`` exactly once; the finish reason stands on the last content
    chunk of its own; then, if the vendor said it, one usage chunk with ``choices: []``, whether or not
    the caller asked for one. ``done`` becomes True with the vendor's terminal event; what follows is
    ignored.
    """

    done: bool = False
    choice: int = 0
    """The choice whose text :meth:`lone` returned last; -1: it was more than one's."""

    def __init_subclass__(cls, **more: Any) -> None:
        """Make sure that :meth:`lone` does for ``cls`` what its `feed` does, and has the `around` that it needs."""
        super().__init_subclass__(**more)
        if not stands(cls, "lone", "feed"):
            cls.lone = StreamDecoder.lone  # type: ignore[method-assign]
        elif cls.lone is not StreamDecoder.lone and cls.around is StreamDecoder.around:
            raise TypeError(f"{cls.__name__} has `lone` and no `around`: give it both, or neither")

    def feed(self, event: str, data: bytes) -> Sequence[Chunk]:
        """Return the chunks for one server-sent event; ``event`` is ``""`` where the stream names none.

        Raises:
            UpstreamError: the event is an error, or cannot be understood.
        """
        raise NotImplementedError

    def lone(self, data: bytes, usage: bool) -> tuple[str, bytes] | None:
        """Return the text of ``data``, whole events that say nothing but text, and those events as the client gets them.

        None where that is not sure: then they go through :meth:`feed`. ``usage``: the client wants a `usage` field,
        null, on every chunk. A subclass that changes :meth:`feed` and has no such method of its own goes without.
        """
        return None

    def around(self, usage: bool) -> tuple[bytes, bytes]:
        """Return what stands before and behind the text, a JSON string, in such an event of that choice."""
        raise NotImplementedError

    def close(self) -> Sequence[Chunk]:
        """Return what was held back; raise :class:`Truncated` if the terminal event is missing."""
        if not self.done:
            raise Truncated
        return ()


class Provider:
    """A vendor. Override what differs from an OpenAI-compatible server; one file per vendor.

    Class attributes: ``kind`` as in llm.yml; ``Settings`` the model of its entry; ``endpoints`` what it
    can serve (``chat``, ``completions``, ``embeddings``); ``default_base_url``.
    """

    kind: ClassVar[str] = ""
    Settings: ClassVar[type[ProviderSettings]] = ProviderSettings
    endpoints: ClassVar[frozenset[str]] = frozenset(("chat",))
    default_base_url: ClassVar[str] = ""
    needs_key: ClassVar[bool] = True
    lists_models: ClassVar[bool] = True
    """The reply to :meth:`probe` lists what may be asked for: a name that is not in it will probably not be served."""
    finish_words: ClassVar[frozenset[str]] = frozenset()
    """The vendor's own finish words (`x_llm_native_finish_reason`); any other is counted and logged. Empty: none is."""
    now: Callable[[], float] = staticmethod(time.time)
    """Wall seconds, for `created` where a vendor's reply holds no time; tests set their own on the instance."""

    def __init__(self, name: str, settings: ProviderSettings) -> None:
        self.name = name
        self.settings: Any = settings

    def base_url(self) -> str:
        """Return scheme, host and path prefix, without a trailing slash."""
        return (self.settings.base_url or self.default_base_url).rstrip("/")

    def credentials(self, key: str) -> list[tuple[str, str]]:
        """Return the headers that carry the API key (never the URL)."""
        return [("authorization", f"Bearer {key}")]

    def encode(self, request: ApiRequest, target: Target) -> UpstreamRequest:
        """Return the vendor's HTTP request for ``request``, which is left as it is.

        Raises:
            ApiError: ``unsupported_parameter``, ``unsupported_image_url`` or ``invalid_request`` where
                the vendor cannot honour what the caller asked for.
        """
        raise NotImplementedError

    def decode(self, status: int, headers: Headers, body: bytes, sent: UpstreamRequest) -> Chunk:
        """Return a 200 reply's body as one whole chunk in OpenAI's shape.

        Raises:
            UpstreamError: ``upstream_invalid_response`` where it is no answer.
        """
        raise NotImplementedError

    def decoder(self, sent: UpstreamRequest) -> StreamDecoder:
        """Return a fresh decoder for one streamed reply to ``sent``."""
        raise NotImplementedError

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        """Return the error for a reply that is not 200, by the contract's table.

        See :func:`proxy.providers.failure.failure`, which most vendors can end in.
        """
        raise NotImplementedError

    def probe(self) -> UpstreamRequest:
        """Return a cheap request that succeeds if and only if the API key works (`check --probe`)."""
        return UpstreamRequest("/models", b"", method="GET")

    def known_models(self, body: bytes) -> list[str]:
        """Return the model names in a successful reply to :meth:`probe`."""
        return []


def unsupported(param: str, vendor: str, hint: str = "leave it out") -> ApiError:
    """Return the refusal of a parameter that the vendor cannot honour."""
    return ApiError(
        "unsupported_parameter",
        f"`{param}` is not supported by {vendor}; {hint}, or set `unsupported: drop` for this provider.",
        param=param,
    )


def drop_or_refuse(
    settings: ProviderSettings, dropped: list[str], param: str, vendor: str, hint: str = "leave it out"
) -> None:
    """Note the caller's ``param`` as dropped, or refuse it, as ``settings.unsupported`` says."""
    if settings.unsupported == "error":
        raise unsupported(param, vendor, hint)
    dropped.append(param)
