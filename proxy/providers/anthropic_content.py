"""Messages of an OpenAI chat as Anthropic content blocks.

Source: platform.claude.com/docs/en/api/messages.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any, Final

from proxy.errors import ApiError, bad
from proxy.providers.base import unsupported
from proxy.providers.common import NameMap, NameRule, clean_base64, parse_arguments, parse_data_url
from proxy.providers.conversation import ToolCall, ToolResult, Turn
from proxy.providers.gemini_signature import plain_id

VENDOR: Final = "Anthropic"
#: Stands for a user turn without any text: the vendor refuses empty ones.
PLACEHOLDER: Final = "(empty message)"
#: Names of tools and ids of calls.
NAMES: Final = NameRule(r"[a-zA-Z0-9_-]", r"[a-zA-Z0-9_-]", 128)
_IMAGES: Final = frozenset(("image/jpeg", "image/png", "image/gif", "image/webp"))
_EMAIL: Final = re.compile(r"\S+@\S+")
_PHONE: Final = re.compile(r"\+?[\d\s().\-/]{7,}")

Block = dict[str, Any]


def cache_mark(holder: dict[str, Any], block: Block) -> Block:
    """Copy a valid ``cache_control`` of ``holder`` to ``block``, ttl included."""
    mark = holder.get("cache_control")
    if isinstance(mark, dict) and mark.get("type") == "ephemeral":
        ttl = mark.get("ttl")
        block["cache_control"] = {"type": "ephemeral", "ttl": ttl} if ttl in ("5m", "1h") else {"type": "ephemeral"}
    return block


def opaque(user: str) -> str:
    """Return ``user`` as Anthropic's ``metadata.user_id`` may hold it.

    An e-mail address, a phone number, or what is too long becomes its SHA-256: the vendor asks for
    opaque ids only, and the same user must keep the same one.
    """
    if len(user) > 256 or _EMAIL.search(user) or _PHONE.fullmatch(user):
        return hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()
    return user


def call_ids(calls: list[ToolCall]) -> dict[str, str]:
    """Return the id to send for each call, by the call's place: valid, and given once in the conversation.

    In order of appearance alone, so that a conversation that grows keeps its ids.
    """
    ids: dict[str, str] = {}
    if not calls:
        return ids
    valid = NameMap(NAMES)
    times: dict[str, int] = {}
    for call in calls:
        id = plain_id(call.id)  # without the signature of a Gemini that it came from
        n = times[id] = times.get(id, 0) + 1
        ids[call.where] = valid(id if n == 1 else f"{id}\0{n}")
    return ids


def text_blocks(content: Any) -> list[Block]:
    """Return the text parts of ``content`` as blocks; blanks are left out, the vendor refuses them."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    blocks = []
    for part in content or ():
        text = part.get("text") if part["type"] == "text" else part.get("refusal")
        if isinstance(text, str) and text.strip():
            blocks.append(cache_mark(part, {"type": "text", "text": text}))
    return blocks


def user_blocks(turn: Turn, ids: dict[str, str]) -> list[Block]:
    """Return a user turn: tool results first, then text, images and documents in order.

    A system message in mid-conversation stays where it is, in ``<system>`` tags: appending to the
    conversation must not change the prefix that the vendor has cached.
    """
    blocks: list[Block] = []
    for result in turn.results:
        blocks.append(_result(result, ids))
    for index, message in turn.messages:
        content = message.get("content")
        user = message["role"] == "user"
        if user and type(content) is list:
            found = _parts(content, f"messages[{index}].content")
        else:
            found = text_blocks(content)
        if not user:
            for block in found:
                block["text"] = f"<system>\n{block['text']}\n</system>"
        if found and "cache_control" in message:
            cache_mark(message, found[-1])
        blocks += found
    return blocks or [{"type": "text", "text": PLACEHOLDER}]


def assistant_blocks(turn: Turn, names: NameMap, ids: dict[str, str], *, thinking: bool) -> list[Block]:
    """Return an assistant turn: per message the thinking blocks it echoes (verbatim), text, then calls.

    A thinking block that stood between two calls is marked by us with the number of calls before it and
    goes back to that place.
    """
    blocks: list[Block] = []
    calls = iter(turn.calls)
    for index, message in turn.messages:
        content = message.get("content")
        if isinstance(content, list):
            for n, part in enumerate(content):
                if part["type"] not in ("text", "refusal"):
                    where = f"messages[{index}].content[{n}]"
                    raise unsupported(where, VENDOR, "an assistant message holds text only")
        thoughts = _thoughts(message) if thinking else []
        blocks += [block for position, block in thoughts if position == 0]
        texts = text_blocks(content)
        if not texts and isinstance(message.get("refusal"), str):
            texts = text_blocks(message["refusal"])
        blocks += texts
        number = len(message.get("tool_calls") or ()) + (message.get("function_call") is not None)
        for n in range(number):
            blocks += [block for position, block in thoughts if position and position == n]
            blocks.append(_call(next(calls), names, ids))
        blocks += [block for position, block in thoughts if position and position >= number]
        if blocks and blocks[-1]["type"] in ("text", "tool_use"):
            cache_mark(message, blocks[-1])
    return blocks


def echoed_thoughts(message: dict[str, Any]) -> list[Block]:
    """Return the thinking blocks of ours that an assistant message brings back; others' are not signed."""
    blocks = message.get("thinking_blocks")
    return [
        block
        for block in (blocks if isinstance(blocks, list) else ())
        if isinstance(block, dict)
        and (
            (block.get("type") == "thinking" and isinstance(block.get("signature"), str) and block["signature"])
            or (block.get("type") == "redacted_thinking" and isinstance(block.get("data"), str))
        )
    ]


def _thoughts(message: dict[str, Any]) -> list[tuple[int, Block]]:
    found = []
    for block in echoed_thoughts(message):
        position = block.get("x_llm_after_calls")
        verbatim = {name: value for name, value in block.items() if name != "x_llm_after_calls"}
        found.append((position if type(position) is int and position > 0 else 0, verbatim))
    return found


def _call(call: ToolCall, names: NameMap, ids: dict[str, str]) -> Block:
    block = {
        "type": "tool_use",
        "id": ids[call.where],
        "name": names(call.name),
        "input": parse_arguments(call.arguments, call.where),
    }
    return cache_mark(call.call, block)


def _result(result: ToolResult, ids: dict[str, str]) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": ids[result.call.where]}
    content = result.message.get("content")
    if isinstance(content, list):
        if parts := _parts(content, f"messages[{result.position}].content"):
            block["content"] = parts
    elif isinstance(content, str) and content.strip():
        block["content"] = content
    return cache_mark(result.message, block)


def _parts(content: list[dict[str, Any]], where: str) -> list[Block]:
    blocks: list[Block] = []
    for n, part in enumerate(content):
        kind = part["type"]
        if kind in ("text", "refusal"):
            blocks += text_blocks([part])
        elif kind == "image_url":
            blocks.append(cache_mark(part, _image(part["image_url"]["url"], f"{where}[{n}].image_url.url")))
        elif kind == "file":
            blocks.append(cache_mark(part, _file(part["file"], f"{where}[{n}].file")))
        elif kind == "input_audio":
            raise unsupported(f"{where}[{n}].input_audio", VENDOR, "send a transcript")
        else:
            raise unsupported(f"{where}[{n}].type", VENDOR, "send text, image_url or file parts")
    return blocks


def _image(url: str, where: str) -> Block:
    data = parse_data_url(url, where)
    if data is None:
        if url[:8].lower() == "https://" or url[:7].lower() == "http://":
            return {"type": "image", "source": {"type": "url", "url": url}}
        raise ApiError(
            "unsupported_image_url", f"`{where}` must be an http(s) or a data: URL for {VENDOR}.", param=where
        )
    return _inline_image(*data, where)


def _inline_image(media_type: str, data: str, where: str) -> Block:
    media_type = "image/jpeg" if media_type == "image/jpg" else media_type
    if media_type not in _IMAGES:
        raise ApiError(
            "unsupported_image_url",
            f"{VENDOR} takes JPEG, PNG, GIF and WebP images; `{where}` is {media_type}.",
            param=where,
        )
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _file(file: dict[str, Any], where: str) -> Block:
    data, name = file.get("file_data"), file.get("filename")
    if not data:
        raise unsupported(f"{where}.file_id", VENDOR, "send the file itself as `file_data`")
    media_type, encoded = parse_data_url(data, f"{where}.file_data") or _bare(data, name, f"{where}.file_data")
    if media_type.startswith("image/"):
        return _inline_image(media_type, encoded, f"{where}.file_data")
    if media_type == "application/pdf":
        source = {"type": "base64", "media_type": media_type, "data": encoded}
    elif media_type.startswith("text/"):
        try:
            text = base64.b64decode(encoded).decode()
        except UnicodeDecodeError:
            bad(f"`{where}.file_data` must be UTF-8 text.", f"{where}.file_data")
        source = {"type": "text", "media_type": "text/plain", "data": text}
    else:
        raise unsupported(f"{where}.file_data", VENDOR, "send a PDF, plain text or an image")
    block: Block = {"type": "document", "source": source}
    if name:
        block["title"] = name[:500]
    return block


def _bare(data: str, name: str | None, where: str) -> tuple[str, str]:
    """Return media type and base64 of file data without a data URL around it; the name tells the type."""
    if name and name.lower().endswith((".txt", ".md", ".csv")):
        return "text/plain", clean_base64(data, where)
    return "application/pdf", clean_base64(data, where)
