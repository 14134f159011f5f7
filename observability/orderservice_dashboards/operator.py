"""Operator: its writes, its view of the cluster, and the conditions of each OrderService."""

from typing import Final

from orderservice_dashboards.panels import (
    GREEN,
    NUMBER,
    ORANGE,
    PER_SECOND,
    RED,
    SECONDS,
    SHARE,
    Dashboard,
    Panel,
    Query,
    Row,
    Variable,
)
from orderservice_observability.objectives import select

_CHOSEN: Final = ('resource_namespace=~"$namespace"', 'resource=~"$service"')
_OPERATOR: Final = 'instance=~"$instance"'

CHOICES: Final = (
    Variable(
        "namespace", "Namespace", "label_values(orderservice_condition, resource_namespace)", True
    ),
    Variable(
        "service",
        "OrderService",
        'label_values(orderservice_condition{resource_namespace=~"$namespace"}, resource)',
        several=True,
    ),
    Variable(
        "instance", "Operator", "label_values(orderservice_reconcile_total, instance)", several=True
    ),
)


def _rate(metric: str, by: str, *matchers: str) -> str:
    return f"sum by ({by}) (rate({select(metric, _OPERATOR, *matchers)}[$__rate_interval]))"


_TOTAL: Final = f"sum(rate({select('orderservice_reconcile_total', _OPERATOR)}[$__rate_interval]))"
_FAILED: Final = (
    "sum(rate("
    + select("orderservice_reconcile_total", _OPERATOR, 'result="failed"')
    + "[$__rate_interval]))"
)

_RESOURCES: Final = (
    Panel(
        "Ready",
        "OrderServices by the status of their condition Ready.",
        (
            Query(
                "sum by (status) (max by (resource_namespace, resource, status) ("
                + select("orderservice_condition", *_CHOSEN, 'type="Ready"')
                + "))",
                "{{status}}",
            ),
        ),
        NUMBER,
        kind="stat",
    ),
    Panel(
        "Conditions",
        "Status and reason of every condition of the chosen resources.",
        (
            Query(
                "max by (resource_namespace, resource, type, status, reason) ("
                + select("orderservice_condition", *_CHOSEN)
                + ")",
                "",
            ),
        ),
        NUMBER,
        kind="table",
        width=16,
    ),
)

_WORK: Final = (
    Panel(
        "Reconciles",
        "Reconciliations per second, by result.",
        (Query(_rate("orderservice_reconcile_total", "result"), "{{result}}"),),
        PER_SECOND,
        stacked=True,
    ),
    Panel(
        "Failed",
        "Share of reconciliations that failed. Each is tried again, with growing delays.",
        (Query(f"{_FAILED} / {_TOTAL}", "failed"),),
        SHARE,
        steps=((0.01, ORANGE), (0.1, RED)),
    ),
    Panel(
        "Duration, p99",
        "99 % of reconciliations are faster.",
        (
            Query(
                "histogram_quantile(0.99, "
                + _rate("orderservice_reconcile_duration_seconds_bucket", "le")
                + ")",
                "p99",
            ),
        ),
        SECONDS,
        steps=((1, ORANGE), (5, RED)),
    ),
    Panel(
        "Requests to the API server",
        "Requests per second by method. All but GET are writes; a quiet cluster has none.",
        (Query(_rate("orderservice_api_requests_total", "method"), "{{method}}"),),
        PER_SECOND,
    ),
    Panel(
        "Silence of the watches",
        "Time since a watch last sent anything, by kind. A healthy watch sends something every "
        "minute.",
        (
            Query(
                f"max by (kind) ({select('orderservice_watch_age_seconds', _OPERATOR)})", "{{kind}}"
            ),
        ),
        SECONDS,
        steps=((120, ORANGE), (300, RED)),
    ),
    Panel(
        "Leading replicas",
        "One replica works; the others stand by.",
        (Query(f"sum({select('orderservice_leading', _OPERATOR)})", "leading"),),
        NUMBER,
        kind="stat",
        steps=((1, GREEN), (2, RED)),
        below=RED,
    ),
)

OPERATOR: Final = Dashboard(
    "operator",
    "Orders / Operator",
    "The operator's work, its watches, and the conditions of each OrderService.",
    (Row("Resources", _RESOURCES), Row("Operator", _WORK)),
    CHOICES,
)
