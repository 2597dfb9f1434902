"""The operator's routes: metrics, health, and what is configured and used, as JSON with every secret masked.

Authentication and permissions were checked by the dispatcher before anything here runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy import __version__
from proxy.auth import GENERATE, MANAGE, VIEW
from proxy.config.custom import facts
from proxy.errors import ApiError
from proxy.telemetry.log import describe

if TYPE_CHECKING:
    from proxy.app import Sidecar

Handler = Callable[["Sidecar", Request], Awaitable[Response]]
GET = ("GET", "HEAD")


def json(body: Any, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(
        orjson.dumps(body, default=str), status, media_type="application/json", headers={"cache-control": "no-store"}
    )


async def metrics(side: Sidecar, request: Request) -> Response:
    """Answer with the Prometheus text exposition."""
    from prometheus_client import CONTENT_TYPE_LATEST

    return Response(side.runtime.metrics.render(), headers={"content-type": CONTENT_TYPE_LATEST})


async def health(side: Sidecar, request: Request) -> Response:
    """Answer with deep health, from real calls; ``?probe=1`` asks each provider whether its key works."""
    runtime = side.runtime
    now = runtime.clock.monotonic()
    providers = {name: entry.health(now) for name, entry in runtime.providers.items()}
    if request.query_params.get("probe") == "1":
        from proxy.probe import probe_all

        for name, result in (await probe_all(runtime)).items():
            providers[name]["probe"] = result
    store_up = await runtime.store.ping()
    worst = {p["status"] for p in providers.values()}
    status = "unhealthy" if not store_up or (worst and worst <= {"unhealthy"}) else "healthy"
    if status == "healthy" and worst & {"unhealthy", "degraded"}:
        status = "degraded"
    latency = runtime.metrics.duration
    calls = sum(sum(row[:-1]) for row in latency.values.values())
    spent = sum(row[-1] for row in latency.values.values())
    return json(
        {
            "status": status,
            "version": __version__,
            "provider_status": providers,
            "cache_status": {
                "store": runtime.store.kind,
                "status": "up" if store_up else "down",
                "lookups": {labels[0]: int(n) for labels, n in runtime.metrics.cache_requests.values.items()},
            },
            "token_quota": {labels[0]: int(n) for labels, n in runtime.metrics.token_quota_used.values.items()},
            "latency": {"calls": int(calls), "mean_seconds": round(spent / calls, 4) if calls else None},
            "in_flight": side.in_flight,
        }
    )


async def policies(side: Sidecar, request: Request) -> Response:
    """Answer with the running order and each policy's facts and decisions."""
    runtime = side.runtime
    counts: dict[str, dict[str, int]] = {}
    for (name, decision), n in runtime.metrics.decisions.values.items():
        counts.setdefault(name, {})[decision] = int(n)
    rows = [
        {
            "name": policy.name,
            "enforce": policy.enforce,
            **({"store_down": policy.store_down} if policy.keeps_state else {}),
            "settings": facts(policy),
            "decisions": counts.get(policy.name, {}),
        }
        for policy in runtime.policies
    ]
    return json({"policies": rows})


async def config(side: Sidecar, request: Request) -> Response:
    """Answer with the loaded configuration, every secret masked."""
    from proxy.config.mask import masked

    return json(masked(side.runtime.config))


async def reload(side: Sidecar, request: Request) -> Response:
    """Load llm.yml anew; a broken one changes nothing and is described."""
    if side.reloader is None:
        raise ApiError("invalid_request", "This sidecar was started without a configuration file to reload.")
    problems, notes = await side.reloader()
    if problems:
        return json({"reloaded": False, "problems": problems}, 409)
    return json({"reloaded": True, "notes": notes})


async def usage(side: Sidecar, request: Request) -> Response:
    """Answer with the caller's own limits, quota and budget."""
    from proxy.admin.usage import own_usage

    return json(await own_usage(side.runtime, request.scope["state"]["caller"]))


async def all_usage(side: Sidecar, request: Request) -> Response:
    """Answer with the usage ledger of a month."""
    from proxy.admin.usage import admin_usage

    return json(
        await admin_usage(side.runtime, month=request.query_params.get("month"), by=request.query_params.get("by"))
    )


async def quotas(side: Sidecar, request: Request) -> Response:
    """Answer with each team's quota and budget and what is left of it."""
    from proxy.admin.usage import admin_quotas

    return json(await admin_quotas(side.runtime))


async def flush(side: Sidecar, request: Request) -> Response:
    """Make cache entries unreachable at once: all, or those of a team, a model or both."""
    from proxy.admin.flush import flush_cache

    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > 4096:
            raise ApiError("request_too_large", "A flush takes a small JSON object, or nothing.")
    return json(await flush_cache(side.runtime, request.scope["state"]["caller"], body))


@cache
def routes() -> dict[str, tuple[tuple[str, ...], str, Handler]]:
    """Return path -> methods, permission and handler. The one table of the operator's routes."""
    return {
        "/metrics": (GET, VIEW, metrics),
        "/health": (GET, VIEW, health),
        "/usage": (GET, GENERATE, usage),
        "/v1/usage": (GET, GENERATE, usage),
        "/admin/usage": (GET, VIEW, all_usage),
        "/admin/quotas": (GET, VIEW, quotas),
        "/admin/policies": (GET, VIEW, policies),
        "/admin/config": (GET, VIEW, config),
        "/admin/reload": (("POST",), MANAGE, reload),
        "/admin/cache/flush": (("POST",), MANAGE, flush),
    }


def build(side: Sidecar) -> Starlette:
    """Return the Starlette application that serves :func:`routes` for ``side``."""

    def endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            rid = request.scope["state"]["request_id"]
            try:
                response = await handler(side, request)
            except (Exception, SystemExit) as caught:  # a policy's hook is asked here: its exit is not ours
                error = (
                    caught
                    if isinstance(caught, ApiError)
                    else ApiError("internal_error", f"The sidecar failed; its operator finds the reason under {rid}.")
                )
                if error is not caught:
                    side.runtime.log.error("internal_error", extra={"fields": {"request_id": rid, **describe(caught)}})
                response = Response(
                    error.body(), error.status, headers=dict(error.headers), media_type="application/json"
                )
            response.headers["x-request-id"] = rid
            return response

        return serve

    return Starlette(
        routes=[Route(path, endpoint(serve), methods=list(methods)) for path, (methods, _, serve) in routes().items()]
    )


class Ops:
    """The second listener: liveness, readiness and metrics, nothing else, no credential."""

    def __init__(self, side: Sidecar) -> None:
        self.side = side

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        wire = scope["extensions"]["llm_sidecar"]
        path, method = scope["path"], scope["method"]
        if path == "/metrics" and method in GET and self.side.runtime.config.telemetry.enabled:
            from prometheus_client import CONTENT_TYPE_LATEST

            body = self.side.runtime.metrics.render()
            wire.reply(200, f"content-type: {CONTENT_TYPE_LATEST}\r\n".encode(), body)
        elif path in ("/healthz", "/readyz"):
            await self.side(scope, receive, send)
        else:
            error = ApiError("route_not_found", "This listener serves /healthz, /readyz and /metrics only.")
            wire.reply(error.status, b"content-type: application/json\r\n", error.body())
