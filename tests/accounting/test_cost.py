"""`llm-sidecar cost`: the design document's formula and its example."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.cli import parser
from proxy.cli.cost import estimate, register, run


def ask(*arguments: str) -> int:
    """Run the command."""
    top = parser()
    commands = next(action for action in top._actions if hasattr(action, "choices") and action.dest == "command")
    if "cost" not in commands.choices:
        register(commands)
    return run(top.parse_args(["cost", *arguments]))


def test_the_design_documents_example() -> None:
    """20 teams, 2,000 requests, 300 + 150 tokens at $0.005 per 1,000: 18,000,000 tokens, about $90."""
    month = estimate(20, 2_000, 300, 150, input_price=0.005, output_price=0.005)
    assert month.tokens == 18_000_000
    assert month.usd == pytest.approx(90)


def test_the_example_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The same by the command."""
    assert (
        ask("--price-per-1k", "0.005", "--teams", "20", "--requests", "2_000", "--prompt", "300", "--completion", "150")
        == 0
    )
    out = capsys.readouterr().out
    assert "18,000,000 a month" in out
    assert "$90.00 a month" in out


def test_a_models_price(capsys: pytest.CaptureFixture[str]) -> None:
    """Prompt and answer at their own prices: gpt-4o at $2.5 and $10 per million."""
    base = ("--teams", "20", "--requests", "2000", "--prompt", "300", "--completion", "150")
    assert ask("--model", "openai/gpt-4o", *base) == 0
    assert "$90.00 a month" in capsys.readouterr().out
    assert ask("--model", "gpt-4o", *base) == 0
    assert "$90.00 a month" in capsys.readouterr().out


def test_the_files_prices_come_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`prices:` of llm.yml hold for their provider and model."""
    file = tmp_path / "llm.yml"
    file.write_text(
        "providers: {mine: {kind: echo, model: m}}\ndefault_provider: mine\nprices: {mine/m: {input: 1000, output: 2000}}\n"
    )
    base = ("--teams", "1", "--requests", "1", "--prompt", "1000", "--completion", "1000")
    assert ask("--model", "mine/m", "--config", str(file), *base) == 0
    assert "$3.00 a month" in capsys.readouterr().out


def test_an_unknown_model_is_told_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 and a sentence."""
    assert ask("--model", "no-such", "--teams", "1", "--requests", "1", "--prompt", "1", "--completion", "1") == 1
    assert "--price-per-1k" in capsys.readouterr().err
