"""The Job that migrates the schema: one for each version of the image."""

from typing import Final

from orderservice_operator.children import pods
from orderservice_operator.children.environment import from_secret
from orderservice_operator.manifest import Manifest, child, digest, labels
from orderservice_operator.resource.schema_types import Amounts, Resources
from orderservice_operator.resource.spec import OrderService

COMPONENT: Final = "migrate"
_RESOURCES: Final = Resources(
    requests=Amounts(cpu="100m", memory="96Mi"), limits=Amounts(memory="256Mi")
)


def job_name(service: OrderService) -> str:
    """Return the name of the Job of the wanted image: another image, another Job."""
    return f"{service.metadata.name}-{COMPONENT}-{digest(service.spec.image)}"


def migration_job(service: OrderService) -> Manifest:
    """Return the Job. A Job cannot be changed: one that exists is left as it is."""
    limits = service.spec.migrations
    made = child(service, "batch/v1", "Job", name=job_name(service), component=COMPONENT)
    made["spec"] = {
        "backoffLimit": limits.backoff_limit,
        "activeDeadlineSeconds": limits.active_deadline_seconds,
        "template": {
            "metadata": {"labels": labels(service, COMPONENT)},
            "spec": _pod(service),
        },
    }
    return made


def _pod(service: OrderService) -> Manifest:
    container = pods.container(service, COMPONENT, ["orders", "migrate"], _RESOURCES)
    primary = service.spec.database.primary_secret_ref
    container["env"] = [
        from_secret("ORDERS_DATABASE_URL", primary.name, primary.key),
        {"name": "ORDERS_LOG_FORMAT", "value": "json"},
    ]
    return pods.pod_spec(service) | {"restartPolicy": "Never", "containers": [container]}
