"""Spoil good requests in every way the bad-input paragraph names; driven by a Random, so that Hypothesis can shrink it."""

from __future__ import annotations

import json
from copy import deepcopy
from random import Random
from typing import Any

from tests.fakes.rawclient import request

SEEDS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}),
    ("/v1/chat/completions", {"model": "gpt-4o", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}]}], "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/chat/completions", {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}, {"role": "tool", "tool_call_id": "c1", "content": "r"}], "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}}], "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": False}),
    ("/v1/chat/completions", {"model": "gpt-4o", "messages": [{"role": "developer", "content": "d", "name": "n"}], "temperature": 0.5, "top_p": 1, "n": 1, "stop": ["a"], "max_tokens": 10, "max_completion_tokens": 10, "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {"50256": -100}, "user": "u", "seed": 1, "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}, "logprobs": True, "top_logprobs": 2, "metadata": {"a": "b"}, "store": False, "reasoning_effort": "low", "modalities": ["text"], "service_tier": "auto", "prediction": {"type": "content", "content": "p"}}),
    ("/v1/chat/completions", {"model": "gpt-4o", "messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, {"type": "file", "file": {"file_id": "f"}}]}], "functions": [{"name": "f"}], "function_call": "auto"}),
    ("/v1/embeddings", {"model": "gpt-4o", "input": ["a", "b"], "dimensions": 3, "encoding_format": "float"}),
    ("/v1/embeddings", {"model": "gpt-4o", "input": [[1, 2], [3]]}),
    ("/v1/completions", {"model": "gpt-4o", "prompt": "once", "max_tokens": 5, "stream": False, "suffix": "s", "logprobs": 1, "echo": False, "best_of": 1}),
]  # fmt: skip

_ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 0.1, -0.0, 1e308, 1e-320, "", "x", "null", "\x00", "\u2028", "é" * 10,
    "\U0001f3d4", "a" * 5000, [], {}, [[]], [{}], {"": ""}, {"a": {"b": {"c": 1}}}, ["a", 1, None], "__proto__", "${HOME}", "../../x",
]  # fmt: skip
#: Written into the text where a marker stood, for no JSON library writes them.
_RAW = [
    "NaN", "Infinity", "-Infinity", "1" * 5000, "-" + "9" * 4400, "1e999", "-1e999", "0x10", "01", "1.", ".5", "+1", "'a'", "undefined", "True",
    '"\\ud800"', '"\\udc00\\ud800"', '"\\x41"', '"\\u12"', '"a\tb"', '"a\nb"', '"unended', "[" * 100 + "]" * 100, "[" * 100_000, '{"a":' * 5000,
    '{"a":' * 70 + "1" + "}" * 70, "[" * 63 + "]" * 63, "//c\n1", "/*c*/1", "1,", "", ",", "{,}", "[1,]", '{"a":1,}', "{'a':1}", '"\\ud83c\\udfd4"',
]  # fmt: skip
_MARK = "@@MARK@@"


def places(node: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Append every container below ``node`` with each key that it holds to ``found``, and return it."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        found.append((node, key))
        places(value, found)
    return found


def spoiled_body(rng: Random) -> tuple[str, bytes]:
    """Return a path and a body that once was a good request for it."""
    path, seed = rng.choice(SEEDS)
    body = json.loads(json.dumps(seed))
    raw: str | None = None
    most = 2001
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = places(body, [])
        if not found:
            break
        holder, key = rng.choice(found)
        match rng.randrange(7):
            case 0 | 1:
                holder[key] = deepcopy(rng.choice(_ODD))
            case 2:
                del holder[key]
            case 3:
                holder[key] = _MARK
                raw = rng.choice(_RAW)
            case 4 if isinstance(holder, dict):
                name = rng.choice(("extra", "", "a" * 300, "model ", "Model", "\x00", "n", "api_base", "metadata"))
                holder[name] = deepcopy(rng.choice(_ODD))  # or later bodies would spoil the odd values themselves
            case 5:
                # Many, but not so large that the size alone is refused: thousands of thousands would be.
                times = rng.choice((1, 2, most)) if len(str(holder[key])) < 60 else 2
                most = 2 if times == most else most
                holder[key] = [holder[key]] * times
            case _:
                holder[key] = {"value": holder[key]}
    text = json.dumps(body, ensure_ascii=rng.random() < 0.5)
    if raw is not None:
        text = text.replace(f'"{_MARK}"', raw, 1).replace(f'"{_MARK}"', "0")
    match rng.randrange(12):
        case 0:
            text = text[: rng.randrange(len(text) + 1)]
        case 1:
            text = text.replace(":", ':1,"model":"other","messages":', 1)
        case 2:
            return path, text.encode(
                rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp1252", "utf-7")), "replace"
            )
        case 3:
            text += rng.choice(("}", "{}", "\x00", "\n\n", "garbage", " " * 1000))
        case 4:
            return path, bytes_spoiled(rng, text.encode("utf-8", "surrogatepass"), 1 + rng.randrange(4))
        case 5:
            text = (
                rng.choice(("[]", "null", "1", '"x"', "{}", "[{}]", "true", "", " ", "{" * 1000))
                if rng.random() < 0.3
                else text
            )
    return path, text.encode("utf-8", "surrogatepass")


def bytes_spoiled(rng: Random, data: bytes, times: int) -> bytes:
    """Return ``data`` with bytes changed, inserted, taken out, or doubled."""
    out = bytearray(data)
    for _ in range(times):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(5):
            case 0 if at < len(out):
                out[at] = rng.randrange(256)
            case 1:
                out[at:at] = bytes([rng.randrange(256)])
            case 2:
                del out[at : at + 1 + rng.randrange(8)]
            case 3:
                end = min(len(out), at + rng.randrange(30))
                out[at:at] = out[at:end]
            case _:
                out[at:at] = rng.choice(
                    (
                        b"\r\n",
                        b"\n",
                        b"\x00",
                        b"\xff",
                        b"\xed\xa0\x80",
                        b" ",
                        b"\t",
                        b":",
                        b"\r\n\r\n",
                        b"%00",
                        b"0\r\n\r\n",
                    )
                )
    return bytes(out)


_LINES = [
    b"Content-Length: 5", b"Content-Length: 99999", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Connection: close",
    b"Connection: upgrade", b"Upgrade: websocket", b"Upgrade: h2c", b"Expect: 100-continue", b"Expect: 200-ok", b"Host: other", b"Host:", b"X-A: \xff\xfe",
    b"X-A:" + b"a" * 17_000, b" folded: x", b"X-A : b", b":", b"X", b"TE: trailers", b"Content-Encoding: gzip", b"Content-Type: text/plain",
    b"Content-Length: -1", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", b"Proxy-Connection: keep-alive", b"Keep-Alive: timeout=1000000",
]  # fmt: skip


def spoiled_request(rng: Random, key: str) -> bytes:
    """Return bytes on the wire that once were a good request."""
    path, seed = rng.choice(SEEDS)
    if rng.random() < 0.2:
        path = rng.choice(
            (
                "/",
                "*",
                "http://x/v1/models",
                "//v1/models",
                "/v1/models",
                "/%",
                "/%zz",
                "/\xff",
                "/a" * 5000,
                "/healthz",
                "/metrics",
                "/v1/../x",
                "?",
                "#",
                "/v1/models?" + "a" * 9000,
            )
        )
    method = rng.choice(
        ("POST",) * 6 + ("GET", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH", "BREW", "post", "", "G\x00T")
    )
    data = request(path, seed, method=method, key=key)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    for _ in range(rng.randrange(3)):
        lines.insert(1 + rng.randrange(len(lines)), rng.choice(_LINES))
    if rng.random() < 0.3:
        lines.pop(rng.randrange(len(lines)))
    if rng.random() < 0.2:
        lines[0] = lines[0].replace(
            b"HTTP/1.1",
            rng.choice(
                (b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.10", b"http/1.1", b"", b"HTTP/1.1 ", b"RTSP/1.0")
            ),
        )
    if rng.random() < 0.2:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    data = b"\r\n".join(lines) + b"\r\n\r\n" + body
    if rng.random() < 0.5:
        data = bytes_spoiled(rng, data, 1 + rng.randrange(5))
    return data
