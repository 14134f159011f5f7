"""All children that a resource wants in Kubernetes."""

from collections.abc import Iterator

from orderservice_operator.children import processes
from orderservice_operator.children.autoscaler import (
    cpu_autoscaler,
    queue_autoscaler,
    trigger_authentication,
)
from orderservice_operator.children.config_map import config_map
from orderservice_operator.children.context import Context
from orderservice_operator.children.controller_revision import revision_name
from orderservice_operator.children.dashboards import dashboard_maps
from orderservice_operator.children.deployment import deployment
from orderservice_operator.children.disruption_budget import disruption_budget
from orderservice_operator.children.http_route import http_route
from orderservice_operator.children.ingress import ingress
from orderservice_operator.children.kinds import PROMETHEUS_RULE, SERVICE_MONITOR
from orderservice_operator.children.manifest import Manifest, inherited
from orderservice_operator.children.migration_job import COMPONENT as MIGRATE
from orderservice_operator.children.migration_job import migration_job
from orderservice_operator.children.network_policy import (
    default_deny,
    migration_policy,
    network_policy,
    reconciliation_policy,
)
from orderservice_operator.children.processes import API, WORKER
from orderservice_operator.children.prometheus_rule import prometheus_rule
from orderservice_operator.children.reconciliation import COMPONENT as RECONCILE
from orderservice_operator.children.reconciliation import reconciliation
from orderservice_operator.children.scaling import Choice, choose
from orderservice_operator.children.service_account import service_account
from orderservice_operator.children.service_monitor import service_monitor
from orderservice_operator.children.services import admin_service, api_service
from orderservice_operator.resource.spec import OrderService


def desired(service: OrderService, context: Context) -> list[Manifest]:
    """Return the children, in the order in which they need each other."""
    children = _children(service, context)
    return [inherited(service, child) for child in children if child is not None]


def missing(service: OrderService, context: Context) -> tuple[str, ...]:
    """Return texts about the kinds that are Enabled but that this cluster does not have."""
    observability = service.spec.observability
    fields = {
        SERVICE_MONITOR: ("serviceMonitor", observability.service_monitor),
        PROMETHEUS_RULE: ("prometheusRule", observability.prometheus_rule),
    }
    return tuple(
        f"spec.observability.{field} is Enabled, but this cluster has no {kind}"
        for kind, (field, presence) in fields.items()
        if presence == "Enabled" and kind not in context.kinds
    )


def scaled(service: OrderService, choice: Choice) -> frozenset[str]:
    """Return the processes whose number of pods the operator must not write."""
    of_api = {API.name} if service.spec.api.autoscaling else set()
    return frozenset(of_api | ({WORKER.name} if choice.provider else set()))


def _children(service: OrderService, context: Context) -> Iterator[Manifest | None]:
    choice = choose(service, context)
    if service.spec.pod_template.service_account_name is None:
        yield service_account(service)
    yield from _network(service, context)
    if service.spec.migrations.enabled and not context.migrated:
        yield migration_job(service, context.secrets.get(MIGRATE, ""))
    yield api_service(service)
    yield admin_service(service)
    revision = revision_name(service)
    for process in processes.ALL:
        by_others = process.name in scaled(service, choice)
        yield config_map(service, process)
        workload = deployment(service, process, context, scaled=by_others, revision=revision)
        waits = process is WORKER and service.spec.worker.autoscaling is not None and not by_others
        if (
            waits and context.workers
        ):  # its scaler does not exist yet: keep the number that the load needed
            workload["spec"]["replicas"] = context.workers
        yield workload
        yield disruption_budget(service, process, workload["spec"].get("replicas"))
    yield reconciliation(service, context)
    yield cpu_autoscaler(service)
    yield trigger_authentication(service, choice)
    yield queue_autoscaler(service, choice)
    yield ingress(service)
    yield http_route(service, context)
    yield service_monitor(service, context)
    yield prometheus_rule(service, context)
    yield from dashboard_maps(service, context)


def _network(service: OrderService, context: Context) -> Iterator[Manifest]:
    if not service.spec.network_policy.enabled:
        return
    yield default_deny(service)
    for process in processes.ALL:
        yield network_policy(service, process, context)
    if service.spec.migrations.enabled:
        yield migration_policy(service, MIGRATE)
    if service.spec.reconciliation.schedule:
        yield reconciliation_policy(service, RECONCILE)
