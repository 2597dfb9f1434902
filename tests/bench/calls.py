"""The requests that the callers send: what the official SDK would, byte for byte the same each time."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any, Final

#: Becomes a number of its own in every request.
SERIAL: Final = "#" * 16
#: The same in words, of letters only.
WORDS: Final = "~" * 16
_SENTENCE: Final = "Please summarise what changed since the last report and name the two largest risks. "
_HEADERS: Final = (
    "Accept-Encoding: gzip, deflate\r\n"
    "Connection: keep-alive\r\n"
    "Accept: application/json\r\n"
    "Content-Type: application/json\r\n"
    "User-Agent: AsyncOpenAI/Python 3.54.0\r\n"
    "X-Stainless-Lang: python\r\n"
    "X-Stainless-Package-Version: 3.54.0\r\n"
    "X-Stainless-OS: Linux\r\n"
    "X-Stainless-Arch: x64\r\n"
    "X-Stainless-Runtime: CPython\r\n"
    "X-Stainless-Runtime-Version: 3.11.7\r\n"
    "X-Stainless-Async: async:asyncio\r\n"
    "X-Stainless-Retry-Count: 0\r\n"
    "X-Stainless-Read-Timeout: 600\r\n"
)


def plain(size: int, *, serial: bool = False) -> str:
    """Return ``size`` characters of prose in which there is nothing to find; ``serial`` makes each one different."""
    text = (_SENTENCE * (size // len(_SENTENCE) + 1))[:size]
    return f"{text[:-17]} {WORDS}" if serial else text


def telling(size: int, findings: int) -> str:
    """Return ``size`` characters of prose with mail addresses and keys, ``findings`` of them in turn."""
    draw = random.Random(findings)
    text = plain(size)
    step = size // max(1, findings)
    for number in range(findings):
        said = f" {_secret(draw) if number % 2 else _mail(draw)} "
        at = number * step
        text = text[:at] + said + text[at + len(said) :]
    return text


def lines(count: int) -> str:
    """Return ``count`` lines with a key and a mail address each (the design document's own example)."""
    draw = random.Random(count)
    return "\n".join(f"Line {number}: key {_secret(draw)} belongs to {_mail(draw)}" for number in range(count))


def _mail(draw: random.Random) -> str:
    return f"{''.join(draw.choices(string.ascii_lowercase, k=8))}@example.com"


def _secret(draw: random.Random) -> str:
    """Return something of the shape of a provider's key, which none has given out."""
    return "sk-" + "".join(draw.choices(string.ascii_letters + string.digits, k=48))


def body(prompt: str | None = None, *, model: str, stream: bool = False, serial: bool = False) -> dict[str, Any]:
    """Return a chat request of 1 KB, or with this ``prompt``; ``serial`` makes each one different."""
    made: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": "You are a helpful assistant." + (f" Case {SERIAL}." if serial else "")},
            {"role": "user", "content": prompt or ""},
        ],
        "model": model,
        "max_tokens": 256,
        "temperature": 0.2,
    }
    if stream:
        made["stream"] = True
    if prompt is None:
        made["messages"][1]["content"] = plain(1024 - len(_dump(made)))
    return made


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def write(file: Path, content: dict[str, Any], *, path: str, port: int, key: str, headers: str = "") -> Path:
    """Write the whole request, ready to be sent to ``port``, and return the file."""
    data = _dump(content)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{_HEADERS}Authorization: Bearer {key}\r\n{headers}"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(head.encode() + data)
    return file
