"""The Deployment of a process."""

from typing import Final

from orderservice_operator.children.context import Context
from orderservice_operator.children.manifest import REVISION_ANNOTATION, Manifest, child, selector
from orderservice_operator.children.pods import pod_template
from orderservice_operator.children.processes import Process, name_of, section
from orderservice_operator.resource.spec import OrderService

# Additional pods while a Deployment is rolled out, rounded up.
MAX_SURGE_PERCENT: Final = 25


def deployment(
    service: OrderService, process: Process, context: Context, *, scaled: bool, revision: str
) -> Manifest:
    """Return the Deployment of a process, as part of a revision of the service.

    `scaled`: an autoscaler owns the number of pods, so it is omitted. Until the schema is migrated
    the Deployment is paused: its old pods keep running, and no pod of the new version starts.
    """
    manifest = child(
        service, "apps/v1", "Deployment", name=name_of(service, process), component=process.name
    )
    manifest["metadata"]["annotations"] = {REVISION_ANNOTATION: revision}
    manifest["spec"] = {
        "paused": not context.migrated,
        "revisionHistoryLimit": 5,
        "minReadySeconds": service.spec.rollout.min_ready_seconds,
        "progressDeadlineSeconds": service.spec.rollout.progress_deadline_seconds,
        "selector": {"matchLabels": selector(service, process.name)},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": f"{MAX_SURGE_PERCENT}%"},
        },
        "template": pod_template(service, process, context.secrets.get(process.name, "")),
    }
    if not scaled:
        manifest["spec"]["replicas"] = section(service, process).replicas
    return manifest
