"""`llm-sidecar usage`: the month's usage, from the running sidecar or straight from the store."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

from proxy.cli import add

_EPILOG = """\
examples:
  llm-sidecar usage                                    this month, by team and model
  llm-sidecar usage --month 2026-10 --by team,feature  another month
  llm-sidecar usage --format csv > usage.csv           for a spreadsheet

With LLM_SIDECAR_URL (and LLM_SIDECAR_KEY, which needs llm:view) the running sidecar is asked; else the
store that llm.yml names is read, or, where that is a sidecar's memory, the one on this machine is asked, where
`server.listen` says.
"""


class UsageError(Exception):
    """The report cannot be had; the message says what to do."""


def register(commands: Any) -> None:
    """Add the command."""
    command = add(commands, "usage", "report tokens, money and calls of a month", _EPILOG)
    command.add_argument("--month", metavar="YYYY-MM", default="", help="the month, in UTC (default: this one)")
    command.add_argument(
        "--by", metavar="LIST", default="team,model", help="of team, user, model, feature (default: team,model)"
    )
    command.add_argument("--format", choices=("table", "csv", "json"), default="table", help="(default: table)")


def run(args: argparse.Namespace) -> int:
    """Print the report."""
    from proxy.cli.remote import Remote, RemoteError, told
    from proxy.config.problem import ConfigError
    from proxy.store.report import as_csv, as_table, report

    by = [name.strip() for name in args.by.split(",") if name.strip()]
    try:
        remote = Remote()
        found = None
        if not remote.url:
            month, config = _checked(args, by)
            if config is None or config.store.kind == "memory":
                remote.look_here(config)
            else:
                found = report(month, asyncio.run(_rows(config.store, month)), by)
        if found is None:
            params = {"by": ",".join(by), **({"month": args.month} if args.month else {})}
            found = remote.ask("GET", "/admin/usage", "rows", params=params)
    except (UsageError, RemoteError, ConfigError, ValueError) as error:
        print(f"llm-sidecar usage: {told(error)}", file=sys.stderr)
        return 1
    if args.format == "json":
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        sys.stdout.write(as_csv(found) if args.format == "csv" else as_table(found))
    return 0


def _checked(args: argparse.Namespace, by: list[str]) -> tuple[str, Any]:
    """Return the month and the config, once it is clear that there can be such a report."""
    import time

    from proxy.admin.usage import check_month
    from proxy.cli.remote import configured
    from proxy.store.period import month_of
    from proxy.store.report import report

    month = args.month or month_of(time.time())
    check_month(month)
    report(month, (), by)  # before anything is opened
    return month, configured(args.config)


async def _rows(store: Any, month: str) -> list[Mapping[str, Any]]:
    if store.kind == "sqlite":
        from proxy.store.journal import read_usage

        try:
            return read_usage("/" + store.url.removeprefix("sqlite://").lstrip("/"), month)
        except OSError as error:
            raise UsageError(str(error)) from error
    from proxy.store.base import StoreUnavailable
    from proxy.store.factory import open_store

    opened = open_store(store.url, prefix=store.prefix, deadline=5.0)
    await opened.start()
    try:
        return await opened.usage(month)
    except StoreUnavailable as error:
        raise UsageError(str(error)) from error
    finally:
        await opened.aclose(0.0)
