"""Custom policies that the pipeline's tests load by dotted path, as a user's would be."""

from __future__ import annotations

from collections.abc import Iterable

from policies.base import Call, Chunk, Outcome, Policy, PolicyConfig, Refused, Reply

EVENTS: list[str] = []
OUTCOMES: list[Outcome] = []


class OfficeHours(Policy):
    """Lets a team call only between two hours of the day (UTC)."""

    class Config(PolicyConfig):
        team: str
        start: int = 8
        end: int = 18

    async def on_request(self, call: Call) -> None:
        hour = self.kit.clock.now().hour
        if call.caller.team == self.config.team and not self.config.start <= hour < self.config.end:
            raise Refused(403, "outside_office_hours", f"Open {self.config.start}:00-{self.config.end}:00 UTC.")


class Suffix:
    """Append a mark to every content slot, and one at the end of the stream."""

    def __init__(self, mark: str, tail: str = "") -> None:
        self.mark = mark
        self.tail = tail
        self.last: Chunk | None = None

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        for slot in chunk.texts():
            if slot.kind == "content" and slot.text:
                slot.text = f"{slot.text}{self.mark}"
        self.last = chunk
        return (chunk,)

    def flush(self) -> Iterable[Chunk]:
        EVENTS.append(f"flush {self.mark}")
        return ()


class Marker(Policy):
    """Record what happens, and mark the text on the way back."""

    class Config(PolicyConfig):
        mark: str = "+"

    async def on_request(self, call: Call) -> None:
        EVENTS.append(f"request {self.config.mark}")
        call.defer(lambda outcome: EVENTS.append(f"end {self.config.mark} {outcome.end}"))
        call.defer(OUTCOMES.append)

    def on_reply(self, call: Call) -> Suffix:
        return Suffix(self.config.mark)


class Answers(Policy):
    """Answer instead of the upstream, from an asynchronous source."""

    async def on_request(self, call: Call) -> Reply:
        async def source():
            envelope = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "own"}
            for text in ("one ", "two"):
                yield Chunk({**envelope, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})
            yield Chunk({**envelope, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})

        return Reply(source(), [("x-own", "yes")])


class Breaks(Policy):
    """Fail where it is told to: on_request, feed, flush or defer."""

    class Config(PolicyConfig):
        where: str

    async def on_request(self, call: Call) -> None:
        if self.config.where == "request":
            raise RuntimeError("secret text of the error")
        if self.config.where == "defer":
            call.defer(lambda outcome: 1 / 0)

    def on_reply(self, call: Call):
        where = self.config.where
        if where not in ("feed", "flush"):
            return None

        class Filter:
            def feed(self, chunk):
                if where == "feed" and chunk.choices and not chunk.startup:
                    raise RuntimeError("secret text of the error")
                return (chunk,)

            def flush(self):
                if where == "flush":
                    raise RuntimeError("secret text of the error")
                return ()

        return Filter()


class RefusesReply(Policy):
    """Refuse in the middle of an answer."""

    def on_reply(self, call: Call):
        class Filter:
            def feed(self, chunk):
                if "bad" in str(chunk.data):
                    raise Refused(400, "bad_word", "The answer held a bad word.")
                return (chunk,)

            def flush(self):
                return ()

        return Filter()


class Strikes(Policy):
    """Take the first target out of the route."""

    async def on_request(self, call: Call) -> None:
        first = call.route[0]
        call.strike(lambda target: target is not first)


class Impostor(Policy):
    """A shadow policy that changes the request all the same."""

    changes_request = True

    async def on_request(self, call: Call) -> None:
        call.request.body["messages"][0]["content"] = "changed"
        call.request.touch()


class Below(Marker):
    """A second marker: a policy stands in the list once."""


class HoldsBack(Policy):
    """Say nothing of an answer until several pieces of it are there."""

    def on_reply(self, call: Call):
        class Filter:
            def __init__(self):
                self.held = []

            def feed(self, chunk):
                self.held.append(chunk)
                return () if len(self.held) < 4 else self.flush()

            def flush(self):
                held, self.held = self.held, []
                return held

        return Filter()
