"""Counting tokens without a network: estimates from bytes, exact counts from the vendored vocabulary.

A token is never shorter than a byte of UTF-8, so most questions ("is this over the limit?") need no
count at all. Exact numbers come from tiktoken and hold for OpenAI's models; other vendors publish no
tokenizer, so for them they are estimates and the vendor's own usage settles the bill.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import threading
import zlib
from pathlib import Path
from typing import Any, Final

import orjson

from proxy.request import ApiRequest

#: What an attachment is taken to cost before the provider says: about one large image, some pages, a minute of sound.
IMAGE: Final = 1_600
FILE: Final = 4_000
AUDIO: Final = 2_000
PER_MESSAGE: Final = 4
PER_REQUEST: Final = 3
#: Above this many characters a count leaves the event loop (145 µs for 4.5 KB).
OFF_LOOP: Final = 16_384
_SLICE: Final = 65_536
#: Fields of a chat request that the model reads as JSON.
_WRITTEN_OUT: Final = frozenset(("tools", "functions", "response_format"))
_VOCABULARY: Final = Path(__file__).parent / "vocabulary"
_SHA256: Final = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
_encodings: dict[str, Any] = {}
_lock = threading.Lock()


class VocabularyError(RuntimeError):
    """A vendored vocabulary is missing or not the one that tiktoken pins."""


def encoding_name(model: str) -> str:
    """Return the vocabulary of ``model``: ``cl100k_base`` for GPT-4, GPT-3.5 and the embedding models, else ``o200k_base``."""
    from tiktoken.model import encoding_name_for_model

    try:
        name = encoding_name_for_model(model.rsplit("/", 1)[-1])
    except KeyError:
        return "o200k_base"
    return name if name in _SHA256 else "o200k_base"


def load(name: str) -> Any:
    """Return the named tiktoken encoding, built from the vendored vocabulary (0.2 s the first time).

    Half of that is one step that lets no other thread run: meant for before there are calls.

    Raises:
        VocabularyError: the file is missing or its SHA-256 is not tiktoken's.
    """
    found = _encodings.get(name)
    if found is not None:
        return found
    with _lock:
        if name not in _encodings:
            import tiktoken
            from tiktoken_ext import openai_public

            # tiktoken's own definitions, with its download replaced by our file.
            openai_public.load_tiktoken_bpe = _ranks
            _encodings[name] = made = tiktoken.Encoding(**getattr(openai_public, name)())
            made._mergeable_ranks = {}  # for pickling only; what counts has its own copy
        return _encodings[name]


def _ranks(url: str, expected_hash: str | None = None) -> dict[bytes, int]:
    from binascii import a2b_base64

    name = url.rsplit("/", 1)[-1].removesuffix(".tiktoken")
    try:
        data = gzip.decompress((_VOCABULARY / f"{name}.tiktoken.gz").read_bytes())
    except FileNotFoundError as error:
        raise VocabularyError(
            f"The vocabulary {name} is missing from the installation; install llm-sidecar again."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise VocabularyError(f"The vocabulary {name} is damaged; install llm-sidecar again.") from error
    if hashlib.sha256(data).hexdigest() != _SHA256.get(name):
        raise VocabularyError(f"The vocabulary {name} is damaged; install llm-sidecar again.")
    words = data.split()
    return dict(zip(map(a2b_base64, words[::2]), map(int, words[1::2]), strict=True))


def warm(model: str = "") -> None:
    """Load the model's vocabulary now, so that no call waits for it. Meant for a thread."""
    load(encoding_name(model))


def ready(model: str) -> bool:
    """Tell whether an exact count needs no loading."""
    return bool(_encodings) and encoding_name(model) in _encodings


def guess_text(text: str) -> int:
    """Return about how many tokens ``text`` has: high for prose, low (half) where most of it is punctuation."""
    if not text:
        return 0
    if text.isascii():
        return len(text) * 2 // 7 + 1
    wide = len(text.encode("utf-8", "surrogatepass")) - len(text)
    return (len(text) * 2) // 7 + wide // 2 + 1


def count_text(text: str, model: str) -> int:
    """Return the tokens of ``text``: exact if the vocabulary is loaded and the text short, else a close estimate."""
    if not text:
        return 0
    if not ready(model):
        return guess_text(text)
    encoding = load(encoding_name(model))
    if len(text) <= OFF_LOOP:
        return len(encoding.encode_ordinary(text))
    # Never a stall on the event loop: the ratio of a sample stands for the rest.
    sample = text[: OFF_LOOP // 2] + text[-OFF_LOOP // 2 :]
    return -(-len(encoding.encode_ordinary(sample)) * len(text) // len(sample))


def _exact(texts: list[str], name: str, stop: int | None) -> int:
    encode = load(name).encode_ordinary
    total = 0
    for text in texts:
        for i in range(0, len(text), _SLICE):
            total += len(encode(text[i : i + _SLICE]))
            if stop is not None and total > stop * 4:
                return total
    return total


async def exact(texts: list[str], model: str, stop: int | None = None) -> int:
    """Return the exact tokens of ``texts``, off the event loop where they are long or nothing is loaded yet.

    With ``stop``, counting ends once four times as many were found: a limit needs no more.
    """
    if sum(map(len, texts)) <= OFF_LOOP and ready(model):
        return _exact(texts, encoding_name(model), stop)
    return await asyncio.to_thread(_exact, texts, encoding_name(model), stop)


def parts(request: ApiRequest) -> tuple[list[str], int]:
    """Return the texts of the prompt that cost tokens, and the tokens added for messages and attachments."""
    body = request.body
    texts: list[str] = []
    if request.endpoint != "chat":
        value = body.get("input" if request.endpoint == "embeddings" else "prompt")
        extra = 0
        for item in value if type(value) is list else [value]:
            if type(item) is str:
                texts.append(item)
            elif type(item) is list:
                extra += len(item)
            elif item is not None:
                extra += 1
        return texts, extra
    messages = body["messages"]
    extra = PER_REQUEST + PER_MESSAGE * len(messages)
    for message in messages:
        content = message.get("content")
        if type(content) is str:
            texts.append(content)
            if len(message) == 2:
                continue  # the other is its role
        elif content:
            for part in content:
                kind = part.get("type")
                if kind == "image_url":
                    extra += IMAGE
                elif kind == "file":
                    extra += FILE
                elif kind == "input_audio":
                    extra += AUDIO
                else:
                    text = part.get("text") or part.get("refusal")
                    if type(text) is str:
                        texts.append(text)
        if len(message) > 2:
            for call in message.get("tool_calls") or ():
                function = call.get("function") or call.get("custom") or {}
                texts.append(f"{function.get('name', '')} {function.get('arguments') or function.get('input') or ''}")
            for name in ("name", "refusal", "reasoning_content"):
                if type(message.get(name)) is str:
                    texts.append(message[name])
    if not _WRITTEN_OUT.isdisjoint(body):
        texts += [orjson.dumps(value).decode() for name, value in body.items() if value and name in _WRITTEN_OUT]
    return texts, extra


def bound(request: ApiRequest) -> int:
    """Return a number of tokens that the prompt cannot exceed: its texts' bytes, and the allowances."""
    texts, extra = parts(request)
    return extra + sum(len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")) for text in texts)


def estimate(request: ApiRequest, model: str = "") -> int:
    """Return about how many tokens the prompt has, leaning high, without counting."""
    texts, total = parts(request)
    for text in texts:
        total += guess_text(text)
    return total


async def count(request: ApiRequest, model: str, stop: int | None = None) -> int:
    """Return the prompt's tokens: texts exactly (for OpenAI's models), attachments as allowances; see :func:`exact`."""
    texts, extra = parts(request)
    return extra + await exact(texts, model, stop)
