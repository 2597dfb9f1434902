"""`llm-sidecar explain`: what each policy would do with a request, and what would go upstream."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from proxy.cli import add
from proxy.cli.terminal import Style

if TYPE_CHECKING:
    from proxy.config.model import Config

_EPILOG = """\
examples:
  llm-sidecar explain request.json                      as user `local` of team `default`
  llm-sidecar explain request.json --as interns/ann     as user ann of team interns
  echo '{"messages": [{"role": "user", "content": "hi"}]}' | llm-sidecar explain -

REQUEST.json holds the body of a request to /v1/chat/completions, /v1/completions or /v1/embeddings. Nothing is
sent, secrets are masked, and counters begin at zero.

Exit codes: 0 the call would be made, 1 it would be refused (or the configuration has mistakes), 2 wrong usage.
"""


def register(commands: Any) -> None:
    """Add the command."""
    command = add(commands, "explain", "show what each policy would do with a request, sending nothing", _EPILOG)
    command.add_argument("request", metavar="REQUEST.json", help="the request's body; - is standard input")
    command.add_argument("--as", dest="caller", metavar="TEAM/USER", default="default/local", help="who asks")
    command.add_argument("--feature", default="", help="the value of x-llm-feature")
    command.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Explain one request; return 0 if it would be made."""
    from proxy.cli.check import print_problems
    from proxy.config.load import load
    from proxy.config.problem import ConfigError, did_you_mean
    from proxy.errors import ApiError
    from proxy.request import parse_object

    try:
        if args.request == "-":
            raw = sys.stdin.buffer.read()
        else:
            with open(args.request, "rb") as handle:
                raw = handle.read()
        body = parse_object(raw)
    except OSError as error:
        print(f"llm-sidecar explain: {args.request} cannot be read ({error.strerror})", file=sys.stderr)
        return 2
    except ApiError as error:
        print(f"llm-sidecar explain: {error.message}", file=sys.stderr)
        return 2
    try:
        config = load(args.config)
    except ConfigError as error:
        print_problems(error.problems)
        return 1
    team, _, user = args.caller.partition("/")
    if (message := _nobody(config, team)) is not None:
        print(f"llm-sidecar explain: {message}", file=sys.stderr)
        return 2
    if args.feature and args.feature not in config.features:
        near = did_you_mean(args.feature, config.features)
        hint = f"; did you mean `{near}`?" if near else ""
        print(f"`{args.feature}` is not listed under `features:` and counts as `other`{hint}", file=sys.stderr)
    found = asyncio.run(_explain(config, body, team or "default", user or "local", args.feature))
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False, default=str))
    else:
        _print(found, config, team or "default", user or "local", Style(sys.stdout))
    return 1 if found["refused"] else 0


def _nobody(config: Config, team: str) -> str | None:
    """Return a sentence if no caller can be of ``team``, None if one can."""
    from proxy.config.problem import did_you_mean

    known = {"default", *config.teams}
    closed = len(known) > 1 and (config.auth is None or config.auth.unknown_team == "refuse")
    if not team or team in known or not closed:
        return None
    near = did_you_mean(team, known)
    return f"there is no team `{team}` under `teams:`" + (f"; did you mean `{near}`?" if near else "")


async def _explain(config: Config, body: dict[str, Any], team: str, user: str, feature: str) -> dict[str, Any]:
    from proxy.cli import offline
    from proxy.config.checks.tests import endpoint_of
    from proxy.dryrun import dry_run

    async with offline.runtime(config) as runtime:
        return await dry_run(
            runtime, body, team=team, user=user, key="explain", feature=feature, endpoint=endpoint_of(body)
        )


_WORDS = {
    "pass": ("passes", "green"),
    "refuse": ("refuses", "red"),
    "answer": ("answers", "green"),
    "fail": ("fails", "red"),
    "store_down": ("refuses: the store is down", "red"),
    "shadow_refuse": ("would refuse, but only watches", "yellow"),
    "shadow_answer": ("would answer, but only watches", "yellow"),
}


def _print(found: dict[str, Any], config: Config, team: str, user: str, paint: Style) -> None:
    print(f"{paint('caller', 'bold')}    user {user} of team {team}")
    if found["policies"] or config.policies:
        print(paint("policies", "bold"))
    width = max((len(entry.name) for entry in config.policies), default=0)
    asked = {row["policy"]: row for row in found["policies"]}
    for entry in config.policies:
        row = asked.get(entry.name)
        if row is None:
            print(f"  {entry.name:{width}}  {paint('is not asked', 'dim')}")
            continue
        word, colour = _WORDS.get(row["decision"], (row["decision"], "dim"))
        why = f": {row['message']} ({row['code']})" if "message" in row else ""
        print(f"  {entry.name:{width}}  {paint(word, colour)}{why}")
    for name, count in found["detectors"].items():
        print(f"  found     {name} ({count})")
    refused = found["refused"]
    if refused is not None:
        print(f"\n{paint('refused', 'red', 'bold')} {refused['status']} {refused['code']}: {refused['message']}")
        return
    upstream = found["upstream"]
    if not upstream:
        print(f"\n{paint('answered', 'bold')} by a policy; nothing would go upstream")
        return
    print(f"\n{paint('upstream', 'bold')}  {upstream['provider']} · {upstream['model']}")
    if upstream["dropped"]:
        print(f"dropped   {', '.join(upstream['dropped'])}")
    print(f"\n{upstream['method']} {upstream['url']}")
    for name, value in upstream["headers"].items():
        print(f"{name}: {value}")
    print()
    print(json.dumps(upstream["body"], indent=2, ensure_ascii=False))
