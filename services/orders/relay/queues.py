"""The broker's queue lengths and consumers: for alerts and dashboards.

The relay asks, not the consumers: a missing consumer cannot report that its queue has none.
"""

import threading
from functools import partial
from typing import Final

from pika.channel import Channel
from pika.frame import Method

from orders.messaging.link import Link
from orders.relay.metrics import QUEUE_CONSUMERS, QUEUE_MESSAGES
from orders.settings import MessagingSettings
from orderservice_topology import topology

# A passive declaration costs the broker next to nothing, and Prometheus scrapes less often.
EVERY_S: Final = 5.0
CLOSE_S: Final = 2.0
QUEUES: Final = tuple(queue.name for queue in topology.desired().queues)


class QueueGauges:
    """Keeps the gauges up to date; they have no values while the broker cannot be asked."""

    def __init__(self, settings: MessagingSettings, every_s: float = EVERY_S) -> None:
        self._link = Link(settings, "orders-relay-queues", self)
        self._every_s = every_s
        self._consumers: dict[str, int] = {}  # by queue; only current values
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queue-gauges", daemon=True)

    def start(self) -> None:
        """Connect to the broker and start to measure the queues."""
        self._link.start()
        self._thread.start()

    def close(self) -> None:
        """Stop measuring and disconnect."""
        self._stopping.set()
        self._link.close(CLOSE_S)

    def consumers(self, queue: str) -> int:
        """Return how many consumers a queue had some seconds ago; 0 if unknown."""
        return self._consumers.get(queue, 0)

    def opened(self, channel: Channel) -> None:
        """Ask for all queues at once over a new channel."""
        self._link.mark_serving(channel)
        self._ask(channel)

    def lost(self) -> None:
        """Forget values that are no longer current."""
        self._consumers.clear()
        QUEUE_MESSAGES.clear()
        QUEUE_CONSUMERS.clear()

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            self._link.call(self._ask)

    def _ask(self, channel: Channel | None) -> None:
        """Declare every queue passively. A missing queue closes the channel, and is logged."""
        if channel is None:
            return
        for queue in QUEUES:
            channel.queue_declare(queue, passive=True, callback=partial(self._take, queue))

    def _take(self, queue: str, answer: Method) -> None:
        self._consumers[queue] = answer.method.consumer_count
        QUEUE_MESSAGES.labels(queue).set(answer.method.message_count)
        QUEUE_CONSUMERS.labels(queue).set(answer.method.consumer_count)
