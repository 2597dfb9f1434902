"""Gemini's server-sent events as OpenAI's chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from proxy.chunk import Chunk
from proxy.errors import Truncated
from proxy.providers.base import StreamDecoder
from proxy.providers.common import around
from proxy.providers.failure import outline
from proxy.providers.gemini_reply import BROKEN, MISREAD, Choice, Reading, block_fields, blocked, logprobs, usage

_UNSAID: Final = "FINISH_REASON_UNSPECIFIED"
#: A delta of these alone adds nothing that the caller reads.
_SIGNED: Final = frozenset(("extra_content",))


class GeminiDecoder(StreamDecoder):
    """Gemini's stream: every event is a piece of a reply; the last one of each candidate has its finishReason.

    Older models, and stand-ins, say ``STOP`` with every event, so what ends a choice is known only at the stream's
    end, for which the vendor has no word: it closes the connection.
    """

    __slots__ = ("_around", "_choices", "_head", "_reading", "_usage", "_words", "choice", "done")

    def __init__(self, reading: Reading) -> None:
        self.done = False
        self.choice = 0
        self._reading = reading
        self._head: dict[str, Any] = {}
        self._choices: dict[int, Choice] = {}
        self._usage: dict[str, Any] | None = None
        self._words: dict[int, tuple[str, dict[str, Any]]] = {}
        """By choice: the last finishReason, with the candidate that it came with."""
        self._around: dict[tuple[int, bool], tuple[bytes, bytes]] = {}
        """By choice, and whether the client wants usage: what text stands between in an event that says nothing else."""

    def lone(self, data: bytes, usage: bool) -> tuple[str, bytes] | None:
        if not self._head or self.done or not data.endswith(b"\r\n\r\n"):
            return None
        said: list[str] = []
        out: list[bytes] = []
        for event in data[:-4].split(b"\r\n\r\n"):
            if not event.startswith(b"data: ") or b"\n" in event or b"\r" in event:
                return None
            try:
                piece = orjson.loads(event[6:])
                (candidate,) = piece["candidates"]
                (part,) = candidate["content"]["parts"]
                text = part["text"]
                choice = self._choices[candidate.get("index", 0)]
                if (
                    not choice.begun or choice.finished or not text or type(text) is not str or len(part) != 1
                    or "finishReason" in candidate or "logprobsResult" in candidate
                ):  # fmt: skip
                    return None
                # What is noted from here on does no harm if another event sends this one the long way, too.
                self._count(piece)
            except MISREAD:
                return None
            self._words.pop(choice.index, None)
            self.choice = choice.index if not said or choice.index == self.choice else -1
            choice.said = True
            key = choice.index, usage
            frame = self._around.get(key)
            if frame is None:
                frame = self._around[key] = around(self._head, choice.index, usage=usage)
            said.append(text)
            out.append(b"%b%b%b" % (frame[0], orjson.dumps(text), frame[1]))
        return "".join(said), b"".join(out)

    def around(self, usage: bool) -> tuple[bytes, bytes]:
        return self._around[self.choice, usage]

    def feed(self, event: str, data: bytes) -> Sequence[Chunk]:
        if self.done or data == b"[DONE]":  # stand-ins close like OpenAI
            return ()
        reading = self._reading
        piece = reading.parse(data)
        chunks: list[Chunk] = []
        try:
            self._count(piece)
            if not self._head:
                self._head = {
                    "id": reading.id_of(piece, data),
                    "object": "chat.completion.chunk",
                    "created": reading.created,
                    "model": reading.model_of(piece),
                }
            candidates = piece.get("candidates")
            if candidates:
                for position, candidate in enumerate(candidates):
                    self._candidate(candidate, position, chunks)
            elif (feedback := blocked(piece)) is not None:
                self._block(feedback, chunks)
        except MISREAD:
            raise reading.invalid(f"an event of unknown shape: {outline(data)}") from None
        return chunks

    def close(self) -> Sequence[Chunk]:
        if self.done:
            return ()
        choices = self._choices
        if not choices or not all(choice.finished or index in self._words for index, choice in choices.items()):
            raise Truncated
        self.done = True
        chunks: list[Chunk] = []
        for index, choice in choices.items():
            if not choice.finished:
                word, candidate = self._words[index]
                self._finish(choice, self._reading.close(choice, word, candidate), chunks)
        if (counted := usage(self._usage)) is not None:
            chunks.append(Chunk({**self._head, "choices": [], "usage": counted}))
        return chunks

    def _count(self, piece: dict[str, Any]) -> None:
        """Take the counts, which are cumulative: the last number of each kind holds."""
        counts = piece.get("usageMetadata")
        if counts is not None:
            self._usage = counts if self._usage is None else {**self._usage, **counts}

    def _candidate(self, candidate: dict[str, Any], position: int, chunks: list[Chunk]) -> None:
        index = candidate.get("index", position)
        choice = self._choices.get(index)
        if choice is None:
            if type(index) is not int:
                raise TypeError
            choice = self._choices[index] = Choice(index)
        if choice.finished:
            return
        content = candidate.get("content")
        parts = content.get("parts") if content else None
        delta = choice.read(parts, self._reading.sent, self._head["id"]) if parts else {}
        probabilities = candidate.get("logprobsResult")
        if delta or probabilities is not None:
            chunks.append(self._chunk(choice, delta, None if probabilities is None else logprobs(probabilities)))
            if not _SIGNED.issuperset(delta):
                self._words.pop(index, None)  # that was not the end
        word = candidate.get("finishReason")
        if word and word != _UNSAID:
            self._words[index] = word, candidate
            if word in BROKEN:
                self._reading.close(choice, word, candidate)  # raises where there is nothing else
                choice.finished = False

    def _block(self, feedback: dict[str, Any], chunks: list[Chunk]) -> None:
        if not self._choices:
            self._choices[0] = Choice(0)
        for choice in self._choices.values():
            if not choice.finished:
                choice.finished = True
                self._finish(choice, block_fields(feedback), chunks)

    def _finish(self, choice: Choice, fields: dict[str, Any], chunks: list[Chunk]) -> None:
        refusal = fields.pop("refusal", None)
        if not choice.begun or not (choice.said or choice.calls):
            chunks.append(self._chunk(choice, {"content": ""}, None))
        if refusal is not None:
            chunks.append(self._chunk(choice, {"refusal": refusal}, None))
        chunks.append(
            Chunk({**self._head, "choices": [{"index": choice.index, "delta": {}, "logprobs": None, **fields}]})
        )

    def _chunk(self, choice: Choice, delta: dict[str, Any], probabilities: dict[str, Any] | None) -> Chunk:
        if not choice.begun:
            choice.begun = True
            delta = {"role": "assistant", **delta}
        return Chunk(
            {
                **self._head,
                "choices": [{"index": choice.index, "delta": delta, "logprobs": probabilities, "finish_reason": None}],
            }
        )
