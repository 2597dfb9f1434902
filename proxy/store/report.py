"""Reports from the usage ledger: grouped sums, the design document's efficiency and advice; pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from proxy.store.ledger import SUMS

#: What rows may be grouped by.
BY: Final = ("team", "user", "model", "feature")
#: Below these the report has advice (the design document's figures).
EFFICIENCY: Final = 0.7
HIT_RATIO: Final = 0.3
_SHOWN: Final = (
    "calls", "completed", "refused", "errors", "client_closed", "prompt_tokens", "completion_tokens", "cached_tokens",
    "tokens", "cost_usd", "mean_seconds", "efficiency", "hit_ratio",
)  # fmt: skip


def report(month: str, rows: Iterable[Mapping[str, Any]], by: Sequence[str] = ("team", "model")) -> dict[str, Any]:
    """Return ``month``, ``by``, ``rows`` (most expensive first), ``total`` and ``advice``.

    A row has the fields of ``by``, calls by how they ended, tokens, ``cost_usd``, ``mean_seconds`` of a
    call, ``efficiency`` (tokens of completed calls ÷ all tokens) and ``hit_ratio`` of cache look-ups; the
    last two are None where there were no tokens and no look-ups.

    Raises:
        ValueError: ``by`` names something else than team, user, model and feature.
    """
    unknown = [name for name in by if name not in BY]
    if unknown or not by:
        raise ValueError(f"A usage report is by {', '.join(BY)}, not by {unknown[0] if unknown else 'nothing'}.")
    groups: dict[tuple[str, ...], list[int]] = {}
    whole = [0] * len(SUMS)
    for row in rows:
        sums = [int(row[name]) for name in SUMS]
        key = tuple(str(row[name]) for name in by)
        groups[key] = [a + b for a, b in zip(groups.get(key, [0] * len(SUMS)), sums, strict=True)]
        whole = [a + b for a, b in zip(whole, sums, strict=True)]
    shown = [{**dict(zip(by, key, strict=True)), **_row(sums)} for key, sums in groups.items()]
    shown.sort(key=lambda row: (-row["cost_usd"], -row["tokens"], *(row[name] for name in by)))
    total = _row(whole)
    return {"month": month, "by": list(by), "rows": shown, "total": total, "advice": advice(total)}


def _row(sums: Sequence[int]) -> dict[str, Any]:
    row = dict(zip(SUMS, sums, strict=True))
    tokens, lookups = row["prompt"] + row["completion"], row["hits"] + row["misses"]
    return {
        "calls": row["calls"],
        "completed": row["success"],
        "refused": row["refused"],
        "errors": row["error"],
        "client_closed": row["client_closed"],
        "prompt_tokens": row["prompt"],
        "completion_tokens": row["completion"],
        "cached_tokens": row["cached"],
        "tokens": tokens,
        "cost_usd": row["cost"] / 1e6,
        "mean_seconds": round(row["duration"] / row["calls"] / 1000, 3) if row["calls"] else 0.0,
        "efficiency": round(row["tokens_completed"] / tokens, 4) if tokens else None,
        "hit_ratio": round(row["hits"] / lookups, 4) if lookups else None,
    }


def advice(row: Mapping[str, Any]) -> list[str]:
    """Return sentences on a row that wastes tokens or caches in vain."""
    sentences = []
    efficiency, hits = row["efficiency"], row["hit_ratio"]
    if efficiency is not None and efficiency < EFFICIENCY:
        sentences.append(
            f"Only {efficiency:.0%} of the tokens went into calls that completed: look for clients that give up early "
            "(a longer timeout, shorter answers) and for providers that fail."
        )
    if hits is not None and hits < HIT_RATIO:
        sentences.append(
            f"Only {hits:.0%} of the cache look-ups hit: a longer `ttl`, a wider `scope`, or prompts that put what "
            "varies last would raise it; if calls never repeat, leave the cache out."
        )
    return sentences


def as_csv(found: Mapping[str, Any]) -> str:
    """Return a report's rows as CSV, with a header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*found["by"], *_SHOWN))
    for row in found["rows"]:
        writer.writerow([_safe(row[name]) for name in found["by"]] + ["" if row[n] is None else row[n] for n in _SHOWN])
    return out.getvalue()


def _safe(value: str) -> str:
    # A spreadsheet takes what begins like this for a formula (OWASP, "CSV Injection").
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def as_table(found: Mapping[str, Any]) -> str:
    """Return a report as a table for people, its total and advice below."""
    by = found["by"]
    head = [*by, "calls", "completed", "refused", "tokens", "cost", "mean", "efficiency", "hits"]
    lines = [[*(_plain(row[name]) for name in by), *_cells(row)] for row in found["rows"]]
    lines.append([*(["total"] + [""] * (len(by) - 1)), *_cells(found["total"])])
    widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]

    def show(line: Sequence[str]) -> str:
        left = [cell.ljust(width) for cell, width in zip(line[: len(by)], widths, strict=False)]
        right = [cell.rjust(width) for cell, width in zip(line[len(by) :], widths[len(by) :], strict=True)]
        return "  ".join((*left, *right)).rstrip()

    rule = "-" * len(show(head))
    text = [f"usage of {found['month']}", "", show(head), rule, *map(show, lines[:-1]), rule, show(lines[-1])]
    return "\n".join((*text, *(["", *(f"- {one}" for one in found["advice"])] if found["advice"] else ()))) + "\n"


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{row['calls']:,}",
        f"{row['completed']:,}",
        f"{row['refused']:,}",
        f"{row['tokens']:,}",
        f"${row['cost_usd']:,.2f}",
        f"{row['mean_seconds']:.2f}s",
        "–" if row["efficiency"] is None else f"{row['efficiency']:.0%}",
        "–" if row["hit_ratio"] is None else f"{row['hit_ratio']:.0%}",
    ]


def _plain(value: str) -> str:
    """Return a name without characters that move a terminal's cursor."""
    return "".join(char if char.isprintable() else "�" for char in value)[:60]
