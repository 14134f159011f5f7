"""Builds the relay from its parts and runs it."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

from orders.messaging.publisher import Publisher
from orders.process import problem_check, running
from orders.relay.queues import QueueGauges
from orders.relay.relay import Relay
from orders.settings import DatabaseSettings, MessagingSettings, RelaySettings, load
from orderservice_topology.topology import PROCESSING


def run(environ: Mapping[str, str]) -> int:
    """Publish the outbox to RabbitMQ until a signal comes; return the exit code.

    It is 0 if every message in flight was confirmed or refused in time.
    """
    messaging = load(MessagingSettings, environ)
    publisher = Publisher(messaging, "orders-relay")
    gauges = QueueGauges(messaging)
    relay = Relay(
        load(DatabaseSettings, environ),
        publisher,
        load(RelaySettings, environ),
        partial(gauges.consumers, PROCESSING),
    )
    checks = (
        problem_check("postgres", lambda: relay.problem),
        problem_check("rabbitmq", lambda: publisher.problem),
    )
    with running("relay", environ, checks) as life, ExitStack() as closing:
        # Parts close in reverse order: the relay needs the publisher until its last message.
        publisher.start()
        closing.callback(publisher.close)
        gauges.start()
        closing.callback(gauges.close)
        life.watch(relay.watch)
        thread = closing.enter_context(ThreadPoolExecutor(1))
        running_relay = thread.submit(relay.run)
        life.run_until_signal()
        relay.stop()
        drained = running_relay.result()
    return 0 if drained else 1
