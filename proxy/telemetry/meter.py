"""What the provider produced is what is billed, whatever the client saw: the meter sits behind the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from proxy import tokens
from proxy.call import Usage
from proxy.chunk import Chunk
from proxy.request import ApiRequest

#: More than any model reads or writes in one call; a larger claim is not believed.
SANE: Final = 20_000_000
_FOLD: Final = 256
_KEEP: Final = 8_192


class Meter:
    """Count one call's tokens: the provider's own numbers, else an estimate of what was produced."""

    __slots__ = ("_cut", "_parts", "_spent", "complete", "first", "request", "sent", "usage")

    def __init__(self, request: ApiRequest) -> None:
        self.request = request
        self.sent = False
        """Something went upstream: without the provider's numbers the prompt counts as spent."""
        self.usage: Usage | None = None
        self.first: float | None = None
        self._parts: list[str] = []
        self._cut = 0
        """Characters of a long answer that are not kept: its beginning and end stand for the rest."""
        self.complete = False
        """The provider's answer ended properly, so its numbers are final."""
        self._spent: list[Usage] = []

    def see_whole(self, chunk: Chunk, model: str) -> None:
        """Take note of a whole reply; where the provider did not say its numbers, count its text and add ours."""
        self.complete = True
        if usage := chunk.data.get("usage"):
            self._claim(usage)
        if self.usage is None:
            self.see((chunk,))
            chunk.data["usage"] = self.estimated(model)
            chunk.touch()

    def estimated(self, model: str) -> dict[str, Any]:
        """Settle for an estimate of an answer that has ended without numbers; return it as its `usage`."""
        self.usage = found = self._now(model)
        said = {"prompt_tokens": found.prompt, "completion_tokens": found.completion, "total_tokens": found.total}
        if self.request.endpoint == "embeddings":
            del said["completion_tokens"]
        return {**said, "x_llm_estimated": True}

    def see(self, chunks: Sequence[Chunk]) -> None:
        """Take note of what the provider produced."""
        parts = self._parts
        for chunk in chunks:
            data = chunk.data
            usage = data.get("usage")
            if usage:
                self._claim(usage)
            for choice in data.get("choices") or ():
                part = choice.get("delta") or choice.get("message")
                if part:
                    content = part.get("content")
                    if content and type(content) is str:
                        parts.append(content)
                        if len(part) == 1:
                            continue
                    _more(part, parts)
                elif text := choice.get("text"):
                    parts.append(text)
        count = len(parts)
        if count > _FOLD or (count > 4 and count * len(parts[-1]) > 4 * _KEEP):  # many pieces, or large ones
            self._fold()

    def hear(self, text: str) -> None:
        """Take note of a piece of text that the provider produced."""
        parts = self._parts
        parts.append(text)
        if len(parts) > _FOLD:
            self._fold()

    def _fold(self) -> None:
        text = "".join(self._parts)
        if len(text) > 4 * _KEEP:
            self._cut += len(text) - 2 * _KEEP
            text = text[:_KEEP] + text[-_KEEP:]
        self._parts = [text]

    def _made(self, model: str) -> int:
        """Return the tokens of what was produced, as far as a count on the event loop can tell."""
        text = "".join(self._parts)
        found = tokens.count_text(text, model)
        return -(-found * (len(text) + self._cut) // len(text)) if self._cut else found

    def _claim(self, usage: Any) -> None:
        if type(usage) is not dict:
            return
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
        if (
            type(prompt) is not int
            or type(completion) is not int
            or not (0 <= prompt <= SANE and 0 <= completion <= SANE)
        ):
            return
        self.usage = found = Usage(prompt, completion)
        if len(usage) == 3:  # and nothing else was said
            return
        details = usage.get("prompt_tokens_details")
        if type(details) is dict:
            found.cached = _part(details, "cached_tokens", prompt)
            if "cache_write_tokens" in details:
                found.cache_write = _part(details, "cache_write_tokens", prompt)
        details = usage.get("completion_tokens_details")
        if type(details) is dict:
            found.reasoning = _part(details, "reasoning_tokens", completion)
        if usage.get("x_llm_estimated"):
            found.estimated = True

    def retry(self, model: str) -> None:
        """Begin another attempt: what the failed one cost stays on the bill.

        A refusal costs nothing; an attempt that broke off after it was sent is counted as the end of a call
        would count it.
        """
        spent = self._now(model)
        if spent.total:
            self._spent.append(spent)
        self.usage = None
        self._parts = []
        self._cut = 0
        self.sent = False

    def total(self, model: str) -> Usage:
        """Return what the call has cost so far, estimated where the provider has not said."""
        usage = self._now(model)
        for spent in self._spent:
            usage = Usage(
                usage.prompt + spent.prompt, usage.completion + spent.completion, usage.cached + spent.cached,
                usage.cache_write + spent.cache_write, usage.reasoning + spent.reasoning,
                estimated=usage.estimated or spent.estimated,
            )  # fmt: skip
        return usage

    def _now(self, model: str) -> Usage:
        """Return what the attempt under way has cost."""
        usage = self.usage
        if usage is None:
            if not self.sent and not self._parts:
                usage = Usage()
            else:
                prompt = tokens.estimate(self.request, model)
                usage = Usage(prompt, self._made(model), estimated=True)
        elif not self.complete and usage.completion == 0 and self._parts:
            # A stream cut after the provider's opening numbers: those know nothing of the answer yet.
            usage = Usage(usage.prompt, self._made(model), usage.cached, usage.cache_write, estimated=True)
        return usage


def _more(part: dict[str, Any], parts: list[str]) -> None:
    for name in ("reasoning_content", "reasoning", "refusal"):
        value = part.get(name)
        if value and type(value) is str:
            parts.append(value)
    for call in part.get("tool_calls") or ():
        function = call.get("function") or call.get("custom")
        if type(function) is dict:
            for value in function.values():
                if type(value) is str:
                    parts.append(value)


def _part(details: dict[str, Any], name: str, whole: int) -> int:
    """Return how many of ``whole`` tokens ``details`` claims under ``name``."""
    value = details.get(name)
    if type(value) is not int or not 0 <= value <= SANE:
        return 0
    return value if value < whole else whole  # noqa: FURB136 - a third of min's time
