"""The operator's metrics: reconciles, watches, requests, conditions."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

DONE: Final = "done"
FAILED: Final = "failed"
RESULTS: Final = (DONE, FAILED)

# Of every resource: namespace, name, type, status, reason.
Conditions = Callable[[], Iterable[tuple[str, str, str, str, str]]]


class _Said(Collector):
    """Conditions as metrics, computed for each scrape: stored, they would take megabytes."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "orderservice_condition",
            "1 for the current status and reason of a resource's condition.",
            labels=["resource_namespace", "resource", "type", "status", "reason"],
        )
        for labels in self._conditions():
            family.add_metric(labels, 1)
        yield family


class Metrics:
    """Every metric, in a registry of its own."""

    def __init__(self, conditions: Conditions) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Said(conditions))
        self.reconciles = Counter(
            "orderservice_reconcile",
            "Reconciliations of a resource, by result: done or failed.",
            ["result"],
            registry=self.registry,
        )
        self.duration = Histogram(
            "orderservice_reconcile_duration_seconds",
            "Duration of one reconciliation.",
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
            "Answers to autoscalers' requests for the depth of a queue, by HTTP status.",
            ["code"],
            registry=self.registry,
        )
        self.watch_age = Gauge(
            "orderservice_watch_age_seconds",
            "Time since the watch of a kind last sent anything.",
            ["kind"],
            registry=self.registry,
        )
        self.leading = Gauge(
            "orderservice_leading",
            "1 in the replica that works, 0 where it stands by.",
            registry=self.registry,
        )
        for result in RESULTS:
            self.reconciles.labels(result)  # exported as 0 before the first

    def refresh(self, silences_s: Mapping[str, float]) -> None:
        """Update the gauges that are computed for each scrape."""
        for kind, silence_s in silences_s.items():
            self.watch_age.labels(kind).set(silence_s)
