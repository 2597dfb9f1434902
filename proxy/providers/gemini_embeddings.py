"""OpenAI embeddings as Gemini's batchEmbedContents.

Source: https://ai.google.dev/api/embeddings.
"""

from __future__ import annotations

import base64
import sys
from array import array
from typing import Any

import orjson

from proxy.chunk import Chunk
from proxy.providers.base import ProviderSettings, drop_or_refuse, unsupported
from proxy.providers.common import count
from proxy.providers.failure import outline
from proxy.providers.gemini_content import VENDOR
from proxy.providers.gemini_reply import Reading, Sent

_READ = frozenset(("model", "input", "dimensions", "encoding_format", "user"))


def embed_body(
    body: dict[str, Any], model: str, settings: ProviderSettings, ours: frozenset[str]
) -> tuple[bytes, Sent, list[str]]:
    """Return the batch request's JSON, what its decoding needs, and the names of dropped parameters."""
    dropped: list[str] = []
    for name, value in body.items():
        if value is not None and name not in _READ and name not in ours:
            drop_or_refuse(settings, dropped, name, f"{VENDOR} embeddings")
    given = body["input"]
    texts = given if isinstance(given, list) else [given]
    if not all(type(text) is str for text in texts):
        raise unsupported("input", VENDOR, "send text in place of token numbers")
    name = model if "/" in model else f"models/{model}"
    requests = []
    for text in texts:
        one: dict[str, Any] = {"model": name, "content": {"parts": [{"text": text}]}}
        if (size := body.get("dimensions")) is not None:
            one["outputDimensionality"] = size
        requests.append(one)
    # Older embedding models report no usage; four bytes a token is what the vendor's own docs reckon with.
    estimate = sum(-(-len(text.encode("utf-8", "surrogatepass")) // 4) for text in texts)
    vectors = "base64" if body.get("encoding_format") == "base64" else "float"
    return orjson.dumps({"requests": requests}), Sent(model, inputs=estimate, vectors=vectors), dropped


def embeddings(reading: Reading, body: bytes) -> Chunk:
    """Return a batchEmbedContents reply as OpenAI's list of embeddings.

    Raises:
        UpstreamError: it is no answer.
    """
    piece = reading.parse(body)
    rows = piece.get("embeddings")
    try:
        if type(rows) is not list:
            rows = [piece["embedding"]]
        data = [
            {"object": "embedding", "index": index, "embedding": _vector(row["values"], reading.sent.vectors)}
            for index, row in enumerate(rows)
        ]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise reading.invalid(f"no embeddings: {outline(body)}") from None
    metadata = piece.get("usageMetadata")
    tokens = count(metadata.get("promptTokenCount")) if type(metadata) is dict else 0
    usage: dict[str, Any] = {"prompt_tokens": tokens, "total_tokens": tokens}
    if not tokens:
        tokens = reading.sent.inputs
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "x_llm_estimated": True}
    return Chunk({"object": "list", "data": data, "model": reading.sent.model, "usage": usage}, whole=True)


def _vector(values: list[float], form: str) -> list[float] | str:
    """Return the numbers, or OpenAI's base64 of little-endian 32-bit floats."""
    numbers = array("f", values)
    if form != "base64":
        return values
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
