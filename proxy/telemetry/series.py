"""What calls of one kind have in common at their ends: the sums that they add to, and the same words in the log."""

from __future__ import annotations

from typing import Final

from proxy.call import STATUS
from proxy.telemetry.metrics import Metrics


class Series:
    """The metrics' own cells and rows for one provider, model, team and feature; ``who`` joins every log line."""

    __slots__ = ("completion", "cost", "duration", "ends", "prompt", "who")

    def __init__(self, metrics: Metrics, provider: str, model: str, team: str, feature: str, who: str) -> None:
        call = (provider, model, team, feature)
        self.ends = {end: metrics.requests.cell((*call, status)) for end, status in STATUS.items()}
        self.prompt = metrics.tokens.cell((*call, "prompt"))
        self.completion = metrics.tokens.cell((*call, "completion"))
        self.cost = metrics.cost.cell((team, feature, model))
        self.duration = metrics.duration.row((provider, model, feature))
        self.who: Final = who
