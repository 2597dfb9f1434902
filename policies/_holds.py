"""What a call may come to at most, before anybody knows: the size of its hold."""

from __future__ import annotations

from typing import Any, Final

from policies.base import Call, Kit
from proxy import tokens

DEFAULT_MAX_TOKENS: Final = 4096
#: The API's own default of /v1/completions (platform.openai.com/docs/api-reference/completions).
COMPLETIONS_DEFAULT: Final = 16
#: A limit is near while less than so many calls like this one, or this share of it, is left.
NEAR_CALLS: Final = 64
NEAR_SHARE: Final = 0.1


class Holds:
    """The size of calls' holds, and where they have to be exact."""

    __slots__ = ("_left", "default_max_tokens")

    def __init__(self, kit: Kit) -> None:
        find = getattr(kit.config, "policy", None)
        entry: Any = find("quota") if find is not None else None
        self.default_max_tokens: int = entry.config.default_max_tokens if entry is not None else DEFAULT_MAX_TOKENS
        self._left: dict[tuple[str, str], int] = {}

    def prompt(self, call: Call) -> int:
        """Return the prompt's tokens, attachments included: counted if somebody counted, else estimated."""
        found = call.estimate
        if found is None:
            found = call.estimate = tokens.estimate(call.request, call.route[0].model if call.route else call.model)
        return found

    def completion(self, call: Call) -> int:
        """Return the most tokens that the answers may have, the largest over the route's targets."""
        request = call.request
        endpoint = request.endpoint
        if endpoint == "embeddings":
            return 0
        body = request.body
        most = request.max_tokens
        if most is not None and "max_tokens" in body:
            # Both go upstream, and many a compatible server reads the older name only: the larger is the bound.
            most = max(most, body["max_tokens"] or 0)
        n = body.get("n")
        if "parameters" in call.notes:
            # What a team, a user or a template sets where the request says nothing (proxy.forward.effective).
            parameters = call.notes["parameters"]
            if most is None:
                most = parameters.get("max_completion_tokens") or parameters.get("max_tokens")
            if n is None:
                n = parameters.get("n")
        n = n or 1
        if most is None:
            default = self.default_for(call)
            most = max((target.settings.max_tokens or default for target in call.route), default=default)
        if endpoint == "chat":
            return most * n
        prompts = body.get("prompt")
        count = len(prompts) if type(prompts) is list and prompts and type(prompts[0]) is not int else 1
        best = body.get("best_of")
        return most * count * max(n, best if type(best) is int and best > 0 else 1)

    def default_for(self, call: Call) -> int:
        """Return the bound on an answer that the request does not set."""
        default = self.default_max_tokens
        return min(default, COMPLETIONS_DEFAULT) if call.request.endpoint == "completions" else default

    def total(self, call: Call) -> int:
        """Return the tokens to hold for the call."""
        return self.prompt(call) + self.completion(call)

    def saw(self, team: str, key: str, remaining: int) -> None:
        """Remember what was left of a limit when it was last seen."""
        if len(self._left) >= 10_000:
            self._left.clear()
        self._left[team, key] = remaining

    def near(self, call: Call, key: str, limit: int) -> bool:
        """Tell whether so little is left of the limit ``key`` that the prompt should be counted; True if never seen."""
        left = self._left.get((call.caller.team, key), 0)
        return left <= limit * NEAR_SHARE or left <= NEAR_CALLS * self.total(call)

    async def count(self, call: Call) -> None:
        """Count the prompt exactly, once."""
        if not call.notes.get("counted"):
            call.notes["counted"] = True
            call.estimate = await tokens.count(call.request, call.route[0].model if call.route else call.model)
