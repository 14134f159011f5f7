"""The Job that migrates the schema: one for each image and database."""

from typing import Final

from orderservice_operator.children.containers import container, variables
from orderservice_operator.children.environment import from_secret
from orderservice_operator.children.manifest import (
    GENERATION_ANNOTATION,
    SECRETS_ANNOTATION,
    Manifest,
    child,
    digest,
    labels,
)
from orderservice_operator.children.pods import pod_spec
from orderservice_operator.resource.schema_types import Amounts, Resources
from orderservice_operator.resource.spec import OrderService

COMPONENT: Final = "migrate"
_RESOURCES: Final = Resources(
    requests=Amounts(cpu="100m", memory="96Mi"), limits=Amounts(memory="256Mi")
)


def job_name(service: OrderService) -> str:
    """Return the name of the Job: another image or another database, another Job."""
    primary = service.spec.database.primary_secret_ref
    what = [service.spec.image, primary.name, primary.key]
    return f"{service.metadata.name}-{COMPONENT}-{digest(what)}"


def migration_job(service: OrderService, secrets: str = "") -> Manifest:
    """Return the Job. A Job cannot be changed: one that exists is left as it is.

    One that failed is made anew for the next generation of the spec, and when what it reads from
    its Secret (`secrets` is a digest) is something else.
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
            "metadata": {"labels": labels(service, COMPONENT)},
            "spec": _pod(service),
        },
    }
    return manifest


def _pod(service: OrderService) -> Manifest:
    migrate = container(service, COMPONENT, ["orders", "migrate"], _RESOURCES)
    primary = service.spec.database.primary_secret_ref
    own = [
        from_secret("ORDERS_DATABASE_URL", primary.name, primary.key),
        {"name": "ORDERS_LOG_FORMAT", "value": "json"},
    ]
    if session := service.spec.database.session_secret_ref:
        own.append(from_secret("ORDERS_DATABASE_SESSION_URL", session.name, session.key))
    migrate["env"] = variables(service, own)
    return pod_spec(service) | {"restartPolicy": "Never", "containers": [migrate]}
