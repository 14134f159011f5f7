"""PrometheusRule of the Prometheus operator: alerts on the objectives of the resource."""

from orderservice_observability.objectives import Objectives, Scope
from orderservice_observability.rules import service_rules
from orderservice_observability.rules.model import Links
from orderservice_operator.children.context import Context
from orderservice_operator.children.kinds import PROMETHEUS_RULE
from orderservice_operator.children.manifest import Manifest, child
from orderservice_operator.resource.spec import OrderService


def prometheus_rule(service: OrderService, context: Context) -> Manifest | None:
    """Return the rules, or None if they are not wanted or this cluster lacks the kind."""
    if service.spec.observability.prometheus_rule == "Disabled":
        return None
    if PROMETHEUS_RULE not in context.kinds:
        return None
    manifest = child(
        service, "monitoring.coreos.com/v1", PROMETHEUS_RULE, name=service.metadata.name
    )
    labels = service.spec.observability.labels
    manifest["metadata"]["labels"] = labels | manifest["metadata"]["labels"]
    manifest["spec"] = {"groups": _groups(service)}
    return manifest


def _groups(service: OrderService) -> list[Manifest]:
    """Return the groups, named after the resource, because Prometheus shows nothing else."""
    slo, metadata = service.spec.slo, service.metadata
    objectives = Objectives(
        availability=slo.availability,
        latency_ms=slo.latency_ms,
        completion_seconds=slo.completion_seconds,
    )
    observability = service.spec.observability
    links = Links(observability.runbook_base_url or "", observability.dashboard_base_url or "")
    groups = service_rules(Scope(metadata.name, metadata.namespace), objectives, links=links)
    full_name = f"{metadata.namespace}/{metadata.name}"
    return [group | {"name": f"{group['name']}/{full_name}"} for group in groups]
