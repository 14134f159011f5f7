"""Publishes and purges the messages of the queue subjects."""

import time
from collections.abc import Iterable

import msgspec

from loadtest.bench import statements
from loadtest.bench.broker import Channel, message
from loadtest.bench.generators import Throughput
from orders.domain import events
from orders.domain.events import OrderEvent
from orders.messaging import envelope
from orderservice_topology import topology


def announce(url: str, orders: Iterable[int]) -> Throughput:
    """Publish the relay's messages for new orders, over a plain socket."""
    messages = [_created(order_id) for order_id in orders]
    with Channel(url) as channel:
        return channel.publish(messages)


def purge(url: str) -> None:
    """Delete the messages of both work queues."""
    with Channel(url) as channel:
        for queue in (topology.PROCESSING, topology.NOTIFICATIONS):
            channel.purge(queue)


def _created(order_id: int) -> bytes:
    body = msgspec.json.encode(OrderEvent(order_id, 1, "Pending"))
    properties = envelope.properties(
        f"{order_id:032x}",
        events.CREATED,
        correlation_id=str(statements.CONSTANTS["correlation_id"]),
        traceparent=str(statements.CONSTANTS["traceparent"]),
        created_at_s=int(time.time()),
    )
    return message(topology.EXCHANGE, events.CREATED, properties, body)
