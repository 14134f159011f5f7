"""The PodDisruptionBudget of a process."""

from orderservice_operator.children.manifest import Manifest, child, selector
from orderservice_operator.children.processes import (
    Process,
    fewest_replicas,
    most_replicas,
    name_of,
    section,
)
from orderservice_operator.resource.spec import OrderService


def disruption_budget(
    service: OrderService, process: Process, replicas: int | None
) -> Manifest | None:
    """Return the budget of a process, or None where there never are two pods.

    At least one pod may always be evicted, or nodes could never be drained. Without a fixed number
    of `replicas` an autoscaler sets it.
    """
    budget = section(service, process).pod_disruption_budget
    minimum = fewest_replicas(service, process) if replicas is None else replicas
    maximum = most_replicas(service, process) if replicas is None else replicas
    if not budget.enabled or maximum < 2:
        return None
    if budget.min_available is None or minimum < 2:
        limit = {"maxUnavailable": budget.max_unavailable or 1}
    else:
        limit = {"minAvailable": min(budget.min_available, minimum - 1)}
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
