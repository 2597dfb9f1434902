"""`llm-sidecar test`: run the policy tests that llm.yml declares, without a network."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from proxy.cli import add
from proxy.cli.terminal import Style

if TYPE_CHECKING:
    from proxy.config.model import Config, PolicyTest

_EPILOG = """\
example, in llm.yml:
  tests:
    - name: interns may not use the big model
      as: {team: interns}
      request: {model: gpt-4o, messages: [{role: user, content: hi}]}
      expect: {refused: model_not_allowed}

`expect` knows allowed, refused, param, provider, model, upstream_text, reply_text and cache. Each test begins
with empty counters and an empty cache; one that expects `cache: hit` is asked a first time before.

Exit codes: 0 all came true, 1 some did not (or the configuration has mistakes), 2 wrong usage.
"""


def register(commands: Any) -> None:
    """Add the command."""
    add(commands, "test", "run the policy tests that the file declares, without a network", _EPILOG)


def run(args: argparse.Namespace) -> int:
    """Run the tests; return 0 if all came true."""
    from proxy.cli.check import print_problems
    from proxy.config.load import load
    from proxy.config.problem import ConfigError

    try:
        config = load(args.config)
    except ConfigError as error:
        print_problems(error.problems)
        return 1
    paint = Style(sys.stdout)
    if not config.tests:
        print(f"{config.source} declares no tests; see `llm-sidecar test --help`.")
        return 0
    return asyncio.run(_all(config, paint))


async def _all(config: Config, paint: Style) -> int:
    failed = 0
    async for test, wrong in results(config):
        failed += bool(wrong)
        print(f"{paint('failed', 'red', 'bold') if wrong else paint('ok', 'green')}  {test.name}")
        for sentence in wrong:
            print(f"        {sentence}")
    count = len(config.tests)
    summary = f"{count - failed} of {count} tests came true"
    print(paint(summary, "red" if failed else "green"))
    return 1 if failed else 0


async def results(config: Config) -> AsyncIterator[tuple[PolicyTest, list[str]]]:
    """Yield each test with what did not come true, nothing if all did."""
    from proxy.cli import offline
    from proxy.cli.expect import disagreements
    from proxy.config.checks.tests import endpoint_of
    from proxy.dryrun import dry_run

    for test in config.tests:
        # Counters, quotas and cache of its own: the order of the tests means nothing.
        async with offline.runtime(config) as runtime:
            caller = test.as_
            for _ in range(2 if test.expect.cache == "hit" else 1):
                found = await dry_run(
                    runtime,
                    _copy(test.request),
                    team=caller.team,
                    user=caller.user,
                    key=caller.key,
                    feature=caller.feature,
                    endpoint=endpoint_of(test.request),
                    reply=test.upstream.reply,
                )
        yield test, disagreements(test.expect, found)


def _copy(request: dict[str, Any]) -> dict[str, Any]:
    # Policies write into the body that they are given.
    import orjson

    copy: dict[str, Any] = orjson.loads(orjson.dumps(request))
    return copy
