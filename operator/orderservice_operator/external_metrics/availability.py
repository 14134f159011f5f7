"""Whether the server of external metrics has the metric of a resource."""

import asyncio
from typing import Final

import msgspec

from orderservice_operator.children.context import QUEUE_METRIC, MetricsApi
from orderservice_operator.children.processes import WORKER, name_of
from orderservice_operator.children.scaling import metric_labels
from orderservice_operator.cluster.client import Client
from orderservice_operator.errors import OperatorError
from orderservice_operator.external_metrics.documents import GROUP_VERSION
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.state import live_objects
from orderservice_operator.state.live_objects import LiveObjects

# Another server that hangs must not delay a resource for long.
_ASK_S: Final = 5.0


async def with_availability(
    client: Client, state: MetricsApi, service: OrderService, objects: LiveObjects
) -> MetricsApi:
    """Return the state, with whether a foreign server has the metric of this resource."""
    autoscaling = service.spec.worker.autoscaling
    if (
        state.held_by != "other"
        or autoscaling is None
        or autoscaling.provider in {"KEDA", "Builtin"}
    ):
        return state
    # Once it has answered, the autoscaler handles failures.
    in_use = live_objects.provider_of(name_of(service, WORKER), objects) == "External"
    return msgspec.structs.replace(state, answers=in_use or await _answers(client, service))


async def _answers(client: Client, service: OrderService) -> bool:
    path = f"/apis/{GROUP_VERSION}/namespaces/{service.metadata.namespace}/{QUEUE_METRIC}"
    selector = ",".join(f"{name}={value}" for name, value in metric_labels(service).items())
    try:
        async with asyncio.timeout(_ASK_S):
            answer = await client.get(path, {"labelSelector": selector})
    except (OperatorError, TimeoutError):
        return False
    return bool(answer.get("items"))
