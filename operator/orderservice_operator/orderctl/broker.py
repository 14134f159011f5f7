"""What a change of a resource means in RabbitMQ. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from orderservice_operator.children import topology
from orderservice_operator.children.manifest import Manifest
from orderservice_operator.orderctl.difference import Change, difference
from orderservice_operator.resource.spec import OrderService
from orderservice_topology.topology import Binding

_GROUPS: Final = ("policies", "exchanges", "queues", "bindings")


def in_broker(source: OrderService | None, target: OrderService) -> Iterator[Change]:
    """Return what two specs change in RabbitMQ; only the operator sees manual changes there."""
    old, new = _objects(source), _objects(target)
    for key, fields in new.items():
        if key not in old:
            yield Change("create", *key, difference(None, fields))
        elif old[key] != fields:
            yield Change("change", *key, difference(old[key], fields))


def _objects(service: OrderService | None) -> Mapping[tuple[str, str], Manifest]:
    if service is None or service.spec.messaging.management_url is None:
        return {}
    definitions = topology.desired(service)
    items: list[Any] = [item for group in _GROUPS for item in getattr(definitions, group)]
    return {
        (f"RabbitMQ {type(item).__name__.lower()}", _name(item)): msgspec.to_builtins(item)
        for item in items
    }


def _name(item: Any) -> str:
    if isinstance(item, Binding):
        return f"{item.source} → {item.destination} {item.routing_key}".rstrip()
    return str(item.name)
