"""The Job that migrates the schema: one for each image and database."""

from typing import Final

from orderservice_operator.children import environment
from orderservice_operator.children.containers import container, resources_over, variables
from orderservice_operator.children.manifest import (
    GENERATION_ANNOTATION,
    SECRETS_ANNOTATION,
    Manifest,
    child,
    digest,
)
from orderservice_operator.children.pods import pod_metadata, pod_spec
from orderservice_operator.resource.schema_types import Amounts, Resources
from orderservice_operator.resource.spec import OrderService

COMPONENT: Final = "migrate"
_RESOURCES: Final = Resources(
    requests=Amounts(cpu="100m", memory="96Mi"), limits=Amounts(memory="256Mi")
)


def job_name(service: OrderService) -> str:
    """Return the name of the Job: another image or another database, another Job."""
    primary = environment.database(service, COMPONENT).primary_secret_ref
    inputs = [service.spec.image, primary.name, primary.key]
    return f"{service.metadata.name}-{COMPONENT}-{digest(inputs)}"


def migration_job(service: OrderService, secrets: str = "") -> Manifest:
    """Return the Job. A Job cannot be changed: one that exists is left as it is.

    A failed one is created again for the next generation of the spec, or when the Secret that it
    reads changes (`secrets` is a digest).
    """
    limits = service.spec.migrations
    manifest = child(service, "batch/v1", "Job", name=job_name(service), component=COMPONENT)
    generation = str(service.metadata.generation)
    manifest["metadata"]["annotations"] = {GENERATION_ANNOTATION: generation} | (
        {SECRETS_ANNOTATION: secrets} if secrets else {}
    )
    manifest["spec"] = {
        "backoffLimit": limits.backoff_limit,
        "activeDeadlineSeconds": limits.active_deadline_seconds,
        "template": {
            "metadata": pod_metadata(service, COMPONENT),
            "spec": _pod(service),
        },
    }
    return manifest


def _pod(service: OrderService) -> Manifest:
    resources = resources_over(_RESOURCES, service.spec.migrations.resources)
    migrate = container(service, COMPONENT, ["orders", "migrate"], resources, component=COMPONENT)
    migrate["env"] = variables(
        service, environment.migration_variables(service), component=COMPONENT
    )
    pod = pod_spec(service, COMPONENT, [migrate])
    return pod | {"restartPolicy": "Never"}
