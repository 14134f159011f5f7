"""The OrderServices in a YAML file."""

import yaml

from orderservice_operator.children.manifest import Manifest
from orderservice_operator.errors import OperatorError
from orderservice_operator.resource.spec import KIND


def read(text: str) -> tuple[list[Manifest], int]:
    """Return the OrderServices in a file, and how many other objects it has beside them."""
    try:
        found = [one for one in yaml.safe_load_all(text) if one is not None]
    except yaml.YAMLError as error:
        raise OperatorError(f"no YAML: {error}") from error
    if not all(isinstance(one, dict) for one in found):
        raise OperatorError("no manifest: every document has to be an object")
    services = [one for one in found if one.get("kind") == KIND]
    for one in services:
        if not (one.get("metadata") or {}).get("name"):
            raise OperatorError("an OrderService has no metadata.name")
    return services, len(found) - len(services)
