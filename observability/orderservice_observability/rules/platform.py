"""Alerts on the operator, on all its OrderServices, and the watchdog. Once per cluster."""

from collections.abc import Iterator
from typing import Final

from orderservice_observability.objectives import select
from orderservice_observability.rules.model import NONE, PAGE, TICKET, Alert

DASHBOARD: Final = "orders-operator"
EXTERNAL_METRICS: Final = "v1beta1.external.metrics.k8s.io"
JOB: Final = 'job="orderservice-operator"'
_WHICH: Final = (
    "{{ $labels.resource_namespace }}/{{ $labels.resource }}: `kubectl describe osvc` says why."
)


def alerts() -> Iterator[Alert]:
    """Yield the alerts of the platform."""
    yield from _resources()
    yield from _operator()
    yield Alert(
        "Watchdog",
        "vector(1)",
        NONE,
        "Alerting works.",
        "Always fires. Alert somebody outside when it stops: then no other alert can arrive.",
        DASHBOARD,
        about=(),
    )


def _resources() -> Iterator[Alert]:
    yield Alert(
        "OrderServiceNotReady",
        _condition("Ready", 'status="False"'),
        PAGE,
        "An OrderService is not ready.",
        _WHICH,
        DASHBOARD,
        held_for="10m",
        about=("resource_namespace", "resource"),
    )
    yield Alert(
        "OrderServiceDegraded",
        _condition("Degraded", 'status="True"'),
        TICKET,
        "An OrderService has a problem that a person must solve.",
        _WHICH,
        DASHBOARD,
        held_for="5m",
        about=("resource_namespace", "resource"),
    )
    yield Alert(
        "OrderTopologyNotReady",
        _condition("TopologyReady", 'status="False"'),
        TICKET,
        "RabbitMQ's exchanges, queues or policies differ from the OrderService.",
        _WHICH,
        DASHBOARD,
        held_for="10m",
        about=("resource_namespace", "resource"),
    )
    yield Alert(
        "OrderMigrationFailed",
        _condition("MigrationsComplete", 'status="False",reason="Failed"'),
        PAGE,
        "A migration failed: the new version is not rolled out.",
        _WHICH,
        DASHBOARD,
        held_for="1m",
        about=("resource_namespace", "resource"),
    )


def _condition(kind: str, matcher: str) -> str:
    """Return an expression for a condition, as one series although every operator exports it.

    It ignores the reason: otherwise a new reason would be a new alert with a new wait.
    """
    series = select("orderservice_condition", f'type="{kind}"', matcher)
    return f"max by (resource_namespace, resource) ({series}) == 1"


def _operator() -> Iterator[Alert]:
    reconciles = "orderservice_reconcile_total"
    failures = "sum(rate(" + select(reconciles, 'result="failed"') + "[10m]))"
    total = f"sum(rate({select(reconciles)}[10m]))"
    yield Alert(
        "OperatorReconcileErrors",
        f"{failures} / {total} > 0.1",
        TICKET,
        "Many reconciliations fail.",
        "{{ $value | humanizePercentage }} of the operator's reconciliations failed in the last 10 "
        "minutes.",
        DASHBOARD,
        held_for="10m",
        about=(),
    )
    yield Alert(
        "OperatorWatchStalled",
        f"max by (kind) ({select('orderservice_watch_age_seconds')}) > 300",
        PAGE,
        "The operator does not see changes in the cluster.",
        "The watch of {{ $labels.kind }} has been silent for {{ $value | humanizeDuration }}; a "
        "healthy watch sends something every minute.",
        DASHBOARD,
        held_for="1m",
        about=(),
    )
    up = select("up", JOB)
    yield Alert(
        "OperatorDown",
        f"sum by (namespace) ({up}) == 0 or absent({up})",
        PAGE,
        "The operator does not run.",
        "Prometheus reaches no replica. Services keep running, but nothing is repaired, scaled or "
        "rolled out.",
        DASHBOARD,
        held_for="5m",
        about=(),
    )
    unavailable = select("aggregator_unavailable_apiservice", f'name="{EXTERNAL_METRICS}"')
    yield Alert(
        "OperatorExternalMetricsUnavailable",
        f"max by (name) ({unavailable}) == 1",
        TICKET,
        "The API server does not reach the server of external metrics.",
        "Until it answers, no namespace in the cluster can be deleted, kubectl api-resources fails,"
        " and workers are not scaled.",
        DASHBOARD,
        held_for="5m",
        about=(),
    )
