"""ServiceAccount."""

from orderservice_operator.children.manifest import Manifest, child
from orderservice_operator.resource.spec import OrderService


def service_account(service: OrderService) -> Manifest:
    """Return the account of all pods; they do not talk to Kubernetes, so it has no token."""
    manifest = child(service, "v1", "ServiceAccount", name=service.metadata.name)
    return manifest | {"automountServiceAccountToken": False}
