"""Which server serves external metrics, as seen from outside the operator."""

from typing import Final

from orderservice_operator.children.context import MetricsApi
from orderservice_operator.children.manifest import Manifest
from orderservice_operator.children.processes import WORKER, name_of
from orderservice_operator.cluster.client import Client
from orderservice_operator.errors import NotFound, OperatorError
from orderservice_operator.external_metrics.address import ServiceAddress
from orderservice_operator.external_metrics.availability import with_availability
from orderservice_operator.external_metrics.registration import PATH, holder
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.state import live_objects
from orderservice_operator.state.live_objects import LiveObjects

# What the operator's chart calls the Service in front of it.
_LABELS: Final = "app.kubernetes.io/name=orderservice-operator"
_SUFFIX: Final = "-external-metrics"


async def external_metrics(
    client: Client, service: OrderService, objects: LiveObjects
) -> MetricsApi:
    """Return what the operator would see; without a worker to scale, nothing is read.

    For a person without cluster-wide rights, the existing autoscaler is the evidence.
    """
    if service.spec.worker.autoscaling is None:
        return MetricsApi()
    try:
        state = holder(await _registration(client), await _address(client))
    except OperatorError:
        # Assume that the present source of metrics stays; the chart serves them by default.
        if live_objects.provider_of(name_of(service, WORKER), objects) == "External":
            return MetricsApi("other", server="another server", answers=True)
        return MetricsApi(can_serve=True)
    return await with_availability(client, state, service, objects)


async def _registration(client: Client) -> Manifest | None:
    try:
        return await client.get(PATH)
    except NotFound:
        return None


async def _address(client: Client) -> ServiceAddress | None:
    async for page in client.pages("/api/v1/services", _LABELS):
        for item in page.items:
            metadata = item["metadata"]
            if metadata["name"].endswith(_SUFFIX):
                return ServiceAddress(metadata["namespace"], metadata["name"])
    return None
