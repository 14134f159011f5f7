"""Deployment."""

from orderservice_operator.children.pods import pod_template
from orderservice_operator.children.processes import Process, name_of, section
from orderservice_operator.manifest import Manifest, child, selector
from orderservice_operator.resource.spec import OrderService


def deployment(
    service: OrderService, process: Process, *, scaled: bool, migrated: bool
) -> Manifest:
    """Return the Deployment of a process.

    `scaled`: somebody else owns the number of pods, so it is left out. Until `migrated` the
    Deployment is paused: its old pods go on, and no pod of the new version starts.
    """
    made = child(
        service, "apps/v1", "Deployment", name=name_of(service, process), component=process.name
    )
    made["spec"] = {
        "paused": not migrated,
        "revisionHistoryLimit": 5,
        "progressDeadlineSeconds": service.spec.rollout.progress_deadline_seconds,
        "selector": {"matchLabels": selector(service, process.name)},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"},
        },
        "template": pod_template(service, process),
    }
    if not scaled:
        made["spec"]["replicas"] = section(service, process).replicas
    return made
