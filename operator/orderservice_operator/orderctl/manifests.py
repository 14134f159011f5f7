"""The OrderServices in a YAML file."""

import yaml

from orderservice_operator.children.manifest import Manifest
from orderservice_operator.errors import OperatorError
from orderservice_operator.resource.spec import KIND


def read(text: str) -> tuple[list[Manifest], int]:
    """Return the OrderServices in a file, and how many other objects it has beside them."""
    try:
        manifests = [manifest for manifest in yaml.safe_load_all(text) if manifest is not None]
    except yaml.YAMLError as error:
        raise OperatorError(f"no YAML: {error}") from error
    if not all(isinstance(manifest, dict) for manifest in manifests):
        raise OperatorError("no manifest: every document has to be an object")
    services = [manifest for manifest in manifests if manifest.get("kind") == KIND]
    for manifest in services:
        if not (manifest.get("metadata") or {}).get("name"):
            raise OperatorError("an OrderService has no metadata.name")
    return services, len(manifests) - len(services)
