"""The OrderServices in a file, alone or in a list."""

import pytest
import yaml

from orderservice_operator.errors import OperatorError
from orderservice_operator.orderctl import manifests

SERVICE = {"apiVersion": "orders.platform.dev/v1alpha1", "kind": "OrderService"}
ORDERS = SERVICE | {"metadata": {"name": "orders"}}
OTHER = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}


@pytest.mark.parametrize(
    "document",
    [
        {"apiVersion": "v1", "kind": "List", "items": [ORDERS, OTHER]},
        {"apiVersion": SERVICE["apiVersion"], "kind": "OrderServiceList", "items": [ORDERS]},
        ORDERS,
    ],
    ids=lambda document: document["kind"],
)
def test_a_list_is_what_is_in_it(document: object) -> None:
    services, others = manifests.read(yaml.safe_dump(document))
    assert [service["metadata"]["name"] for service in services] == ["orders"]
    assert others == (1 if "ConfigMap" in yaml.safe_dump(document) else 0)


def test_an_item_that_is_no_object_is_refused() -> None:
    with pytest.raises(OperatorError, match="every item"):
        manifests.read("{apiVersion: v1, kind: List, items: [text]}")
