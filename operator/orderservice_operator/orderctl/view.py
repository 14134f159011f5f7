"""The data of `orderctl status`, read from the cluster in one go."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from orderservice_operator.children.manifest import Manifest, Reference
from orderservice_operator.errors import OperatorError
from orderservice_operator.orderctl.cluster import Cluster
from orderservice_operator.resource.decoding import Invalid, decode
from orderservice_operator.resource.spec import KIND, OrderService

_EVENTS: Final = 8


class ResourceView(msgspec.Struct, frozen=True):
    """One OrderService, its children, and its last events (newest first)."""

    service: OrderService | Invalid
    created: str
    children: Mapping[Reference, Manifest]
    events: tuple[Manifest, ...]


async def view(cluster: Cluster, name: str) -> ResourceView:
    """Read the view. Raises OperatorError if there is no such OrderService."""
    body, kinds = await asyncio.gather(cluster.service(name), cluster.kinds())
    children, events = await asyncio.gather(cluster.children(name, kinds), _events(cluster, body))
    return ResourceView(
        decode(body), body["metadata"]["creationTimestamp"], children, tuple(events)
    )


async def _events(cluster: Cluster, body: Manifest) -> list[Manifest]:
    """Return the last events of the resource; none without the right to read them."""
    selector = f"involvedObject.kind={KIND},involvedObject.uid={body['metadata']['uid']}"
    path = f"/api/v1/namespaces/{cluster.namespace}/events"
    try:
        reply = await cluster.client.get(path, {"fieldSelector": selector})
    except OperatorError:
        return []
    events: list[Manifest] = sorted(reply["items"], key=_time, reverse=True)
    return events[:_EVENTS]


def _time(event: Mapping[str, Any]) -> str:
    """Return when an event happened last."""
    return str(
        event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"]["creationTimestamp"]
    )
