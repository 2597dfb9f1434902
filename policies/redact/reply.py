"""The filter on a reply: masks what upstream says before the client, or the caller's originals, come into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from policies.redact.beside import NOT_AGAIN, Key, carrying, shape_of, silence, without_tokens
from policies.redact.engine import DetectorFailed, Engine
from policies.redact.json_lane import JsonLane
from policies.redact.lanes import Lane, Looks, PlainLane, masked_text
from policies.redact.mask import Masker
from policies.redact.restore import Originals, Restorer, Sight
from proxy.chunk import CHOICE, ENVELOPE, Chunk, Slot
from proxy.errors import ApiError

#: The order in which one choice's texts come: what is held back of an earlier one goes out before a later one.
_RANK: Final = {"reasoning": 0, "content": 1, "refusal": 1, "arguments": 2, "input": 2}


class Watch:
    """A lane that only looks: the text passes at once, unchanged."""

    __slots__ = ("_lane",)

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    def feed(self, text: str, final: bool = False) -> str:
        self._lane.feed(text, final)
        return text


class Text:
    """One text of the reply: ``feed`` puts it through its lane, then puts the originals back."""

    __slots__ = ("_lane", "_restorer", "feed", "kind", "lane", "shape")

    def __init__(self, kind: str, lane: Lane, restorer: Restorer | None) -> None:
        self.kind = kind
        self._lane = lane
        self._restorer = restorer
        #: The lane, where it is a plain one and nothing comes behind it.
        self.lane = lane if isinstance(lane, PlainLane) and restorer is None else None
        self.feed: Callable[..., str] = lane.feed if restorer is None else self._restored
        self.shape: Callable[[str], dict[str, Any]] | None = None

    def _restored(self, text: str, final: bool = False) -> str:
        assert self._restorer is not None
        return self._restorer.feed(self._lane.feed(text, final), final)


class ReplyFilter:
    """The filter of one call: a whole reply at once, a stream as it comes."""

    __slots__ = (
        "_engine", "_envelope", "_failed", "_feed", "_held", "_json", "_lane", "_masker", "_odd", "_only", "_originals", "_sight", "_silent", "_spare", "_texts",
        "_waiting", "_watch", "_words",
    )  # fmt: skip

    def __init__(
        self,
        engine: Engine,
        masker: Masker,
        originals: Mapping[str, str],
        failed: Callable[[DetectorFailed], ApiError],
        *,
        watch: bool,
        quoted: bool = False,
    ) -> None:
        self._engine = engine
        self._masker = masker
        self._originals = Originals(originals) if originals else None
        self._sight: Looks = engine if self._originals is None else Sight(engine, self._originals)
        self._failed = failed
        self._watch = watch
        #: The caller asked for JSON: content is, and originals have to fit into its strings.
        self._json = quoted
        self._texts: dict[Key, Text] = {}
        #: Choices whose transcript was masked: no more sound of theirs passes.
        self._silent: set[Any] = set()
        self._only: Any = None
        self._feed: Callable[..., str] = str
        self._envelope: dict[str, Any] = {}
        self._lane: PlainLane | None = None
        #: The chunk whose text is what waits, and that text; and one that was swallowed, to carry another's.
        self._waiting: Chunk | None = None
        self._words = ""
        self._spare: Chunk | None = None
        #: As `_waiting`, of an event without a chunk.
        self._held = b""
        #: The stream's chunks hold text in other fields, too: each of them is looked through.
        self._odd = False

    # --- the core calls these two

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        """Return what goes on for ``chunk``; held back text follows in a later one."""
        try:
            return self._whole(chunk) if chunk.whole else self._piece(chunk)
        except DetectorFailed as error:
            raise self._failed(error) from error

    def flush(self) -> Iterable[Chunk]:
        """Return what is still held back: a stream that ended without a finish reason."""
        try:
            return self._release(list(self._texts))
        except DetectorFailed as error:
            raise self._failed(error) from error

    # --- whole replies

    def _whole(self, chunk: Chunk) -> Iterable[Chunk]:
        changed = False
        for slot in chunk.texts():
            if self._at_once(slot) and slot.kind != "other":
                changed = True
                if slot.key[1] == "transcript":
                    silence(chunk, slot.key[0])
        if changed:
            without_tokens(chunk)
        return (chunk,)

    def _at_once(self, slot: Slot) -> bool:
        """Put one complete text through; tell whether it changed."""
        before = slot.text
        if slot.kind == "arguments" or self._watch or self._originals:
            after = self._text(slot.kind).feed(before, final=True)
        else:
            raw = before.encode("utf-8", "surrogatepass")
            findings = self._engine.decide(raw, 0, True)[1]
            if not findings:
                return False
            after = masked_text(raw, 0, len(raw), findings, self._masker.replace)
        if after == before:
            return False
        slot.text = after
        if slot.kind == "reasoning":
            slot.drop("signature")  # it no longer fits, and the vendor would refuse it
        return True

    def _text(self, kind: str) -> Text:
        replace = self._masker.replace
        lane: Lane = (JsonLane if kind == "arguments" else PlainLane)(self._sight, replace)
        restorer = None
        if self._originals is not None:
            quoted = kind == "arguments" or (self._json and kind == "content")
            restorer = Restorer(self._originals, quoted=quoted)
        return Text(kind, Watch(lane) if self._watch else lane, restorer)

    # --- streams

    def hear(self, text: str, data: bytes, choice: int) -> str | bytes | None:
        """Return what goes on for an event of content (:class:`policies.base.TextFilter`)."""
        if choice != self._only:
            return None
        try:
            out = self._feed(text)
        except DetectorFailed as error:
            raise self._failed(error) from error
        self._waiting = self._spare = None
        held, lane = self._held, self._lane
        if lane is not None and lane.whole:
            # All of this piece waits: its event waits with it, and the one before goes on as it came.
            self._held = data
            said, self._words = self._words, text
            return held if held and out == said else out
        self._held = b""
        return data if out == text else out

    def _piece(self, chunk: Chunk) -> Iterable[Chunk]:
        self._held = b""  # its text is in the lane
        data = chunk.data
        choices = data.get("choices")
        if not choices:
            for slot in chunk.texts():  # what a vendor adds to the usage
                self._at_once(slot)
            return (chunk,)
        choice = choices[0]
        delta = choice.get("delta")
        # The common case: one choice, one piece of content, nothing else; its text known and the only one.
        if (
            delta is not None
            and len(delta) == 1
            and len(choices) == 1
            and choice.get("finish_reason") is None
            and ENVELOPE.issuperset(data)
            and CHOICE.issuperset(choice)
        ):
            text = delta.get("content")
            if type(text) is str and choice.get("index", 0) == self._only:
                out = self._feed(text)
                self._envelope = data
                waiting = self._waiting
                lane = self._lane
                if lane is not None and lane.whole and not data.get("usage"):
                    # All of this piece waits: its chunk waits with it, and the one before goes on as it came.
                    self._waiting = chunk
                    if waiting is not None and out == self._words:
                        self._words = text
                        return (waiting,)
                    self._words = text
                    if not out:
                        return ()
                    if (carrier := waiting or self._spare) is not None:
                        self._spare = None
                        return (carrying(carrier, out),)
                    self._waiting = None
                    return (carrying(chunk, out),)
                if waiting is not None:
                    self._waiting, self._spare = None, waiting
                if out == text:
                    return (chunk,)
                if not out and not data.get("usage"):
                    self._spare = chunk
                    return ()
                return (carrying(chunk, out),)
        return self._general(chunk)

    def _general(self, chunk: Chunk) -> Iterable[Chunk]:
        self._waiting = self._spare = None  # their text is in the lanes
        self._envelope = chunk.data
        finished = {c.get("index", 0) for c in chunk.choices if c.get("finish_reason") is not None}
        here: list[tuple[Key, Slot]] = []
        changed = False
        for slot in chunk.texts():
            if slot.kind == "other":
                self._odd = True
                self._at_once(slot)
            elif slot.key[1] == "thinking_blocks":  # comes complete, beside the pieces of the same text
                changed |= self._at_once(slot)
            else:
                here.append((slot.key, slot))
        last: dict[Key, int] = {}
        later: dict[Any, int] = {}  # by choice: the rank of the latest text that began
        for n, (key, slot) in enumerate(here):
            last[key] = n
            if slot.text or key[1] != "content":
                later[key[0]] = max(later.get(key[0], 0), _RANK[slot.kind])
        ended = [
            key
            for key, text in self._texts.items()
            if key not in last and (key[0] in finished or later.get(key[0], 0) > _RANK[text.kind])
        ]
        before = self._release(ended)
        said = {key[0] for key, slot in here if slot.text}
        for n, (key, slot) in enumerate(here):
            known = self._texts.get(key)
            if known is None:
                known = self._texts[key] = self._text(slot.kind)
                known.shape = shape_of(chunk, key)
            piece = slot.text
            ends = key[0] in finished and last[key] == n  # hostile servers say one text twice
            masked = self._masker.masked
            out = known.feed(piece, ends)
            if out != piece:
                slot.text = out
                changed = True
            if key[1] == "transcript" and self._masker.masked > masked and not self._watch:
                self._silent.add(key[0])
            if ends:
                del self._texts[key]
        # Tokens without their text beside them may be of one that was masked before.
        without_tokens(chunk, () if changed else said)
        for index in self._silent:
            silence(chunk, index)
        self._settle_on()
        return (*before, chunk) if before else (chunk,)

    def _settle_on(self) -> None:
        """Remember the one text of a stream, if there is one and it is content, for the common case."""
        self._only = self._lane = None
        if len(self._texts) == 1 and not self._odd:
            (key, text), *_ = self._texts.items()
            if text.kind == "content" and key[1:] == ("content", 0):
                self._only, self._feed = key[0], text.feed
                self._lane = text.lane

    def _release(self, keys: list[Key]) -> list[Chunk]:
        """Return a chunk for each of these texts that still held something back, in the reply's order."""
        chunks = []
        keys.sort(key=lambda key: (str(key[0]), _RANK[self._texts[key].kind]))
        for key in keys:
            text = self._texts.pop(key)
            out = text.feed("", True)
            if out and text.shape is not None:
                envelope = {name: value for name, value in self._envelope.items() if name not in NOT_AGAIN}
                envelope["choices"] = [{"index": key[0], **text.shape(out), "finish_reason": None}]
                chunks.append(Chunk(envelope))
        return chunks
