"""OrderServices for the tests of pure parts: the shipped examples, as the API server hands them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from orderservice_operator.children.context import Context
from orderservice_operator.children.desired import desired
from orderservice_operator.children.manifest import Manifest, Reference
from orderservice_operator.resource.spec import OrderService

EXAMPLES = Path(__file__).parents[3] / "operator" / "examples"

Make = Callable[..., OrderService]
Children = Callable[..., dict[Reference, Manifest]]


@pytest.fixture
def make() -> Make:
    """Make a resource from an example; keywords replace sections of its spec."""

    def build(example: str = "minimal", **spec: Any) -> OrderService:
        manifest = yaml.safe_load((EXAMPLES / f"{example}.yaml").read_text())
        manifest["metadata"] |= {"namespace": "shop", "uid": "u-1", "generation": 1}
        for section, value in spec.items():
            old = manifest["spec"].get(section)
            manifest["spec"][section] = old | value if isinstance(old, dict) else value
        return msgspec.convert(manifest, OrderService)

    return build


@pytest.fixture
def children(make: Make) -> Children:
    """Make the children of a resource, by reference."""

    def build(example: str = "minimal", context: Context | None = None, **spec: Any) -> Any:
        manifests = desired(make(example, **spec), context or Context())
        return {
            (manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests
        }

    return build
