"""Prints what was measured: a table a scenario, the facts, the goals."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from tests.bench.goals import Facts, Goal
from tests.bench.measure import Result, Sample


def table(result: Result) -> str:
    """Return one scenario as text: medians, ranges in brackets, the CPU's ratio to the base lane."""
    scenario = result.scenario
    unit = scenario.unit
    latency = "first p50" if unit == "chunk" else "p50"
    tops = ["", f"CPU µs a {unit}", f"÷ {scenario.base}", f"{unit}s/s", f"{latency} µs", "p99 µs", ""]
    rows = [tops]
    for lane, samples in result.samples.items():
        ratio = result.ratio(lane, scenario.base)
        rows.append([
            lane,
            _spread(result.cpu(lane)),
            f"{ratio:.2f}" if ratio is not None else "–",
            _median(sample.per_second for sample in samples),
            _median(_first(unit, sample)[0] for sample in samples),
            _median(_first(unit, sample)[1] for sample in samples),
            next((f"! {sample.complaint}" for sample in samples if sample.complaint), ""),
        ])  # fmt: skip
    return f"{scenario.name}: {scenario.title}\n{_columns(rows)}"


def _first(unit: str, sample: Sample) -> tuple[float, float]:
    seen = sample.load
    return (seen.first_p50_us, seen.first_p99_us) if unit == "chunk" else (seen.p50_us, seen.p99_us)


def facts_text(facts: Facts, started: dict[str, float]) -> str:
    """Return start-up times, memory, and who could not take part."""
    rows = [["", "starts in s", "memory MB"]]
    for name in sorted(facts.rss, key=lambda name: facts.rss[name]):
        first = _spread(facts.start, 2) if name == "sidecar" and facts.start else f"{started[name]:.2f}"
        rows.append([name, first, f"{facts.rss[name] / 1e6:.1f}"])
    parts = ["start-up (until it answers HTTP) and memory (RSS of the process tree, after the load)", _columns(rows)]
    parts += [f"not there: {name}: {why}" for name, why in facts.absent.items()]
    return "\n".join(parts)


def goals_text(goals: Sequence[Goal]) -> str:
    """Return the goals as text, the missed ones as plain as the others."""
    rows = [["goal", "at most", "measured", "÷ goal", "", ""]]
    for goal in goals:
        value = "–" if goal.value is None else f"{goal.value:.2f}" if goal.bound < 10 else f"{goal.value:.1f}"
        ratio = "–" if goal.value is None else f"{goal.value / goal.bound:.2f}"
        rows.append([goal.text, f"{goal.bound:g} {goal.unit}", value, ratio, goal.verdict, goal.more])
    counts = {word: sum(goal.verdict == word for goal in goals) for word in ("reached", "missed", "not measured")}
    return f"{_columns(rows)}\n{', '.join(f'{count} {word}' for word, count in counts.items())}"


def as_json(results: Iterable[Result], facts: Facts, goals: Sequence[Goal], about: dict[str, Any]) -> dict[str, Any]:
    """Return everything, every sample included."""
    return {
        "about": about,
        "scenarios": {
            result.scenario.name: {
                "title": result.scenario.title,
                "unit": result.scenario.unit,
                "lanes": {lane: [_sample(sample) for sample in samples] for lane, samples in result.samples.items()},
            }
            for result in results
        },
        "facts": facts.as_json(),
        "goals": [
            {
                "goal": goal.text,
                "at_most": goal.bound,
                "unit": goal.unit,
                "measured": goal.value,
                "verdict": goal.verdict,
            }
            for goal in goals
        ],
    }


def _sample(sample: Sample) -> dict[str, Any]:
    seen = {name: getattr(sample.load, name) for name in type(sample.load).__dataclass_fields__}
    return {"cpu_us": sample.cpu_us, "per_second": sample.per_second, "complaint": sample.complaint, "load": seen}


def _spread(values: Sequence[float], digits: int = 1) -> str:
    if not values:
        return "–"
    middle, low, high = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low}–{high})"


def _median(values: Iterable[float]) -> str:
    found = list(values)
    return f"{statistics.median(found):,.0f}" if found else "–"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(width) if column in (0, len(row) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
