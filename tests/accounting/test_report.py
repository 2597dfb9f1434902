"""The usage report: grouping, the design document's efficiency and advice, and its forms."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from proxy.store.base import UsageRecord
from proxy.store.ledger import Ledger, as_mapping
from proxy.store.report import as_csv, as_table, report

MONTH = "2026-11"


def rows(*records: UsageRecord) -> list[dict[str, Any]]:
    """Return the ledger's rows of these calls."""
    ledger = Ledger()
    for record in records:
        ledger.add(record)
    return [as_mapping(key, sums) for key, sums in ledger.rows.items()]


def call(team: str = "a", model: str = "m", status: str = "success", **fields: Any) -> UsageRecord:
    return UsageRecord(MONTH, team, fields.pop("user", "u"), model, fields.pop("feature", "f"), status, **fields)


def test_rows_are_grouped_and_the_most_expensive_comes_first() -> None:
    """Calls, tokens, money and mean time add up by what was asked for."""
    found = report(
        MONTH,
        rows(
            call(prompt=100, completion=50, cost=20, duration=1_000),
            call(prompt=10, cost=5, duration=3_000, user="v", cached=4),
            call(team="b", prompt=1, cost=900, feature="g"),
            call(team="b", status="refused"),
        ),
        ("team",),
    )
    assert [row["team"] for row in found["rows"]] == ["b", "a"]
    assert found["rows"][1] == {
        "team": "a", "calls": 2, "completed": 2, "refused": 0, "errors": 0, "client_closed": 0, "prompt_tokens": 110,
        "completion_tokens": 50, "cached_tokens": 4, "tokens": 160, "cost_usd": 0.000025, "mean_seconds": 2.0,
        "efficiency": 1.0, "hit_ratio": None,
    }  # fmt: skip
    assert (found["total"]["calls"], found["total"]["refused"], found["total"]["tokens"]) == (4, 1, 161)


def test_efficiency_is_the_tokens_of_completed_calls_by_all() -> None:
    """Below 70 % the report has advice; at 70 % it has none."""
    wasteful = report(MONTH, rows(call(prompt=69), call(prompt=31, status="client_closed")))
    assert wasteful["total"]["efficiency"] == 0.69
    assert "Only 69% of the tokens" in wasteful["advice"][0]
    assert report(MONTH, rows(call(prompt=70), call(prompt=30, status="error")))["advice"] == []


def test_a_cache_that_rarely_hits_is_worth_a_sentence() -> None:
    """Below 30 % hits there is advice; bypassed and uncached calls do not count as look-ups."""
    some = (
        [call(cache="hit")] * 2 + [call(cache="coalesced")] + [call(cache="miss")] * 7 + [call(cache="bypass"), call()]
    )
    fine = report(MONTH, rows(*some))
    assert fine["total"]["hit_ratio"] == 0.3
    assert fine["advice"] == []
    poor = report(MONTH, rows(*some, call(cache="miss")))
    assert "Only 27% of the cache look-ups hit" in poor["advice"][0]


def test_nothing_at_all_is_a_report_too() -> None:
    """A month without calls has a total of nothing and no advice."""
    found = report(MONTH, [])
    assert found["rows"] == []
    assert found["total"]["calls"] == 0
    assert found["total"]["efficiency"] is None
    assert "total" in as_table(found)


def test_reports_by_something_else_are_refused() -> None:
    """The sentence names what there is."""
    with pytest.raises(ValueError, match="team, user, model, feature, not by colour"):
        report(MONTH, [], ("colour",))


def test_csv_is_safe_to_open_in_a_spreadsheet() -> None:
    """Quotes survive, and a name cannot be a formula."""
    found = report(MONTH, rows(call(team='=HYPERLINK("x")', prompt=3)), ("team", "model"))
    header, row = csv.reader(io.StringIO(as_csv(found)))
    assert header[:3] == ["team", "model", "calls"]
    assert row[:3] == ['\'=HYPERLINK("x")', "m", "1"]


def test_a_table_shows_no_control_characters() -> None:
    """A team called by a terminal's escape sequence stays a name."""
    table = as_table(report(MONTH, rows(call(team="\x1b[31mred\n"))))
    assert "\x1b" not in table
    assert table.count("\n") == 7


def test_ends_are_known_by_their_names_and_by_their_metric_status() -> None:
    """`completed` and `success`, `client_gone` and `client_closed` are one each; faults are errors."""
    ends = ("completed", "success", "client_gone", "client_closed", "refused", "upstream_error", "fault", "shutdown")
    total = report(MONTH, rows(*[call(status=end) for end in ends]))["total"]
    assert (total["completed"], total["client_closed"], total["refused"], total["errors"]) == (2, 2, 1, 3)
