"""The answer of one upstream attempt: decoded and metered, one batch of chunks a network read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import orjson

from proxy.call import Call
from proxy.chunk import Chunk
from proxy.errors import UpstreamError
from proxy.providers.base import StreamDecoder
from proxy.providers.failure import scrub
from proxy.telemetry.log import describe
from proxy.upstream.base import UpstreamReply
from proxy.upstream.sse import SseParser

if TYPE_CHECKING:
    from proxy.upstream.entry import ProviderEntry

#: What reading an answer of another shape than expected raises in a translator, a user's own above all.
MISREAD: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

#: What all chunks of a stream have in common.
_HEAD: Final = ("id", "object", "created", "model", "system_fingerprint", "service_tier")


class Source:
    """The answer of one upstream attempt, as batches of chunks: one batch a network read."""

    __slots__ = (
        "_between", "_call", "_decoder", "_ended", "_entry", "_error", "_first", "_head", "_parser", "_pass_on",
        "_reply", "_started", "_take", "_thrown", "_usage", "waited", "whole",
    )  # fmt: skip

    def __init__(
        self, call: Call, entry: ProviderEntry, reply: UpstreamReply, decoder: StreamDecoder | None, started: float
    ) -> None:
        self._call = call
        self._entry = entry
        self._started = started
        self._reply = reply
        self._decoder = decoder
        self._parser = SseParser() if decoder is not None else None
        self._first: list[Chunk] | None = None
        self._head: dict[str, Any] = {}
        """A chunk of the beginning: what all have in common is in it."""
        self._error: UpstreamError | None = None
        self._ended = False
        self._take: Callable[[list[Chunk]], bool] | None = None
        self._thrown: BaseException | None = None
        self._pass_on: Callable[[str, bytes], bool] | None = None
        self._usage = False
        self._between = False
        """The parser holds nothing, so that what arrives next begins an event."""
        self.whole = decoder is None
        self.waited = 0.0
        """Seconds spent waiting for the upstream since the first batch."""

    def hold(self, chunks: list[Chunk], *, ended: bool = False) -> None:
        """Give ``chunks``, decoded already, as the first batch."""
        self._first = chunks
        self._head = chunks[-1].data if chunks else {}
        self._ended = self._ended or ended

    def held(self) -> Sequence[Chunk] | None:
        """Return the first batch if it is there already: a whole answer is."""
        first, self._first = self._first, None
        return first

    async def next(self) -> Sequence[Chunk] | None:
        """Return the next batch, already metered, None at the answer's proper end.

        Raises:
            UpstreamError: an error event, a broken or truncated stream; what came before it was returned.
        """
        first = self._first
        if first is not None:
            self._first = None
            return first
        if self._error is not None:
            raise self._error
        if self._ended:
            return None
        reply = self._reply
        while True:
            try:
                data = reply.read_nowait()
                if data is None:
                    began = monotonic()
                    try:
                        data = await reply.read()
                    finally:
                        self.waited += monotonic() - began
            except UpstreamError as error:
                chunks: list[Chunk] = []
                if self._complete(error, chunks):
                    self._finish(chunks)
                else:
                    self._stop(error)
            else:
                chunks = self._read(data)
            if chunks:
                return chunks
            if self._error is not None:
                raise self._error
            if self._ended:
                return None

    def _read(self, data: bytes) -> list[Chunk]:
        """Decode and meter what arrived, b"" at the message's end; an error is kept, for what came before it counts."""
        decoder, parser = self._decoder, self._parser
        assert decoder is not None
        assert parser is not None
        chunks: list[Chunk] = []
        ended = False
        try:
            for event, payload in parser.feed(data) if data else parser.flush():
                chunks.extend(decoder.feed(event, payload))
            if not data:
                chunks.extend(decoder.close())
            ended = not data or decoder.done
            self._between = parser.between
        except UpstreamError as error:
            ended = self._complete(error, chunks)
            if not ended:
                self._stop(error)
        except MISREAD as error:
            self._stop(misread(self._call, self._entry, error))
        if ended:
            self._finish(chunks)
        elif chunks:
            self._call.meter.see(chunks)
        return chunks

    def _stop(self, error: UpstreamError) -> None:
        self._error = error
        self._ended = True

    async def pump(
        self, take: Callable[[list[Chunk]], bool], pass_on: Callable[[str, bytes], bool] | None, *, usage: bool
    ) -> None:
        """Give ``take`` each further batch from the network's own callback, as long as it returns True.

        An event that says nothing but text goes to ``pass_on`` instead, if given: that text, and the event as the
        client gets it, metered like the others (``usage``: see :meth:`StreamDecoder.lone`).

        No task wakes for a chunk meanwhile. Returns when ``take`` said no, when what follows is for :meth:`next`
        (the end, an error), or at once where the reply cannot push; raises what ``take`` raised.
        """
        if self._ended or self._first is not None or not self._reply.push_to(self._arrived):
            return
        self._take = take
        self._pass_on = pass_on
        self._usage = usage
        began = monotonic()
        try:
            await self._reply.pushed()
        finally:
            self._reply.push_to(None)
            self.waited += monotonic() - began
        if self._thrown is not None:
            raise self._thrown

    def pause(self) -> None:
        """Let the upstream wait, for its reader does."""
        self._reply.pause()

    def _arrived(self, data: bytes) -> None:
        """Decode, meter and hand on what arrived: all in one go, nothing awaited."""
        began = monotonic()
        going = True
        try:
            known = None
            if self._pass_on is not None and self._between:
                known = self._decoder.lone(data, self._usage)  # type: ignore[union-attr]
            if known is not None:
                self._call.meter.hear(known[0])
                going = self._pass_on(*known)  # type: ignore[misc]
            elif chunks := self._read(data):
                going = self._take(chunks)  # type: ignore[misc]
        except BaseException as error:
            self._thrown = error
            going = False
        self.waited -= monotonic() - began
        if not going or self._ended:
            self._reply.push_to(None)

    @property
    def choice(self) -> int:
        """The choice whose text ``pass_on`` is given; -1: more than one's."""
        decoder = self._decoder
        return -1 if decoder is None else decoder.choice

    def event(self, text: str, *, usage: bool) -> bytes:
        """Return an event like the one that ``pass_on`` was given last, with another text."""
        assert self._decoder is not None
        before, behind = self._decoder.around(usage)
        return b"%b%b%b" % (before, orjson.dumps(text), behind)

    def _complete(self, error: UpstreamError, chunks: list[Chunk]) -> bool:
        """Tell whether the answer had ended when the connection broke: then nothing is lost."""
        decoder = self._decoder
        if decoder is None or error.upstream_status is not None or error.code == "upstream_invalid_response":
            return False
        try:
            chunks.extend(decoder.close())
        except UpstreamError:
            return False
        return True

    def _finish(self, chunks: list[Chunk]) -> None:
        self._ended = True
        if self._entry.provider.finish_words:
            watch_finish(self._call, self._entry, chunks)
        see_end(self._call, chunks, self._head)

    def settle(self) -> None:
        """Book the attempt's success and give the connection back once its message has ended."""
        call = self._call
        assert call.target is not None
        self._entry.succeeded(call.target.model, monotonic(), self._started)
        self._reply.release()

    def fail(self, error: UpstreamError) -> None:
        """Book a failure in mid-stream and drop the connection."""
        call = self._call
        assert call.target is not None
        error.message = self._entry.hide(error.message)
        self._entry.failed(call.target.model, error, monotonic(), self._started)
        self._entry.left(call.target.model, self._started)
        call.runtime.metrics.upstream_errors.inc((self._entry.name, error.code))
        self._reply.close()

    def abort(self) -> None:
        """Drop the connection: the client left, or a policy stopped the answer."""
        call = self._call
        if call.target is not None:
            self._entry.left(call.target.model, self._started)
        self._reply.close()


def see_end(call: Call, chunks: list[Chunk], head: dict[str, Any]) -> None:
    """Take note of a stream's last ``chunks``; add the usage that it is billed by where the provider said none.

    ``head``: a chunk of the same stream, for what all of them have in common, where ``chunks`` is empty.
    """
    meter = call.meter
    meter.complete = True
    meter.see(chunks)
    if meter.usage is not None:
        return
    assert call.target is not None
    usage = meter.estimated(call.target.model)
    for chunk in chunks:
        if chunk.data.get("usage"):  # numbers that nobody can believe
            chunk.data["usage"] = usage
            chunk.touch()
            return
    if chunks:
        head = chunks[-1].data
    if head:
        chunks.append(Chunk({**{name: head[name] for name in _HEAD if name in head}, "choices": [], "usage": usage}))


def watch_finish(call: Call, entry: ProviderEntry, chunks: Sequence[Chunk]) -> None:
    """Count a finish word that the vendor's reference does not list: the translator then said `stop`."""
    for chunk in chunks:
        for choice in chunk.choices:
            word = choice.get("x_llm_native_finish_reason")
            if word is not None and word not in entry.provider.finish_words:
                call.runtime.metrics.unknown_finish.inc((entry.name,))
                if entry.new_word(word):
                    fields = {"provider": entry.name, "word": scrub(word, 60), "request_id": call.id}
                    call.runtime.log.warning("unknown_finish_reason", extra={"fields": fields})


def misread(call: Call, entry: ProviderEntry, error: Exception) -> UpstreamError:
    """Return the error for an answer that the translator stumbled over; where it did so is for the log."""
    fields = {"provider": entry.name, "request_id": call.id, **describe(error)}
    call.runtime.log.error("translator_failed", extra={"fields": fields})
    return UpstreamError(
        "upstream_invalid_response",
        f"{entry.name} answered with something that cannot be understood; send the request again.",
        retryable=True,
        counts=True,
    )
