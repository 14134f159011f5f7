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
    manifests = [item for manifest in manifests for item in _items(manifest)]
    services = [manifest for manifest in manifests if manifest.get("kind") == KIND]
    for manifest in services:
        if not (manifest.get("metadata") or {}).get("name"):
            raise OperatorError("an OrderService has no metadata.name")
    return services, len(manifests) - len(services)


def _items(manifest: Manifest) -> list[Manifest]:
    """Return the objects of a list, or the object itself."""
    if manifest.get("apiVersion") == "v1" and manifest.get("kind") == "List":
        items = manifest.get("items") or []
    elif manifest.get("kind") == f"{KIND}List":
        items = [{"kind": KIND} | item for item in manifest.get("items") or []]
    else:
        items = [manifest]
    if not all(isinstance(item, dict) for item in items):
        raise OperatorError("no manifest: every item of a list has to be an object")
    return items
