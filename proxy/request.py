"""The caller's request: parsed once, checked for what we read, held as a plain dict.

The body is always encoded anew for the upstream, never forwarded as received: JSON with a key given
twice means one thing to us and may mean another to the upstream, past every policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final

import orjson

from proxy.chunk import Slot
from proxy.errors import bad
from proxy.fields import CHAT, COMMON, COMPLETIONS, Check, check_input, check_message, integer
from proxy.slots import slots

MAX_DEPTH: Final = 64
"""Levels of objects and arrays in a body, itself the first."""
MAX_MESSAGES: Final = 2_000
#: Fields in which the checks take numbers, words and truth values only, whatever the endpoint.
_FLAT: Final = frozenset(
    ("model", "stream", "n", "max_tokens", "temperature", "top_p", "user", "seed", "presence_penalty",
     "frequency_penalty", "service_tier")
)  # fmt: skip
_CONTAINERS: Final = (dict, list)
#: As a tuple: a role that is a list or an object is simply not among them.
_PLAIN_ROLES: Final = ("user", "assistant", "system", "developer")
#: Fields by which other gateways let a caller choose the destination or its headers (threat T6).
FORBIDDEN: Final = frozenset(
    ("api_base", "base_url", "api_key", "api_version", "api_type", "extra_headers", "extra_query", "extra_body",
     "custom_llm_provider", "azure_endpoint", "organization_id", "default_headers", "http_client", "proxy_url")
)  # fmt: skip


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that ``raw`` holds; raise ``invalid_request`` for anything else."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        reason = str(error).split(": line")[0]
        bad(f"The request body is not valid JSON ({reason}); send one UTF-8 encoded JSON object.")
    if type(body) is not dict:
        bad("The request body must be a JSON object.")
    return body


def _check_depth(level: list[Any], at: int) -> None:
    """Refuse a body that is too deep; ``level`` holds the containers to look into, on level ``at``."""
    for _ in range(at, MAX_DEPTH + 1):
        deeper: list[Any] = []
        for container in level:
            for value in container.values() if type(container) is dict else container:
                if type(value) is dict or type(value) is list:
                    deeper.append(value)
        if not deeper:
            return
        level = deeper
    bad(f"The request body is nested deeper than {MAX_DEPTH} levels; flatten it.")


class ApiRequest:
    """A request on one of the generating routes.

    ``body`` is the parsed JSON object; policies may change it. ``endpoint`` is ``chat``,
    ``completions`` or ``embeddings``. ``simple``: it holds messages of a role and a text only, and no tools.
    """

    __slots__ = ("body", "changed", "include_usage", "model", "ours", "simple", "size", "stream")
    endpoint: ClassVar[str] = ""
    main: ClassVar[str] = ""
    """The field that holds the prompt; its depth is checked with its form."""
    flat: ClassVar[frozenset[str]] = frozenset()
    """Fields that hold no object and no array, or one that is looked into anyway."""
    checks: ClassVar[dict[str, Check]] = COMMON
    """What each field that we read must be."""

    def __init__(self, body: dict[str, Any], size: int = 0) -> None:
        self.body = body
        self.ours: frozenset[str] = frozenset()
        """Names in ``body`` whose value we injected (team, provider, quota): dropped silently where a
        target cannot take them; only a client's own are refused as ``unsupported_parameter``."""
        self.size = size
        self.changed = False
        self.simple = False
        model = body.get("model")
        if model is not None and (type(model) is not str or not model or len(model) > 256):
            bad("`model` must be a non-empty string of at most 256 characters.", "model")
        self.model: str = model or ""
        stream = body.get("stream")
        if stream is not None and type(stream) is not bool:
            bad("`stream` must be true or false.", "stream")
        self.stream: bool = bool(stream)
        self.include_usage = False
        options = body.get("stream_options")
        if options is not None:
            if type(options) is not dict:
                bad("`stream_options` must be an object.", "stream_options")
            wanted = options.get("include_usage")
            if wanted is not None and type(wanted) is not bool:
                bad("`stream_options.include_usage` must be true or false.", "stream_options.include_usage")
            if not self.stream:
                bad("`stream_options` is only allowed together with `stream: true`.", "stream_options")
            self.include_usage = bool(wanted)
        if not FORBIDDEN.isdisjoint(body):
            name = min(FORBIDDEN.intersection(body))
            bad(f"`{name}` cannot be set by a request; the destination is fixed by the sidecar's llm.yml.", name)
        checks = self.checks
        for name in body:
            if name in checks and (value := body[name]) is not None:
                checks[name](value, name)
        if not self.flat.issuperset(body):
            main = self.main
            containers = [value for name, value in body.items() if type(value) in _CONTAINERS and name != main]
            if containers:
                _check_depth(containers, 2)

    def touch(self) -> None:
        """Say that a policy changed ``body``."""
        self.changed = True
        self.simple = False

    def with_ours(self, values: dict[str, Any]) -> ApiRequest:
        """Return a shallow copy whose body also holds ``values``, marked as ours; self where there are none."""
        if not values:
            return self
        copy = object.__new__(type(self))
        copy.body = {**self.body, **values}
        copy.ours = frozenset(values)
        copy.size = self.size
        copy.changed = self.changed
        copy.simple = self.simple
        copy.model = self.model
        copy.stream = self.stream
        copy.include_usage = self.include_usage
        return copy

    @property
    def n(self) -> int:
        """Return how many answers are asked for."""
        n = self.body.get("n")
        return n or 1

    @property
    def max_tokens(self) -> int | None:
        """Return the caller's bound on the answer's tokens, None without one."""
        value = self.body.get("max_completion_tokens")
        return value if value is not None else self.body.get("max_tokens")

    def texts(self) -> Iterator[Slot]:
        """Yield every string of the request that is not structural, as writable slots."""
        return slots(self)


class ChatRequest(ApiRequest):
    """A request to ``/v1/chat/completions``."""

    __slots__ = ()
    endpoint = "chat"
    main = "messages"
    flat = _FLAT | {"messages"}
    checks = CHAT

    def __init__(self, body: dict[str, Any], size: int = 0) -> None:
        super().__init__(body, size)
        messages = body.get("messages")
        if not messages and body.get("template") is not None and (messages is None or messages == []):
            messages = body["messages"] = []  # the template brings them
        elif type(messages) is not list or not messages:
            bad("`messages` must be a non-empty array of messages.", "messages")
        if len(messages) > MAX_MESSAGES:
            bad(f"`messages` holds {len(messages)} messages; at most {MAX_MESSAGES} are taken.", "messages")
        odd: list[Any] | None = None
        i = 0
        for message in messages:
            # Most messages are a role and a text; only the others need a closer look.
            if (
                type(message) is not dict
                or len(message) != 2
                or type(message.get("content")) is not str
                or message.get("role") not in _PLAIN_ROLES
            ):
                check_message(message, i)
                if odd is None:
                    odd = []
                odd.append(message)
            i += 1  # noqa: SIM113 - enumerate makes a tuple for each
        if odd is not None:
            _check_depth(odd, 3)
        else:
            self.simple = "tools" not in body

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.body["messages"]
        return messages


class CompletionRequest(ApiRequest):
    """A request to ``/v1/completions``."""

    __slots__ = ()
    endpoint = "completions"
    main = "prompt"
    flat = _FLAT | {"prompt"}
    checks = COMPLETIONS

    def __init__(self, body: dict[str, Any], size: int = 0) -> None:
        super().__init__(body, size)
        check_input(body.get("prompt"), "prompt")


class EmbeddingsRequest(ApiRequest):
    """A request to ``/v1/embeddings``."""

    __slots__ = ()
    endpoint = "embeddings"
    main = "input"
    flat = _FLAT | {"input"}

    def __init__(self, body: dict[str, Any], size: int = 0) -> None:
        super().__init__(body, size)
        if self.stream:
            bad("Embeddings cannot be streamed; leave `stream` out.", "stream")
        check_input(body.get("input"), "input")
        if (dimensions := body.get("dimensions")) is not None:
            integer(1, 1_000_000)(dimensions, "dimensions")
        if body.get("encoding_format") not in (None, "float", "base64"):
            bad("`encoding_format` must be float or base64.", "encoding_format")


REQUESTS: Final[dict[str, type[ApiRequest]]] = {
    cls.endpoint: cls for cls in (ChatRequest, CompletionRequest, EmbeddingsRequest)
}
