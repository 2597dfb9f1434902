"""`llm-sidecar flush`: empty the response cache of a running sidecar at once."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from proxy.cli import add

_EPILOG = """\
examples:
  llm-sidecar flush                          everything
  llm-sidecar flush --team platform          what was kept for one team
  llm-sidecar flush --model gpt-4o           what one model answered (an alias: what its targets answered)

It asks the running sidecar at LLM_SIDECAR_URL (default: http://127.0.0.1:8080) with LLM_SIDECAR_KEY, which
needs the permission llm:manage. Sidecars that share the cache's Redis follow within a second.
"""


def register(commands: Any) -> None:
    """Add the command."""
    command = add(commands, "flush", "empty the response cache at once", _EPILOG, config=False)
    command.add_argument("--team", metavar="T", help="only what was kept for this team")
    command.add_argument("--model", metavar="M", help="only what this model answered")


def run(args: argparse.Namespace) -> int:
    """Flush; return 0 once it is done."""
    import httpx2

    url = os.environ.get("LLM_SIDECAR_URL", "http://127.0.0.1:8080").rstrip("/").removesuffix("/v1")
    key = os.environ.get("LLM_SIDECAR_KEY", "")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    asked = {name: value for name, value in (("team", args.team), ("model", args.model)) if value}
    try:
        reply = httpx2.post(f"{url}/admin/cache/flush", json=asked, headers=headers, timeout=10.0, trust_env=False)
        body = reply.json()
    except httpx2.HTTPError as failure:
        return _failed(f"the sidecar at {url} does not answer ({type(failure).__name__})")
    except ValueError:
        return _failed(f"what answers at {url} is no llm-sidecar")
    if reply.status_code != 200 or not isinstance(body, dict):
        error = body.get("error") if isinstance(body, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        return _failed(message or f"the sidecar answered {reply.status_code}")
    what = [f"team {args.team}"] if args.team else []
    what += [f"model {', '.join(body.get('models') or [args.model])}"] if args.model else []
    print(f"flushed {' and '.join(what) or 'everything'}")
    for note in body.get("notes") or ():
        print(f"  {note}")
    return 0


def _failed(reason: str) -> int:
    print(f"llm-sidecar flush: {reason}", file=sys.stderr)
    return 1
