"""The length of a resource's queue, read from its broker when an autoscaler asks."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from pybreaker import CircuitBreakerError

from orderservice_operator.children.scaling import metric_labels
from orderservice_operator.errors import Transient
from orderservice_operator.external_metrics.documents import Series
from orderservice_operator.rabbitmq.reconciler import TopologyReconciler
from orderservice_operator.resource.key import Key
from orderservice_operator.resource.spec import OrderService
from orderservice_topology.topology import PROCESSING as QUEUE

# Autoscalers ask one after the other: a dead broker must not delay the others for long.
_BUDGET_S: Final = 3.0
_KEPT_S: Final = 1.0


async def ask_broker(topologies: TopologyReconciler, service: OrderService) -> int:
    """Return how many messages the queue holds, unacknowledged ones included.

    Raises OperatorError within the budget: an unknown length is not 0.
    """
    management = await topologies.management(service)
    try:
        # The deadline is inside: a broker that hangs has to open the breaker, too.
        with topologies.breaker(service).calling():
            async with asyncio.timeout(_BUDGET_S):
                return await management.messages(QUEUE)
    except CircuitBreakerError as error:
        raise Transient("the broker does not answer; asked again in a while") from error
    except TimeoutError as error:
        raise Transient(f"the broker did not answer within {_BUDGET_S:g} s") from error


class Depths:
    """Reads lengths of queues. All requests within a second share an answer, or an error."""

    def __init__(self, ask: Callable[[OrderService], Awaitable[int]]) -> None:
        self._ask = ask
        self._reads: dict[Key, asyncio.Task[Series]] = {}

    async def close(self) -> None:
        """Cancel the queries in progress."""
        queries = list(self._reads.values())
        for query in queries:
            query.cancel()
        await asyncio.gather(*queries, return_exceptions=True)

    async def series(self, services: Iterable[OrderService]) -> list[Series]:
        """Return the length of each queue. Raises OperatorError if one is unknown."""
        return list(await asyncio.gather(*(self._read_shared(service) for service in services)))

    async def _read_shared(self, service: OrderService) -> Series:
        key = Key(service.metadata.namespace, service.metadata.name)
        query = self._reads.get(key)
        if query is None:
            query = self._reads[key] = asyncio.create_task(self._read(service))
            query.add_done_callback(lambda task: self._keep_a_while(key, task))
        return await asyncio.shield(
            query
        )  # a caller that disconnects does not cancel the answer for others

    async def _read(self, service: OrderService) -> Series:
        return Series(metric_labels(service), await self._ask(service), datetime.now(UTC))

    def _keep_a_while(self, key: Key, query: "asyncio.Task[Series]") -> None:
        if not query.cancelled():
            query.exception()  # perhaps no caller is left
        asyncio.get_running_loop().call_later(_KEPT_S, self._reads.pop, key, None)
