"""The OrderServices in a YAML file."""

from typing import Any

import msgspec
import yaml

from orderservice_operator.children.manifest import Manifest
from orderservice_operator.errors import OperatorError
from orderservice_operator.resource.spec import KIND


def read(text: str) -> tuple[list[Manifest], int]:
    """Return the OrderServices in a file, and the number of its other objects."""
    manifests = [manifest for manifest in documents(text) if manifest is not None]
    if not all(isinstance(manifest, dict) for manifest in manifests):
        raise OperatorError("not a manifest: every document must be an object")
    manifests = [item for manifest in manifests for item in _items(manifest)]
    services = [manifest for manifest in manifests if manifest.get("kind") == KIND]
    for manifest in services:
        metadata = manifest.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if not isinstance(name, str) or not name:
            raise OperatorError("an OrderService has no metadata.name")
    return services, len(manifests) - len(services)


def _items(manifest: Manifest) -> list[Manifest]:
    """Return the objects of a list, or the object itself."""
    if manifest.get("apiVersion") == "v1" and manifest.get("kind") == "List":
        items = _listed(manifest)
    elif manifest.get("kind") == f"{KIND}List":
        items = [
            {"kind": KIND} | item if isinstance(item, dict) else item for item in _listed(manifest)
        ]
    else:
        items = [manifest]
    if not all(isinstance(item, dict) for item in items):
        raise OperatorError("not a manifest: every item of a list must be an object")
    return items


def _listed(manifest: Manifest) -> list[Any]:
    items = manifest.get("items") or []
    if not isinstance(items, list):
        raise OperatorError("not a manifest: the items of a list must be a list")
    return items


def documents(text: str) -> list[Any]:
    """Return the documents of a YAML text that JSON can express. Raises OperatorError."""
    try:
        values = list(yaml.safe_load_all(text))
        msgspec.json.encode(values)
    except Exception as error:  # PyYAML and what makes its values raise what they please
        raise OperatorError(f"not YAML: {error or type(error).__name__}") from error
    return values
