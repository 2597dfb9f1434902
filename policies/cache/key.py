"""The name of an answer: everything that decides it, and who may have it, under the sidecar's secret."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from policies.base import ApiRequest, Call, Policy, Target
from proxy import __version__

_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
#: A different form of the keyed text is a different key.
_FORM: Final = 1
#: Fields that do not change what the model says; the model's name is the target's.
_LEFT_OUT: Final = frozenset(("model", "stream", "stream_options", "user", "metadata"))
#: Settings of a provider that do not change its answers, or stand in the effective request already.
_NOT_THE_ANSWER: Final = frozenset(
    ("api_key", "timeout", "max_retries", "model", "models", "proxy", "tls", "stream_usage", "breaker", "key_created",
     "key_rotation_interval", "temperature", "max_tokens", "unsupported")
)  # fmt: skip


class Keys:
    """Make keys for one configuration. Nothing that a client sends chooses whose entries it sees."""

    def __init__(self, secret: bytes, scope: str) -> None:
        # HMAC-SHA256 (RFC 2104), with what it does to its secret done once: `hmac` itself takes half as long again.
        block = secret.ljust(64, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER))
        self._outer = hashlib.sha256(block.translate(_OUTER))
        self._scope = scope
        self._providers: dict[str, Any] = {}
        self._rules: Any = None

    def key(self, call: Call, target: Target, request: ApiRequest, generations: Sequence[int]) -> str:
        """Return the key of ``request``'s answer from ``target``, in hexadecimal.

        Only the top level is sorted: the order of a JSON schema's properties is the order in which the
        model fills them in, so two orders are two requests.
        """
        caller = call.caller
        scope = self._scope
        who = (caller.team,) if scope == "team" else (caller.team, caller.user) if scope == "user" else ()
        provider = self._providers.get(target.name)
        if provider is None:
            provider = self._providers[target.name] = _provider(target)
        if self._rules is None:
            self._rules = rules(call.runtime.policies)
        body = request.body
        fields = [(name, body[name]) for name in sorted(body) if name not in _LEFT_OUT]
        text = orjson.dumps(
            (_FORM, request.endpoint, target.name, target.model, provider, scope, who, self._rules, generations,
             sorted(request.ours) if request.ours else (), fields)
        )  # fmt: skip
        inner = self._inner.copy()
        inner.update(text)
        mac = self._outer.copy()
        mac.update(inner.digest())
        return mac.hexdigest()


def rules(policies: Iterable[Policy[Any]]) -> str:
    """Return a digest of the policies that change requests: another rule, another key."""
    rows: list[Any] = [(p.name, p.enforce, p.fingerprint()) for p in policies if p.changes_request]
    if rows:
        rows.append(__version__)  # what is built in changes with it
    return hmac.digest(b"rules", orjson.dumps(rows, default=str, option=orjson.OPT_NON_STR_KEYS), "sha256").hex()


def _provider(target: Target) -> str:
    """Return a digest of what the provider's entry in llm.yml says about its answers."""
    settings = target.settings.model_dump(mode="json", exclude=set(_NOT_THE_ANSWER))
    text = orjson.dumps((target.provider.kind, target.provider.base_url(), settings), default=str)
    return hmac.digest(b"provider", text, "sha256").hex()
