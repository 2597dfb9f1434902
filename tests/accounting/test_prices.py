"""What tokens cost, checked against the price data's own calculation."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from proxy.call import Usage
from proxy.prices import Prices


@pytest.mark.parametrize(
    ("kind", "provider", "model"),
    [
        ("openai", "openai", "gpt-4o"),
        ("openai", "openai", "gpt-4o-mini"),
        ("anthropic", "anthropic", "claude-sonnet-4-5"),
        ("gemini", "google", "gemini-2.5-pro"),
        ("openai", "openai", "text-embedding-3-small"),
    ],
)
@pytest.mark.parametrize("prompt", [1_000, 300_000])
def test_costs_are_the_data_packages(kind: str, provider: str, model: str, prompt: int) -> None:
    """Cached and written input, output and tiers by prompt size give what genai-prices itself calculates."""
    from genai_prices import Usage as Theirs
    from genai_prices import calc_price

    output = 0 if "embedding" in model else 700
    cached = 0 if "embedding" in model else 400
    written = 100 if kind == "anthropic" else 0
    theirs = calc_price(
        Theirs(input_tokens=prompt, output_tokens=output, cache_read_tokens=cached, cache_write_tokens=written),
        model, provider_id=provider,
    ).total_price  # fmt: skip
    ours = Prices().cost(kind, "any", model, Usage(prompt, output, cached=cached, cache_write=written))
    assert ours == pytest.approx(float(theirs) * 1e6, abs=1)


def test_overrides_come_first() -> None:
    """llm.yml's prices hold for their provider and model alone, cached input included."""
    price = SimpleNamespace(input=2.5, output=10, cached_input=1.25)
    plain = SimpleNamespace(input=4, output=8, cached_input=None)
    prices = Prices({"mine/gpt-4o": price, "mine/own": plain})
    assert prices.cost("openai", "mine", "gpt-4o", Usage(1_000, 100, cached=400)) == 600 * 2.5 + 400 * 1.25 + 100 * 10
    assert prices.cost("openai", "mine", "own", Usage(1_000, 100, cached=400)) == 4_800
    assert prices.cost("openai", "other", "own", Usage(1, 1)) is None


def test_a_hold_is_never_below_the_cost() -> None:
    """Whatever part of the prompt turns out to be cached or written, the hold covers it."""
    prices = Prices()
    for model, kind in (("gpt-4o", "openai"), ("claude-sonnet-4-5", "anthropic"), ("gemini-2.5-pro", "gemini")):
        for prompt in (10, 250_000):
            hold = prices.hold(kind, kind, model, prompt, 500)
            for cached, written in ((0, 0), (prompt, 0), (0, prompt), (prompt // 2, prompt // 2)):
                cost = prices.cost(kind, kind, model, Usage(prompt, 500, cached=cached, cache_write=written))
                assert hold is not None
                assert cost is not None
                assert cost <= hold


def test_nonsense_from_an_upstream_costs_no_less_than_nothing() -> None:
    """More cached tokens than tokens, or negative ones, never make a price negative."""
    prices = Prices({"a/b": SimpleNamespace(input=1, output=1, cached_input=0.5)})
    assert prices.cost("openai", "a", "b", Usage(10, 0, cached=10_000)) == 5
    assert prices.cost("openai", "a", "b", Usage(10, 0, cached=-10_000)) == 10
    assert prices.cost("openai", "a", "b", Usage(0, 0)) == 0


def test_unknown_models_have_no_price_and_echo_is_free() -> None:
    """None, not zero: the difference is counted."""
    prices = Prices()
    assert prices.cost("openai", "openai", "my-own-model", Usage(10, 10)) is None
    assert prices.hold("openai", "openai", "my-own-model", 10, 10) is None
    assert prices.cost("echo", "echo", "m", Usage(10, 10)) == 0
    assert prices.unpriced([("openai", "openai", "gpt-4o"), ("openai", "openai", "x-1")]) == ["openai/x-1"]


def test_azure_falls_back_to_openais_price() -> None:
    """A deployment that is called like a model costs what the model costs."""
    assert Prices().cost("azure_openai", "azure", "gpt-4o", Usage(1_000_000, 0)) == 2_500_000


def test_prices_change_with_the_date() -> None:
    """A price that begins on a day holds from that day on, without a restart."""
    now = [1_795_000_000.0]
    prices = Prices(time=lambda: now[0])
    before = prices.cost("gemini", "gemini", "gemini-3.6-flash", Usage(1_000_000, 0))
    now[0] = 1_800_000_000.0
    assert (before, prices.cost("gemini", "gemini", "gemini-3.6-flash", Usage(1_000_000, 0))) == (750_000, 1_500_000)


def test_the_data_is_imported_only_where_it_is_needed() -> None:
    """Neither the module nor a price of llm.yml imports genai-prices."""
    code = (
        "import sys\nfrom types import SimpleNamespace as S\nfrom proxy.prices import Prices\nfrom proxy.call import Usage\n"
        "p = Prices({'a/b': S(input=1, output=1, cached_input=None)})\n"
        "p.cost('openai', 'a', 'b', Usage(1, 1))\nassert 'genai_prices' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
