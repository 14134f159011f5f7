"""The operator's metrics."""

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

DONE: Final = "done"
FAILED: Final = "failed"
RESULTS: Final = (DONE, FAILED)


class Metrics:
    """Every metric, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "orderservice_reconcile",
            "Looks at a resource, by result: done or failed.",
            ["result"],
            registry=self.registry,
        )
        self.duration = Histogram(
            "orderservice_reconcile_duration_seconds",
            "Time of one look at a resource.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.requests = Counter(
            "orderservice_api_requests",
            "Requests to the API server; all but GET are writes.",
            ["method"],
            registry=self.registry,
        )
        self.external_metrics = Counter(
            "orderservice_external_metrics_requests",
            "Answers to autoscalers that asked for the depth of a queue, by HTTP status.",
            ["code"],
            registry=self.registry,
        )
        self.condition = Gauge(
            "orderservice_condition",
            "1 for what a condition of a resource says now.",
            ["resource_namespace", "resource", "type", "status", "reason"],
            registry=self.registry,
        )
        self.watch_age = Gauge(
            "orderservice_watch_age_seconds",
            "Since when nothing was heard of a kind of children.",
            ["kind"],
            registry=self.registry,
        )
        self.leading = Gauge(
            "orderservice_leading",
            "1 in the replica that works, 0 where it stands by.",
            registry=self.registry,
        )
        for result in RESULTS:
            self.reconciles.labels(result)  # shown as 0 before the first

    def refresh(
        self, conditions: Iterable[tuple[str, ...]], silences_s: Mapping[str, float]
    ) -> None:
        """Bring up to date what is looked up when it is asked for."""
        self.condition.clear()
        for labels in conditions:
            self.condition.labels(*labels).set(1)
        for kind, silence_s in silences_s.items():
            self.watch_age.labels(kind).set(silence_s)
