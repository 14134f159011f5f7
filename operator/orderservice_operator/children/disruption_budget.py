"""The PodDisruptionBudget of a process."""

from orderservice_operator.children.manifest import Manifest, child, selector
from orderservice_operator.children.processes import Process, fewest_replicas, name_of, section
from orderservice_operator.resource.spec import OrderService


def disruption_budget(service: OrderService, process: Process) -> Manifest | None:
    """Return the budget of a process, or None: with a single pod it would block every drain."""
    budget = section(service, process).pod_disruption_budget
    replicas = fewest_replicas(service, process)
    if not budget.enabled or replicas < 2:
        return None
    if budget.min_available is None:
        limit = {"maxUnavailable": budget.max_unavailable or 1}
    else:  # at least one pod may always be evicted, or nodes could never be drained
        limit = {"minAvailable": min(budget.min_available, replicas - 1)}
    manifest = child(
        service,
        "policy/v1",
        "PodDisruptionBudget",
        name=name_of(service, process),
        component=process.name,
    )
    manifest["spec"] = {
        "selector": {"matchLabels": selector(service, process.name)},
        # A pod that is not ready must not block draining a node.
        "unhealthyPodEvictionPolicy": budget.unhealthy_pod_eviction_policy,
        **limit,
    }
    return manifest
