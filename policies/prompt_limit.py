"""A bound on the prompt: refused with the numbers, never cut silently."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from policies.base import ApiError, Call, Policy, PolicyConfig
from proxy import tokens


class PromptLimitConfig(PolicyConfig):
    """The most tokens, and messages, that a prompt may have."""

    max_tokens: Annotated[int, Field(ge=1)] = 4096
    max_messages: Annotated[int, Field(ge=1)] | None = None


class PromptLimit(Policy[PromptLimitConfig]):
    """Refuse prompts over the limit; counts exactly only where bytes do not already prove that it holds."""

    Config = PromptLimitConfig
    after: ClassVar[tuple[str, ...]] = ("template",)

    async def on_request(self, call: Call) -> None:
        request, limit = call.request, self.config.max_tokens
        if self.config.max_messages is not None and request.endpoint == "chat":
            n = len(request.body["messages"])
            if n > self.config.max_messages:
                raise ApiError(
                    "context_length_exceeded",
                    f"The prompt has {n} messages; at most {self.config.max_messages} are allowed: shorten the conversation.",
                    param="messages",
                )
        if tokens.bound(request) <= limit:
            return
        model = call.route[0].model if call.route else call.model
        n = await tokens.count(request, model, stop=limit)
        call.estimate = n
        if n > limit:
            shown = f"{n} tokens" if n < limit * 4 else f"more than {limit * 4} tokens"
            raise ApiError(
                "context_length_exceeded",
                f"The prompt has {shown}; at most {limit} are allowed: shorten it.",
                param={"chat": "messages", "embeddings": "input"}.get(request.endpoint, "prompt"),
            )

    def describe(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json", exclude_none=True)
