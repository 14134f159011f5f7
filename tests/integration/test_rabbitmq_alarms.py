"""RabbitMQ short of memory or disk blocks publishers: orders are taken all the same."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import requests
from pika import BasicProperties

from integration.api_process import Api, api_running, new_user
from integration.broker import connected, prepare, settings_of
from integration.handles import Database, RabbitMQ, Vhost
from integration.rabbitmq_cluster import Node
from integration.relay_process import Process, relay
from integration.serving import eventually
from orders.messaging.publisher import Outgoing, Publisher, PublishOutcome
from orderservice_topology import topology

QUEUE = "order-processing"
MESSAGE = Outgoing(topology.EXCHANGE, "order.created.v1", BasicProperties(message_id="1"), b"{}")
# Calls that raise an alarm and clear it, as `rabbitmqctl` and a full disk do.
ALARMS = {
    "memory": (
        ("vm_memory_monitor", "set_vm_memory_high_watermark", "[{absolute, 1000}]"),
        ("vm_memory_monitor", "set_vm_memory_high_watermark", '[{absolute, "1GB"}]'),
    ),
    "disk": (
        ("rabbit_disk_monitor", "set_disk_free_limit", '["9000GB"]'),
        ("rabbit_disk_monitor", "set_disk_free_limit", '["1MB"]'),
    ),
}


@pytest.fixture(scope="module")
def api(database: Database, state: Path) -> Iterator[Api]:
    settings = {"DATABASE_URL": database.url, "ORDER_STOCK_CHECK": "off"}
    with api_running(state, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def process(database: Database, vhost: Vhost) -> Iterator[Process]:
    prepare(vhost)
    with relay(database, vhost) as running:
        running.wait_until_ready()
        yield running


def waiting(database: Database) -> int:
    with psycopg.connect(database.url, autocommit=True) as session:
        row = session.execute("SELECT count(*) FROM outbox").fetchone()
    assert row is not None
    return int(row[0])


def alarmed(rabbitmq: RabbitMQ) -> bool:
    # A node that started a moment ago has no statistics yet.
    [node] = requests.get(f"{rabbitmq.management_url}/api/nodes", timeout=30).json()
    return bool(node.get("mem_alarm") or node.get("disk_free_alarm"))


def test_a_publisher_stays_with_a_broker_that_blocks_it(rabbitmq: RabbitMQ, vhost: Vhost) -> None:
    node = Node(rabbitmq.broker, rabbitmq.program)
    ring, clear = ALARMS["memory"]
    prepare(vhost)
    with closing(Publisher(settings_of(vhost), "test", confirm_timeout_s=1)) as publisher:
        publisher.start()
        eventually(lambda: publisher.problem is None)
        try:
            node.call(*ring)
            eventually(lambda: publisher.deliver(MESSAGE) is PublishOutcome.LOST)
            for _ in range(3):
                assert publisher.deliver(MESSAGE) is PublishOutcome.LOST
                assert "blocks publishers" in str(publisher.problem)
        finally:
            node.call(*clear)
        eventually(lambda: publisher.deliver(MESSAGE) is PublishOutcome.CONFIRMED)


@pytest.mark.parametrize("alarm", ALARMS)
def test_orders_are_taken_and_their_messages_wait_until_the_alarm_is_over(
    rabbitmq: RabbitMQ, vhost: Vhost, database: Database, api: Api, process: Process, alarm: str
) -> None:
    node = Node(rabbitmq.broker, rabbitmq.program)
    ring, clear = ALARMS[alarm]
    with connected(vhost) as broker:
        count_before = broker.count(QUEUE)
    try:
        node.call(*ring)
        eventually(lambda: alarmed(rabbitmq))
        answers = [api.post(new_user()).status_code for _ in range(20)]
        assert answers == [202] * 20
        eventually(lambda: "blocks publishers" in process.ready().text)
        answers = [api.post(new_user()).status_code for _ in range(20)]
        assert answers == [202] * 20
        assert waiting(database) >= 20
        assert process.live().status_code == 200, "a restart would not help"
    finally:
        node.call(*clear)
    eventually(lambda: waiting(database) == 0, 60)
    eventually(lambda: process.ready().status_code == 200)
    with connected(vhost) as broker:
        assert broker.count(QUEUE) >= count_before + 40
