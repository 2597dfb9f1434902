"""What the tests of redaction share: texts through lanes, replies through a filter, a kit that records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from policies.redact import Redact
from policies.redact.config import RedactConfig
from policies.redact.engine import Engine
from policies.redact.json_lane import JsonLane
from policies.redact.lanes import PlainLane
from policies.redact.whole import ALL, builtin
from proxy.call import Call, Caller
from proxy.chunk import Chunk
from proxy.request import REQUESTS
from tests import timing


@lru_cache
def engine(names: tuple[str, ...] = ALL) -> Engine:
    """Return the engine of these built-in groups."""
    return Engine(builtin(names))


def word(detector: Any, original: str) -> str:
    return detector.replacement


def through(
    pieces: Iterable[str], *, json: bool = False, names: tuple[str, ...] = ALL, own: Engine | None = None
) -> str:
    """Return what a lane makes of a text given in pieces."""
    lane = (JsonLane if json else PlainLane)(own or engine(names), word)
    return "".join([*(lane.feed(piece) for piece in pieces), lane.feed("", True)])


def cut(text: str, bits: int) -> list[str]:
    """Return ``text`` cut at the positions whose bits are set."""
    places = [0, *(i for i in range(1, len(text)) if bits >> (i - 1) & 1), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


class Metrics:
    """Records what redaction counts."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.parts: list[str] = []

    def sensitive(self, type: str, direction: str, n: int = 1) -> None:
        self.seen += [(type, direction)] * n

    def unscanned(self, kind: str, n: int = 1) -> None:
        self.parts += [kind] * n


class Log:
    """Records warnings."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, extra: dict[str, Any]) -> None:
        self.lines.append((event, extra["fields"]))

    error = warning


def policy(folder: str = ".", enforce: bool = True, **settings: Any) -> Redact:
    """Return the policy as llm.yml would make it, with a kit that records."""
    kit = SimpleNamespace(metrics=Metrics(), log=Log(), folder=folder, secret=lambda purpose: b"k" * 32)
    made = Redact(RedactConfig(**settings), kit)
    made.name = "redact"
    made.enforce = enforce
    return made


def call(body: dict[str, Any], endpoint: str = "chat") -> Call:
    """Return a call with this body."""
    caller = Caller("key", "team-a", "ann", frozenset())
    return Call("req-1", SimpleNamespace(), caller, REQUESTS[endpoint](body), [], "", 0.0)  # type: ignore[arg-type]


def chat(text: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


def delta(index: int = 0, finish: str | None = None, **fields: Any) -> Chunk:
    """Return one chunk of a stream."""
    choice = {"index": index, "delta": fields, "finish_reason": finish}
    data = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return Chunk(data, b"raw")


def arguments(text: str, n: int = 0) -> list[dict[str, Any]]:
    return [{"index": n, "function": {"arguments": text}}]


def said(chunks: Sequence[Chunk], kind: str = "content", index: int = 0) -> str:
    """Return one text of a reply, put together from its chunks."""
    return "".join(s.text for c in chunks for s in c.texts() if s.kind == kind and s.key[0] == index)


async def stalls(made: Redact, asked: Call) -> tuple[float, float]:
    """Let ``made`` look at a request; return the longest time in which nothing else ran, and the whole, in CPU seconds."""
    return await timing.stalls(lambda: made.on_request(asked))
