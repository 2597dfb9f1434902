"""Custom policies that give what is no chunk, no refusal and no filter of its own: see test_odd."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from policies.base import ApiError, Call, Chunk, Policy, PolicyConfig, Refused, Reply


def piece(text: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "own", "choices": [choice]}


#: What is no chunk, or none that can be sent.
NO_CHUNKS: dict[str, Any] = {
    "text": "a text",
    "bytes": b"data: {}\n\n",
    "dict": piece("x"),
    "list": [Chunk(piece("x"))],
    "of a text": Chunk("text"),  # type: ignore[arg-type]
    "raw text": Chunk(piece("x"), "text"),  # type: ignore[arg-type]
    "no JSON": Chunk({**piece("x"), "more": {1, 2}}),
    "no Unicode": Chunk(piece("\ud800")),
    "no choice": Chunk({**piece("x"), "choices": [None]}),
    "no delta": Chunk({**piece("x"), "choices": [{"index": 0, "delta": "x"}]}),
}


class Gives(Policy):
    """Give what is no chunk, from ``feed``, ``flush`` or as the answer itself."""

    class Config(PolicyConfig):
        where: str
        what: str

    async def on_request(self, call: Call) -> Reply | None:
        return Reply((NO_CHUNKS[self.config.what],)) if self.config.where == "answer" else None

    def on_reply(self, call: Call) -> Any:
        return self if self.config.where in ("feed", "flush") else None

    def feed(self, chunk: Chunk) -> Iterable[Any]:
        return (NO_CHUNKS[self.config.what],) if self.config.where == "feed" else (chunk,)

    def flush(self) -> Iterable[Any]:
        return (NO_CHUNKS[self.config.what],) if self.config.where == "flush" else ()


class Halved(ApiError):
    """A refusal whose author forgot our ``__init__``."""

    def __init__(self) -> None:
        self.message = "half"


#: What an ApiError's status may be instead of one.
STATUSES: dict[str, Any] = {
    "200": 200, "0": 0, "99": 99, "399": 399, "600": 600, "1000": 1000, "-1": -1, "text": "x", "403": "403", "half": 403.5, "true": True,
}  # fmt: skip


class Refuses(Policy):
    """Refuse with a status that is none, where it is told to."""

    class Config(PolicyConfig):
        where: str
        status: str

    def _refuse(self, where: str) -> None:
        if where != self.config.where:
            return
        status = self.config.status
        if status == "halved":
            raise Halved
        if status == "assigned":
            error = ApiError("odd", "Odd.", status=403)
            error.status = 200
            raise error
        if status == "headers":
            raise ApiError("odd", "Odd.", status=403, headers=["no pair"])  # type: ignore[list-item]
        if status == "number":
            raise ApiError(403, "Odd.")  # type: ignore[arg-type]
        raise (
            Refused(STATUSES[status], "odd", "Odd.")
            if where == "claims"
            else ApiError("odd", "Odd.", status=STATUSES[status])
        )

    async def on_request(self, call: Call) -> Reply | None:
        self._refuse("request")
        if self.config.where == "source":

            async def source() -> Any:
                self._refuse("source")
                yield

            return Reply(source())
        return None

    def claims(self, call: Call) -> Any:
        self._refuse("claims")
        return ()

    def on_reply(self, call: Call) -> Any:
        self._refuse("reply")
        return self if self.config.where in ("feed", "flush") else None

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        self._refuse("feed")
        return (chunk,)

    def flush(self) -> Iterable[Chunk]:
        self._refuse("flush")
        return ()


class Quick:
    """A filter that takes words as text, and leaves them."""

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        return (chunk,)

    def hear(self, text: str, data: bytes, choice: int) -> str | bytes | None:
        return data

    def flush(self) -> Iterable[Chunk]:
        return ()


class Louder(Quick):
    """Somebody's own filter made of that one: it knows of chunks only."""

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        for slot in chunk.texts():
            slot.text = slot.text.replace("0", "X")
        return super().feed(chunk)


class Wrapped:
    """The same around one."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        return self.inner.feed(chunk)


class Loud(Policy):
    """Change each word of an answer, by a filter made in one way or another."""

    class Config(PolicyConfig):
        made: str

    def on_reply(self, call: Call) -> Any:
        if self.config.made == "subclass":
            return Louder()
        if self.config.made == "wrapper":
            return Wrapped(Louder())
        own: Any = Quick()
        own.feed = Louder().feed
        return own


class Surrogate(Policy):
    """Make a text that is no Unicode of each word."""

    def on_reply(self, call: Call) -> Any:
        class Filter(Quick):
            def hear(self, text: str, data: bytes, choice: int) -> str | bytes | None:
                return "\ud800"

        return Filter()


class Adds(Policy):
    """Add a chunk of text behind the answer, or one that fits to nothing."""

    class Config(PolicyConfig):
        odd: bool = False

    def on_reply(self, call: Call) -> Any:
        class Filter:
            def feed(self, chunk: Chunk) -> Iterable[Chunk]:
                return (chunk,)

            def flush(own) -> Iterable[Chunk]:
                more = Chunk(piece(" and more"))
                if self.config.odd:
                    more.data["choices"][0]["delta"] = {"tool_calls": [7]}
                return (more,)

        return Filter()
