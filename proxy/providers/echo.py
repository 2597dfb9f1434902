"""A provider without a network: it answers with the text that would have gone upstream.

For debugging and tests: what you read back is what a real provider would have received.
"""

from __future__ import annotations

from typing import Any, ClassVar

import orjson

from proxy.chunk import Chunk
from proxy.errors import UpstreamError
from proxy.providers.base import Provider, StreamDecoder, Target
from proxy.providers.openai_stream import OpenAIDecoder
from proxy.request import ApiRequest
from proxy.upstream.base import Headers, UpstreamRequest


class Echo(Provider):
    """Answer with the last message's text, counted as one token per word."""

    kind: ClassVar[str] = "echo"
    endpoints: ClassVar[frozenset[str]] = frozenset(("chat", "completions", "embeddings"))
    needs_key: ClassVar[bool] = False
    default_base_url: ClassVar[str] = "echo://"

    def encode(self, request: ApiRequest, target: Target) -> UpstreamRequest:
        body = {**request.body, "model": target.model}
        applied = body.get("max_tokens") if "max_tokens" in request.ours else None
        return UpstreamRequest(
            "/echo", orjson.dumps(body), stream=request.stream, applied_max_tokens=applied,
            memo=(request.endpoint, target.model),
        )  # fmt: skip

    def answer(self, sent: UpstreamRequest) -> Chunk:
        """Return the whole reply to ``sent``."""
        endpoint, model = sent.memo
        body = orjson.loads(sent.body)
        if endpoint == "embeddings":
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            words = sum(len(str(text).split()) for text in texts)
            rows = [
                {"object": "embedding", "index": i, "embedding": [len(str(text)) / 1000, 0.0, 1.0]}
                for i, text in enumerate(texts)
            ]
            return Chunk(
                {
                    "object": "list",
                    "model": model,
                    "data": rows,
                    "usage": {"prompt_tokens": words, "total_tokens": words},
                },
                whole=True,
            )
        said = _text(body["messages"][-1].get("content")) if endpoint == "chat" else _text(body["prompt"])
        prompt = sum(len(_text(m.get("content")).split()) for m in body.get("messages", ())) or len(said.split())
        usage = {"prompt_tokens": prompt, "completion_tokens": len(said.split())}
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": "stop"}
        if endpoint == "chat":
            choice["message"] = {"role": "assistant", "content": said, "refusal": None}
        else:
            choice["text"] = said
        return Chunk(
            {
                "id": "chatcmpl-echo" if endpoint == "chat" else "cmpl-echo",
                "object": "chat.completion" if endpoint == "chat" else "text_completion",
                "created": int(self.now()),
                "model": model,
                "choices": [choice],
                "usage": usage,
            },
            whole=True,
        )

    def decode(self, status: int, headers: Headers, body: bytes, sent: UpstreamRequest) -> Chunk:
        return Chunk(orjson.loads(body), body, whole=True)

    def decoder(self, sent: UpstreamRequest) -> StreamDecoder:
        endpoint, model = sent.memo
        return OpenAIDecoder(self, endpoint, model)  # type: ignore[arg-type]

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        return UpstreamError("upstream_error", "The echo provider failed.", counts=True)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(
            str(part.get("text") or part.get("refusal") or "") if isinstance(part, dict) else str(part)
            for part in content
        )
    return ""
