"""What is left to do when a resource is deleted: children go by themselves, queues do not.

The finalizer is there only while the resource wants its queues deleted, and never holds up a
deletion for longer than its bound, whatever the broker does.
"""

import time
from datetime import UTC, datetime
from typing import Final

from pybreaker import CircuitBreakerError

from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.kinds import kind_of
from orderservice_operator.cluster.store import Key, Store
from orderservice_operator.errors import Conflict, NotFound, OperatorError
from orderservice_operator.events import Recorder
from orderservice_operator.manifest import Manifest
from orderservice_operator.rabbitmq import sharing, topology
from orderservice_operator.rabbitmq.changes import Broker
from orderservice_operator.rabbitmq.keeper import Keeper
from orderservice_operator.resource.spec import GROUP, KIND, PLURAL, VERSION, OrderService

FINALIZER: Final = f"{GROUP}/queues"
MANAGER: Final = "orderservice-operator-finalizer"
_AGAIN_S: Final = 2.0
# The management API may be as late as this: a queue is empty when it is so twice, this far apart.
_STATISTICS_S: Final = 11.0


class Farewell:
    """Keeps the promise of `deletionPolicy: DeleteIfEmpty`."""

    def __init__(
        self, client: Client, store: Store, keeper: Keeper, recorder: Recorder, bound_s: float
    ) -> None:
        self._client, self._store, self._bound_s = client, store, bound_s
        self._keeper, self._recorder = keeper, recorder
        self._empty_at: dict[str, float] = {}

    async def promise(self, service: OrderService) -> None:
        """Set the finalizer if it is needed, take it away if not."""
        wanted = service.spec.messaging.deletion_policy == "DeleteIfEmpty"
        active = service.spec.mode == "Manage" and not service.spec.paused
        if active and wanted != (FINALIZER in service.metadata.finalizers):
            await self._set_finalizers(service, [FINALIZER] if wanted else [])

    async def say(self, service: OrderService) -> float | None:
        """Clean up after a resource that is being deleted; return when to look again."""
        if FINALIZER not in service.metadata.finalizers:
            return None
        if await self._done(service) or _age_s(service) > self._bound_s:
            self._empty_at.pop(service.metadata.uid, None)
            await self._set_finalizers(service, [])
            return None
        return _AGAIN_S

    async def _done(self, service: OrderService) -> bool:
        """Return whether nothing is left to do; an event says when people have to."""
        if await self._pods_remain(service):
            return False
        try:
            with self._keeper.gate(service).calling():
                return await self._clean(service)
        except (OperatorError, CircuitBreakerError) as error:
            text = f"queues stay, RabbitMQ cannot be asked: {error}"
            if _age_s(service) > self._bound_s - 2 * _AGAIN_S:
                await self._recorder.say(service, "Warning", "QueuesLeft", text)
            return False

    async def _pods_remain(self, service: OrderService) -> bool:
        """Delete the Deployments first: nobody may publish to a queue that is being deleted."""
        key = Key(service.metadata.namespace, service.metadata.name)
        remaining = False
        for found in self._store.children(key):
            if found.kind in {"Deployment", "HorizontalPodAutoscaler"}:
                path = kind_of(found.api_version, found.kind).path(key.namespace, found.name)
                await self._client.delete(path)
                remaining = True
        return remaining

    async def _clean(self, service: OrderService) -> bool:
        management = await self._keeper.management(service)
        await self._keeper.identify(service, management)
        if not self._keeper.all_looked_at(service):
            return False
        if sharers := self._keeper.sharers(service):
            names = ", ".join(sharing.claim(one).name for one in sharers)
            text = f"queues stay, the same virtual host is used by {names}"
            await self._recorder.say(service, "Normal", "QueuesLeft", text)
            return True
        wanted, found = topology.desired(service), await management.look()
        if full := [queue.name for queue in wanted.queues if found.messages(queue.name)]:
            text = f"these queues hold messages and stay: {', '.join(full)}"
            await self._recorder.say(service, "Warning", "QueuesLeft", text)
            return True
        first = self._empty_at.setdefault(service.metadata.uid, time.monotonic())
        if time.monotonic() - first < _STATISTICS_S:
            return False
        for kind, name in _own(wanted, found):
            await management.delete(kind, name)
        return True

    async def _set_finalizers(self, service: OrderService, finalizers: list[str]) -> None:
        metadata = service.metadata
        manifest: Manifest = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "metadata": {"name": metadata.name, "uid": metadata.uid, "finalizers": finalizers},
        }
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{metadata.namespace}/{PLURAL}/{metadata.name}"
        try:
            await self._client.apply(path, manifest, MANAGER)
        except (NotFound, Conflict):
            return  # gone, or gone and made anew: then it is another's to say


def _own(wanted: topology.Topology, found: Broker) -> list[tuple[str, str]]:
    """Return what was made for the resource and is there; bindings go with their queues."""
    return [
        *(("queues", one.name) for one in wanted.queues if one.name in found.queues),
        *(("exchanges", one.name) for one in wanted.exchanges if one.name in found.exchanges),
        *(("policies", one.name) for one in wanted.policies if one.name in found.policies),
    ]


def _age_s(service: OrderService) -> float:
    """Return for how long the resource has been waiting to go."""
    since = datetime.fromisoformat(service.metadata.deletion_timestamp or "")
    return (datetime.now(UTC) - since).total_seconds()
