"""The sidecar as one ASGI application: dispatch, admission, and what all calls share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson

from proxy.auth import GENERATE, require
from proxy.call import Call
from proxy.endpoint import generate, refuse_early
from proxy.errors import ApiError
from proxy.headers import request_id
from proxy.models import list_models, one_model
from proxy.outcome import count_early
from proxy.runtime import Runtime
from proxy.telemetry.log import LineWriter
from proxy.telemetry.stamps import Stamps

if TYPE_CHECKING:
    from proxy.server.head import Handler
    from proxy.server.wire import Wire

#: Path (without /v1) -> endpoint of the routes that generate.
GENERATING: Final = {"/chat/completions": "chat", "/completions": "completions", "/embeddings": "embeddings"}
_LATER: Final = {
    "/messages": "POST /v1/chat/completions", "/messages/count_tokens": "POST /v1/chat/completions",
    "/responses": "POST /v1/chat/completions", "/files": "your provider directly",
    "/fine_tuning/jobs": "your provider directly", "/moderations": "your provider directly",
}  # fmt: skip
_JSON_HEAD: Final = "content-type: application/json\r\nx-request-id: %s\r\n"


class Sidecar:
    """Dispatch requests; own the current runtime and the counts of what is in flight."""

    def __init__(self, runtime: Runtime, writer: LineWriter) -> None:
        self.runtime = runtime
        self.writer = writer
        self.stamps = Stamps()
        self.calls: set[Call] = set()
        self.in_flight = 0
        self.draining = False
        self.reloader: Any = None
        """Set by `serve`: what POST /admin/reload and SIGHUP call."""
        self.max_body = 0
        self.max_in_flight = 0
        self.tells_starts = False
        self.configure(runtime)
        self._web: Any = None

    def configure(self, runtime: Runtime) -> None:
        """Make ``runtime`` the one that new calls get: one assignment."""
        self.max_body = runtime.config.server.max_body
        self.max_in_flight = runtime.config.server.max_in_flight
        self.tells_starts = runtime.log.isEnabledFor(logging.DEBUG)
        runtime.metrics.in_flight.read = lambda: [((), float(self.in_flight))]
        runtime.metrics.circuit_state.read = self._circuits
        runtime.metrics.key_age.read = self._key_ages
        self.runtime = runtime

    def reload_soon(self) -> None:
        """Reload in the background: what SIGHUP does."""
        if self.reloader is not None:
            self.runtime.shared.background(_reload(self.reloader))

    # --- admission --------------------------------------------------------------------------------------
    def enter(self, headers: dict[bytes, bytes]) -> None:
        """Count a call in, or refuse it: too many already, or one that came through this sidecar before."""
        if self.in_flight >= self.max_in_flight:
            raise ApiError(
                "overloaded", "The sidecar is serving as many calls as it may; try again in a second.", retry_after=1.0
            )
        hop = headers.get(b"x-llm-sidecar-hop")
        if hop is not None and self.runtime.hop in hop.decode("latin-1").split(","):
            raise ApiError(
                "loop_detected",
                "This request came through this sidecar already; a provider's base_url points back at it.",
            )
        length = headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length) > self.max_body:
            raise ApiError("request_too_large", f"The body has {int(length)} bytes; at most {self.max_body} are taken.")
        coding = headers.get(b"content-encoding")
        if coding is not None and coding.lower() != b"identity":
            raise ApiError("unsupported_media_type", "Send the body as plain JSON, without a content-encoding.")
        self.in_flight += 1

    def leave(self) -> None:
        """Count a call out."""
        self.in_flight -= 1

    # --- dispatch ---------------------------------------------------------------------------------------
    def direct(self, method: str, path: str) -> Handler | None:
        """Return what serves a generating route without ASGI's detour, None for every other route."""
        if method != "POST":
            return None
        endpoint = GENERATING.get(path.removeprefix("/v1"))
        if endpoint is not None:
            return partial(generate, self, endpoint=endpoint)
        deployment = _deployment(path)
        if deployment is not None:
            return partial(generate, self, endpoint=deployment[0], path_model=deployment[1])
        return None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await _lifespan(receive, send)
            return
        path: str = scope["path"]
        method: str = scope["method"]
        wire: Wire = scope["extensions"]["llm_sidecar"]
        short = path[3:] if path.startswith("/v1/") else path
        headers = dict(scope["headers"])
        if path == "/healthz":
            self._plain(wire, headers, method, 200, b'{"status":"ok"}')
            return
        if path == "/readyz":
            await self._ready(wire, headers, method)
            return
        await self._other(scope, receive, send, wire, headers, short, method)

    def _plain(self, wire: Wire, headers: dict[bytes, bytes], method: str, status: int, body: bytes) -> None:
        rid = request_id(headers)
        if method not in ("GET", "HEAD"):
            error = _wrong_method("GET")
            wire.reply(error.status, _lines(error, rid), error.body())
            return
        wire.reply(status, (_JSON_HEAD % rid).encode() + b"cache-control: no-store\r\n", body)

    async def _ready(self, wire: Wire, headers: dict[bytes, bytes], method: str) -> None:
        reasons = []
        if self.draining:
            reasons.append("draining")
        runtime = self.runtime
        needs = any(p.keeps_state and p.store_down == "refuse" and p.enforce for p in runtime.policies)
        if needs and not await runtime.store.ping():
            reasons.append("store_unavailable")
        body = orjson.dumps({"status": "not_ready", "reasons": reasons} if reasons else {"status": "ready"})
        self._plain(wire, headers, method, 503 if reasons else 200, body)

    async def _other(
        self,
        scope: MutableMapping[str, Any],
        receive: Any,
        send: Any,
        wire: Wire,
        headers: dict[bytes, bytes],
        short: str,
        method: str,
    ) -> None:
        rid = request_id(headers)
        started = self.runtime.clock.monotonic()
        caller = None
        try:
            if scope["path"] in ("/admin", "/admin/") and method in ("GET", "HEAD"):
                raise _not_found(scope["path"])  # the live page comes with a later step
            open_metrics = scope["path"] == "/metrics" and self.runtime.config.server.metrics == "open"
            if not open_metrics:
                caller = self.runtime.auth.caller(headers)
            if short in GENERATING or _deployment(scope["path"]) is not None:
                raise _wrong_method("POST")
            if short == "/models" or short.startswith("/models/"):
                assert caller is not None
                require(caller, GENERATE)
                if method not in ("GET", "HEAD"):
                    raise _wrong_method("GET")
                found = (
                    list_models(self.runtime, caller)
                    if short == "/models"
                    else one_model(self.runtime, caller, short.removeprefix("/models/"))
                )
                wire.reply(200, (_JSON_HEAD % rid).encode(), orjson.dumps(found))
                return
            if short in _LATER:
                raise ApiError(
                    "route_not_found", f"{scope['path']} is not served by this version; use {_LATER[short]} instead."
                )
            from proxy.admin.web import routes

            handler = routes().get(scope["path"])
            if handler is None or (scope["path"] == "/metrics" and not self.runtime.config.telemetry.enabled):
                raise _not_found(scope["path"])
            methods, permission, _ = handler
            if method not in methods:
                raise _wrong_method(methods[0])
            if not open_metrics:
                assert caller is not None
                require(caller, permission)
            if self._web is None:
                from proxy.admin.web import build

                self._web = build(self)
            scope["state"] = {"caller": caller, "request_id": rid}
            await self._web(scope, receive, send)
        except ApiError as error:
            refuse_early(self, wire, headers, rid, caller, scope["path"][:200], error, started)
        except asyncio.CancelledError:
            raise
        except ConnectionError:
            return

    def refused(self, error: ApiError, rid: str) -> None:
        """Count and log what the server itself refused: bad framing, late headers, too many connections."""
        count_early(self, {}, rid, None, None, error, self.runtime.clock.monotonic())

    # --- gauges -------------------------------------------------------------------------------------------
    def _circuits(self) -> list[tuple[tuple[str, ...], float]]:
        now = self.runtime.clock.monotonic()
        return [((name,), float(entry.state(now))) for name, entry in self.runtime.providers.items()]

    def _key_ages(self) -> list[tuple[tuple[str, ...], float]]:
        now = self.runtime.clock.now()
        ages: list[tuple[tuple[str, ...], float]] = []
        for name, entry in self.runtime.providers.items():
            if created := entry.settings.key_created:
                moment = datetime.fromisoformat(str(created))
                if moment.tzinfo is None:
                    moment = moment.replace(tzinfo=UTC)
                ages.append(((name,), (now - moment).total_seconds() / 86400))
        return ages


async def _reload(reloader: Any) -> None:
    await reloader()


def _deployment(path: str) -> tuple[str, str] | None:
    """Return endpoint and model of an Azure client's path, None for any other."""
    if not path.startswith("/openai/deployments/"):
        return None
    rest = path.removeprefix("/openai/deployments/")
    for route, endpoint in GENERATING.items():  # from its end, for a model's name may hold a slash
        if rest.endswith(route):
            model = rest.removesuffix(route)
            return (endpoint, model) if model else None
    return None


def _not_found(path: str) -> ApiError:
    return ApiError("route_not_found", "There is no such route here; POST /v1/chat/completions is the usual one.")


def _wrong_method(right: str) -> ApiError:
    return ApiError("method_not_allowed", f"Use {right} for this path.", headers=[("allow", right)])


def _lines(error: ApiError, rid: str) -> bytes:
    head = _JSON_HEAD % rid + "".join(f"{name}: {value}\r\n" for name, value in error.headers)
    return head.encode("ascii", "replace")


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return


__all__ = ["GENERATING", "Sidecar"]
