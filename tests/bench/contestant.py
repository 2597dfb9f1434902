"""Whoever stands between the callers and the provider: what all contestants have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import calls
from tests.bench.procs import Process

KEY = "sk-bench-0123456789abcdef"
"""The key that callers show; every contestant is told the same one, where it takes any."""


@dataclass(slots=True)
class Contestant:
    """A running server and how to call it. ``process`` is None for the provider itself, whose CPU is not measured."""

    name: str
    port: int
    process: Process | None
    path: str = "/v1/chat/completions"
    model: str = "gpt-4o-mini"
    headers: str = ""
    started: float | None = None
    """Seconds from its start to its first answer."""
    facts: dict[str, Any] = field(default_factory=dict)

    def request(self, folder: Path, label: str, *, model: str | None = None, **options: Any) -> Path:
        """Write a request for it (options as in ``calls.body``) and return the file."""
        content = calls.body(model=model or self.model, **options)
        return calls.write(
            folder / f"{self.name}-{label}.http", content, path=self.path, port=self.port, key=KEY, headers=self.headers
        )
