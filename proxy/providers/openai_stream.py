"""OpenAI's stream, and that of every server that speaks its API: events are chunks already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson

from proxy.chunk import Chunk
from proxy.errors import Truncated, UpstreamError
from proxy.providers.base import StreamDecoder
from proxy.providers.common import plain
from proxy.providers.openai_calls import CallPieces
from proxy.providers.openai_mend import (
    FINISH,
    TIERS,
    headed,
    mend_envelope,
    mend_finish,
    mend_head,
    mend_logprobs,
    mend_part,
)

if TYPE_CHECKING:
    from proxy.providers.openai import OpenAI

#: What a choice holds that says nothing by itself.
_NOTHING: Final = frozenset(("index", "delta", "finish_reason", "logprobs", "native_finish_reason"))
_NO_USAGE: Final = b',"usage":null}\n\n'
_OBJECT: Final = {"chat": "chat.completion.chunk", "completions": "text_completion"}


class OpenAIDecoder(StreamDecoder):
    """OpenAI's stream: events are chunks already."""

    __slots__ = (
        "_after",
        "_before",
        "_calls",
        "_choice",
        "_closing",
        "_cut",
        "_endpoint",
        "_envelope",
        "_finished",
        "_id",
        "_last",
        "_lone_after",
        "_lone_before",
        "_lone_between",
        "_model",
        "_object",
        "_open",
        "_provider",
        "_roles",
        "_usage",
        "choice",
        "done",
    )

    def __init__(self, provider: OpenAI, endpoint: str, model: str) -> None:
        self.done = False
        self.choice = 0
        self._provider = provider
        self._endpoint = endpoint
        self._object = _OBJECT[endpoint]
        self._model = model
        self._before: bytes | None = None
        """The bytes before the text of this stream's chunks, ``_after`` those behind it. None: not known yet; b"": they
        are not all alike."""
        self._after = b""
        self._lone_before: bytes | None = None
        """As above, with what makes it a server-sent event of its own."""
        self._lone_after = b""
        self._lone_between = b""
        """What stands between the texts of two such events."""
        self._cut: dict[bool, tuple[bytes, bytes] | None] = {}
        """Whether the client wants usage -> which bytes at an event's end give way to which; None: none can."""
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
        usage = piece.get("usage")
        if usage is not None:
            # Usage belongs on a chunk of its own; some servers repeat it on every chunk, cumulative, or empty at first.
            if usage:
                self._usage = usage
            del piece["usage"]
            chunk.raw = None
        if piece.get("error"):
            raise self._provider.in_band(piece["error"])
        if type(choices) is not list:
            raise UpstreamError(
                "upstream_invalid_response", f"{self._provider.name} sent `choices` that is no array.", counts=True
            )
        if piece.get("object") != self._object:
            piece["object"] = self._object
            chunk.raw = None
        if "service_tier" in piece and piece["service_tier"] not in TIERS:
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
                raise self._provider.in_band(choice.get("error") or "the model failed while it answered")
            if self._endpoint == "chat":
                self._delta(chunk, choice, index)
            if choice.get("finish_reason"):
                if choice["finish_reason"] not in FINISH:
                    mend_finish(chunk, choice)
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
        if choices[0].get("logprobs") is not None:
            return  # they spell this chunk's text, and would go out with another's
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
                self._lone_before, self._lone_after = b"data: " + self._before, after + b"\n\n"
                self._lone_between = self._lone_after + self._lone_before
                self._envelope, self._choice = piece.copy(), choices[0].copy()
                self.choice = choices[0]["index"]

    def lone(self, data: bytes, usage: bool) -> tuple[str, bytes] | None:
        before = self._lone_before
        if before is None or self.done or not data.startswith(before) or not data.endswith(self._lone_after):
            return None
        text = ""
        for piece in data[len(before) : -len(self._lone_after)].split(self._lone_between):
            one = plain(piece)
            if one is None:
                return None
            text = text + one if text else one
        try:
            cut = self._cut[usage]
        except KeyError:
            cut = self._cut[usage] = self._change(usage)
        if cut is None:
            return None
        old, new = cut
        return text, data.replace(old, new) if old else data

    def around(self, usage: bool) -> tuple[bytes, bytes]:
        before, behind = self._lone_before, self._lone_after
        assert before is not None
        old, new = self._cut[usage] or (b"", b"")
        return before[:-1], (behind.replace(old, new) if old else behind)[1:]

    def _change(self, usage: bool) -> tuple[bytes, bytes] | None:
        """Return what has to change at the end of each event, where alone a quotation mark or a line break can stand."""
        after = self._lone_after
        if usage == ("usage" in self._envelope):
            return b"", b""
        if not usage and after.endswith(_NO_USAGE):
            return _NO_USAGE, b"}\n\n"
        return (b"}\n\n", _NO_USAGE) if usage and after.endswith(b"}\n\n") else None

    def _alike(self, data: bytes, start: int) -> Chunk | None:
        """Return the chunk with the text between the known bytes, None if JSON might read that text otherwise."""
        text = plain(data[start : -len(self._after)])
        if text is None:
            return None
        envelope = self._envelope.copy()
        choice = self._choice.copy()
        choice["delta"] = {"content": text}
        envelope["choices"] = [choice]
        return Chunk(envelope, data)

    def _first(self, chunk: Chunk, raw: bytes) -> None:
        data = chunk.data
        if not headed(data):
            mend_head(data, raw, self._model, int(self._provider.now()))
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
        mend_part(chunk, delta)
        if choice.get("logprobs") is not None:
            mend_logprobs(chunk, choice)

    def _without_choices(self, event: str, piece: dict[str, Any], data: bytes) -> Sequence[Chunk]:
        error = piece.get("error")
        if error or event == "error":
            raise self._provider.in_band(error or piece)
        if usage := piece.get("usage"):
            self._usage = usage
            if piece.get("id") == self._id and piece.get("object") == self._object and piece.get("choices") == []:
                self._closing = Chunk(piece, data)
            self._last = self._last or {
                "id": piece.get("id") or "chatcmpl-0", "object": self._object,
                "created": piece.get("created") or 0, "model": piece.get("model") or self._model,
            }  # fmt: skip
        elif piece.get("type") == "error" or piece.get("object") == "error":
            raise self._provider.in_band(piece)
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
            mend_envelope(last)
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
