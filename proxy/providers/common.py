"""Small pure pieces that every translator away from OpenAI's shape needs."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import urllib.parse
from collections.abc import Iterable
from json import dumps as json_dumps
from json import loads as json_loads
from typing import Any, Final, NamedTuple

import orjson

from proxy.errors import bad
from proxy.request import MAX_DEPTH

_URL_SAFE: Final = str.maketrans("-_", "+/")
_SPACE: Final = re.compile(r"\s+")
#: Integers above 64 bits have at least this many digits; orjson would turn them into floats.
_BIG_INTEGER: Final = re.compile(r"\d{18}")


def dumps(value: Any) -> bytes:
    """Return ``value`` as compact UTF-8 JSON; integers of any size keep all their digits."""
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer above 64 bits
        return json_dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def new_id(prefix: str, *parts: object) -> str:
    """Return an id that is a function of ``parts`` alone: ``prefix`` and 24 hexadecimal digits."""
    text = "\x1f".join(map(str, parts))
    return prefix + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


# --- text ---------------------------------------------------------------------------------------------


def text_of(content: Any) -> str:
    """Return the text of a message's ``content``: string, array of parts or null; other parts are skipped."""
    if isinstance(content, str):
        return content
    return "".join(
        part.get("text") or part.get("refusal") or "" for part in content or () if part["type"] in ("text", "refusal")
    )


def parse_data_url(url: str, where: str = "") -> tuple[str, str] | None:
    """Return media type (lower case, without parameters) and standard base64 of a ``data:`` URL (RFC 2397).

    None where ``url`` has another scheme. Takes upper case, extra parameters, URL-safe base64, missing
    padding, white space and percent-encoded data.

    Raises:
        ApiError: ``invalid_request`` with ``where`` as its param, for data that is no base64.
    """
    if url[:5].lower() != "data:":
        return None
    head, comma, data = url[5:].partition(",")
    if not comma:
        bad(f"`{where}` is not a complete data URL; write data:image/png;base64,….", where or None)
    media_type, *parameters = [part.strip() for part in head.split(";")]
    if not any(parameter.lower() == "base64" for parameter in parameters):
        return media_type.lower() or "text/plain", base64.b64encode(urllib.parse.unquote_to_bytes(data)).decode()
    return media_type.lower() or "text/plain", clean_base64(data, where)


def clean_base64(data: str, where: str = "") -> str:
    """Return ``data`` as standard base64 with padding; raise ``invalid_request`` where it is none."""
    if "%" in data:
        data = urllib.parse.unquote(data)
    data = _SPACE.sub("", data).translate(_URL_SAFE).rstrip("=")
    data += "=" * (-len(data) % 4)
    try:
        binascii.a2b_base64(data.encode("ascii"), strict_mode=True)
    except ValueError:  # binascii.Error and UnicodeEncodeError alike
        bad(f"`{where}` does not hold valid base64 data.", where or None)
    return data


# --- tool arguments and names -------------------------------------------------------------------------


def parse_arguments(text: str | None, where: str) -> dict[str, Any]:
    """Return a tool call's arguments as an object; nothing, blanks and ``null`` count as ``{}``.

    Integers of any size, key order and unicode survive. ``where`` names the field in the error.

    Raises:
        ApiError: ``invalid_request`` for text that is no JSON, no object, or too deep.
    """
    if not text or not text.strip():
        return {}
    try:
        value = orjson.loads(text)
        if _BIG_INTEGER.search(text):
            value = json_loads(text)
    except (ValueError, RecursionError):
        bad(f"`{where}` must be a string that holds one valid JSON object.", where)
    if value is None:
        return {}
    if type(value) is not dict:
        bad(f"`{where}` must hold a JSON object, not a {_JSON_NAMES.get(type(value), 'value')}.", where)
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        bad(f"`{where}` is nested deeper than {MAX_DEPTH} levels; flatten it.", where)
    arguments: dict[str, Any] = value
    return arguments


_JSON_NAMES: Final = {str: "string", list: "list", int: "number", float: "number", bool: "boolean"}


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is dict or type(child) is list
        ]
    return depth


class NameRule:
    """The names that a vendor takes: ``allowed`` matches one character, ``first`` one that may stand at the start."""

    __slots__ = ("_allowed", "_first", "_valid", "limit")

    def __init__(self, allowed: str, first: str, limit: int) -> None:
        self._allowed = re.compile(allowed)
        self._first = re.compile(first)
        self._valid = re.compile(f"(?:{first})(?:{allowed}){{0,{limit - 1}}}")
        self.limit = limit
        """Characters."""

    def clean(self, name: str) -> str:
        """Return ``name`` where it is valid, else a valid name close to it."""
        if self._valid.fullmatch(name):
            return name
        name = "".join(c if self._allowed.match(c) else "_" for c in name) or "_"
        if not self._first.match(name):
            name = "_" + name
        return name[: self.limit]


class NameMap:
    """A bijection from the caller's names to names that keep to ``rule``.

    Names that are valid already keep themselves if they are reserved or come first; another name
    that would become the same gets a numbered suffix. The result depends on the order of first appearance
    only, so a conversation that grows keeps its names.
    """

    __slots__ = ("_restore", "_rule", "_sent")

    def __init__(self, rule: NameRule) -> None:
        self._rule = rule
        self._sent: dict[str, str] = {}
        self._restore: dict[str, str] = {}

    def reserve(self, names: Iterable[str]) -> None:
        """Let those of ``names`` that are valid keep themselves, whatever comes first."""
        for name in names:
            if name not in self._sent and self._rule.clean(name) == name:
                self._sent[name] = name
                self._restore[name] = name

    def __call__(self, name: str) -> str:
        """Return what is sent in place of ``name``."""
        sent = self._sent.get(name)
        if sent is None:
            sent = base = self._rule.clean(name)
            n = 1
            while sent in self._restore:
                n += 1
                suffix = f"_{n}"
                sent = base[: self._rule.limit - len(suffix)] + suffix
            self._sent[name] = sent
            self._restore[sent] = name
        return sent

    @property
    def changed(self) -> dict[str, str]:
        """Return the vendor's name to the caller's, of those that differ."""
        restore = self._restore
        return {sent: name for sent, name in restore.items() if sent != name} if restore else restore


# --- tools --------------------------------------------------------------------------------------------


class FunctionTool(NamedTuple):
    """One function that the model may call. ``tool`` is the entry as the caller wrote it."""

    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool
    tool: dict[str, Any]
    where: str


def function_tools(body: dict[str, Any]) -> tuple[list[FunctionTool], list[str]]:
    """Return the functions of ``tools`` (or legacy ``functions``), and where tools of other types stand.

    Raises:
        ApiError: ``invalid_request`` where a name is given twice.
    """
    entries = [
        (tool, tool.get("function"), f"tools[{i}]", f"tools[{i}].function.name")
        for i, tool in enumerate(body.get("tools") or ())
    ]
    entries += [(f, f, f"functions[{i}]", f"functions[{i}].name") for i, f in enumerate(body.get("functions") or ())]
    found: list[FunctionTool] = []
    others: list[str] = []
    seen: set[str] = set()
    for tool, function, where, param in entries:
        if tool is not function and tool["type"] != "function":
            others.append(where)
            continue
        name = function["name"]
        if name in seen:
            bad(f"Tool names must be unique; `{name}` is given twice.", param)
        seen.add(name)
        parameters = function.get("parameters")
        found.append(
            FunctionTool(
                name,
                function.get("description"),
                parameters if isinstance(parameters, dict) else None,
                function.get("strict") is True,
                tool,
                where,
            )
        )
    return found, others


class ToolChoice(NamedTuple):
    """What the caller allows: ``mode`` is empty (not said), auto, none, required or function.

    ``names``: the one function of mode ``function``, or the subset that ``allowed_tools`` names.
    """

    mode: str
    names: tuple[str, ...] = ()


def tool_choice(body: dict[str, Any]) -> ToolChoice:
    """Return ``tool_choice`` (or legacy ``function_call``) in one form.

    Raises:
        ApiError: ``invalid_request`` for a form that the API does not have.
    """
    choice = body.get("tool_choice")
    if choice is None and (legacy := body.get("function_call")) is not None:
        choice = {"type": "function", "function": legacy} if isinstance(legacy, dict) else legacy
    if choice is None:
        return ToolChoice("")
    if not isinstance(choice, dict):
        if choice not in ("auto", "none", "required"):
            bad("`function_call` must be none, auto or an object that names a function.", "function_call")
        return ToolChoice(choice)
    kind = choice.get("type")
    inner = choice.get(kind) if isinstance(kind, str) else None
    if kind == "function" and isinstance(inner, dict) and isinstance(inner.get("name"), str):
        return ToolChoice("function", (inner["name"],))
    if kind == "allowed_tools":
        inner = inner if isinstance(inner, dict) else choice
        tools, mode = inner.get("tools"), inner.get("mode", "auto")
        if mode in ("auto", "required") and isinstance(tools, list):
            return ToolChoice(mode, tuple(name for tool in tools if (name := _allowed_name(tool))))
    bad("`tool_choice` must be none, auto, required, a function's name or allowed_tools.", "tool_choice")


def _allowed_name(tool: Any) -> str | None:
    if not isinstance(tool, dict):
        return None
    inner = tool.get("function")
    name = (inner if isinstance(inner, dict) else tool).get("name")
    return name if isinstance(name, str) else None


def allowed(tools: list[FunctionTool], choice: ToolChoice) -> list[FunctionTool]:
    """Return the tools that ``choice`` leaves: the named ones of ``allowed_tools`` if it names any we know.

    Raises:
        ApiError: ``invalid_request`` where a forced function is not among ``tools``.
    """
    if choice.mode == "function":
        if tools and all(tool.name != choice.names[0] for tool in tools):
            bad(f"`tool_choice` names `{choice.names[0]}`, which is not among `tools`.", "tool_choice")
        return tools
    return [tool for tool in tools if tool.name in choice.names] or tools


# --- replies ------------------------------------------------------------------------------------------


def plain(raw: bytes) -> str | None:
    """Return the text that ``raw`` means inside a JSON string, None where it may not be just what it looks like."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return text if text and '"' not in text and "\\" not in text and text.isprintable() else None


def around(envelope: dict[str, Any], index: int, *, usage: bool) -> tuple[bytes, bytes]:
    """Return the bytes before and behind the text, a JSON string, of the event by which choice ``index`` says only that.

    ``envelope`` holds the chunk's fields besides ``choices``; ``usage``: the client wants that field, null, too.
    """
    before = b'data: %b,"choices":[{"index":%d,"delta":{"content":' % (orjson.dumps(envelope)[:-1], index)
    return before, b'},"logprobs":null,"finish_reason":null}]%b}\n\n' % (b',"usage":null' if usage else b"")


def usage_of(
    prompt: int, completion: int, *, cached: int | None = None, cache_write: int | None = None,
    reasoning: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return OpenAI's ``usage``: ``cached`` and ``cache_write`` are parts of ``prompt``, ``reasoning`` of ``completion``."""
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if cached is not None or cache_write is not None:
        details = usage["prompt_tokens_details"] = {"cached_tokens": cached or 0}
        if cache_write is not None:
            details["cache_write_tokens"] = cache_write
    if reasoning is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


def count(value: Any) -> int:
    """Return a token count as a provider claims it: an integer that is not negative, else 0."""
    return value if type(value) is int and value > 0 else 0
