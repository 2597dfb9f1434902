"""`llm-sidecar cost`: what a month will cost, by the design document's formula."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NamedTuple

from proxy.cli import add

_EPILOG = """\
examples:
  llm-sidecar cost --price-per-1k 0.005 --teams 20 --requests 2000 --prompt 300 --completion 150
  llm-sidecar cost --model openai/gpt-4o --teams 20 --requests 2000 --prompt 300 --completion 150

--requests is per team and month; --prompt and --completion are tokens of a request. A model is
provider/model or a bare name; `prices:` of llm.yml hold where there is one.
"""


class Estimate(NamedTuple):
    """A month: its tokens, and US dollars."""

    prompt: int
    completion: int
    usd: float

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion


def register(commands: Any) -> None:
    """Add the command."""
    command = add(commands, "cost", "estimate what a month will cost", _EPILOG)
    price = command.add_mutually_exclusive_group(required=True)
    price.add_argument("--model", metavar="M", help="provider/model, priced as the sidecar prices it")
    price.add_argument(
        "--price-per-1k", metavar="X", type=_amount, help="US dollars per 1,000 tokens, prompt and answer alike"
    )
    for name, what in (
        ("--teams", "teams"),
        ("--requests", "requests per team and month"),
        ("--prompt", "tokens of a prompt"),
        ("--completion", "tokens of an answer"),
    ):
        command.add_argument(name, metavar="N", type=_count, required=True, help=what)


def estimate(
    teams: int, requests: int, prompt: int, completion: int, *, input_price: float, output_price: float
) -> Estimate:
    """Return T·R·(P + C) tokens and T·R·(P/1000·X + C/1000·Y) dollars; prices in US dollars per 1,000 tokens."""
    calls = teams * requests
    usd = calls * (prompt / 1000 * input_price + completion / 1000 * output_price)
    return Estimate(calls * prompt, calls * completion, usd)


def run(args: argparse.Namespace) -> int:
    """Print the estimate."""
    source = "given"
    if args.price_per_1k is not None:
        input_price = output_price = args.price_per_1k
    else:
        found = _prices(args)
        if found is None:
            print(
                f"llm-sidecar cost: {args.model} has no price; give --price-per-1k, or a price under `prices:` in llm.yml.",
                file=sys.stderr,
            )
            return 1
        source, input_price, output_price = found
    month = estimate(
        args.teams, args.requests, args.prompt, args.completion, input_price=input_price, output_price=output_price
    )
    print(f"requests  {args.teams * args.requests:>16,} a month ({args.teams:,} teams x {args.requests:,})")
    print(f"tokens    {month.tokens:>16,} a month ({month.prompt:,} prompt + {month.completion:,} completion)")
    print(f"price     {'':>16} ${input_price:g} prompt, ${output_price:g} completion per 1,000 tokens ({source})")
    print(f"cost      {'$' + format(month.usd, ',.2f'):>16} a month")
    return 0


def _prices(args: argparse.Namespace) -> tuple[str, float, float] | None:
    from proxy.prices import Prices

    overrides: Any = {}
    kinds: dict[str, str] = {}
    try:
        from proxy.config.load import load

        config = load(args.config)
        overrides = config.prices
        kinds = {name: entry.kind for name, entry in config.providers.items()}
    except Exception:
        if args.config is not None:
            raise
    provider, slash, model = args.model.partition("/")
    prices = Prices(overrides)
    names = [(kinds.get(provider, provider), provider, model)] if slash else []
    bare = args.model
    names += [(kind, kind, bare) for kind in ("openai", "anthropic", "gemini")]
    for kind, name, asked in names:
        tariff = prices.tariff(kind, name, asked)
        if tariff is not None:
            return f"{name}/{asked}", tariff[0].input / 1000, tariff[0].output / 1000
    return None


def _count(text: str) -> int:
    try:
        number = int(text.replace("_", "").replace(",", ""))
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 0 or more")
    return number


def _amount(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no price")
    return number
