"""Custom policies that the pipeline's tests load by dotted path, as a user's would be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from policies.base import ApiError, Call, Chunk, Claim, Outcome, Policy, PolicyConfig, Refused, Reply

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


class Misbehaves(Policy):
    """Do what no policy may, where and how it is told: ``where`` is a hook, ``how`` what the hook raises or returns."""

    class Config(PolicyConfig):
        where: str
        how: str

    def _act(self, where: str, otherwise: object = None) -> Any:
        if where != self.config.where:
            return otherwise
        raised = {
            "cancelled": asyncio.CancelledError, "exit": SystemExit, "interrupt": KeyboardInterrupt,
            "closed": GeneratorExit, "lost": ConnectionError,
        }.get(self.config.how)  # fmt: skip
        if raised is not None:
            raise raised("secret text of the error")
        return {"number": 7, "words": ["claim"], "none": None, "bad status": None}[self.config.how]

    async def on_request(self, call: Call) -> Any:
        call.defer(OUTCOMES.append)
        if self.config.where == "defer":
            call.defer(lambda outcome: self._act("defer"))
        if self.config.how == "bad status":
            raise Refused(200, "fine", "All is well.")
        if self.config.where == "source":

            async def source():
                yield self._act("source")

            return Reply(source())
        if self.config.where == "answer":
            return Reply(self._act("answer"))
        return self._act("request")

    def claims(self, call: Call) -> Any:
        if self.config.where in ("admitted", "refusal"):
            limit = 0 if self.config.where == "refusal" else 10
            return [Claim("rate", call.caller.team, "misbehaves", 1, limit, window=60.0)]
        return self._act("claims", ())

    def admitted(self, call: Call, claims: Any, states: Any) -> None:
        self._act("admitted")

    def refusal(self, call: Call, claim: Any, state: Any) -> ApiError:
        return self._act("refusal") or super().refusal(call, claim, state)

    def on_reply(self, call: Call) -> Any:
        self._act("reply")
        return self if self.config.where in ("feed", "flush") else None

    def feed(self, chunk: Chunk) -> Any:
        return self._act("feed", (chunk,))

    def flush(self) -> Any:
        return self._act("flush", ())


class Hears(Misbehaves):
    """The same for a filter that takes a stream's words as text: it marks the first one."""

    def on_reply(self, call: Call) -> Any:
        class Filter:
            heard = 0

            def feed(self, chunk: Chunk) -> Any:
                return (chunk,)

            def hear(own, text: str, data: bytes, choice: int) -> Any:
                own.heard += 1
                return f"{text}!" if own.heard == 1 else self._act("hear", data)

            def flush(self) -> Any:
                return ()

        return Filter()


class Swallows(Policy):
    """Wait, and take no notice of being told to stop."""

    async def on_request(self, call: Call) -> None:
        EVENTS.append("waits")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            EVENTS.append("swallowed")


class Turns(Policy):
    """Wait, and make a failure of being told to stop."""

    async def on_request(self, call: Call) -> None:
        EVENTS.append("waits")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise RuntimeError("turned") from None


class Yields(Policy):
    """Take a claim from a generator: one call a minute."""

    def claims(self, call: Call) -> Any:
        yield Claim("rate", call.caller.team, "yields", 1, 1, window=60.0)


class ExitsClosed(Policy):
    """Answer from a generator that would end the process when it is closed."""

    async def on_request(self, call: Call) -> Reply:
        async def source():
            envelope = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "own"}
            try:
                while True:
                    delta = {"content": "bad"}
                    yield Chunk({**envelope, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            finally:
                EVENTS.append("closed")
                raise SystemExit(3)

        return Reply(source())


class ExitsAsked(Policy):
    """Let every call pass, and end the process for whoever asks about it."""

    def describe(self) -> dict[str, Any]:
        raise SystemExit(3)

    def counters(self, caller: Any, features: Any) -> Any:
        raise SystemExit(3)


class Header(Policy):
    """Add headers that are none, and refuse with words that are no words if so told."""

    class Config(PolicyConfig):
        refuse: bool = False

    async def on_request(self, call: Call) -> None:
        call.headers += [("x-number", 5), 7, ("x-good", "yes"), ["x-list", "too"]]  # type: ignore[list-item]
        call.defer(OUTCOMES.append)
        if self.config.refuse:
            raise Refused(403, "odd", "no \ud800 text", headers=[("x-count", 3)])  # type: ignore[list-item]


class Leaves(Policy):
    """Start work that ends badly, and do not close well either."""

    class Config(PolicyConfig):
        how: str

    async def on_request(self, call: Call) -> None:
        self.kit.background(self._end())

    async def aclose(self) -> None:
        await self._end()

    async def _end(self) -> None:
        if self.config.how == "hangs":
            await asyncio.sleep(60)
        raise {"exit": SystemExit, "error": RuntimeError}[self.config.how]("secret text")


class DropsAll(Policy):
    """Let nothing of an answer through."""

    def on_reply(self, call: Call) -> Any:
        class Filter:
            def feed(self, chunk):
                return ()

            def flush(self):
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
