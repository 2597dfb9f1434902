"""Gemini's server-sent events as OpenAI's chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from proxy.chunk import Chunk
from proxy.errors import Truncated
from proxy.providers.base import StreamDecoder
from proxy.providers.failure import snippet
from proxy.providers.gemini_reply import MISREAD, Choice, Reading, block_fields, blocked, logprobs, usage

_UNSAID: Final = "FINISH_REASON_UNSPECIFIED"


class GeminiDecoder(StreamDecoder):
    """Gemini's stream: every event is a piece of a reply; the last one of each candidate has its finishReason."""

    __slots__ = ("_choices", "_expected", "_head", "_reading", "_usage", "done")

    def __init__(self, reading: Reading) -> None:
        self.done = False
        self._reading = reading
        self._expected = reading.sent.candidates
        self._head: dict[str, Any] = {}
        self._choices: dict[int, Choice] = {}
        self._usage: dict[str, Any] | None = None

    def feed(self, event: str, data: bytes) -> Sequence[Chunk]:
        if self.done or data == b"[DONE]":  # stand-ins close like OpenAI
            return ()
        reading = self._reading
        piece = reading.parse(data)
        chunks: list[Chunk] = []
        try:
            if (counts := piece.get("usageMetadata")) is not None:
                # Cumulative: the last number of each kind counts.
                self._usage = counts if self._usage is None else {**self._usage, **counts}
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
            raise reading.invalid(f"an event of unknown shape: {snippet(data)}") from None
        if self._usage is not None and self._complete():
            self.done = True
            self._end(chunks)
        return chunks

    def close(self) -> Sequence[Chunk]:
        if self.done:
            return ()
        if not self._choices or not all(choice.finished for choice in self._choices.values()):
            raise Truncated
        self.done = True
        chunks: list[Chunk] = []
        self._end(chunks)
        return chunks

    def _complete(self) -> bool:
        choices = self._choices
        return len(choices) >= self._expected and all(choice.finished for choice in choices.values())

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
        reading = self._reading
        delta = choice.read(parts, reading.sent, self._head["id"]) if parts else {}
        word = candidate.get("finishReason")
        fields = reading.close(choice, word, candidate) if word and word != _UNSAID else None
        if delta:
            probabilities = candidate.get("logprobsResult")
            chunks.append(self._chunk(choice, delta, None if probabilities is None else logprobs(probabilities)))
        if fields is not None:
            self._finish(choice, fields, chunks)

    def _block(self, feedback: dict[str, Any], chunks: list[Chunk]) -> None:
        if not self._choices:
            self._choices[0] = Choice(0)
        for choice in self._choices.values():
            if not choice.finished:
                choice.finished = True
                self._finish(choice, block_fields(feedback), chunks)
        self._expected = len(self._choices)

    def _finish(self, choice: Choice, fields: dict[str, Any], chunks: list[Chunk]) -> None:
        refusal = fields.pop("refusal", None)
        if refusal is not None:
            chunks.append(self._chunk(choice, {"refusal": refusal}, None))
        elif not choice.begun:
            chunks.append(self._chunk(choice, {"content": ""}, None))
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

    def _end(self, chunks: list[Chunk]) -> None:
        if (counted := usage(self._usage)) is not None:
            chunks.append(Chunk({**self._head, "choices": [], "usage": counted}))
