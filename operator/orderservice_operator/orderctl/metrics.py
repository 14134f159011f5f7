"""Who serves external metrics, as far as one can see from outside the operator."""

from typing import Final

from orderservice_operator import observed
from orderservice_operator.children.processes import WORKER, name_of
from orderservice_operator.cluster.client import Client
from orderservice_operator.errors import NotFound, OperatorError
from orderservice_operator.external_metrics.place import Place
from orderservice_operator.external_metrics.registration import PATH, holder
from orderservice_operator.external_metrics.seen import seen_by
from orderservice_operator.facts import MetricsApi
from orderservice_operator.manifest import Manifest
from orderservice_operator.plan import Live
from orderservice_operator.resource.spec import OrderService

# What the operator's chart calls the Service in front of it.
_LABELS: Final = "app.kubernetes.io/name=orderservice-operator"
_SUFFIX: Final = "-external-metrics"


async def external_metrics(client: Client, service: OrderService, live: Live) -> MetricsApi:
    """Return what the operator would see; nothing is asked where no worker is to be scaled.

    Who may not look into the whole cluster gets what the autoscaler that is there says.
    """
    if service.spec.worker.autoscaling is None:
        return MetricsApi()
    try:
        state = holder(await _registered(client), await _place(client))
    except OperatorError:
        return _by_autoscaler(service, live)
    return await seen_by(client, state, service, live)


async def _registered(client: Client) -> Manifest | None:
    try:
        return await client.get(PATH)
    except NotFound:
        return None


async def _place(client: Client) -> Place | None:
    async for page in client.pages("/api/v1/services", _LABELS):
        for found in page.items:
            metadata = found["metadata"]
            if metadata["name"].endswith(_SUFFIX):
                return Place(metadata["namespace"], metadata["name"])
    return None


def _by_autoscaler(service: OrderService, live: Live) -> MetricsApi:
    """Take what is in use as what will be; the operator's chart has it serve by default."""
    if observed.provider_of(name_of(service, WORKER), live) == "External":
        return MetricsApi("other", server="another server", answers=True)
    return MetricsApi(can_serve=True)
