"""The finalizer deletes the queues of a deleted resource; Kubernetes deletes its children.

The finalizer is set only while the resource wants its queues deleted. It never delays a deletion
beyond its bound, even if the broker or the API server does not answer.
"""

import asyncio
import time
from datetime import datetime
from typing import Final

import structlog
from pybreaker import CircuitBreakerError

from orderservice_operator.children import processes, topology
from orderservice_operator.children.kinds import kind_of
from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.events import Recorder
from orderservice_operator.cluster.store import Store
from orderservice_operator.errors import NotFound, OperatorError, Permanent, Vanished
from orderservice_operator.rabbitmq import sharing
from orderservice_operator.rabbitmq.management import Management
from orderservice_operator.rabbitmq.reconciler import TopologyReconciler
from orderservice_operator.resource.decoding import Invalid
from orderservice_operator.resource.key import Key
from orderservice_operator.resource.spec import GROUP, OrderService, path_of
from orderservice_topology.difference import Broker
from orderservice_topology.topology import Topology

FINALIZER: Final = f"{GROUP}/queues"
MANAGER: Final = "orderservice-operator-finalizer"
_AGAIN_S: Final = 2.0
# The management API's counts may be this old.
_STATISTICS_S: Final = 11.0
# A queue counts as empty if it is empty twice, this far apart. Pods outlive their Deployments by
# their grace period and publish until they end. To see them would take the right to list all pods.
_SETTLED_S: Final = max(process.grace_period_s for process in processes.ALL) + _STATISTICS_S
_SHORTEST_S: Final = 1.0  # a try with less time left is not worth starting
_EXPECTED: Final = (OperatorError, CircuitBreakerError, TimeoutError)
_log = structlog.get_logger(__name__)


class Finalizer:
    """Carries out the policy `deletionPolicy: DeleteIfEmpty`."""

    def __init__(
        self,
        client: Client,
        store: Store,
        topologies: TopologyReconciler,
        recorder: Recorder,
        bound_s: float,
    ) -> None:
        self._client, self._store, self._bound_s = client, store, bound_s
        self._topologies, self._recorder = topologies, recorder
        self._empty_since: dict[str, float] = {}
        self._unrouted_since: dict[str, float] = {}
        self._problems: dict[str, str] = {}

    async def set_or_remove(self, service: OrderService) -> None:
        """Set the finalizer if the resource needs it, remove it if not.

        Raises Vanished if the resource is gone, Conflict if it has changed since it was read.
        """
        needs_finalizer = service.spec.messaging.deletion_policy == "DeleteIfEmpty"
        active = service.spec.mode == "Manage" and not service.spec.paused
        if active and needs_finalizer != (FINALIZER in service.metadata.finalizers):
            await self._set_finalizer(service, present=needs_finalizer)

    async def finalize(self, service: OrderService | Invalid) -> float | None:
        """Clean up for a resource that is being deleted; return the seconds until the next try.

        Raises Vanished if it is gone, Transient if the finalizer cannot be removed now.
        """
        if FINALIZER not in service.metadata.finalizers:
            return None
        if isinstance(service, Invalid):
            await self._warn(service, f"the spec cannot be read: {service.problem}")
            again_s = None
        else:
            again_s = await self._clean_up(service)
        if again_s is None:
            await self._set_finalizer(service, present=False)
            for times in (self._empty_since, self._unrouted_since):
                times.pop(service.metadata.uid, None)
            self._problems.pop(service.metadata.uid, None)
        return again_s

    async def _clean_up(self, service: OrderService) -> float | None:
        """Do what is possible now; return the seconds until the next step, or None at the end."""
        if reason := _reason_to_keep(service):
            await self._warn(service, reason)
            return None
        left_s = self._bound_s - self._age_s(service)
        if left_s > 0 and await self._try_clean_up(service, max(_SHORTEST_S, left_s)):
            return None
        if (left_s := self._bound_s - self._age_s(service)) > 0:
            return min(_AGAIN_S, left_s)
        problem = self._problems.get(service.metadata.uid, "they could not be checked")
        await self._warn(service, f"given up after {self._bound_s:g} s: {problem}")
        return None

    def _age_s(self, service: OrderService) -> float:
        """Return the seconds since the deletion was requested, by the API server's clock."""
        requested_at = datetime.fromisoformat(service.metadata.deletion_timestamp or "")
        return (self._client.now() - requested_at).total_seconds()

    async def _warn(self, service: OrderService | Invalid, reason: str) -> None:
        await self._recorder.record(service, "Warning", "QueuesLeft", f"queues stay, {reason}")

    async def _try_clean_up(self, service: OrderService, within_s: float) -> bool:
        """Clean up; return whether it is complete, and keep the reason why not for an event."""
        deadline = asyncio.get_running_loop().time() + within_s
        try:
            async with asyncio.timeout_at(deadline):
                if await self._pods_remain(service):
                    return False
            # Inside the breaker, because a broker that is too slow counts as failing.
            with self._topologies.breaker(service).calling():
                async with asyncio.timeout_at(deadline):
                    return await self._delete_topology(service)
        except Exception as error:  # noqa: BLE001 the bound must hold for every error
            if not isinstance(error, _EXPECTED):
                _log.exception("finalizer.crashed", name=service.metadata.name)
            if isinstance(error, Permanent):  # the Secrets may be correct by now
                self._topologies.forget_secrets(service)
            problem = str(error) or type(error).__name__
            self._problems[service.metadata.uid] = problem
            return False

    async def _pods_remain(self, service: OrderService) -> bool:
        """Delete Deployments and their autoscalers; return whether there were any.

        They are deleted first, so that no message is published to a queue that is being deleted.
        """
        key = Key(service.metadata.namespace, service.metadata.name)
        remaining = False
        for child in self._store.children(key):
            if child.kind in {"Deployment", "HorizontalPodAutoscaler"}:
                path = kind_of(child.api_version, child.kind).path(key.namespace, child.name)
                await self._client.delete(path)
                remaining = True
        return remaining

    async def _delete_topology(self, service: OrderService) -> bool:
        management = await self._topologies.management(service)
        await self._topologies.identify(service, management)
        if not self._topologies.all_compared(service):
            return False
        if sharers := self._topologies.sharers(service):
            names = ", ".join(sharing.claim(sharer).name for sharer in sharers)
            text = f"queues stay, the same virtual host is used by {names}"
            await self._recorder.record(service, "Normal", "QueuesLeft", text)
            return True
        definitions, broker = topology.desired(service), await management.read()
        if full := [queue.name for queue in definitions.queues if broker.messages(queue.name)]:
            return await self._leave(service, full)
        if not self._lasted(self._empty_since, service, _SETTLED_S):
            return False
        # No message is routed from here on; earlier ones are counted a while later.
        for exchange in definitions.exchanges:
            await management.delete("exchanges", exchange.name)
        if not self._lasted(self._unrouted_since, service, _STATISTICS_S):
            return False
        return await self._delete_queues(service, management, definitions, broker)

    async def _delete_queues(
        self,
        service: OrderService,
        management: Management,
        topology: Topology,
        broker: Broker,
    ) -> bool:
        """Delete each queue that is empty just before; the last one takes the policies with it."""
        full: list[str] = []
        for queue in (queue.name for queue in topology.queues if queue.name in broker.queues):
            if await management.holds_messages(queue):
                full.append(queue)
            else:
                await management.delete("queues", queue)
        if full:
            return await self._leave(service, full)
        for policy in topology.policies:
            await management.delete("policies", policy.name)
        return True

    async def _leave(self, service: OrderService, queues: list[str]) -> bool:
        text = f"these queues hold messages and stay: {', '.join(queues)}"
        await self._recorder.record(service, "Warning", "QueuesLeft", text)
        return True

    @staticmethod
    def _lasted(starts: dict[str, float], service: OrderService, for_s: float) -> bool:
        """Return whether a state has lasted for a while since it was first recorded."""
        start = starts.setdefault(service.metadata.uid, time.monotonic())
        return time.monotonic() - start >= for_s

    async def _set_finalizer(self, service: OrderService | Invalid, *, present: bool) -> None:
        """Add or remove our finalizer, even if a backup set it; keep others."""
        metadata = service.metadata
        finalizers = [name for name in metadata.finalizers if name != FINALIZER]
        finalizers += [FINALIZER] if present else []
        version = {"resourceVersion": metadata.resource_version, "finalizers": finalizers}
        try:
            await self._client.merge(
                path_of(metadata.namespace, metadata.name), {"metadata": version}, MANAGER
            )
        except NotFound as error:
            raise Vanished(str(error)) from error


def _reason_to_keep(service: OrderService) -> str:
    """Return why queues must not be deleted, or nothing if they may be.

    The present spec counts, not the one for which the finalizer was set. A paused resource is
    deleted, but nothing is written in RabbitMQ. A person can delete the remaining queues by hand,
    but cannot restore deleted ones.
    """
    if service.spec.messaging.deletion_policy != "DeleteIfEmpty":
        return "deletionPolicy is Retain"
    if service.spec.mode != "Manage":
        return "mode is Observe"
    return "the resource is paused" if service.spec.paused else ""
