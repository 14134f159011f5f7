"""The consumer while the broker goes away and comes back."""

import collections
import threading
import time
from collections.abc import Iterator

import pytest

from integration.broker import body, connected, prepare, settings_of
from integration.handles import RabbitMQ, Vhost
from integration.serving import eventually
from machine_time import machine_time_s
from orders.messaging.consumer import Consumer, Limits
from orders.messaging.envelope import Message

QUEUE = "order-processing"


@pytest.fixture
def running(rabbitmq: RabbitMQ, vhost: Vhost) -> Iterator[Vhost]:
    prepare(vhost)
    yield vhost
    if vhost_is_down(vhost):
        rabbitmq.start()


def vhost_is_down(vhost: Vhost) -> bool:
    try:
        with connected(vhost):
            return False
    except Exception:  # noqa: BLE001 any way of not answering
        return True


def test_a_restart_loses_nothing_and_a_start_without_a_broker_waits(
    rabbitmq: RabbitMQ, running: Vhost
) -> None:
    """Twice handled is only what was delivered and not acknowledged when the broker went."""
    handled: collections.Counter[str] = collections.Counter()
    lock = threading.Lock()

    def handler(message: Message) -> None:
        time.sleep(0.002)
        with lock:
            handled[message.message_id] += 1

    limits = Limits(prefetch=4, max_tries=8, drain_s=5)
    consumer, newcomer = (Consumer(settings_of(running), QUEUE, handler, limits) for _ in range(2))
    with connected(running) as broker:
        message_ids = {broker.send(QUEUE, body(number)) for number in range(1, 601)}
    consumer.start()
    eventually(lambda: len(handled) > 100)
    rabbitmq.kill()
    newcomer.start()
    eventually(lambda: "ConnectionRefusedError" in str(newcomer.problem))
    rabbitmq.start()
    eventually(lambda: len(handled) == 600)
    eventually(lambda: consumer.problem is None and newcomer.problem is None)
    assert consumer.stop()
    assert newcomer.stop()
    assert set(handled) == message_ids
    assert sum(handled.values()) <= 600 + limits.prefetch
    with connected(running) as broker:
        assert broker.count(QUEUE) == 0


def test_it_can_be_stopped_while_the_broker_is_away(rabbitmq: RabbitMQ, running: Vhost) -> None:
    limits = Limits(prefetch=1, max_tries=8, drain_s=5)
    consumer = Consumer(settings_of(running), QUEUE, lambda _message: None, limits)
    consumer.start()
    eventually(lambda: consumer.problem is None)
    rabbitmq.pause()
    started_s = machine_time_s()
    consumer.stop()
    took_s = machine_time_s() - started_s
    rabbitmq.resume()
    assert took_s < 6
