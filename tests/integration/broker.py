"""Actions on the broker that tests of messaging need and the services do not."""

import contextlib
import uuid
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pika
from pika import BasicProperties

from integration.handles import RabbitMQ, Vhost
from integration.serving import eventually
from orders.domain import events
from orders.messaging import apply, envelope
from orders.messaging.management import Management
from orders.settings import MessagingSettings
from orderservice_topology import topology
from orderservice_topology.topology import Tier

# The names are the contract, the waits are a policy: short ones for tests.
SHORT_TIERS = (Tier("5s", 0.1), Tier("30s", 0.2), Tier("5m", 0.3))
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


def settings_of(vhost: Vhost, heartbeat_s: int = 20) -> MessagingSettings:
    return MessagingSettings(url=vhost.url, heartbeat_s=heartbeat_s)


def prepare(vhost: Vhost, **rules: Any) -> None:
    """Apply the topology, by default with short waits."""
    management = Management(vhost.management_url, vhost.name)
    apply.apply(management, topology.desired(vhost.name, **{"tiers": SHORT_TIERS, **rules}))
    management.close()


def new_properties(message_type: str = events.CREATED, **changes: Any) -> BasicProperties:
    properties = envelope.properties(
        str(uuid.uuid4()), message_type, correlation_id="test", traceparent=TRACEPARENT,
        created_at_s=1,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(properties, name, value)
    return properties


def body(order_id: int = 1, version: int = 1) -> bytes:
    return b'{"orderId": %d, "version": %d, "status": "Pending"}' % (order_id, version)


class Broker:
    """A connection of the test's own."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def send(self, queue: str, contents: bytes, properties: BasicProperties | None = None) -> str:
        """Put a message into a queue and return its id."""
        properties = properties or new_properties()
        self.channel.basic_publish("", queue, contents, properties, mandatory=True)
        return str(properties.message_id)

    def count(self, queue: str) -> int:
        """Count the messages that are ready."""
        number: int = self.channel.queue_declare(queue, passive=True).method.message_count
        return number

    def take(self, queue: str) -> tuple[BasicProperties, bytes] | None:
        """Remove and return the first message."""
        method, properties, contents = self.channel.basic_get(queue, auto_ack=True)
        return None if method is None else (properties, contents)

    def take_all(self, queue: str) -> list[tuple[BasicProperties, bytes]]:
        """Remove and return all messages of a queue; call it while no process publishes to it."""
        ready = islice(self.channel.consume(queue, auto_ack=True), self.count(queue))
        messages = [(properties, contents) for _, properties, contents in ready]
        self.channel.cancel()
        return messages

    def wait_for(self, queue: str, number: int, within_s: float = 60) -> None:
        """Wait until a queue holds so many messages."""
        eventually(lambda: self.count(queue) == number, within_s)

    def purge(self) -> None:
        """Empty every queue of ours."""
        for queue in topology.desired().queues:
            self.channel.queue_purge(queue.name)


@contextlib.contextmanager
def connected(vhost: Vhost) -> Iterator[Broker]:
    connection = pika.BlockingConnection(pika.URLParameters(vhost.url))
    channel = connection.channel()
    channel.confirm_delivery()
    try:
        yield Broker(channel)
    finally:
        if connection.is_open:
            connection.close()


def restart(server: RabbitMQ) -> None:
    """Crash the node and start it again."""
    server.kill()
    server.start()
