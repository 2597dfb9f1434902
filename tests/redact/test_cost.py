"""What redaction costs, in CPU time: run with ``-m bench`` on a quiet machine."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from policies.redact.whole import redact_text
from tests.redact.helpers import call, chat, delta, engine, policy

PROSE = (
    "The service answers when a customer asks for help, and the best answers name what to do next. First we read the "
    "request, then we look for what must not leave, and at last we pass it on; nothing is kept. Ask your team lead. "
) * 40
FOUND = ("api_key=abc123def", "ann@example.com", "password: hunter22", "AKIAIOSFODNN7EXAMPLE", "4111111111111111",
         "+1 415 555 0132", "DE89370400440532013000", "bob@example.org", "Bearer abc123def456", "078-05-1123")  # fmt: skip
DEFAULT = ("secrets", "pii")


def best(work: Callable[[], object], times: int = 200) -> float:
    """Return the CPU seconds of the best of some runs."""
    found = 1e9
    for _ in range(times):
        started = time.process_time()
        work()
        found = min(found, time.process_time() - started)
    return found


def report(what: str, value: float, goal: float, unit: float, name: str) -> None:
    print(f"\n{what}: {value * unit:.1f} {name} (goal {goal * unit:.0f})")
    assert value <= goal


@pytest.mark.bench
def test_a_prompt_without_findings() -> None:
    """All built-in detectors on 4 KB of prose: at most 40 µs."""
    text = PROSE[:4096].encode()
    chosen = engine()
    report("4 KB, nothing found", best(lambda: chosen.decide(text, 0, True)), 40e-6, 1e6, "µs")


@pytest.mark.bench
def test_a_prompt_with_ten_findings() -> None:
    """4 KB with ten findings: at most 200 µs."""
    text = "".join(PROSE[i * 380 : i * 380 + 380] + f" {found} " for i, found in enumerate(FOUND)).encode()
    chosen = engine(DEFAULT)
    assert len(chosen.decide(text, 0, True)[1]) == 10
    report("4 KB, ten findings", best(lambda: chosen.decide(text, 0, True)), 200e-6, 1e6, "µs")


@pytest.mark.bench
def test_a_stream_without_findings() -> None:
    """A chunk of a stream in which nothing is found: at most 3 µs in the filter."""
    chunks = [delta(role="assistant", content="")] + [delta(content=p) for p in re.findall(r"\s?\S{1,6}", PROSE[:6000])]
    made = policy()
    texts = [c.choices[0]["delta"].get("content") for c in chunks]

    def run() -> None:
        chosen = made.on_reply(asked)
        feed = chosen.feed
        for chunk in chunks:
            feed(chunk)

    asked, found = call(chat("hi")), 1e9
    for _ in range(30):
        for chunk, text in zip(chunks, texts, strict=True):
            chunk.choices[0]["delta"]["content"] = text
        found = min(found, best(run, 1))
    report("a chunk of a stream", found / len(chunks), 3e-6, 1e6, "µs")


@pytest.mark.bench
def test_the_design_documents_thousand_lines() -> None:
    """1,000 lines with a key and a mail address each: at most 50 ms."""
    text = "\n".join(f"Line {i}: api_key=secret{i} email{i}@test.com" for i in range(1000))
    report("1,000 lines", best(lambda: redact_text(text), 10), 50e-3, 1e3, "ms")


def test_the_thousand_lines_are_all_masked() -> None:
    """The design document's performance text, without its clock."""
    text = "\n".join(f"Line {i}: api_key=secret{i} email{i}@test.com" for i in range(1000))
    assert redact_text(text) == "\n".join(f"Line {i}: [API_KEY] [EMAIL]" for i in range(1000))
