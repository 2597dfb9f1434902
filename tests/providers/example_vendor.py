"""Parrot, a service that nobody runs: what it takes to add a vendor. `kind: example_vendor:Parrot` in llm.yml."""

import json
from typing import Any

from proxy.chunk import Chunk
from proxy.errors import UpstreamError
from proxy.providers.base import Provider, StreamDecoder, Target, drop_or_refuse, unsupported
from proxy.providers.common import usage_of
from proxy.providers.failure import failure, snippet
from proxy.request import ApiRequest
from proxy.upstream.base import Headers, UpstreamRequest

WHO = {"system": "house", "developer": "house", "user": "guest", "assistant": "parrot"}
WHY = {"done": "stop", "limit": "length", "rude": "content_filter"}
KNOWN = ("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "user")


def turn(message: dict[str, Any]) -> dict[str, str]:
    if message["role"] not in WHO or not isinstance(message.get("content"), str):
        raise unsupported("messages", "Parrot", "send plain text, without tools and pictures")
    return {"who": WHO[message["role"]], "says": message["content"]}


class Parrot(Provider):
    kind = "parrot"
    default_base_url = "https://api.parrot.example"
    finish_words = frozenset(WHY)

    def credentials(self, key: str) -> list[tuple[str, str]]:
        return [("x-parrot-key", key)]

    def encode(self, request: ApiRequest, target: Target) -> UpstreamRequest:
        dropped: list[str] = []
        for name, value in request.body.items():
            if name not in KNOWN and value is not None and name not in request.ours:
                drop_or_refuse(self.settings, dropped, name, "Parrot")
        turns = [turn(message) for message in request.body["messages"]]
        body = {"bird": target.model, "turns": turns, "live": request.stream, "words": request.max_tokens}
        headers = [("content-type", "application/json")]
        return UpstreamRequest(
            "/talk", json.dumps(body).encode(), headers, stream=request.stream, dropped=tuple(dropped)
        )

    def decode(self, status: int, headers: Headers, body: bytes, sent: UpstreamRequest) -> Chunk:
        data = json.loads(body)
        message = {"role": "assistant", "content": data["says"], "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": WHY.get(data["why"], "stop")}
        usage = usage_of(data["heard"], data["said"])
        envelope = {"id": data["id"], "object": "chat.completion", "created": int(self.now()), "model": data["bird"]}
        return Chunk({**envelope, "choices": [choice], "usage": usage}, whole=True)

    def decoder(self, sent: UpstreamRequest) -> StreamDecoder:
        return ParrotDecoder(int(self.now()))

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        return failure(status, snippet(body), headers=headers, vendor="Parrot")


class ParrotDecoder(StreamDecoder):
    def __init__(self, created: int) -> None:
        self.envelope = {"object": "chat.completion.chunk", "created": created}

    def chunk(self, delta: dict[str, str], finish: str | None = None) -> Chunk:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return Chunk({**self.envelope, "choices": [choice]})

    def feed(self, event: str, data: bytes) -> list[Chunk]:
        piece = json.loads(data)
        if event == "perch":
            self.envelope |= {"id": piece["id"], "model": piece["bird"]}
            return [self.chunk({"role": "assistant", "content": ""})]
        if event == "word":
            return [self.chunk({"content": piece["says"]})]
        if event == "squawk":
            raise failure(piece["code"], piece["text"], vendor="Parrot")
        if event != "hush":
            return []  # whatever Parrot may add
        self.done = True  # without it, the end of the stream is a truncation
        usage = Chunk({**self.envelope, "choices": [], "usage": usage_of(piece["heard"], piece["said"])})
        return [self.chunk({}, WHY.get(piece["why"], "stop")), usage]
