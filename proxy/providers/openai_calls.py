"""Tool calls of OpenAI-compatible servers as OpenAI itself sends them.

What is found in the wild: no index, one index for several calls, ids missing, null, empty or said again with
every piece, a null name, arguments as an object. OpenAI's own calls are left exactly as they are.
"""

from __future__ import annotations

from typing import Any

from proxy.chunk import Chunk
from proxy.providers.common import dumps, new_id

Call = dict[str, Any]


def mend_calls(chunk: Chunk, message: dict[str, Any], reply: str, choice: int) -> None:
    """Bring the calls of a whole message into OpenAI's types; ``reply`` and ``choice`` make ids where none came."""
    calls = message["tool_calls"]
    if type(calls) is not list or not calls:
        del message["tool_calls"]  # an empty array is refused when a client sends it back
        chunk.touch()
        return
    if not all(type(call) is dict for call in calls):
        calls = message["tool_calls"] = [call for call in calls if type(call) is dict]
        chunk.touch()
    for n, call in enumerate(calls):
        if _begin(call, reply, choice, n, nothing="{}"):
            chunk.touch()


class CallPieces:
    """The tool calls of one stream so far: which piece belongs to which call, counted from 0 in each choice."""

    __slots__ = ("_at", "_known")

    def __init__(self) -> None:
        self._known: dict[int, list[Call]] = {}
        """By choice: each call's id and name."""
        self._at: dict[tuple[int, int], int] = {}
        """By choice and the upstream's index: the call that its pieces belong to now."""

    def any(self, choice: int) -> bool:
        """Tell whether ``choice`` called a tool."""
        return choice in self._known

    def mend(self, chunk: Chunk, delta: dict[str, Any], reply: str, choice: int) -> None:
        """Bring a delta's calls into OpenAI's types: id, type and name with the first piece of each call only."""
        calls = delta["tool_calls"]
        if type(calls) is not list:
            del delta["tool_calls"]
            chunk.touch()
            return
        if not all(type(call) is dict for call in calls):
            calls = delta["tool_calls"] = [call for call in calls if type(call) is dict]
            chunk.touch()
        for call in calls:
            if self._piece(call, reply, choice):
                chunk.touch()

    def _piece(self, call: Call, reply: str, choice: int) -> bool:
        given, id = call.get("index"), call.get("id")
        inner = call.get("function") or call.get("custom")
        name = inner.get("name") if type(inner) is dict else None
        known = self._known.setdefault(choice, [])
        if type(given) is int:
            index = self._at.get((choice, given), -1)
            # A second call under the same index: one that finished is never given another id and name.
            fresh = index < 0 or bool(id and name and id != known[index]["id"])
        else:
            fresh = not known or bool(name and (not id or id != known[-1]["id"]))
            index = len(known) - 1
        if fresh:
            index = len(known)
            changed = _begin(call, reply, choice, index, nothing="")
            inner = call.get("function") or call.get("custom") or {}
            known.append({"id": call["id"], "name": inner.get("name")})
        else:
            changed = _continue(call, known[index])
        if type(given) is int:
            self._at[choice, given] = index
        if given != index or type(given) is not int:
            call["index"] = index
            changed = True
        return changed


def _begin(call: Call, reply: str, choice: int, index: int, *, nothing: str) -> bool:
    changed = False
    id = call.get("id")
    if type(id) is not str or not id:
        call["id"] = new_id("call_", reply, choice, index) if id in (None, "") else str(id)
        changed = True
    custom = call.get("type") == "custom" and type(call.get("custom")) is dict
    if custom:
        return changed
    if call.get("type") != "function":
        call["type"] = "function"
        changed = True
    function = call.get("function")
    if type(function) is not dict:
        function = call["function"] = {}
        changed = True
    if type(function.get("name")) is not str:
        function["name"] = ""
        changed = True
    arguments = function.get("arguments")
    if type(arguments) is not str or (not arguments and nothing):
        function["arguments"] = dumps(arguments).decode() if arguments else nothing
        changed = True
    return changed


def _continue(call: Call, known: Call) -> bool:
    changed = False
    for name in ("id", "type"):
        if name in call:
            del call[name]  # clients join the strings of all pieces
            changed = True
    if "function" not in call:
        return changed
    function = call["function"]
    if type(function) is not dict:
        del call["function"]
        return True
    if "name" in function:
        name = function["name"]
        if type(name) is not str or not name or name == known["name"]:
            del function["name"]
            changed = True
        else:
            known["name"] += name  # the name itself comes in pieces
    if "arguments" in function and type(function["arguments"]) is not str:
        arguments = function.pop("arguments")
        if arguments is not None:
            function["arguments"] = dumps(arguments).decode()
        changed = True
    return changed
