"""The CronJob that compares the orders with the ledgers of Inventory and Payment."""

from typing import Final

from orderservice_operator.children.containers import container, resources_over, variables
from orderservice_operator.children.context import Context
from orderservice_operator.children.environment import reconciliation_variables
from orderservice_operator.children.manifest import Manifest, child, labels
from orderservice_operator.children.pods import pod_metadata, pod_spec
from orderservice_operator.resource.schema_types import Amounts, Resources
from orderservice_operator.resource.spec import OrderService

COMPONENT: Final = "reconcile"
_RESOURCES: Final = Resources(
    requests=Amounts(cpu="100m", memory="96Mi"), limits=Amounts(memory="384Mi")
)
# A run that cannot start in time is skipped: the next one covers it.
_START_WITHIN_S: Final = 120


def reconciliation(service: OrderService, context: Context) -> Manifest | None:
    """Return the CronJob; None without a schedule. A run that finds violations counts as failed.

    It is suspended until the schema is migrated.
    """
    options = service.spec.reconciliation
    if options.schedule is None:
        return None
    name = f"{service.metadata.name}-{COMPONENT}"
    manifest = child(service, "batch/v1", "CronJob", name=name, component=COMPONENT)
    manifest["spec"] = {
        "schedule": options.schedule,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": _START_WITHIN_S,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 3,
        "suspend": not context.migrated,
        "jobTemplate": {
            "metadata": {"labels": labels(service, COMPONENT)},
            "spec": {
                # The next run continues where this one stopped.
                "backoffLimit": 0,
                "activeDeadlineSeconds": options.active_deadline_seconds,
                "template": {
                    "metadata": pod_metadata(service, COMPONENT),
                    "spec": _pod(service),
                },
            },
        },
    }
    return manifest


def _pod(service: OrderService) -> Manifest:
    resources = resources_over(_RESOURCES, service.spec.reconciliation.resources)
    command = ["orders", "reconcile", "--json"]
    run = container(service, COMPONENT, command, resources, component=COMPONENT)
    run["env"] = variables(service, reconciliation_variables(service), component=COMPONENT)
    return pod_spec(service, COMPONENT, [run]) | {"restartPolicy": "Never"}
