"""The ServiceAccount of all pods of a resource."""

from orderservice_operator.children.manifest import Manifest, child
from orderservice_operator.resource.spec import OrderService


def service_account(service: OrderService) -> Manifest:
    """Return the account of all pods; they do not talk to Kubernetes, so it has no token."""
    manifest = child(service, "v1", "ServiceAccount", name=service.metadata.name)
    template, metadata = service.spec.service_account_template.metadata, manifest["metadata"]
    metadata["labels"] = template.labels | metadata["labels"]
    if template.annotations:
        metadata["annotations"] = template.annotations
    return manifest | {"automountServiceAccountToken": False}
