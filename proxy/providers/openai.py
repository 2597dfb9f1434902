"""OpenAI and every server that speaks its API: bytes pass as they are where nothing changes them.

Source: https://platform.openai.com/docs/api-reference/chat. What compatible servers get wrong (missing
ids, tool calls without index, usage on the finish chunk, no ``[DONE]``) is repaired here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import orjson

from proxy.chunk import Chunk
from proxy.errors import Truncated, UpstreamError
from proxy.providers.base import Provider, ProviderSettings, StreamDecoder, Target
from proxy.providers.common import new_id
from proxy.providers.failure import failure, outline, snippet
from proxy.providers.openai_calls import CallPieces, mend_calls
from proxy.providers.openai_history import FOREIGN, NOT_OPENAIS, foreign, plain
from proxy.request import ApiRequest
from proxy.upstream.base import Headers, UpstreamRequest

FINISH: Final = frozenset(("stop", "length", "tool_calls", "content_filter", "function_call"))
#: Finish words of compatible servers, in OpenAI's closed set.
_FINISH_WORDS: Final = {
    "eos": "stop", "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_length": "length",
    "tool_use": "tool_calls", "tool_call": "tool_calls", "safety": "content_filter", "refusal": "content_filter",
    "insufficient_system_resource": "length",
}  # fmt: skip
_TIERS: Final = ("auto", "default", "flex", "scale", "priority", "fast", None)
_PATHS: Final = {"chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings"}
#: What a message may hold where nothing needs a closer look.
_SOUND: Final = frozenset(("role", "content", "refusal", "annotations"))
#: What a choice holds that says nothing by itself.
_NOTHING: Final = frozenset(("index", "delta", "finish_reason", "logprobs", "native_finish_reason"))
_OBJECT: Final = {"chat": "chat.completion.chunk", "completions": "text_completion"}
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
        if not request.simple and foreign(raw, own=self._own):
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
            raise self._in_band(data["error"])
        if data.get("object") == "error":
            raise self._in_band(data)
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
                raise self._in_band(choice.get("error") or "the model failed while it answered")
        _mend_whole(chunk, endpoint, model, int(self.now()))
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

    def _in_band(self, error: Any) -> UpstreamError:
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


def _mend_envelope(chunk: Chunk) -> None:
    """Take out what OpenAI's clients would refuse: service tiers of other vendors, usage details that are null."""
    data = chunk.data
    if "service_tier" in data and data["service_tier"] not in _TIERS:
        del data["service_tier"]
        chunk.touch()
    if data.get("usage") is not None:
        _mend_usage(chunk, data["usage"])


def _mend_usage(chunk: Chunk, usage: Any) -> None:
    """Bring usage into OpenAI's types; where a count is missing all of it goes, and is estimated."""
    if type(usage) is dict:
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(prompt) is not int or type(completion) is not int or type(usage.get("total_tokens")) is not int:
            prompt, completion = _tokens(prompt), _tokens(completion)
            if prompt is None or completion is None:
                usage = None
            else:
                usage["prompt_tokens"], usage["completion_tokens"] = prompt, completion
                usage["total_tokens"] = _tokens(usage.get("total_tokens")) or prompt + completion
            chunk.touch()
    if type(usage) is not dict:
        del chunk.data["usage"]
        chunk.touch()
        return
    if len(usage) == 3:  # the three counts and nothing else
        return
    details = usage.get("prompt_tokens_details", usage)
    if details is not usage and (type(details) is not dict or None in details.values()):
        _mend_details(chunk, usage, "prompt_tokens_details")
    details = usage.get("completion_tokens_details", usage)
    if details is not usage and (type(details) is not dict or None in details.values()):
        _mend_details(chunk, usage, "completion_tokens_details")


def _tokens(value: Any) -> int | None:
    return int(value) if type(value) is int or (type(value) is float and value.is_integer()) else None


def _mend_details(chunk: Chunk, usage: dict[str, Any], name: str) -> None:
    details = usage.pop(name)
    if type(details) is dict:
        usage[name] = {part: tokens for part, tokens in details.items() if tokens is not None}
    chunk.touch()


def _mend_part(chunk: Chunk, part: dict[str, Any]) -> None:
    """Bring a message or a delta into OpenAI's types: a null legacy call, content and annotations of other dialects."""
    legacy = part.get("function_call", part)
    if legacy is not part and (type(legacy) is not dict or not legacy):
        del part["function_call"]
        chunk.touch()
    if type(part.get("refusal", "")) is not str and part["refusal"] is not None:
        del part["refusal"]
        chunk.touch()
    content = part.get("content")
    if type(content) is dict:
        content = part["content"] = [content]
    if type(content) is list:
        texts: list[str] = []
        thoughts: list[str] = []
        for piece in content:
            if type(piece) is dict and piece.get("type") == "thinking":
                inner = piece.get("thinking")
                thoughts += (
                    [t.get("text") or "" for t in inner if type(t) is dict] if type(inner) is list else [str(inner)]
                )
            elif type(piece) is dict and type(piece.get("text")) is str:
                texts.append(piece["text"])
        part["content"] = "".join(texts) if texts or not thoughts else None
        if thoughts:
            part["reasoning_content"] = "".join(thoughts)
        chunk.touch()
    elif content is not None and type(content) is not str:
        part["content"] = orjson.dumps(content).decode()
        chunk.touch()
    notes = part.get("annotations")
    if type(notes) is list and not all(type(n) is dict and n.get("type") == "url_citation" for n in notes):
        part["annotations"] = [n for n in notes if type(n) is dict and n.get("type") == "url_citation"]
        chunk.touch()


def _sound(data: dict[str, Any]) -> bool:
    """Tell whether a chat completion is as OpenAI itself writes them, so that nothing is to be mended."""
    choices = data["choices"]
    choice = choices[0]
    message = choice.get("message")
    if (
        len(choices) != 1
        or data.get("object") != "chat.completion"
        or type(message) is not dict
        or message.get("role") != "assistant"
        or type(message.get("content")) is not str
        or not _SOUND.issuperset(message)
        or message.get("refusal") is not None
        or message.get("annotations")
        or choice.get("finish_reason") not in FINISH
        or type(choice.get("index")) is not int
        or choice.get("logprobs") is not None
        or data.get("service_tier") not in _TIERS
        or not _headed(data)
    ):
        return False
    fingerprint = data.get("system_fingerprint")
    return fingerprint is None or type(fingerprint) is str


def _mend_whole(chunk: Chunk, endpoint: str, model: str, now: int) -> None:
    data = chunk.data
    if endpoint == "chat" and _sound(data):
        if data.get("usage") is not None:
            _mend_usage(chunk, data["usage"])
        return
    _mend_envelope(chunk)
    wanted = "chat.completion" if endpoint == "chat" else "text_completion"
    if data.get("object") != wanted:
        data["object"] = wanted
        chunk.touch()
    if not _headed(data):
        _mend_head(data, chunk.raw or b"", model, now)
        chunk.touch()
    if type(data.get("system_fingerprint", "")) is not str and data["system_fingerprint"] is not None:
        data["system_fingerprint"] = str(data["system_fingerprint"])
        chunk.touch()
    for index, choice in enumerate(data["choices"]):
        if type(choice.get("index")) is not int:
            choice["index"] = index
            chunk.touch()
        if choice.get("finish_reason") not in FINISH:
            _mend_finish(chunk, choice)
        if endpoint == "chat" and choice.get("logprobs") is not None:
            _mend_logprobs(chunk, choice)
        message = choice.get("message")
        if endpoint == "chat" and type(message) is not dict:
            message = choice["message"] = {"role": "assistant", "content": None}  # Azure, where it filtered all
            chunk.touch()
        if type(message) is dict:
            _mend_part(chunk, message)
            if message.get("role") != "assistant":
                message["role"] = "assistant"
                chunk.touch()
            if "content" not in message:
                message["content"] = None
                chunk.touch()
            if message.get("tool_calls") is not None:
                mend_calls(chunk, message, data["id"], index)


def _mend_finish(chunk: Chunk, choice: dict[str, Any]) -> None:
    word = choice.get("finish_reason")
    if word is None:
        if chunk.whole:
            message = choice.get("message")
            choice["finish_reason"] = "tool_calls" if type(message) is dict and message.get("tool_calls") else "stop"
            chunk.touch()
        elif "finish_reason" not in choice:
            choice["finish_reason"] = None
            chunk.touch()
    elif word not in FINISH:
        choice["x_llm_native_finish_reason"] = str(word)
        choice["finish_reason"] = _FINISH_WORDS.get(str(word).lower(), "stop")
        chunk.touch()


def _headed(data: dict[str, Any]) -> bool:
    id, model, created = data.get("id"), data.get("model"), data.get("created")
    return type(id) is str and type(model) is str and type(created) is int and bool(id and model and created)


def _mend_head(data: dict[str, Any], raw: bytes, model: str, now: int) -> None:
    """Give a reply's id, model and time where the server gave none, or of another type."""
    id, name, created = data.get("id"), data.get("model"), data.get("created")
    data["id"] = str(id) if id else new_id("chatcmpl-", now, raw)
    data["model"] = str(name) if name else model
    try:
        data["created"] = int(float(created or now))
    except (TypeError, ValueError, OverflowError):
        data["created"] = now


def _mend_logprobs(chunk: Chunk, choice: dict[str, Any]) -> None:
    """Take out probabilities that are not in the chat's form (Together's arrays of tokens)."""
    given = choice["logprobs"]
    if type(given) is not dict or not ("content" in given or "refusal" in given):
        choice["logprobs"] = None
        chunk.touch()
    elif "content" not in given or "refusal" not in given:
        given.setdefault("content", None)
        given.setdefault("refusal", None)
        chunk.touch()


class OpenAIDecoder(StreamDecoder):
    """OpenAI's stream: events are chunks already."""

    __slots__ = (
        "_after",
        "_before",
        "_calls",
        "_choice",
        "_closing",
        "_endpoint",
        "_envelope",
        "_finished",
        "_id",
        "_last",
        "_model",
        "_object",
        "_open",
        "_provider",
        "_roles",
        "_usage",
        "done",
    )

    def __init__(self, provider: OpenAI, endpoint: str, model: str) -> None:
        self.done = False
        self._provider = provider
        self._endpoint = endpoint
        self._object = _OBJECT[endpoint]
        self._model = model
        self._before: bytes | None = None
        """The bytes before the text of this stream's chunks, ``_after`` those behind it. None: not known yet; b"": they
        are not all alike."""
        self._after = b""
        self._envelope: dict[str, Any] = {}
        self._choice: dict[str, Any] = {}
        self._id: str | None = None
        self._roles: set[int] = set()
        self._open: set[int] = set()
        self._calls: CallPieces | None = None
        self._finished = False
        self._usage: dict[str, Any] | None = None
        self._closing: Chunk | None = None
        """The upstream's own usage chunk, where nothing has to change in it."""
        self._last: dict[str, Any] = {}

    def feed(self, event: str, data: bytes) -> Sequence[Chunk]:
        before = self._before
        if before and data.startswith(before) and data.endswith(self._after) and not self.done:
            chunk = self._alike(data, len(before))
            if chunk is not None:
                return (chunk,)
        if self.done:
            return ()
        if data == b"[DONE]":
            self.done = True
            return self._end()
        try:
            piece = orjson.loads(data)
        except orjson.JSONDecodeError:
            if data.strip() == b"[DONE]":
                self.done = True
                return self._end()
            raise UpstreamError(
                "upstream_invalid_response", f"{self._provider.name} sent an event that is not JSON.", counts=True
            ) from None
        if type(piece) is not dict:
            raise UpstreamError(
                "upstream_invalid_response", f"{self._provider.name} sent an event that is not an object.", counts=True
            )
        choices = piece.get("choices")
        if not choices:
            return self._without_choices(event, piece, data)
        chunk = Chunk(piece, data)
        if piece.get("usage"):
            # Usage belongs on a chunk of its own; some servers repeat it on every chunk, cumulative.
            self._usage = piece.pop("usage")
            chunk.raw = None
        if piece.get("error"):
            raise self._provider._in_band(piece["error"])
        if type(choices) is not list:
            raise UpstreamError(
                "upstream_invalid_response", f"{self._provider.name} sent `choices` that is no array.", counts=True
            )
        if piece.get("object") != self._object:
            piece["object"] = self._object
            chunk.raw = None
        if "service_tier" in piece and piece["service_tier"] not in _TIERS:
            del piece["service_tier"]
            chunk.raw = None
        if self._id is None:
            self._first(chunk, data)
        elif piece.get("id") != self._id or not piece.get("model") or type(piece.get("created")) is not int:
            piece["id"] = self._id
            piece["model"] = piece.get("model") or self._last["model"]
            piece["created"] = self._last["created"]
            chunk.raw = None
        for choice in choices:
            if type(choice) is not dict:
                raise UpstreamError(
                    "upstream_invalid_response", f"{self._provider.name} sent a choice that is no object.", counts=True
                )
            index = choice.get("index")
            if type(index) is not int:
                index = choice["index"] = 0
                chunk.raw = None
            if choice.get("finish_reason") == "error" or choice.get("error"):
                raise self._provider._in_band(choice.get("error") or "the model failed while it answered")
            if self._endpoint == "chat":
                self._delta(chunk, choice, index)
            if choice.get("finish_reason"):
                if choice["finish_reason"] not in FINISH:
                    _mend_finish(chunk, choice)
                self._open.discard(index)
                self._finished = True
                if self._usage is None:
                    self._elsewhere(chunk, choice)
            elif choice.get("finish_reason", "") is not None:
                choice["finish_reason"] = None
                chunk.raw = None
        if self._finished and self._endpoint == "chat" and self._echo(choices):
            return ()
        if before is None and chunk.raw is not None:
            self._learn(piece, data)
        return (chunk,)

    def _echo(self, choices: list[dict[str, Any]]) -> bool:
        """Tell whether a chunk says nothing about choices that have ended (OpenRouter's usage comes on one)."""
        for choice in choices:
            if choice["finish_reason"] is not None or choice["index"] in self._open or not _NOTHING.issuperset(choice):
                return False
            if any(choice["delta"].values()):
                return False
        return True

    def _elsewhere(self, chunk: Chunk, choice: dict[str, Any]) -> None:
        """Take usage from where others put it: Moonshot inside the choice, Groq below a field of its own."""
        if type(choice.get("usage")) is dict:
            self._usage = choice.pop("usage")
            chunk.raw = None
        elif type(groq := chunk.data.get("x_groq")) is dict and type(groq.get("usage")) is dict:
            self._usage = groq["usage"]

    def _learn(self, piece: dict[str, Any], data: bytes) -> None:
        """Remember the bytes around a chunk's text: a later chunk that differs in nothing else needs no parser."""
        choices = piece["choices"]
        delta = choices[0].get("delta")
        if len(choices) != 1 or type(delta) is not dict or len(delta) != 1 or not delta.get("content"):
            return
        if choices[0].get("finish_reason") is not None or self._endpoint != "chat":
            return
        self._before = b""
        before, mark, rest = data.partition(b'"content":"')
        after = rest[rest.find(b'"') :]
        try:  # where another text would land decides, not where this one seems to stand
            probe = orjson.loads(b"%b%b%b%b" % (before, mark, b"probe", after))
        except orjson.JSONDecodeError:
            return
        if probe["choices"][0].get("delta") == {"content": "probe"}:
            probe["choices"][0]["delta"] = delta
            if probe == piece:
                self._before, self._after = before + mark, after
                self._envelope, self._choice = piece.copy(), choices[0].copy()

    def _alike(self, data: bytes, start: int) -> Chunk | None:
        """Return the chunk with the text between the known bytes, None if JSON might read that text otherwise."""
        try:
            text = data[start : -len(self._after)].decode()
        except UnicodeDecodeError:
            return None
        if not text or '"' in text or "\\" in text or not text.isprintable():
            return None
        envelope = self._envelope.copy()
        choice = self._choice.copy()
        choice["delta"] = {"content": text}
        envelope["choices"] = [choice]
        return Chunk(envelope, data)

    def _first(self, chunk: Chunk, raw: bytes) -> None:
        data = chunk.data
        if not _headed(data):
            _mend_head(data, raw, self._model, int(self._provider.now()))
            chunk.raw = None
        self._id = data["id"]
        self._last = {"id": data["id"], "object": self._object, "created": data["created"], "model": data["model"]}

    def _delta(self, chunk: Chunk, choice: dict[str, Any], index: int) -> None:
        delta = choice.get("delta")
        if type(delta) is not dict:
            # Some servers put the whole message, or nothing, on their last event.
            message = choice.pop("message", None)
            delta = choice["delta"] = message if type(message) is dict else {}
            chunk.raw = None
        if index not in self._roles:
            self._roles.add(index)
            self._open.add(index)
            if delta.get("role") != "assistant":
                choice["delta"] = {"role": "assistant", **{k: v for k, v in delta.items() if k != "role"}}
                delta = choice["delta"]
                chunk.raw = None
        elif "role" in delta:
            # Compatible servers repeat the role on every chunk; it is announced exactly once.
            del delta["role"]
            chunk.raw = None
        if delta.get("tool_calls") is not None:
            if self._calls is None:
                self._calls = CallPieces()
            self._calls.mend(chunk, delta, str(self._id), index)
        _mend_part(chunk, delta)
        if choice.get("logprobs") is not None:
            _mend_logprobs(chunk, choice)

    def _without_choices(self, event: str, piece: dict[str, Any], data: bytes) -> Sequence[Chunk]:
        error = piece.get("error")
        if error or event == "error":
            raise self._provider._in_band(error or piece)
        if usage := piece.get("usage"):
            self._usage = usage
            if piece.get("id") == self._id and piece.get("object") == self._object and piece.get("choices") == []:
                self._closing = Chunk(piece, data)
            self._last = self._last or {
                "id": piece.get("id") or "chatcmpl-0", "object": self._object,
                "created": piece.get("created") or 0, "model": piece.get("model") or self._model,
            }  # fmt: skip
        elif piece.get("type") == "error" or piece.get("object") == "error":
            raise self._provider._in_band(piece)
        # Azure opens with an annotation chunk without choices; clients index choices[0].
        return ()

    def _end(self) -> Sequence[Chunk]:
        if self._id is None:
            raise UpstreamError(
                "upstream_invalid_response", f"{self._provider.name} ended a stream without an answer.", counts=True,
                retryable=True,
            )  # fmt: skip
        chunks = [self._unfinished(index) for index in sorted(self._open)] if self._endpoint == "chat" else []
        usage, self._usage = self._usage, None
        if type(usage) is dict:
            last = self._closing
            if last is None or last.data["usage"] is not usage:
                last = Chunk({**self._last, "choices": [], "usage": usage})
            _mend_envelope(last)
            if "usage" in last.data:
                chunks.append(last)
        return chunks

    def _unfinished(self, index: int) -> Chunk:
        """Return the last chunk of a choice that the server closed by `[DONE]` alone."""
        reason = "tool_calls" if self._calls is not None and self._calls.any(index) else "stop"
        return Chunk({**self._last, "choices": [{"index": index, "delta": {}, "finish_reason": reason}]})

    def close(self) -> Sequence[Chunk]:
        if self.done:
            return ()
        if not self._finished or self._open:
            raise Truncated
        self.done = True
        return self._end()
