"""`llm-sidecar flush`: empty the response cache of a running sidecar at once."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from proxy.cli import add

_EPILOG = """\
examples:
  llm-sidecar flush                          everything
  llm-sidecar flush --team platform          what was kept for one team
  llm-sidecar flush --model gpt-4o           what one model answered (an alias: what its targets answered)

It asks the running sidecar at LLM_SIDECAR_URL, else the one on this machine, where llm.yml's `server.listen`
says, with LLM_SIDECAR_KEY, which needs the permission llm:manage. Sidecars that share the cache's Redis follow
within a second.
"""


def register(commands: Any) -> None:
    """Add the command."""
    command = add(commands, "flush", "empty the response cache at once", _EPILOG)
    command.add_argument("--team", metavar="T", help="only what was kept for this team")
    command.add_argument("--model", metavar="M", help="only what this model answered")


def run(args: argparse.Namespace) -> int:
    """Flush; return 0 once it is done."""
    from proxy.cli.remote import Remote, RemoteError, configured, told
    from proxy.config.problem import ConfigError

    asked = {name: value for name, value in (("team", args.team), ("model", args.model)) if value}
    try:
        remote = Remote()
        if not remote.url:
            remote.look_here(configured(args.config))
        body = remote.ask("POST", "/admin/cache/flush", "flushed", json=asked)
    except (RemoteError, ConfigError) as error:
        print(f"llm-sidecar flush: {told(error)}", file=sys.stderr)
        return 1
    what = [f"team {args.team}"] if args.team else []
    what += [f"model {', '.join(body.get('models') or [args.model])}"] if args.model else []
    print(f"flushed {' and '.join(what) or 'everything'}")
    for note in body.get("notes") or ():
        print(f"  {note}")
    return 0
