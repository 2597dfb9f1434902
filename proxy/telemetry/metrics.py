"""The sidecar's metrics: plain dictionaries on the hot path, Prometheus text on demand.

A labelled child of prometheus-client costs 0.3 to 1.3 µs a touch; a dictionary entry costs a tenth. The
numbers live here and prometheus-client's exposition renders them (contract 5 names them all).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from proxy.telemetry.window import HitWindow

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Labels = tuple[str, ...]
DURATION: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
FIRST_TOKEN: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
OVERHEAD: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)


class Counter:
    """A monotonic sum per label set, which appears with its first increment."""

    __slots__ = ("_cells", "help", "labels", "name")

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self._cells: dict[Labels, list[float]] = {}

    def cell(self, labels: Labels = ()) -> list[float]:
        """Return the sum of one label set as a list of one number, to be added to in place: no look-up any more."""
        found = self._cells.get(labels)
        if found is None:
            found = self._cells[labels] = [0]
        return found

    def inc(self, labels: Labels = (), amount: float = 1) -> None:
        self.cell(labels)[0] += amount

    @property
    def values(self) -> dict[Labels, float]:
        """Return the sums by label set."""
        found = {labels: cell[0] for labels, cell in list(self._cells.items()) if cell[0]}
        return found if self.labels else {(): found.get((), 0.0)}

    def collect(self) -> Metric:
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily(self.name, self.help, labels=self.labels)
        for labels, value in self.values.items():
            family.add_metric(labels, value)
        return family


class Gauge:
    """A value per label set, set directly or read from a callback at scrape time."""

    __slots__ = ("help", "labels", "name", "read", "values")

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self.values: dict[Labels, float] = {}
        self.read: Callable[[], Iterable[tuple[Labels, float]]] | None = None

    def set(self, value: float, labels: Labels = ()) -> None:
        self.values[labels] = value

    def collect(self) -> Metric:
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily(self.name, self.help, labels=self.labels)
        values = self.values if self.read is None else dict(self.read())
        for labels, value in list(values.items()):
            family.add_metric(labels, value)
        return family


class Histogram:
    """Observations per label set, in fixed buckets (upper bounds, inclusive)."""

    __slots__ = ("bounds", "help", "labels", "name", "values")

    def __init__(self, name: str, help: str, bounds: Sequence[float], labels: Labels = ()) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self.bounds = tuple(bounds)
        self.values: dict[Labels, list[float]] = {}

    def row(self, labels: Labels = ()) -> list[float]:
        """Return one label set's counts by bucket and, last, the sum, to be added to in place."""
        found = self.values.get(labels)
        if found is None:
            found = self.values[labels] = [0.0] * (len(self.bounds) + 2)
        return found

    def observe(self, value: float, labels: Labels = ()) -> None:
        row = self.row(labels)
        row[bisect_left(self.bounds, value)] += 1
        row[-1] += value

    def collect(self) -> Metric:
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        for labels, row in list(self.values.items()):
            total, buckets = 0.0, []
            for bound, count in zip((*self.bounds, float("inf")), row[:-1], strict=True):
                total += count
                buckets.append((str(bound) if bound != float("inf") else "+Inf", total))
            family.add_metric(labels, buckets, row[-1])
        return family


class Metrics:
    """Every metric of the sidecar, by attribute."""

    def __init__(self) -> None:
        call = ("provider", "model", "team", "feature")
        self.requests = Counter("llm_requests_total", "Calls by how they ended.", (*call, "status"))
        self.tokens = Counter("llm_tokens_total", "Tokens as the provider counted them.", (*call, "type"))
        self.token_details = Counter("llm_token_details_total", "Parts of the tokens, and estimates.", ("type",))
        self.duration = Histogram(
            "llm_request_duration_seconds", "Time of a call, first byte in to last byte out.", DURATION,
            ("provider", "model", "feature"),
        )  # fmt: skip
        self.first_token = Histogram(
            "llm_time_to_first_token_seconds", "Time to a stream's first content.", FIRST_TOKEN
        )
        self.overhead = Histogram("llm_overhead_seconds", "The sidecar's own time in a call.", OVERHEAD)
        self.first_token_row = self.first_token.row()
        self.overhead_row = self.overhead.row()
        self.cache_requests = Counter("llm_cache_requests_total", "Cache look-ups by result.", ("result",))
        self.cache_hit_ratio = Gauge(
            "llm_cache_hit_ratio", "Share of hits in the last 5 minutes, NaN without look-ups."
        )
        self.cache_window = HitWindow()
        self.cache_hit_ratio.read = lambda: [((), self.cache_window.ratio(monotonic()))]
        self.token_quota = Gauge(
            "llm_token_quota",
            "Tokens a team may use in the period; `other`: all unlisted teams that called in it.",
            ("team",),
        )
        self.token_quota_used = Gauge(
            "llm_token_quota_used",
            "Tokens a team has used or holds in the period; `other`: all unlisted teams.",
            ("team",),
        )
        self.cost = Counter("llm_cost_usd_total", "Money spent, in US dollars.", ("team", "feature", "model"))
        self.budget = Gauge("llm_budget_usd", "Money a team may spend in the period, in US dollars.", ("team",))
        self.sensitive_data = Counter(
            "llm_sensitive_data_detected_total", "Findings of redaction by detector.", ("type", "direction")
        )
        self.unscanned_parts = Counter(
            "llm_redaction_unscanned_total", "Parts that redaction cannot look into.", ("kind",)
        )
        self.decisions = Counter("llm_policy_decisions_total", "What each policy decided.", ("policy", "decision"))
        self.degraded = Counter(
            "llm_policy_degraded_total", "Calls decided without the store, as `store_down` says.", ("policy",)
        )
        self.circuit_state = Gauge(
            "llm_circuit_state", "0 closed, 1 half-open, 2 open; the worst target's.", ("provider",)
        )
        self.upstream_errors = Counter("llm_upstream_errors_total", "Failed attempts upstream.", ("provider", "code"))
        self.upstream_retries = Counter("llm_upstream_retries_total", "Attempts after the first.", ("provider",))
        self.unknown_finish = Counter(
            "llm_unknown_finish_reasons_total",
            "Answers whose finish word is not in the vendor's reference; the client saw `stop`.",
            ("provider",),
        )
        self.in_flight = Gauge("llm_in_flight", "Calls being served.")
        self.key_age = Gauge("llm_provider_key_age_days", "Age of the provider's API key.", ("provider",))
        self.reload_success = Gauge("llm_config_reload_success", "1 if the last load of llm.yml succeeded.")
        self.unpriced = Counter("llm_unpriced_requests_total", "Calls to models without a price.")
        self.log_lines_dropped = Counter("llm_log_lines_dropped_total", "Log lines that could not be written.")
        self.finisher_errors = Counter("llm_finisher_errors_total", "Exceptions in the finishers of calls.")
        self.store_degraded = Counter("llm_store_degraded_seconds_total", "Seconds for which the store was down.")
        self.budget_alerts = Counter("llm_budget_alerts_total", "Budget thresholds crossed.", ("team", "threshold"))
        self.reload_success.set(1)

    def sensitive(self, type: str, direction: str, n: int = 1) -> None:
        """Count ``n`` findings of a detector; ``direction`` is ``request`` or ``reply``."""
        self.sensitive_data.inc((type, direction), n)

    def unscanned(self, kind: str, n: int = 1) -> None:
        """Count parts that redaction cannot look into (``image``, ``audio``, ``file``)."""
        self.unscanned_parts.inc((kind,), n)

    def all(self) -> Iterator[Any]:
        """Yield every metric."""
        return (metric for metric in vars(self).values() if isinstance(metric, Counter | Gauge | Histogram))

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families, as a prometheus-client collector does."""
        for metric in self.all():
            yield metric.collect()

    def render(self) -> bytes:
        """Return the Prometheus text exposition."""
        from prometheus_client.exposition import generate_latest

        return generate_latest(self)
