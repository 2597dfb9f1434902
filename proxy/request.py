"""The caller's request: parsed once, checked for what we read, held as a plain dict.

The body is always encoded anew for the upstream, never forwarded as received: JSON with a key given
twice means one thing to us and may mean another to the upstream, past every policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final, NoReturn

import orjson

from proxy.chunk import Slot
from proxy.errors import ApiError

MAX_DEPTH: Final = 64
_HALF: Final = MAX_DEPTH // 2
MAX_MESSAGES: Final = 2_000
MAX_TOKENS: Final = 100_000_000
ROLES: Final = frozenset(("system", "developer", "user", "assistant", "tool", "function"))
#: As a tuple: a role that is a list or an object is simply not among them.
_PLAIN_ROLES: Final = ("user", "assistant", "system", "developer")
#: Fields by which other gateways let a caller choose the destination or its headers (threat T6).
FORBIDDEN: Final = frozenset(
    ("api_base", "base_url", "api_key", "api_version", "api_type", "extra_headers", "extra_query", "extra_body",
     "custom_llm_provider", "azure_endpoint", "organization_id", "default_headers", "http_client", "proxy_url")
)  # fmt: skip


def bad(message: str, param: str | None = None) -> NoReturn:
    """Refuse the request as malformed."""
    raise ApiError("invalid_request", message, param=param)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that ``raw`` holds; raise ``invalid_request`` for anything else."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        reason = str(error).split(": line")[0]
        bad(f"The request body is not valid JSON ({reason}); send one UTF-8 encoded JSON object.")
    if type(body) is not dict:
        bad("The request body must be a JSON object.")
    # Cheaper than a walk: depth takes as many brackets, and so many of one kind (splitting finds them by
    # memchr, a fifth of what bytes.count takes).
    if len(raw.split(b"{", _HALF)) > _HALF or len(raw.split(b"[", _HALF)) > _HALF:
        _check_depth(body)
    return body


def _check_depth(body: Any) -> None:
    level = [body]
    for _ in range(MAX_DEPTH):
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
    ``completions`` or ``embeddings``.
    """

    __slots__ = ("body", "changed", "include_usage", "model", "ours", "size", "stream")
    endpoint: ClassVar[str] = ""
    checks: ClassVar[dict[str, Check]] = {}
    """What each field that we read must be; set at the end of this file."""

    def __init__(self, body: dict[str, Any], size: int = 0) -> None:
        self.body = body
        self.ours: frozenset[str] = frozenset()
        """Names in ``body`` whose value we injected (team, provider, quota): dropped silently where a
        target cannot take them; only a client's own are refused as ``unsupported_parameter``."""
        self.size = size
        self.changed = False
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
        for name, value in body.items():
            if value is not None and name in checks:
                checks[name](value, name)

    def touch(self) -> None:
        """Say that a policy changed ``body``."""
        self.changed = True

    def with_ours(self, values: dict[str, Any]) -> ApiRequest:
        """Return a shallow copy whose body also holds ``values``, marked as ours; self where there are none."""
        if not values:
            return self
        copy = object.__new__(type(self))
        copy.body = {**self.body, **values}
        copy.ours = frozenset(values)
        copy.size = self.size
        copy.changed = self.changed
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
        return iter(_leaves(self, self.body, (), _TOP, []))


class ChatRequest(ApiRequest):
    """A request to ``/v1/chat/completions``."""

    __slots__ = ()
    endpoint = "chat"

    def __init__(self, body: dict[str, Any], size: int = 0) -> None:
        super().__init__(body, size)
        messages = body.get("messages")
        if not messages and body.get("template") is not None and (messages is None or messages == []):
            messages = body["messages"] = []  # the template brings them
        elif type(messages) is not list or not messages:
            bad("`messages` must be a non-empty array of messages.", "messages")
        if len(messages) > MAX_MESSAGES:
            bad(f"`messages` holds {len(messages)} messages; at most {MAX_MESSAGES} are taken.", "messages")
        for i, message in enumerate(messages):
            # Most messages are a role and a text; only the others need a closer look.
            plain = type(message) is dict and len(message) == 2 and type(message.get("content")) is str
            if not plain or message.get("role") not in _PLAIN_ROLES:
                _check_message(message, i)

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.body["messages"]
        return messages


class CompletionRequest(ApiRequest):
    """A request to ``/v1/completions``."""

    __slots__ = ()
    endpoint = "completions"

    def __init__(self, body: dict[str, Any], size: int = 0) -> None:
        super().__init__(body, size)
        _check_input(body.get("prompt"), "prompt")


class EmbeddingsRequest(ApiRequest):
    """A request to ``/v1/embeddings``."""

    __slots__ = ()
    endpoint = "embeddings"

    def __init__(self, body: dict[str, Any], size: int = 0) -> None:
        super().__init__(body, size)
        if self.stream:
            bad("Embeddings cannot be streamed; leave `stream` out.", "stream")
        _check_input(body.get("input"), "input")
        if (dimensions := body.get("dimensions")) is not None:
            _integer(1, 1_000_000)(dimensions, "dimensions")
        if body.get("encoding_format") not in (None, "float", "base64"):
            bad("`encoding_format` must be float or base64.", "encoding_format")


# --- what is checked --------------------------------------------------------------------------------

Check = Callable[[Any, str], None]


def _check_input(value: Any, name: str) -> None:
    if type(value) is str:
        return
    if type(value) is not list or not value or len(value) > 4_096:
        bad(f"`{name}` must be a string or a non-empty array of at most 4096 strings or token arrays.", name)
    for i, item in enumerate(value):
        kind = type(item)
        if kind is str or kind is int:
            continue
        if kind is not list or not all(type(token) is int for token in item):
            bad(f"`{name}[{i}]` must be a string or an array of integers.", f"{name}[{i}]")
    if len({type(item) for item in value}) > 1:
        bad(f"`{name}` must not mix strings and tokens.", name)


def _check_message(message: Any, i: int) -> None:
    if type(message) is not dict:
        bad(f"`messages[{i}]` must be an object.", f"messages[{i}]")
    role = message.get("role")
    if type(role) is not str or role not in ROLES:
        bad(f"`messages[{i}].role` must be one of {', '.join(sorted(ROLES))}.", f"messages[{i}].role")
    content = message.get("content")
    if type(content) is list:
        for j, part in enumerate(content):
            if type(part) is not dict or type(part.get("type")) is not str:
                bad(f"`messages[{i}].content[{j}]` must be an object with a `type`.", f"messages[{i}].content[{j}]")
            _check_part(part, f"messages[{i}].content[{j}]")
    elif content is not None and type(content) is not str:
        bad(f"`messages[{i}].content` must be a string or an array of parts.", f"messages[{i}].content")
    if len(message) > 2 or content is None:
        for name in ("name", "refusal", "tool_call_id"):
            if (value := message.get(name)) is not None and type(value) is not str:
                bad(f"`messages[{i}].{name}` must be a string.", f"messages[{i}].{name}")
        if (calls := message.get("tool_calls")) is not None:
            _check_tool_calls(calls, f"messages[{i}].tool_calls")
        if (call := message.get("function_call")) is not None:
            _check_function(call, f"messages[{i}].function_call")
        if (audio := message.get("audio")) is not None and type(audio) is not dict:
            bad(f"`messages[{i}].audio` must be an object.", f"messages[{i}].audio")


def _check_part(part: dict[str, Any], where: str) -> None:
    kind = part["type"]
    if kind in ("text", "refusal"):
        if type(part.get(kind)) is not str:
            bad(f"`{where}.{kind}` must be a string.", f"{where}.{kind}")
    elif kind == "image_url":
        image = part.get("image_url")
        if type(image) is not dict or type(image.get("url")) is not str:
            bad(f"`{where}.image_url.url` must be a string.", f"{where}.image_url")
    elif kind == "input_audio":
        audio = part.get("input_audio")
        if type(audio) is not dict or type(audio.get("data")) is not str or type(audio.get("format")) is not str:
            bad(f"`{where}.input_audio` must hold `data` and `format` strings.", f"{where}.input_audio")
    elif kind == "file":
        file = part.get("file")
        if type(file) is not dict or any(
            type(file.get(name)) not in (str, type(None)) for name in ("file_data", "file_id", "filename")
        ):
            bad(f"`{where}.file` must be an object of strings.", f"{where}.file")


def _check_function(function: Any, where: str) -> None:
    if type(function) is not dict or type(function.get("name")) is not str or not function["name"]:
        bad(f"`{where}.name` must be a non-empty string.", f"{where}.name")
    if (arguments := function.get("arguments")) is not None and type(arguments) is not str:
        bad(f"`{where}.arguments` must be a string of JSON.", f"{where}.arguments")


def _check_tool_calls(calls: Any, where: str) -> None:
    if type(calls) is not list:
        bad(f"`{where}` must be an array.", where)
    for i, call in enumerate(calls):
        at = f"{where}[{i}]"
        if type(call) is not dict or type(call.get("id")) is not str:
            bad(f"`{at}.id` must be a string.", f"{at}.id")
        if call.get("type") == "custom":
            custom = call.get("custom")
            if type(custom) is not dict or type(custom.get("name")) is not str or type(custom.get("input")) is not str:
                bad(f"`{at}.custom` must hold `name` and `input` strings.", f"{at}.custom")
        else:
            _check_function(call.get("function"), f"{at}.function")


def _check_tools(tools: Any, name: str) -> None:
    if type(tools) is not list or len(tools) > 1_024:
        bad(f"`{name}` must be an array of at most 1024 tools.", name)
    for i, tool in enumerate(tools):
        at = f"{name}[{i}]"
        if type(tool) is not dict or type(tool.get("type")) is not str:
            bad(f"`{at}` must be an object with a `type`.", at)
        if tool["type"] == "function":
            _check_function(tool.get("function"), f"{at}.function")
            function = tool["function"]
            if type(function.get("parameters")) not in (dict, type(None)):
                bad(f"`{at}.function.parameters` must be a JSON Schema object.", f"{at}.function.parameters")
            if type(function.get("description")) not in (str, type(None)):
                bad(f"`{at}.function.description` must be a string.", f"{at}.function.description")


def _check_functions(functions: Any, name: str) -> None:
    if type(functions) is not list:
        bad(f"`{name}` must be an array.", name)
    for i, function in enumerate(functions):
        _check_function(function, f"{name}[{i}]")


def _check_tool_choice(choice: Any, name: str) -> None:
    if type(choice) is dict and type(choice.get("type")) is str:
        inner = choice.get(choice["type"])
        if choice["type"] == "function" and (type(inner) is not dict or type(inner.get("name")) is not str):
            bad(f"`{name}.function.name` must be a string.", f"{name}.function.name")
        return
    if choice not in ("none", "auto", "required"):
        bad(f"`{name}` must be none, auto, required or an object that names a tool.", name)


def _check_stop(stop: Any, name: str) -> None:
    if type(stop) is str:
        return
    if type(stop) is not list or len(stop) > 256 or not all(type(word) is str for word in stop):
        bad(f"`{name}` must be a string or an array of strings.", name)


def _check_response_format(value: Any, name: str) -> None:
    if type(value) is not dict or type(value.get("type")) is not str:
        bad(f"`{name}` must be an object with a `type`.", name)
    if value["type"] == "json_schema":
        inner = value.get("json_schema")
        if type(inner) is not dict or type(inner.get("schema")) not in (dict, type(None)):
            bad(f"`{name}.json_schema` must be an object with a `schema`.", f"{name}.json_schema")


def _integer(low: int, high: int) -> Check:
    def check(value: Any, name: str) -> None:
        if type(value) is not int or not low <= value <= high:
            bad(f"`{name}` must be an integer from {low} to {high}.", name)

    return check


def _number(low: float, high: float) -> Check:
    def check(value: Any, name: str) -> None:
        if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
            bad(f"`{name}` must be a number from {low:g} to {high:g}.", name)

    return check


def _of_type(wanted: type, words: str) -> Check:
    def check(value: Any, name: str) -> None:
        if type(value) is not wanted:
            bad(f"`{name}` must be {words}.", name)

    return check


_OBJECT: Final = _of_type(dict, "an object")
_STRING: Final = _of_type(str, "a string")
_BOOL: Final = _of_type(bool, "true or false")
_ARRAY: Final = _of_type(list, "an array")
_COMMON: Final[dict[str, Check]] = {
    "n": _integer(1, 128),
    "max_tokens": _integer(1, MAX_TOKENS),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "stop": _check_stop,
    "user": _STRING,
    "metadata": _OBJECT,
    "seed": _integer(-(2**63), 2**63 - 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "logit_bias": _OBJECT,
    "service_tier": _STRING,
    "template": _STRING,
    "variables": _OBJECT,
}
_COMPLETIONS: Final[dict[str, Check]] = {
    "best_of": _integer(1, 128),  # a hold multiplies by it
    "logprobs": _integer(0, 100),
    "echo": _BOOL,
    "suffix": _STRING,
}
_CHAT: Final[dict[str, Check]] = {
    "max_completion_tokens": _integer(1, MAX_TOKENS),
    "tools": _check_tools,
    "functions": _check_functions,
    "tool_choice": _check_tool_choice,
    "parallel_tool_calls": _BOOL,
    "response_format": _check_response_format,
    "reasoning_effort": _STRING,
    "verbosity": _STRING,
    "logprobs": _BOOL,
    "top_logprobs": _integer(0, 100),
    "store": _BOOL,
    "modalities": _ARRAY,
    "audio": _OBJECT,
    "prediction": _OBJECT,
}

ApiRequest.checks = _COMMON
ChatRequest.checks = _COMMON | _CHAT
CompletionRequest.checks = _COMMON | _COMPLETIONS

# --- the slots of a request ----------------------------------------------------------------------------

#: Keys whose strings are structure, not text: the upstream needs them as they are.
_STRUCTURAL: Final = frozenset(
    ("role", "type", "id", "tool_call_id", "call_id", "format", "detail", "encoding_format", "ttl", "mime_type")
)
#: At the top of a body only these are structure; whatever else a client puts there is text.
_TOP: Final = frozenset(
    ("encoding_format", "model", "service_tier", "reasoning_effort", "verbosity", "modalities", "template", "tool_choice",
     "function_call", "truncation", "voice")
)  # fmt: skip
#: Top-level fields with a structure of their own; below any other, every string is text.
_SHAPED: Final = frozenset(
    ("messages", "tools", "functions", "response_format", "prediction", "audio", "web_search_options", "stream_options",
     "logit_bias", "input", "prompt", "thinking", "safety_settings", "cache_control")
)  # fmt: skip
_FREE: Final[frozenset[str]] = frozenset()
_NAMED: Final = _STRUCTURAL | {"name"}
_SCHEMA: Final = frozenset(
    ("type", "format", "pattern", "required", "$ref", "$schema", "$id", "$defs", "contentEncoding")
)
#: What is structure below a key; elsewhere what held above it goes on. Free text may hold any key.
_BELOW: Final[dict[str, frozenset[str]]] = {
    "metadata": _FREE,
    "variables": _FREE,
    "tools": _NAMED,
    "functions": _NAMED,
    "function": _NAMED,
    "function_call": _NAMED,
    "custom": _NAMED,
    "json_schema": _NAMED,
    "parameters": _SCHEMA,
    "schema": _SCHEMA,
    "thinking_blocks": _STRUCTURAL | {"signature", "data"},
    "input_audio": _STRUCTURAL | {"data"},
    "file": _STRUCTURAL | {"file_data", "file_id"},
}


def _leaves(owner: ApiRequest, node: Any, path: tuple[Any, ...], skip: frozenset[str], found: list[Slot]) -> list[Slot]:
    for key, value in node.items() if type(node) is dict else enumerate(node):
        kind = type(value)
        if kind is str:
            if key in skip or (key == "url" and value[:5] == "data:" and path[-1:] == ("image_url",)):
                continue
            label = key if type(key) is str else "content"
            found.append(Slot(owner, node, key, label, (*path, key)))
        elif kind is dict or kind is list:
            if key in skip and (kind is list or not path):
                continue
            below = skip
            if skip is not _FREE and isinstance(key, str):
                below = _BELOW.get(key, skip if path else _STRUCTURAL if key in _SHAPED else _FREE)
            _leaves(owner, value, (*path, key), below, found)
    return found


REQUESTS: Final[dict[str, type[ApiRequest]]] = {
    cls.endpoint: cls for cls in (ChatRequest, CompletionRequest, EmbeddingsRequest)
}
