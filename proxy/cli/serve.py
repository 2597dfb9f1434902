"""`llm-sidecar serve`: build everything, say what is there, serve until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import secrets
import sys
import threading
from functools import partial
from typing import Any, Final

from proxy import __version__, tokens
from proxy.app import Sidecar
from proxy.cli.offline import policies
from proxy.clock import Clock
from proxy.config.custom import sentences
from proxy.config.load import load
from proxy.config.problem import ConfigError
from proxy.runtime import Background, Runtime, Shared, derive
from proxy.server.options import ServerOptions
from proxy.store.base import StoreUnavailable
from proxy.telemetry.log import LineWriter, setup
from proxy.telemetry.metrics import Metrics

_M_MMAP_THRESHOLD: Final = -3


def run(args: argparse.Namespace) -> int:
    """Serve; return the process's exit code: 0 after a clean stop, 1 if the configuration or an address is no good."""
    listen = None
    try:
        if args.host or args.port is not None:
            host = args.host or ""
            listen = f"{f'[{host}]' if ':' in host else host}:{'' if args.port is None else args.port}"
        config = load(args.config, listen=listen)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    metrics = Metrics()
    writer = LineWriter(sys.stdout.fileno(), metrics.log_lines_dropped)
    log = setup(writer, config.telemetry.log_level)
    try:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(config, args.config, listen, metrics, writer, log))
    finally:
        writer.close()


async def _serve(
    config: Any, path: str | None, listen: str | None, metrics: Metrics, writer: LineWriter, log: Any
) -> int:
    from proxy.reload import Reloader
    from proxy.server.serve import Server
    from proxy.store.factory import open_store

    clock = Clock()
    loop = asyncio.get_running_loop()
    writer.attach(loop)
    background = Background(log)
    secret = config.server.secret.get_secret_value().encode() if config.server.secret else secrets.token_bytes(32)
    store = open_store(
        config.store.url, prefix=config.store.prefix, deadline=config.store.deadline, secret=partial(derive, secret),
        clock=clock, log=log, metrics=metrics, hash_users=config.usage.hash_users,
        keep_months=max(1, round(config.usage.keep / 2_678_400)),
    )  # fmt: skip
    try:
        await store.start()
    except (StoreUnavailable, OSError) as error:
        log.error("store_failed", extra={"fields": {"reason": str(error)}})
        print(f"llm-sidecar: the store cannot be used: {error}", file=sys.stderr)
        return 1
    shared = Shared(store, metrics, log, clock, secret, background)
    try:
        runtime = Runtime(config, shared)
        _warm(config, runtime)
    except (Exception, SystemExit) as error:
        for problem in (wrong := policies(config)[1]):
            print(problem, file=sys.stderr)
        if isinstance(error, tokens.VocabularyError):
            print(f"llm-sidecar: {error}", file=sys.stderr)
        elif not wrong:
            print(
                f"llm-sidecar: a policy or provider could not be built: {type(error).__name__}: {error}",
                file=sys.stderr,
            )
        await store.aclose(1.0)
        return 1
    side = Sidecar(runtime, writer)
    side.reloader = Reloader(side, path, listen)
    watching = loop.create_task(side.reloader.watch())

    settings = config.server
    options = ServerOptions(
        listen=str(settings.listen),
        ops_listen=str(settings.ops_listen) if settings.ops_listen else None,
        reuse_port=settings.reuse_port,
        receive_timeout=settings.receive_timeout,
        drain_delay=settings.drain_delay,
        shutdown_grace=settings.shutdown_grace,
    )
    ops: Any = None
    if settings.ops_listen:
        from proxy.admin.web import Ops

        ops = Ops(side)

    def started(urls: list[str], ops_urls: list[str]) -> None:
        _announce(config, runtime, urls, ops_urls, log)

    def draining() -> None:
        side.draining = True
        log.info("draining")

    _return_large_memory()
    # What lives as long as the process is no garbage: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # Calls in flight are no garbage either: at the default of 700 a burst of 64 is searched three times over.
    gc.set_threshold(10_000, 10, 10)
    server = Server(
        side, options, ops_app=ops, on_started=started, on_drain=draining, on_reload=side.reload_soon,
        on_refused=side.refused,
    )  # fmt: skip
    try:
        code = await server.serve()
    except OSError as error:
        log.error("listen_failed", extra={"fields": {"reason": str(error)}})
        reason = (error.strerror or str(error)).removesuffix(".").removeprefix(f"Cannot listen on {settings.listen}: ")
        print(
            f"llm-sidecar: cannot listen on {settings.listen}: {reason}; name another address with --port or --host",
            file=sys.stderr,
        )
        code = 1
    watching.cancel()
    await background.aclose(2.0)
    await store.aclose(5.0)
    await side.runtime.aclose()
    log.info("stopped")
    return code


def _return_large_memory() -> None:
    """Let glibc give every block of a mebibyte or more back once it is free.

    By default it learns from the first large body to keep such blocks (mallopt(3), M_MMAP_THRESHOLD): a body, what was
    parsed and what was written anew then each left a hole of its own, four times the body in all.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library, another system
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1024 * 1024)


def _warm(config: Any, runtime: Runtime) -> None:
    """Load what no call should wait for: in a thread the price list, and here the vocabulary where tokens are counted.

    Making that holds the interpreter for a tenth of a second in one go: in a thread, it would stop every call for so long.
    """
    if runtime.prices is not None:
        threading.Thread(target=runtime.prices.warm, daemon=True, name="prices").start()
    if any(row.name in ("prompt_limit", "quota", "budget", "rate_limit") for row in config.policies):
        models = {t.to.partition("/")[2] for route in config.models.values() for t in route.targets} | {""}
        for name in {tokens.encoding_name(model) for model in models}:
            tokens.load(name)


def _announce(config: Any, runtime: Runtime, urls: list[str], ops_urls: list[str], log: Any) -> None:
    present = sorted(runtime.providers)
    absent = sorted(entry.name for entry in config.providers.values() if entry.absent)
    running = [policy.name if policy.enforce else f"{policy.name} (shadow)" for policy in runtime.policies]
    fields = {
        "version": __version__, "config": config.source, "address": urls[0], "ops_address": ops_urls[0] if ops_urls else None,
        "providers": present, "absent": absent, "store": config.store.kind, "policies": running,
    }  # fmt: skip
    log.info("serving", extra={"fields": fields})
    for note in (*config.notes, *config.warnings):
        log.warning("notice", extra={"fields": {"message": str(note)}})
    runtime.shared.background(_warn(config, runtime, log))
    if sys.stderr.isatty():
        lines = [
            f"llm-sidecar {__version__} serves {urls[0]}/v1   ({config.source})",
            f"  providers  {', '.join(present)}" + (f"   absent: {', '.join(absent)}" if absent else ""),
            f"  store      {config.store.kind}",
            f"  policies   {' -> '.join(running) or 'none'}",
        ]
        print("\n".join(lines), file=sys.stderr)


async def _warn(config: Any, runtime: Runtime, log: Any) -> None:
    """Tell what the policies warn of, as `check` does: off the loop, for some load the price list for it."""
    for policy in runtime.policies:
        for sentence in await asyncio.to_thread(sentences, policy):
            log.warning("notice", extra={"fields": {"message": f"{config.source}: {policy.name}: {sentence}"}})


__all__ = ["run"]
