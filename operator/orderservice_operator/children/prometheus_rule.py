"""PrometheusRule of the Prometheus operator: alerts on the objectives of the resource."""

from orderservice_operator.facts import PROMETHEUS_RULE, Facts
from orderservice_operator.manifest import Manifest, child
from orderservice_operator.resource.spec import OrderService

# Long and short window, and how many times too fast the error budget may burn.
# Source: https://sre.google/workbook/alerting-on-slos/
_PAGES = (("1h", "5m", 14.4), ("6h", "30m", 6.0))


def prometheus_rule(service: OrderService, facts: Facts) -> Manifest | None:
    """Return the alerts, or None when they are not wanted or the kind is not known here."""
    if service.spec.observability.prometheus_rule == "Disabled":
        return None
    if PROMETHEUS_RULE not in facts.kinds:
        return None
    made = child(service, "monitoring.coreos.com/v1", PROMETHEUS_RULE, name=service.metadata.name)
    made["spec"] = {"groups": [{"name": _group(service), "rules": _rules(service)}]}
    return made


def _group(service: OrderService) -> str:
    return f"orderservice/{service.metadata.namespace}/{service.metadata.name}"


def _rules(service: OrderService) -> list[Manifest]:
    slo = service.spec.slo
    budget = round(1 - slo.availability / 100, 6)
    return [
        *(_burn(service, budget, *window) for window in _PAGES),
        _slow_share(
            service,
            "OrderCreationSlow",
            "order_create_duration_seconds",
            f"{slo.latency_ms / 1000:g}",
        ),
        _slow_share(
            service,
            "OrderCompletionSlow",
            "order_completion_seconds",
            f"{slo.completion_seconds:g}",
        ),
        _alert(
            "OrderMessagesDead",
            f"sum by (queue) (increase(messaging_dead_letter_total{_of(service)}[10m])) > 0",
            "0m",
            "Messages were put aside: `orders dead-letters list` shows them.",
        ),
        _alert(
            "OrderOutboxStuck",
            f"max(outbox_oldest_age_seconds{_of(service)}) > {slo.completion_seconds}",
            "2m",
            "Orders are taken but their messages do not reach RabbitMQ.",
        ),
    ]


def _burn(service: OrderService, budget: float, long: str, short: str, factor: float) -> Manifest:
    limit = f"{factor * budget:.6g}"
    both = " and ".join(f"({_errors(service, window)}) > {limit}" for window in (long, short))
    text = f"The error budget burns {factor:g} times too fast."
    return _alert(f"OrderErrorBudgetBurn{long.upper()}", both, "2m", text)


def _errors(service: OrderService, window: str) -> str:
    metric = "http_server_request_duration_seconds_count"
    failed = _of(service, 'http_response_status_code=~"5.."')
    return f"sum(rate({metric}{failed}[{window}])) / sum(rate({metric}{_of(service)}[{window}]))"


def _slow_share(service: OrderService, name: str, metric: str, limit_s: str) -> Manifest:
    """Alert on the 99th percentile: it needs no bucket at exactly the objective."""
    buckets = f"sum by (le) (rate({metric}_bucket{_of(service)}[10m]))"
    expression = f"histogram_quantile(0.99, {buckets}) > {limit_s}"
    return _alert(name, expression, "10m", f"More than 1 % take longer than {limit_s} s.")


def _of(service: OrderService, more: str = "") -> str:
    """Select the series of this service: the ServiceMonitor's job is the admin Service."""
    own = f'namespace="{service.metadata.namespace}",service="{service.metadata.name}-admin"'
    return "{" + ",".join(filter(None, (own, more))) + "}"


def _alert(name: str, expression: str, wait: str, text: str) -> Manifest:
    return {
        "alert": name,
        "expr": expression,
        "for": wait,
        "labels": {"severity": "page"},
        "annotations": {"summary": text},
    }
