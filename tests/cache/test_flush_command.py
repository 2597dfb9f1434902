"""`llm-sidecar flush` against a running sidecar."""

from __future__ import annotations

import asyncio

import pytest

from proxy.cli import run
from tests.cache.conftest import policies
from tests.cache.test_hits import KEYS, as_, ask, result

OPS = "key-of-ops-0123456789"


@pytest.fixture
def flush(monkeypatch, capsys):
    """Run the command; return its exit code, output and errors."""

    async def go(side, *words, key=OPS):
        monkeypatch.setenv("LLM_SIDECAR_URL", f"{side.client.base_url}/v1")
        monkeypatch.setenv("LLM_SIDECAR_KEY", key)
        code = await asyncio.to_thread(run, ["flush", *words])
        return code, *capsys.readouterr()

    return go


@pytest.mark.parametrize(("words", "gone", "said"), [
    ((), "ab", "everything"), (("--team", "a"), "a", "team a"), (("--model", "MODEL"), "ab", "model gpt-4o"),
    (("--team", "b", "--model", "MODEL"), "b", "team b and model gpt-4o"), (("--model", "other"), "", "model other"),
])  # fmt: skip
async def test_it_flushes(serve, behind, flush, words, gone, said):
    """Everything, a team's, a model's or both: it says what, and it is gone."""
    async with serve(KEYS + policies("cache")) as side:
        model = behind.model()
        for team in "ab":
            await ask(side, model, headers=as_(f"{team}1"))
        code, out, err = await flush(side, *[word.replace("MODEL", model) for word in words])
        assert (code, err) == (0, "")
        assert out.startswith(f"flushed {said}")
        assert [t for t in "ab" if result(await ask(side, model, headers=as_(f"{t}1"))) == "miss"] == list(gone)


async def test_it_says_why_it_could_not(serve, flush, monkeypatch, capsys):
    """No permission, no cache, no sidecar: exit code 1 and one sentence."""
    async with serve(KEYS + policies("cache")) as side:
        code, _, err = await flush(side, key="key-of-a1-0123456789")
        assert code == 1 and "llm:manage" in err
    async with serve("") as side:
        code, _, err = await flush(side)
        assert code == 1 and "no `cache` policy" in err
    monkeypatch.setenv("LLM_SIDECAR_URL", "http://127.0.0.1:9")
    assert await asyncio.to_thread(run, ["flush"]) == 1
    assert "does not answer" in capsys.readouterr().err
