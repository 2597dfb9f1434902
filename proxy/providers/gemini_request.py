"""An OpenAI chat request as Gemini's generateContent.

Source: https://ai.google.dev/api/generate-content. Every field of the caller's is either translated, without
meaning for the answer, or refused by name (dropped and named, with ``unsupported: drop``).
"""

from __future__ import annotations

from typing import Any, Final

from proxy.errors import bad
from proxy.providers.base import ProviderSettings, drop_or_refuse, unsupported
from proxy.providers.common import FunctionTool, NameMap, NameRule, ToolChoice, allowed, function_tools, tool_choice
from proxy.providers.conversation import conversation
from proxy.providers.gemini_content import PLACEHOLDER, VENDOR, Encoding, text_parts
from proxy.providers.gemini_models import EFFORTS, capabilities, thinking_config
from proxy.providers.gemini_schema import parameters, response_schema
from proxy.request import ApiRequest

MAX_STOPS: Final = 5
_NAMES: Final = NameRule("[A-Za-z0-9_.:-]", "[A-Za-z_]", 64)
_TOOLS: Final = frozenset(("tools", "functions", "tool_choice", "function_call"))
#: Read elsewhere, or without meaning for the answer.
_QUIET: Final = frozenset(
    ("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "tools", "functions",
     "tool_choice", "function_call", "parallel_tool_calls", "response_format", "top_logprobs", "user", "metadata",
     "safety_identifier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "template", "variables")
)  # fmt: skip
_PLAIN: Final = {
    "seed": "seed", "temperature": "temperature", "top_p": "topP", "top_k": "topK", "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}  # fmt: skip
_SAMPLING: Final = frozenset(("temperature", "top_p", "top_k"))
_PENALTIES: Final = frozenset(("presence_penalty", "frequency_penalty"))
#: What asks for nothing: the API's own defaults.
_DEFAULTS: Final[dict[str, tuple[Any, ...]]] = {
    "store": (False,), "logit_bias": ({},), "verbosity": ("medium",), "service_tier": ("auto", "default", "standard"),
}  # fmt: skip
_MODES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY", "function": "ANY"}


class ChatEncoder:
    """Writes one request. ``body`` is the result, ``dropped`` the names of what was left out."""

    __slots__ = ("_config", "_facts", "_names", "_ours", "_settings", "_source", "body", "dropped", "single")

    def __init__(self, request: ApiRequest, model: str, settings: ProviderSettings, *, ids: bool = True) -> None:
        self._source = request.body
        self._ours = request.ours
        self._settings = settings
        self._facts = capabilities(model)
        self._config: dict[str, Any] = {}
        self.body: dict[str, Any] = {}
        self.dropped: list[str] = []
        self.single = False
        """Only the first of several tool calls may reach the caller."""
        self._names = NameMap(_NAMES)
        tools: list[FunctionTool] = []
        if not _TOOLS.isdisjoint(self._source):
            tools, others = function_tools(self._source)
            for where in others:
                self._refuse(where, "send function tools only")
            choice = tool_choice(self._source)
            self._names.reserve(tool.name for tool in tools)
        self._contents(ids)
        if tools:
            self._tools(allowed(tools, choice), choice)
        self._parameters(request)
        if form := self._source.get("response_format"):
            self._format(form, bool(tools))
        if self._config:
            self.body["generationConfig"] = self._config

    @property
    def restore(self) -> dict[str, str]:
        """Return the sent tool names to the caller's, of those that differ."""
        return self._names.changed

    def _refuse(self, name: str, hint: str = "leave it out", vendor: str = VENDOR) -> None:
        if name not in self._ours:
            drop_or_refuse(self._settings, self.dropped, name, vendor, hint)

    # --- contents ---------------------------------------------------------------------------------------

    def _contents(self, ids: bool) -> None:
        messages = self._source["messages"]
        talk = conversation(messages)
        system: list[dict[str, Any]] = []
        for message in talk.system:
            system += text_parts(message.get("content"))
        contents = Encoding(self._names, self._facts, ids=ids).contents(talk)
        if not contents:
            # The vendor wants at least one content: a lone system prompt is the user's turn.
            contents = [{"role": "user", "parts": system or [{"text": PLACEHOLDER}]}]
            system = []
        elif contents[-1]["role"] == "model" and not self._facts.prefill:
            where = f"messages[{len(messages) - 1}]"
            if self._settings.unsupported == "error":
                raise unsupported(
                    where, "this Gemini model as an assistant message to continue", "end with a user message"
                )
            self.dropped.append("prefill")
            contents.append({"role": "user", "parts": [{"text": "Continue."}]})
        self.body["contents"] = contents
        if system:
            self.body["systemInstruction"] = {"parts": system}

    # --- tools ------------------------------------------------------------------------------------------

    def _tools(self, tools: list[FunctionTool], choice: ToolChoice) -> None:
        self.body["tools"] = [{"functionDeclarations": [self._declaration(tool) for tool in tools]}]
        mode = _MODES.get(choice.mode)
        if mode in (None, "AUTO") and self._facts.validated and any(tool.strict for tool in tools):
            mode = "VALIDATED"
        if mode:
            calling: dict[str, Any] = {"mode": mode}
            if choice.mode == "function":
                calling["allowedFunctionNames"] = [self._names(choice.names[0])]
            self.body["toolConfig"] = {"functionCallingConfig": calling}
        if self._source.get("parallel_tool_calls") is False and mode != "NONE":
            self._refuse("parallel_tool_calls", "it may call several functions at once: leave it out")
            self.single = True

    def _declaration(self, tool: FunctionTool) -> dict[str, Any]:
        declaration: dict[str, Any] = {"name": self._names(tool.name)}
        if tool.description:
            declaration["description"] = tool.description
        if (schema := parameters(tool.parameters)) is not None:
            declaration["parameters"] = schema
        return declaration

    # --- parameters -------------------------------------------------------------------------------------

    def _parameters(self, request: ApiRequest) -> None:
        facts, config = self._facts, self._config
        if (limit := request.max_tokens) is not None:
            config["maxOutputTokens"] = limit
        for name, value in self._source.items():
            if value is None or name in _QUIET:
                continue
            if name in _PLAIN:
                if name in _SAMPLING and not facts.sampling:
                    # Accepted and ignored upstream, refused by what comes next: left out, and named.
                    if name not in self._ours:
                        self.dropped.append(name)
                elif name in _PENALTIES and not facts.penalties:
                    if value:
                        self._refuse(name, vendor="Gemini 3")
                else:
                    config[_PLAIN[name]] = value
            elif name in _DEFAULTS and value in _DEFAULTS[name]:
                continue
            elif (special := _SPECIAL.get(name)) is not None:
                special(self, value)
            else:
                self._refuse(name)

    def _n(self, value: int) -> None:
        if value > 1:
            self._config["candidateCount"] = value

    def _stop(self, value: Any) -> None:
        words = [word for word in ([value] if isinstance(value, str) else value) if word]
        if len(words) > MAX_STOPS:
            self._refuse("stop", f"send at most {MAX_STOPS} stop sequences")
            words = words[:MAX_STOPS]
        if words:
            self._config["stopSequences"] = words

    def _logprobs(self, value: bool) -> None:
        if value:
            self._config["responseLogprobs"] = True
            if (top := self._source.get("top_logprobs")) is not None:
                self._config["logprobs"] = top

    def _effort(self, value: str) -> None:
        if value not in EFFORTS:
            bad(f"`reasoning_effort` must be one of {', '.join(EFFORTS)}.", "reasoning_effort")
        thinking = thinking_config(value, self._facts)
        if thinking is None:
            hint = (
                "this model cannot stop thinking: send low"
                if value == "none"
                else "this model does not think: leave it out"
            )
            self._refuse("reasoning_effort", hint, "this Gemini model")
        elif thinking:
            self._config["thinkingConfig"] = thinking

    def _modalities(self, value: list[Any]) -> None:
        wanted = [{"text": "TEXT", "image": "IMAGE"}.get(word) if isinstance(word, str) else None for word in value]
        if None in wanted:
            self._refuse("modalities", "it answers in text (and images)")
        elif wanted and wanted != ["TEXT"]:
            self._config["responseModalities"] = wanted

    def _tier(self, value: str) -> None:
        if value in ("flex", "priority"):
            self.body["serviceTier"] = value
        else:
            self._refuse("service_tier", "send auto, default, flex or priority")

    def _format(self, form: dict[str, Any], tools: bool) -> None:
        if (kind := form["type"]) == "text":
            return
        if kind not in ("json_object", "json_schema"):
            self._refuse("response_format", "send text, json_object or json_schema")
            return
        if tools and not self._facts.json_with_tools:
            self._refuse(
                "response_format", "leave out either it or `tools`", "Gemini before version 3 together with `tools`"
            )
            return
        self._config["responseMimeType"] = "application/json"
        if kind == "json_schema" and (schema := form["json_schema"].get("schema")):
            self._config["responseSchema"] = response_schema(schema)


_SPECIAL: Final = {
    "n": ChatEncoder._n,
    "stop": ChatEncoder._stop,
    "logprobs": ChatEncoder._logprobs,
    "reasoning_effort": ChatEncoder._effort,
    "modalities": ChatEncoder._modalities,
    "service_tier": ChatEncoder._tier,
}
