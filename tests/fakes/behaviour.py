"""What the fake upstream is told to do with one call, small enough to be a model's name.

``gpt-4o;chunks=20;interval=0.01;cut=rst@300``: parts separated by ``;``, each ``key=value``, a flag, or
a plain word that only names the call (so that a test finds its own calls again: ``tag=…``).
The same text may stand in the URL's path as ``/~SPEC/v1/…`` for what must be known before the body is read.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final


@dataclass(slots=True)
class Behaviour:
    """One call's script. Times in seconds, sizes in bytes, K counts content chunks from 1 (0: before the first)."""

    # --- the answer
    chunks: int = 3
    size: int = 0
    """Bytes of text a chunk (0: just its number)."""
    text: str = ""
    """This text instead of numbered chunks, in ``chunks`` pieces."""
    echo: bool = False
    """The prompt's text as the answer."""
    finish: str = "stop"
    tools: int = 0
    """Tool calls to make (the request's first tools, in order)."""
    refusal: bool = False
    usage: str = "end"
    """end, absent, always, early, finish, late, zero, negative, huge, words, null, or P+C."""
    answer: str = ""
    """json or sse: that form, whatever was asked for."""
    stamp: bool = False
    """Write the time (monotonic, µs) into each chunk's system_fingerprint."""
    # --- its timing
    interval: float = 0.0
    headers: float = 0.0
    first: float = 0.0
    hang: str = ""
    """headers, first, chunk@K, half@K (in the middle of an event), end (after the terminal event)."""
    hold: float = 60.0
    """How long a hang lasts if nobody leaves."""
    # --- its end
    cut: str = ""
    """rst@X or fin@X; X: body byte N, headers, head (inside the head), chunkK, finish, usage, done."""
    omit: str = ""
    """Of role, finish, usage, done (several joined by +)."""
    error: str = ""
    """K or K:code or K:code:message: an error event inside the 200 stream after chunk K."""
    bad: str = ""
    """json@K, event@K, shape@K, utf8@K, line@K, nul@K, comment@K, unknown@K."""
    # --- its framing
    framing: str = ""
    """chunked, length, close, short (length too large), long (length too small), both, double, badchunk."""
    split: int = 0
    """Write the body in pieces of this many bytes, a loop turn apart."""
    gzip: bool = False
    close: bool = False
    """Say and do connection: close."""
    hdr: str = ""
    """hostile: cookies, banners, a request id and rate headers that are not fit to pass on."""
    # --- refusals
    status: int = 200
    body: str = "json"
    """json, html, empty, nested, text, array, number, null, truncated, key, big, utf8, plainjson."""
    code: str = ""
    type: str = ""
    msg: str = ""
    after: str = ""
    afterms: str = ""
    afterdate: float = -1.0
    reset: str = ""
    fails: int = 0
    """Only the first N calls of this model name (per listener) misbehave."""
    redirect: int = 0
    """302 to this port of 127.0.0.1."""
    early: int = 0
    """This status as soon as the request's head is in, its body unread. In the path only."""
    slow: float = 0.0
    """Seconds a 64 KiB read of the request's body takes. In the path only."""
    # --- bombs
    bomb: str = ""
    """headers, header, line, events, gzip, body, informational, trailers, status."""
    bombsize: int = 0
    tag: str = ""


_TYPES: Final = {f.name: f.type for f in fields(Behaviour)}
#: What a model may also be called in full (plain words name a call and do nothing).
_MISBEHAVIOUR: Final = (
    "headers", "first", "hang", "cut", "omit", "error", "bad", "framing", "gzip", "hdr", "status", "redirect",
    "bomb", "answer", "usage",
)  # fmt: skip


def parse(spec: str, base: Behaviour | None = None) -> Behaviour:
    """Return the behaviour that ``spec`` describes, on top of ``base``; ValueError for a key or value unknown."""
    found: dict[str, object] = {}
    for part in spec.split(";"):
        key, equals, value = part.partition("=")
        kind = _TYPES.get(key)
        if not equals:
            if kind == "bool":
                found[key] = True
            continue
        if kind is None and not key.isidentifier():
            continue
        if kind is None:
            raise ValueError(f"the fake upstream knows no {key!r} (in {spec!r})")
        if kind == "bool":
            found[key] = value not in ("0", "false", "no")
        else:
            found[key] = {"int": int, "float": float, "str": str}[str(kind)](value)
    return replace(base or Behaviour(), **found)  # type: ignore[arg-type]


def well_behaved(behaviour: Behaviour) -> Behaviour:
    """Return ``behaviour`` without anything that breaks the answer (what ``fails=N`` becomes after N calls)."""
    plain = Behaviour()
    return replace(behaviour, **{name: getattr(plain, name) for name in _MISBEHAVIOUR})


def at(text: str) -> tuple[str, int]:
    """Return ``("json", 3)`` of ``json@3``; the count is 0 where none stands."""
    word, _, number = text.partition("@")
    return word, int(number or 0)
