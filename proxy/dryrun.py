"""What would happen to a request: every policy asked, the upstream request made, nothing sent.

`llm-sidecar explain` and the policy tests of llm.yml run on it, with counters in memory of their own.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any

import orjson

from proxy.auth import ALL
from proxy.call import Call, Caller, Outcome, Usage
from proxy.chunk import Chunk
from proxy.clock import Clock
from proxy.endpoint import set_team
from proxy.errors import ApiError
from proxy.filters import Filters, Replayed
from proxy.forward import effective
from proxy.pipeline import ask, settle_claims
from proxy.request import REQUESTS
from proxy.runtime import Background, Runtime, Shared
from proxy.store.base import Store
from proxy.store.factory import open_store
from proxy.telemetry.meter import Meter
from proxy.telemetry.metrics import Metrics


async def dry_runtime(config: Any) -> Runtime:
    """Return a runtime for ``config`` with a store in memory, whatever the file says; close its store when done."""
    log = logging.getLogger("llm_sidecar.dry")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    metrics, clock, secret = Metrics(), Clock(), secrets.token_bytes(32)
    store: Store = open_store("memory", prefix="llm:", deadline=1.0, clock=clock, log=log, metrics=metrics)
    await store.start()
    return Runtime(config, Shared(store, metrics, log, clock, secret, Background(log)))


async def dry_run(
    runtime: Runtime,
    body: dict[str, Any],
    *,
    team: str = "default",
    user: str = "local",
    key: str = "test",
    feature: str = "",
    endpoint: str = "chat",
    reply: str | None = None,
) -> dict[str, Any]:
    """Return what the policies decide and what would be sent, and with ``reply`` what the client would get for it.

    Keys: ``policies`` (one row each: policy, decision, code, message), ``refused`` (status, code, param,
    message) or None, ``answered`` (a policy answered), ``upstream`` (provider, model, method, url, headers
    with secrets masked, body, dropped), ``upstream_text``, ``reply_text``, ``cache``, ``detectors``.
    """
    found: dict[str, Any] = {
        "policies": [], "refused": None, "answered": False, "upstream": None, "upstream_text": None, "reply_text": None,
        "cache": None, "detectors": {},
    }  # fmt: skip
    call: Call | None = None
    try:
        request = REQUESTS[endpoint](body, len(orjson.dumps(body)))
        route = runtime.router.plan(request.model, endpoint, runtime.clock.monotonic())
        caller = Caller(key, team, user, ALL)
        call = Call("dry_" + secrets.token_hex(4), runtime, caller, request, route, feature, runtime.clock.monotonic())
        call.explain = []
        call.meter = Meter(request)
        set_team(call)
        answer, above = await ask(call, runtime.steps)
        if answer is None:
            found["upstream"] = _upstream(runtime, call)
        else:
            found["answered"] = True
        found["upstream_text"] = _said(request.body)
        if reply is not None or answer is not None:
            found["reply_text"] = await _reply(runtime, call, answer, above, reply)
    except ApiError as error:
        found["refused"] = {
            "status": error.status, "code": error.code, "param": error.param, "message": error.message
        }  # fmt: skip
    if call is not None:
        outcome = Outcome("refused" if found["refused"] else "completed", 200, Usage(), target=call.target)
        call.finish(outcome)
        settle_claims(call, outcome)
        found["policies"] = call.explain
        found["cache"] = call.cache or None
        found["detectors"] = dict(call.detectors)
    return found


def _upstream(runtime: Runtime, call: Call) -> dict[str, Any]:
    """Return the request that the first target able to take the call would get."""
    refused: ApiError | None = None
    for target in call.route:
        try:
            sent = target.provider.encode(effective(call, target), target)
        except ApiError as error:
            refused = refused or error
            continue
        call.target = target
        entry = runtime.providers[target.name]
        headers = [*sent.headers, *((name, "***") for name, _ in entry.credentials(0))]
        return {
            "provider": target.name,
            "model": target.model,
            "method": sent.method,
            "url": target.provider.base_url() + sent.path,
            "headers": dict(headers) | dict.fromkeys(entry.settings.headers, "***"),
            "body": orjson.loads(sent.body) if sent.body else None,
            "dropped": list(sent.dropped),
        }
    if refused is not None:
        raise refused
    return {}


async def _reply(runtime: Runtime, call: Call, answer: Any, above: int, text: str | None) -> str:
    filters = Filters(call, runtime.steps[:above])
    model = call.target.model if call.target is not None else call.model
    if answer is not None:
        chunks = await Replayed(call, runtime.steps[above], answer, whole=True).next() or ()
    else:
        chunks = (_whole_chunk(text or "", model),)
    chunks = [*filters.feed(chunks), *filters.flush()]
    return "".join(slot.text for chunk in chunks for slot in chunk.texts() if slot.kind == "content")


def _said(body: dict[str, Any]) -> str:
    """Return the text of the request's last message, or its input."""
    if "messages" not in body:
        value = body.get("input", body.get("prompt"))
        return value if isinstance(value, str) else "\n".join(str(item) for item in value or ())
    content = body["messages"][-1].get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content)
    return content or ""


def _whole_chunk(text: str, model: str) -> Chunk:
    """Return a completion that says ``text``: the stand-in upstream of the policy tests."""
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return Chunk(
        {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [choice],
            "usage": usage,
        },
        whole=True,
    )
