"""Runs the lanes of a scenario in turn, round by round, and keeps what each run cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.scenarios import CHUNKS, Lane, Scenario
from tests.bench.wire import Load, Provider, load


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one lane. ``cpu_us`` is per call or chunk, as the scenario says; None where it is not measured."""

    cpu_us: float | None
    per_second: float
    load: Load
    complaint: str

    @property
    def p50(self) -> float:
        return self.load.p50_us


@dataclass(slots=True)
class Result:
    """All samples of a scenario, by lane, one a round."""

    scenario: Scenario
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def values(self, lane: str, what: Callable[[Sample], float | None]) -> list[float]:
        return [value for sample in self.samples.get(lane, ()) if (value := what(sample)) is not None]

    def cpu(self, lane: str) -> list[float]:
        return self.values(lane, lambda sample: sample.cpu_us)

    def more(self, lane: str, base: str, what: Callable[[Sample], float | None]) -> float | None:
        """Return the median over the rounds of ``lane`` minus ``base``."""
        pairs = self._pairs(lane, base, what)
        return statistics.median(ours - theirs for ours, theirs in pairs) if pairs else None

    def ratio(self, lane: str, base: str) -> float | None:
        """Return the median over the rounds of the CPU of ``lane`` divided by that of ``base``."""
        pairs = self._pairs(lane, base, lambda sample: sample.cpu_us or None)
        return statistics.median(ours / theirs for ours, theirs in pairs) if pairs else None

    def _pairs(self, lane: str, base: str, what: Callable[[Sample], float | None]) -> list[tuple[float, float]]:
        """Return the two lanes' values of the rounds in which both were measured."""
        both = zip(self.samples.get(lane, ()), self.samples.get(base, ()), strict=False)
        values = ((what(ours), what(theirs)) for ours, theirs in both)
        return [(ours, theirs) for ours, theirs in values if ours is not None and theirs is not None]


class Runner:
    """Runs lanes: ``seconds`` each, after a warm-up before the first."""

    def __init__(self, program: Path, provider: Provider, seconds: float, say: Callable[[str], None]) -> None:
        self._program = program
        self._provider = provider
        self._seconds = seconds
        self._say = say

    def run(self, scenario: Scenario, rounds: int) -> Result:
        """Return the samples of ``rounds`` rounds: A B C A B C …"""
        result = Result(scenario, {lane.name: [] for lane in scenario.lanes})
        self._provider.set(pace=scenario.pace or 0, chunks=CHUNKS)
        for lane in scenario.lanes:
            self._say(f"{scenario.name}: warming up {lane.name}")
            self._load(scenario, lane, min(0.5, self._seconds))
        for number in range(1, rounds + 1):
            for lane in scenario.lanes:
                self._say(f"{scenario.name}: round {number} of {rounds}, {lane.name}")
                result.samples[lane.name].append(self._sample(scenario, lane))
        return result

    def _load(self, scenario: Scenario, lane: Lane, seconds: float) -> Load:
        events = CHUNKS if scenario.pace is not None else 0
        return load(
            self._program, lane.who.port, lane.request, connections=scenario.connections, seconds=seconds, events=events
        )

    def _sample(self, scenario: Scenario, lane: Lane) -> Sample:
        process = lane.who.process
        before, cpu = self._provider.stats(), process.cpu() if process else 0
        seen = self._load(scenario, lane, self._seconds)
        spent, after = (process.cpu() if process else 0) - cpu, self._provider.stats()
        sent = after["requests"] - before["requests"]
        complaint = seen.complaint()
        if not complaint and abs(sent - lane.upstream * seen.requests) > 0.02 * seen.requests + 2:
            complaint = f"{seen.requests} calls, but {sent} at the provider"
        count = seen.ok if scenario.unit == "call" else seen.ok * CHUNKS
        if not count:
            return Sample(None, 0.0, seen, complaint or "no call went well")
        return Sample(spent / 1000 / count if process else None, count / seen.seconds, seen, complaint)
