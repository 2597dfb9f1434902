"""A chat's messages as turns: leading system text, then user and assistant in alternation.

Both Anthropic and Gemini want that shape. Nothing is hoisted, dropped or joined here: appending a
message never changes the turns before it, so that upstream prompt caches survive.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from proxy.errors import bad
from proxy.providers.common import dumps

Message = dict[str, Any]


class ToolCall(NamedTuple):
    """A call in the history: its id, function name, arguments (JSON text) and place in the request."""

    id: str
    name: str
    arguments: str | None
    where: str
    call: dict[str, Any]


class ToolResult(NamedTuple):
    """A tool's answer, the call it belongs to, and its message's position in the request."""

    call: ToolCall
    message: Message
    position: int


class Turn:
    """One turn. ``messages`` are (index, message) in order, without tool results.

    ``results`` answer the calls of the assistant turn before, in the order of the calls; they come
    before ``messages``. ``calls`` are those of an assistant turn, in order.
    """

    __slots__ = ("calls", "messages", "results", "role")

    def __init__(self, role: str) -> None:
        self.role = role
        self.messages: list[tuple[int, Message]] = []
        self.results: list[ToolResult] = []
        self.calls: list[ToolCall] = []


class Conversation:
    """A chat in turns."""

    __slots__ = ("calls", "system", "turns")

    def __init__(self) -> None:
        self.system: list[Message] = []
        """The leading system and developer messages."""
        self.turns: list[Turn] = []
        """The rest."""
        self.calls: list[ToolCall] = []
        """Every call in ``turns``, in order."""


def conversation(messages: list[Message]) -> Conversation:
    """Return ``messages`` as turns; a later system message stays in its place, inside a user turn.

    Tool results are put in the order of their calls. One result with an unknown id answers the one call
    that has no result.

    Raises:
        ApiError: ``invalid_request``, param ``messages[i]``, for a call without a result, a result
            without a call, or an id given twice.
    """
    talk = Conversation()
    turns = talk.turns
    turn: Turn | None = None
    answers: list[tuple[int, Message]] = []
    for index, message in enumerate(messages):
        role = message["role"]
        if role == "assistant":
            if turn is None or turn.role != "assistant":
                if answers or talk.calls:
                    _answer(turns, answers)
                turns.append(turn := Turn("assistant"))
            if "tool_calls" in message or "function_call" in message:
                calls = tool_calls(message, index)
                turn.calls += calls
                talk.calls += calls
        elif turn is None and (role == "system" or role == "developer"):
            talk.system.append(message)
            continue
        else:
            if turn is None or turn.role == "assistant":
                turns.append(turn := Turn("user"))
            if role == "tool" or role == "function":
                answers.append((index, message))
                continue
        turn.messages.append((index, message))
    if answers or talk.calls:
        _answer(turns, answers)
    if turn is not None and turn.calls:
        _missing(turn.calls[0])
    return talk


def tool_calls(message: Message, index: int) -> list[ToolCall]:
    """Return an assistant message's calls: functions, custom tools (input as ``{"input": …}``) and the legacy form."""
    calls: list[ToolCall] = []
    for n, call in enumerate(message.get("tool_calls") or ()):
        where = f"messages[{index}].tool_calls[{n}]"
        if call.get("type") == "custom":
            custom = call["custom"]
            text = dumps({"input": custom["input"]}).decode()
            calls.append(ToolCall(call["id"], custom["name"], text, f"{where}.custom.input", call))
        else:
            function = call["function"]
            place = f"{where}.function.arguments"
            calls.append(ToolCall(call["id"], function["name"], function.get("arguments"), place, call))
    legacy = message.get("function_call")
    if legacy is not None:
        place = f"messages[{index}].function_call.arguments"
        calls.append(ToolCall(f"call_{index}", legacy["name"], legacy.get("arguments"), place, legacy))
    return calls


def _answer(turns: list[Turn], answers: list[tuple[int, Message]]) -> None:
    """Pair the results gathered in the last user turn with the calls before it; empties ``answers``."""
    calls = turns[-2].calls if len(turns) > 1 and turns[-1].role == "user" else []
    if not answers and not calls:
        return
    by_id = {call.id: call for call in calls}
    if len(by_id) < len(calls):
        twice = next(call for n, call in enumerate(calls) if call.id in {other.id for other in calls[:n]})
        bad(f"The tool call id `{twice.id}` is used twice; give each call its own.", twice.where.partition(".")[0])
    found: dict[str, ToolResult] = {}
    strangers: list[tuple[int, Message]] = []
    for index, message in answers:
        call = by_id.get(message.get("tool_call_id") or "")
        if call is None and message["role"] == "function":
            open_calls = [c for c in calls if c.name == message.get("name") and c.id not in found]
            call = open_calls[0] if open_calls else None
        if call is None:
            strangers.append((index, message))
        elif call.id in found:
            bad(f"`messages[{index}]` answers the tool call `{call.id}` a second time.", f"messages[{index}]")
        else:
            found[call.id] = ToolResult(call, message, index)
    missing = [call for call in calls if call.id not in found]
    if len(strangers) == 1 and len(missing) == 1:
        index, message = strangers[0]
        found[missing[0].id] = ToolResult(missing[0], message, index)
    elif strangers:
        place = f"messages[{strangers[0][0]}]"
        bad(f"`{place}` answers no tool call of the assistant message before it; check its `tool_call_id`.", place)
    elif missing:
        _missing(missing[0])
    turns[-1].results = [found[call.id] for call in calls]
    answers.clear()


def _missing(call: ToolCall) -> None:
    place = call.where.partition(".")[0]
    bad(f"The tool call `{call.id}` in `{place}` has no result; add a `tool` message that answers it.", place)


def add_turn(turns: list[dict[str, Any]], role: str, field: str, parts: list[Any]) -> None:
    """Add ``{"role": role, field: parts}`` to ``turns``: nothing if ``parts`` is empty, neighbours of one role joined."""
    if not parts:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1][field] += parts
    else:
        turns.append({"role": role, field: parts})
