"""The design document's benchmark (its "Performance Benchmarks"): scenarios, goals, and the table it accepts by.

A real sidecar with limits, redaction and the cache, in front of the fake upstream, which takes a second to
answer (the design document assumes a provider's latency; ours is made, so that the figures repeat). The
clients run in this process, on the same machine. Exit code 0 if every goal is met.

    python tests/bench/seed.py [--store memory|redis] [--delay 1.0] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx2

from proxy import tokens
from tests.fakes.process import Upstream
from tests.fakes.redis import RedisServer
from tests.fakes.sidecar import CLIENT_KEY, OPS_KEY, Sidecar, config

_TEXT = """
team epic title login user story sprint board ticket report export import search filter mobile release deploy billing
invoice payment account project roadmap backlog review comment upload download index cache queue worker alert metric
budget customer partner workflow template summary draft version branch merge rollback migration
"""
_WORDS = _TEXT.split()
_ANSWER = 200
_VUS = 50
#: Requests of each caller in the repeated load. Few callers: of equal prompts within the same second the later
#: ones wait for the first's answer, which saves the provider's call but no time.
_PER_CALLER = 20


def prompt(rng: random.Random) -> str:
    """Return a prompt of 300 to 500 tokens (these words are a token each, or nearly)."""
    wanted = rng.randint(310, 480)
    return "Write a title for this epic: " + " ".join(rng.choice(_WORDS) for _ in range(wanted))


class Bench:
    """The sidecar under test and one client."""

    def __init__(self, sidecar: Sidecar, client: httpx2.AsyncClient, model: str) -> None:
        self.sidecar = sidecar
        self.client = client
        self.model = model
        self.calls = 0
        self.errors = 0

    async def ask(self, text: str, *, stream: bool = False, cached: bool = True, **more: Any) -> tuple[float, str]:
        """Send one request; return its seconds to the last byte and what the cache did."""
        fields = [
            ("model", self.model),
            ("messages", [{"role": "user", "content": text}]),
            ("temperature", 0.7),
            *more.items(),
        ]
        if stream:
            fields.append(("stream", True))
        headers = {} if cached else {"cache-control": "no-store"}
        began = time.perf_counter()
        self.calls += 1
        try:
            reply = await self.client.post("/v1/chat/completions", json=dict(fields), headers=headers)
        except httpx2.HTTPError:
            self.errors += 1
            return time.perf_counter() - began, "error"
        took = time.perf_counter() - began
        if reply.status_code != 200 or (stream and "[DONE]" not in reply.text):
            self.errors += 1
            return took, "error"
        return took, reply.headers.get("x-llm-cache", "")

    async def many(self, jobs: Sequence[dict[str, Any]], workers: int) -> list[tuple[float, str]]:
        """Send all, ``workers`` at a time."""
        waiting = iter(jobs)
        found: list[tuple[float, str]] = []

        async def work() -> None:
            for job in waiting:
                found.append(await self.ask(**job))

        await asyncio.gather(*[work() for _ in range(workers)])
        return found


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile (nearest rank)."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


Row = tuple[str, str, str, bool]


async def single(bench: Bench, rng: random.Random, count: int) -> list[Row]:
    """Scenario 1: one request at a time, cold and warm."""
    texts = [prompt(rng) for _ in range(count)]
    cold = [(await bench.ask(text))[0] for text in texts]
    warm = [(await bench.ask(text, stream=bool(i % 2)))[0] for i, text in enumerate(texts * 5)]
    return [
        ("p95 latency, warm cache", "< 500 ms", f"{p95(warm) * 1000:.1f} ms", p95(warm) < 0.5),
        ("p95 latency, cold, provider included", "< 1.5 s", f"{p95(cold):.3f} s", p95(cold) < 1.5),
    ]


async def concurrent(bench: Bench, rng: random.Random, rounds: int) -> list[Row]:
    """Scenario 2: 50 callers at once."""
    before = bench.calls, bench.errors
    began = time.perf_counter()
    await bench.many([{"text": prompt(rng), "stream": bool(i % 2)} for i in range(_VUS)], _VUS)
    burst = time.perf_counter() - began
    await bench.many([{"text": prompt(rng), "stream": bool(i % 2)} for i in range(_VUS * (rounds - 1))], _VUS)
    calls, errors = bench.calls - before[0], bench.errors - before[1]
    rate = errors / calls
    return [
        (f"{_VUS} concurrent calls, all answered in", "< 25 s", f"{burst:.2f} s", burst < 25),
        (f"error rate of {calls} calls, {_VUS} at a time", "< 0.1 %", f"{rate:.2%}", rate < 0.001),
    ]


async def repeated(bench: Bench, rng: random.Random, count: int) -> list[Row]:
    """Scenario 3: 60 % of the prompts are repeats; the same load with and without the cache."""
    fresh = [prompt(rng) for _ in range(count * 2 // 5)]
    repeats = [False] * (len(fresh) - 1) + [True] * (count - len(fresh))
    rng.shuffle(repeats)
    asked: list[str] = []
    jobs = []
    for repeat in (False, *repeats):
        text = rng.choice(asked) if repeat else fresh.pop()
        asked.append(text)
        # The same request as a repeat has it: another form, another end user.
        jobs.append({"text": text, "stream": rng.random() < 0.5, "user": f"u{rng.randint(1, 9)}"})
    share = 1 - len(set(asked)) / len(asked)
    workers = max(2, count // _PER_CALLER)
    without = await bench.many([{**job, "cached": False} for job in jobs], workers)
    found = await bench.many(jobs, workers)
    served = sum(result in ("hit", "coalesced") for _, result in found)
    ratio = served / len(found)
    slow, fast = (statistics.mean(seconds for seconds, _ in rows) for rows in (without, found))
    better = 1 - fast / slow
    return [
        (f"cache hit ratio, {share:.0%} repeated", "> 40 %", f"{ratio:.1%}", ratio > 0.4),
        (
            "mean latency, without and with the cache",
            "50 % better",
            f"{slow:.3f} s, {fast:.3f} s: {better:.0%}",
            better > 0.5,
        ),
    ]


async def run(args: argparse.Namespace, sidecar: Sidecar) -> int:
    rng = random.Random(20_261_122)
    encoding = tokens.load("o200k_base")
    sizes = [len(encoding.encode_ordinary(prompt(random.Random(n)))) for n in range(50)]
    model = f"gpt-4o;headers={args.delay};chunks=20;size=40;usage=400+{_ANSWER}"
    headers = {"authorization": f"Bearer {CLIENT_KEY}"}
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(
        base_url=sidecar.url, headers=headers, timeout=60, limits=limits, trust_env=False
    ) as client:
        bench = Bench(sidecar, client, model)
        print(
            f"prompts of {min(sizes)} to {max(sizes)} tokens, answers of {_ANSWER}, provider {args.delay:g} s, store {args.store}"
        )
        rows: list[Row] = []
        for name, scenario in (
            ("single request", single(bench, rng, 5 if args.quick else 20)),
            ("concurrency", concurrent(bench, rng, 2 if args.quick else 20)),
            ("cache effectiveness", repeated(bench, rng, 60 if args.quick else 200)),
        ):
            if sys.stderr.isatty():
                print(f"  {name} …", file=sys.stderr)
            rows += await scenario
    metrics = sidecar.metrics()
    rows.append((
        "the same by llm_cache_hit_ratio (all scenarios)", "reported",
        f"{metrics.sum('llm_cache_hit_ratio'):.1%}", True,
    ))  # fmt: skip
    table(rows)
    return 0 if all(met for *_, met in rows) else 1


def table(rows: Sequence[Row]) -> None:
    """Print the acceptance table."""
    head: tuple[str, ...] = ("criterion", "goal", "measured", "met")
    body = [(*row[:3], "yes" if row[3] else "NO") for row in rows]
    widths = [max(len(row[i]) for row in (head, *body)) for i in range(4)]
    for row in (head, tuple("-" * width for width in widths), *body):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", choices=("memory", "redis"), default="memory")
    parser.add_argument("--delay", type=float, default=1.0, help="seconds until the provider answers (default: 1)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the load: for trying it out")
    args = parser.parse_args()
    upstream = Upstream()
    redis = RedisServer() if args.store == "redis" else None
    try:
        settings = config(
            upstream.base(),
            policies=[
                {"rate_limit": {"limits": [{"by": "team", "requests": 1_000_000, "per": "1m", "concurrent": 500}]}},
                {"quota": {"tokens": 1_000_000_000}}, {"redact": {"builtin": ["secrets", "pii"]}}, {"cache": {"ttl": "1h"}},
            ],
            **({"store": redis.url, "server": {"secret": "a-secret-of-the-benchmark"}} if redis else {}),
        )  # fmt: skip
        sidecar = Sidecar(settings)
        try:
            assert sidecar.ask("GET", "/healthz", key=OPS_KEY).status == 200
            return asyncio.run(run(args, sidecar))
        finally:
            sidecar.stop()
            sidecar.cleanup()
    finally:
        if redis is not None:
            redis.stop()
        upstream.stop()


if __name__ == "__main__":
    sys.exit(main())
