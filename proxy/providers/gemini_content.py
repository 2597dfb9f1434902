"""Messages of an OpenAI chat as Gemini contents.

Source: https://ai.google.dev/api/caching#Content, https://ai.google.dev/gemini-api/docs/function-calling.
"""

from __future__ import annotations

import re
from json import loads as json_loads
from typing import Any, Final

import orjson

from proxy.errors import ApiError
from proxy.providers.base import unsupported
from proxy.providers.common import (
    _BIG_INTEGER,
    NameMap,
    _depth,
    clean_base64,
    parse_arguments,
    parse_data_url,
    text_of,
)
from proxy.providers.conversation import Conversation, ToolResult, Turn, add_turn
from proxy.providers.gemini_models import Capabilities
from proxy.providers.gemini_signature import SKIP, signature_in, split_signature
from proxy.request import MAX_DEPTH

VENDOR: Final = "Gemini"
#: Stands for a user turn without any text: the vendor refuses empty parts and empty contents.
PLACEHOLDER: Final = "(empty message)"
_FILES: Final = "https://generativelanguage.googleapis.com/"
_YOUTUBE: Final = re.compile(r"https://(?:(?:www|m)\.)?(?:youtube\.com|youtu\.be)/", re.IGNORECASE)
_BY_SUFFIX: Final = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif",
    "bmp": "image/bmp", "heic": "image/heic", "heif": "image/heif", "pdf": "application/pdf", "txt": "text/plain",
    "md": "text/plain", "csv": "text/csv", "html": "text/html", "json": "application/json", "xml": "text/xml",
    "mp3": "audio/mp3", "wav": "audio/wav", "mp4": "video/mp4", "webm": "video/webm",
}  # fmt: skip
_SUFFIX: Final = re.compile(r"\.([A-Za-z0-9]{2,5})(?:[?#]|$)")

Part = dict[str, Any]


class Encoding:
    """What one request's messages are written with."""

    __slots__ = ("facts", "ids", "names")

    def __init__(self, names: NameMap, facts: Capabilities, *, ids: bool) -> None:
        self.names = names
        self.facts = facts
        self.ids = ids
        """Send the ids of function calls; Vertex refuses them."""

    def contents(self, conversation: Conversation) -> list[Part]:
        """Return the turns as contents that alternate, begin with a user's and are never empty."""
        contents: list[dict[str, Any]] = []
        for turn in conversation.turns:
            if turn.role == "user":
                add_turn(contents, "user", "parts", self._user(turn))
            else:
                add_turn(contents, "model", "parts", self._model(turn))
        if contents and contents[0]["role"] == "model" and conversation.turns[0].calls:
            # "a function call turn comes immediately after a user turn or after a function response turn"
            contents.insert(0, {"role": "user", "parts": [{"text": PLACEHOLDER}]})
        return contents

    def _user(self, turn: Turn) -> list[Part]:
        parts: list[Part] = []
        for result in turn.results:
            parts.append(self._result(result))
        for index, message in turn.messages:
            content = message.get("content")
            if message["role"] != "user":
                # A system message in mid-conversation stays in its place: the prefix may be cached upstream.
                parts += [{"text": f"<system>\n{text['text']}\n</system>"} for text in text_parts(content)]
            elif isinstance(content, list):
                for n, part in enumerate(content):
                    parts += self._part(part, f"messages[{index}].content[{n}]")
            else:
                parts += text_parts(content)
        return parts or [{"text": PLACEHOLDER}]

    def _model(self, turn: Turn) -> list[Part]:
        parts: list[Part] = []
        calls = iter(turn.calls)
        for index, message in turn.messages:
            content = message.get("content")
            texts: list[Part] = []
            if isinstance(content, list):
                for n, part in enumerate(content):
                    texts += self._part(part, f"messages[{index}].content[{n}]")
            else:
                texts = text_parts(content)
            if not texts and isinstance(message.get("refusal"), str):
                texts = text_parts(message["refusal"])
            if texts and (signature := signature_in(message)):
                texts[-1]["thoughtSignature"] = signature
            parts += texts
            for n in range(len(message.get("tool_calls") or ()) + (message.get("function_call") is not None)):
                call = next(calls)
                id, signature = split_signature(call.id)
                function: Part = {
                    "name": self.names(call.name),
                    "args": parse_arguments(call.arguments, call.where),
                }
                if self.ids and id:
                    function["id"] = id
                part = {"functionCall": function}
                signature = signature_in(call.call) or signature
                if not signature and n == 0 and self.facts.signed:
                    signature = SKIP
                if signature:
                    part["thoughtSignature"] = signature
                parts.append(part)
        return parts

    def _result(self, result: ToolResult) -> Part:
        content = result.message.get("content")
        function: Part = {"name": self.names(result.call.name), "response": _response(text_of(content))}
        if self.ids and (id := split_signature(result.call.id)[0]):
            function["id"] = id
        if isinstance(content, list):
            media: list[Part] = []
            for n, part in enumerate(content):
                if part["type"] not in ("text", "refusal"):
                    where = f"messages[{result.position}].content[{n}]"
                    if not self.facts.media_results:
                        raise unsupported(where, f"{VENDOR} before version 3", "send it in a user message")
                    media += self._part(part, where)
            if media:
                function["parts"] = media
        return {"functionResponse": function}

    def _part(self, part: dict[str, Any], where: str) -> list[Part]:
        kind = part["type"]
        if kind in ("text", "refusal"):
            return text_parts([part])
        if kind == "image_url":
            return [self._url(part["image_url"]["url"], f"{where}.image_url.url")]
        if kind == "input_audio":
            audio = part["input_audio"]
            data = clean_base64(audio["data"], f"{where}.input_audio.data")
            return [{"inlineData": {"mimeType": f"audio/{audio['format'].lower()}", "data": data}}]
        if kind == "file":
            return [self._file(part["file"], f"{where}.file")]
        raise unsupported(f"{where}.type", VENDOR, "send text, image_url, input_audio or file parts")

    def _url(self, url: str, where: str) -> Part:
        """Return an image by its URL: its data inline, or the URL where the vendor fetches it itself."""
        inline = parse_data_url(url, where)
        if inline is not None:
            return {"inlineData": {"mimeType": inline[0], "data": inline[1]}}
        video = _YOUTUBE.match(url) is not None
        if url.startswith(_FILES) or video or (self.facts.fetches and url[:8].lower() == "https://"):
            file: Part = {"fileUri": url}
            suffix = _SUFFIX.search(url)
            media_type = "video/mp4" if video else _BY_SUFFIX.get(suffix[1].lower()) if suffix else None
            if media_type:
                file["mimeType"] = media_type
            return {"fileData": file}
        raise ApiError(
            "unsupported_image_url",
            f"{VENDOR} cannot take the URL in `{where}`; send the image as a data: URL.",
            param=where,
        )

    def _file(self, file: dict[str, Any], where: str) -> Part:
        data = file.get("file_data")
        if not data:
            id = file.get("file_id")
            if isinstance(id, str) and id.startswith(_FILES):
                return {"fileData": {"fileUri": id}}
            raise unsupported(f"{where}.file_id", VENDOR, "send the file itself as `file_data`")
        if data[:8].lower() == "https://" or data[:7].lower() == "http://":
            return self._url(data, f"{where}.file_data")
        inline = parse_data_url(data, f"{where}.file_data")
        if inline is None:
            suffix = (file.get("filename") or "").rpartition(".")[2].lower()
            inline = _BY_SUFFIX.get(suffix, "application/pdf"), clean_base64(data, f"{where}.file_data")
        return {"inlineData": {"mimeType": inline[0], "data": inline[1]}}


def text_parts(content: Any) -> list[Part]:
    """Return the text of a message's ``content``, part by part; blanks are left out, the vendor refuses them."""
    if isinstance(content, str):
        return [{"text": content}] if content.strip() else []
    parts: list[Part] = []
    for part in content or ():
        text = part.get("text") if part["type"] == "text" else part.get("refusal")
        if isinstance(text, str) and text.strip():
            parts.append({"text": text})
    return parts


def _response(text: str) -> dict[str, Any]:
    """Return a tool's answer as the object that a functionResponse holds: JSON objects as they are, else text.

    The vendor resolves ``$ref`` in there, so text that has one stays text.
    """
    if text.lstrip()[:1] == "{" and "$ref" not in text and "$defs" not in text:
        try:
            value = orjson.loads(text)
            if _BIG_INTEGER.search(text):
                value = json_loads(text)
        except (ValueError, RecursionError):
            return {"result": text}
        if type(value) is dict and (text.count("{") + text.count("[") <= MAX_DEPTH or _depth(value) <= MAX_DEPTH):
            return value
    return {"result": text}
