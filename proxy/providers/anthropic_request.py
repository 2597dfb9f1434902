"""An OpenAI chat request as a Messages request.

Source: platform.claude.com/docs/en/api/messages; what a model takes is in
:mod:`proxy.providers.anthropic_models`.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.errors import ApiError, bad
from proxy.providers.anthropic_content import (
    PLACEHOLDER,
    VENDOR,
    Block,
    assistant_blocks,
    cache_mark,
    call_ids,
    opaque,
    text_blocks,
    user_blocks,
)
from proxy.providers.anthropic_models import Capabilities, capabilities
from proxy.providers.anthropic_thinking import thinking
from proxy.providers.anthropic_tools import tool_names, tools
from proxy.providers.base import Target, drop_or_refuse
from proxy.providers.common import NameMap, dumps
from proxy.providers.conversation import Conversation, add_turn, conversation
from proxy.request import ApiRequest
from proxy.upstream.base import UpstreamRequest

#: Fields that change nothing in the answer, or that are translated below.
_KNOWN: Final = frozenset(
    ("function_call", "functions", "max_completion_tokens", "max_tokens", "messages", "metadata", "model", "n",
     "parallel_tool_calls", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort",
     "response_format", "safety_identifier", "service_tier", "stop", "stream", "stream_options", "temperature",
     "template", "thinking", "tool_choice", "tools", "top_k", "top_p", "user", "variables")
)  # fmt: skip
#: Values that ask for what the vendor does anyhow.
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},), "logprobs": (False,),
    "top_logprobs": (0,), "modalities": (["text"], []), "store": (False,), "verbosity": ("medium",),
}  # fmt: skip
_SAMPLING: Final = ("temperature", "top_p", "top_k")
_JSON_ONLY: Final = "Answer with one valid JSON object and nothing else: no prose around it, no code fence."
_MAX_CACHE_MARKS: Final = 4


class Memo:
    """What the decoder of the answer has to know: renamed tools, and the tool that stands for a JSON answer."""

    __slots__ = ("json_tool", "model", "names")

    def __init__(self, model: str, names: dict[str, str], json_tool: str | None) -> None:
        self.model = model
        self.names = names
        self.json_tool = json_tool


def encode(request: ApiRequest, target: Target, version: str) -> UpstreamRequest:
    """Return the Messages request for ``request``, without headers; ``version`` is the API's.

    Raises:
        ApiError: as :meth:`proxy.providers.base.Provider.encode`.
    """
    body, settings = request.body, target.settings
    caps = capabilities(target.model)
    dropped: list[str] = []
    _refuse_unsupported(body, settings, dropped)
    maximum, applied = _max_tokens(request, settings, caps)
    out: dict[str, Any] = {"model": target.model, "max_tokens": maximum}

    talk = conversation(body["messages"])
    if not talk.turns:
        bad(f"`messages` holds system messages only; {VENDOR} needs at least one user message.", "messages")
    names = tool_names(body)
    json_tool = tools(body, out, talk.calls, names, caps, settings, dropped)
    thinks = thinking(body, out, talk.turns, caps, settings, dropped)
    _sampling(request, out, thinks, caps, version, settings, dropped)

    system: list[Block] = []
    for message in talk.system:
        system += _system(message)
    if (form := body.get("response_format")) and form["type"] == "json_object":
        system.append({"type": "text", "text": _JSON_ONLY})
    if system:
        out["system"] = system
    out["messages"] = _messages(talk, names, caps)
    if not request.simple:  # else there is no place for one
        _cache_marks(out, dropped)

    if (stop := body.get("stop")) and (words := _stop(stop, settings, dropped)):
        out["stop_sequences"] = words
    if user := body.get("user"):
        out["metadata"] = {"user_id": opaque(user)}
    tier = body.get("service_tier")
    if tier in ("auto", "default"):
        out["service_tier"] = "auto" if tier == "auto" else "standard_only"
    elif tier is not None:
        drop_or_refuse(settings, dropped, "service_tier", VENDOR, "use auto or default")
    if request.stream:
        out["stream"] = True
    return UpstreamRequest(
        "/v1/messages",
        dumps(out),
        stream=request.stream,
        dropped=tuple(dropped),
        applied_max_tokens=applied,
        memo=Memo(target.model, names.changed, json_tool),
    )


# --- messages ---------------------------------------------------------------------------------------------


def _system(message: dict[str, Any]) -> list[Block]:
    blocks = text_blocks(message.get("content"))
    if blocks and "cache_control" in message:
        cache_mark(message, blocks[-1])
    return blocks


def _messages(talk: Conversation, names: NameMap, caps: Capabilities) -> list[dict[str, Any]]:
    echoed, ids = caps.thinking != "none", call_ids(talk.calls)
    messages: list[dict[str, Any]] = []
    for turn in talk.turns:
        role = turn.role
        blocks = user_blocks(turn, ids) if role == "user" else assistant_blocks(turn, names, ids, thinking=echoed)
        add_turn(messages, role, "content", blocks)
    if not messages or messages[0]["role"] == "assistant":
        placeholder = {"type": "text", "text": PLACEHOLDER}
        messages.insert(0, {"role": "user", "content": [placeholder]})  # the vendor wants the user to begin
    if messages[-1]["role"] == "assistant":
        if not caps.prefill:
            where = f"messages[{talk.turns[-1].messages[-1][0]}]"
            raise ApiError(
                "unsupported_parameter",
                f"This model does not continue an assistant message; let `messages` end with a user message, not `{where}`.",
                param=where,
            )
        last = messages[-1]["content"][-1]
        if last["type"] == "text":
            last["text"] = last["text"].rstrip()
    return messages


def _cache_marks(out: dict[str, Any], dropped: list[str]) -> None:
    """Keep the last four cache breakpoints: the vendor refuses more, and the last cover the longest prefix."""
    marked = [tool for tool in out.get("tools", ()) if "cache_control" in tool]
    marked += [block for block in out.get("system", ()) if "cache_control" in block]
    marked += [block for message in out["messages"] for block in message["content"] if "cache_control" in block]
    if len(marked) > _MAX_CACHE_MARKS:
        for block in marked[:-_MAX_CACHE_MARKS]:
            del block["cache_control"]
        dropped.append("cache_control")


# --- parameters -------------------------------------------------------------------------------------------


def _refuse_unsupported(body: dict[str, Any], settings: Any, dropped: list[str]) -> None:
    if (n := body.get("n")) and n > 1:
        raise ApiError("unsupported_parameter", f"{VENDOR} gives one answer a request; leave `n` at 1.", param="n")
    if _KNOWN.issuperset(body):
        return
    for name, value in body.items():
        if name not in _KNOWN and value is not None and value not in _NEUTRAL.get(name, ()):
            drop_or_refuse(settings, dropped, name, VENDOR)


def _max_tokens(request: ApiRequest, settings: Any, caps: Capabilities) -> tuple[int, int | None]:
    """Return the bound to send, and the same where it is not the client's own."""
    asked = request.max_tokens
    if asked is None:
        bound = settings.max_tokens or caps.max_output
        return bound, bound
    if "max_tokens" in request.ours and request.body.get("max_completion_tokens") is None:
        return asked, asked
    return asked, None


def _sampling(
    request: ApiRequest, out: dict[str, Any], thinks: str, caps: Capabilities, version: str, settings: Any,
    dropped: list[str],
) -> None:  # fmt: skip
    """Set temperature, top_p and top_k as far as version, model and thinking leave them free."""
    body = request.body
    for name in _SAMPLING:
        value = body.get(name)
        if value is None and (name != "temperature" or (value := settings.temperature) is None):
            continue
        if name == "top_k":
            if type(value) is not int or value < 0:
                bad("`top_k` must be an integer that is not negative.", "top_k")
        elif value == 1:
            continue  # the vendor's own default, said by leaving it out
        if version >= "2026-10-21" or not caps.sampling:
            trouble = "this model or API version samples in its own way; leave it out"
        elif thinks and not (name == "top_p" and value >= 0.95):
            trouble = "it cannot go together with reasoning"
        elif name == "temperature" and value > 1:
            out[name] = 1
            trouble = "it goes up to 1"
        elif name == "top_p" and not caps.both and "temperature" in out:
            trouble = "this model takes temperature or top_p, not both"
        else:
            out[name] = value
            continue
        if name not in request.ours and body.get(name) is not None:
            drop_or_refuse(settings, dropped, name, VENDOR, trouble)


def _stop(stop: str | list[str], settings: Any, dropped: list[str]) -> list[str]:
    words = [stop] if isinstance(stop, str) else stop
    kept = [word for word in words if word.strip()]
    if len(kept) < len(words):
        drop_or_refuse(settings, dropped, "stop", VENDOR, "a stop sequence needs a visible character")
    return kept
