"""The recorded provider traffic of ``../shared/wires``: where it is, how to read it, how to cut it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from proxy.chunk import Chunk
from proxy.providers.base import StreamDecoder
from proxy.upstream.sse import SseParser


def shared(name: str) -> Path:
    """Return a folder of the material shared between projects; skip the test where it is absent."""
    path = Path(os.environ.get("SHARED_DIR") or Path(__file__).parents[3] / "shared") / name
    if not path.is_dir():
        pytest.skip(f"needs {path} (recordings and corpora), which is not here")
    return path


class Recordings:
    """Recorded exchanges by provider and kind."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def unpack(cls, tmp_path_factory: pytest.TempPathFactory) -> Recordings:
        """Return the recordings: those of WIRES_DIR, else unpacked to a temporary folder, once for all workers."""
        if where := os.environ.get("WIRES_DIR"):
            return cls(Path(where))
        packed = shared("wires") / "dev.tar.xz"
        folder = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:
            folder = folder.parent
        with (folder / "recordings.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "recordings").is_dir():
                with tarfile.open(packed) as archive:
                    archive.extractall(folder / "unpacking", filter="data")
                (folder / "unpacking").rename(folder / "recordings")
        return cls(folder / "recordings" / "wires")

    def exchanges(self, provider: str, kind: str | None = None, *, one_in: int = 1) -> Iterator[dict[str, Any]]:
        """Yield exchanges; ``one_in`` takes a sample that depends on the ids alone."""
        for line in (self.root / "manifest.jsonl").read_bytes().splitlines():
            entry = orjson.loads(line)
            if entry["id"].split("/")[0] != provider or (kind and entry["kind"] != kind):
                continue
            if one_in == 1 or int(hashlib.sha256(entry["id"].encode()).hexdigest(), 16) % one_in == 0:
                yield orjson.loads((self.root / entry["file"]).read_bytes())

    def expected(self, provider: str) -> dict[str, dict[str, Any]]:
        """Return the oracle's rows by exchange id."""
        lines = (self.root / f"expected_{provider}.jsonl").read_bytes().splitlines()
        return {row["id"]: row for row in map(orjson.loads, lines)}


def validator(schemas: Path, name: str) -> Any:
    """Return the validator of one of OpenAI's schemas."""
    return jsonschema.Draft202012Validator(orjson.loads((schemas / f"{name}.real.json").read_bytes()))


def reply_bytes(exchange: dict[str, Any]) -> bytes:
    """Return the recorded reply's body as it was on the wire."""
    reply = exchange["response"]
    if "sse" in reply:
        return reply["sse"].encode("utf-8", "surrogatepass")
    return reply["text"].encode() if "text" in reply else orjson.dumps(reply.get("body"))


def cut(data: bytes, seed: str) -> list[bytes]:
    """Return ``data`` cut at random byte positions that ``seed`` decides, inside UTF-8 and line ends too."""
    rng = random.Random(seed)
    points = sorted(rng.sample(range(1, len(data)), min(len(data) - 1, rng.choice((1, 5, 40, 200)))))
    return [data[a:b] for a, b in zip([0, *points], [*points, len(data)], strict=True)]


def decode_stream(decoder: StreamDecoder, pieces: list[bytes]) -> list[Chunk]:
    """Return all chunks that the decoder makes of the stream."""
    parser = SseParser()
    chunks: list[Chunk] = []
    for piece in pieces:
        for event, data in parser.feed(piece):
            chunks += decoder.feed(event, data)
    chunks += decoder.close()
    return chunks


class Answer:
    """What an OpenAI client would make of a reply: text, calls (name, arguments), finish, usage."""

    def __init__(self) -> None:
        self.text = ""
        self.calls: list[tuple[str, Any]] = []
        self.ids: list[str] = []
        self.finish: str | None = None
        self.usage: dict[str, Any] | None = None

    @classmethod
    def whole(cls, data: dict[str, Any]) -> Answer:
        """Read a whole completion."""
        self = cls()
        choice = data["choices"][0]
        self.text = choice["message"].get("content") or ""
        for call in choice["message"].get("tool_calls") or ():
            self.ids.append(call["id"])
            if "custom" in call:
                self.calls.append((call["custom"]["name"], call["custom"]["input"]))
            else:
                self.calls.append((call["function"]["name"], loads(call["function"]["arguments"])))
        self.finish = choice["finish_reason"]
        self.usage = data.get("usage")
        return self

    @classmethod
    def stream(cls, chunks: list[dict[str, Any]]) -> Answer:
        """Read a stream's chunks, by index."""
        self = cls()
        calls: dict[int, list[str]] = {}
        custom: set[int] = set()
        for chunk in chunks:
            if chunk.get("usage"):
                self.usage = chunk["usage"]
            for choice in chunk["choices"]:
                if choice["index"]:
                    continue
                delta = choice["delta"]
                self.text += delta.get("content") or ""
                for call in delta.get("tool_calls") or ():
                    held = calls.setdefault(call["index"], ["", "", ""])
                    if call.get("custom"):
                        custom.add(call["index"])
                        held[1] += call["custom"].get("name") or ""
                        held[2] += call["custom"].get("input") or ""
                    function = call.get("function") or {}
                    held[0] += call.get("id") or ""
                    held[1] += function.get("name") or ""
                    held[2] += function.get("arguments") or ""
                self.finish = choice["finish_reason"] or self.finish
        for index, (ident, name, arguments) in sorted(calls.items()):
            self.ids.append(ident)
            self.calls.append((name, arguments if index in custom else loads(arguments)))
        return self


def loads(text: str) -> Any:
    """Return parsed arguments; text that is no JSON as it is."""
    try:
        return orjson.loads(text) if text.strip() else {}
    except orjson.JSONDecodeError:
        return text


def strings(value: Any) -> set[str]:
    """Return the words of every string below ``value``."""
    if isinstance(value, str):
        return {" ".join(value.split())}
    if isinstance(value, dict):
        return set().union(*map(strings, value.values()))
    if isinstance(value, list):
        return set().union(*map(strings, value))
    return set()


def lines(text: str) -> str:
    """Return ``text`` with line ends of one kind."""
    return re.sub(r"\r\n?", "\n", text)
