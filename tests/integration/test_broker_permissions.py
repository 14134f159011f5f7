"""Least privilege in RabbitMQ: what the user of each process may do, which is all it needs."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pika
import pytest
import requests
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, ProbableAccessDeniedError

from devstack.servers import rabbitmq as server
from integration.handles import RabbitMQ, Vhost
from integration.serving import eventually
from orders.errors import Permanent
from orders.messaging.apply import apply
from orders.messaging.consumer import Consumer, Limits
from orders.messaging.dead_letter_queue import opened
from orders.messaging.envelope import Message
from orders.messaging.management import Management
from orders.messaging.publisher import Outgoing, Publisher, PublishOutcome
from orders.relay.metrics import QUEUE_MESSAGES
from orders.relay.queues import QueueGauges
from orders.settings import MessagingSettings
from orderservice_topology.permissions import permissions
from orderservice_topology.topology import (
    EXCHANGE,
    NOTIFICATIONS,
    PROCESSING,
    UNROUTED,
    dead_queue,
    desired,
)

CREATED = "order.created.v1"
BODY = b'{"orderId": 1, "version": 1, "status": "Pending"}'


class Users:
    """A user for each process, with permissions on one virtual host."""

    def __init__(self, rabbitmq: RabbitMQ, vhost: Vhost) -> None:
        self.broker, self.vhost = rabbitmq.broker, vhost.name
        server.prepare_logins(rabbitmq.broker, vhost.name)

    def settings(self, process: str) -> MessagingSettings:
        url = self.broker.login_url(process).removesuffix("%2F")
        return MessagingSettings(url=f"{url}{self.vhost}")

    def management(self, process: str) -> Management:
        return Management(self.broker.login_management_url(process), self.vhost)


@pytest.fixture(scope="module")
def users(rabbitmq: RabbitMQ, vhost: Vhost) -> Iterator[Users]:
    users = Users(rabbitmq, vhost)
    with closing(users.management("topology")) as management:
        assert apply(management, desired(vhost.name))
        assert apply(management, desired(vhost.name)) == []
    yield users
    for process in permissions():
        requests.delete(
            f"{rabbitmq.management_url}/api/users/{server.LOGIN_PREFIX}{process}", timeout=10
        )


@pytest.fixture
def channel(users: Users) -> Iterator[Callable[[str], BlockingChannel]]:
    opened_here = []

    def open_for(process: str) -> BlockingChannel:
        connection = pika.BlockingConnection(pika.URLParameters(users.settings(process).url))
        opened_here.append(connection)
        channel = connection.channel()
        channel.confirm_delivery()
        return channel

    yield open_for
    for connection in opened_here:
        connection.close()


Deed = Callable[[BlockingChannel], Any]


def publishing(exchange: str, key: str = CREATED) -> Deed:
    return lambda channel: channel.basic_publish(exchange, key, BODY, mandatory=True)


def getting(queue: str) -> Deed:
    return lambda channel: channel.basic_get(queue)


def binding(queue: str) -> Deed:
    return lambda channel: channel.queue_bind(queue, EXCHANGE, "order.mine.v1")


DEEDS: dict[str, Deed] = {
    "publish to orders": publishing(EXCHANGE),
    "publish to any queue": publishing("", PROCESSING),
    "publish to the exchange of what has no queue": publishing(UNROUTED),
    "consume order-processing": getting(PROCESSING),
    "consume order-notifications": getting(NOTIFICATIONS),
    "take dead letters": getting(dead_queue(PROCESSING)),
    "declare a queue": lambda channel: channel.queue_declare("mine"),
    "delete a queue": lambda channel: channel.queue_delete(PROCESSING),
    "delete an exchange": lambda channel: channel.exchange_delete(EXCHANGE),
    "bind a queue": binding(PROCESSING),
    "purge order-processing": lambda channel: channel.queue_purge(PROCESSING),
}
MAY = {
    "relay": {"publish to orders"},
    "worker": {
        "publish to any queue", "consume order-processing", "purge order-processing",
    },
    "notifier": {"publish to any queue", "consume order-notifications"},
    "support": {"publish to orders", "publish to any queue", "take dead letters"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("process", "deed"),
    [(process, deed) for process, deeds in MAY.items() for deed in DEEDS if deed not in deeds],
)
def test_a_process_is_refused(
    process: str, deed: str, channel: Callable[[str], BlockingChannel]
) -> None:
    with pytest.raises(ChannelClosedByBroker) as error:
        DEEDS[deed](channel(process))
    assert error.value.reply_code == 403


@pytest.mark.parametrize(
    ("process", "deed"),
    [(process, deed) for process, deeds in MAY.items() for deed in sorted(deeds)],
)
def test_a_process_is_allowed(
    process: str, deed: str, channel: Callable[[str], BlockingChannel]
) -> None:
    DEEDS[deed](channel(process))


@pytest.fixture(scope="module")
def other_vhost(users: Users, rabbitmq: RabbitMQ) -> Iterator[str]:
    """Give the virtual host of another installation."""
    name = f"{users.vhost}-other"
    requests.put(f"{rabbitmq.management_url}/api/vhosts/{name}", timeout=30).raise_for_status()
    yield name
    requests.delete(f"{rabbitmq.management_url}/api/vhosts/{name}", timeout=30)


@pytest.mark.parametrize("process", sorted(permissions()))
def test_a_process_may_not_enter_another_virtual_host(
    users: Users, other_vhost: str, process: str
) -> None:
    url = users.broker.login_url(process).removesuffix("%2F")
    with pytest.raises(ProbableAccessDeniedError, match=r"530.*access to vhost.*refused"):
        pika.BlockingConnection(pika.URLParameters(f"{url}{other_vhost}"))


@pytest.mark.parametrize("process", ["relay", "worker", "notifier", "support"])
def test_only_the_topology_user_may_use_the_management_api(users: Users, process: str) -> None:
    with (
        closing(users.management(process)) as management,
        pytest.raises(Permanent, match="policymaker"),
    ):
        management.list("queues")


def test_the_relay_publishes_and_measures_the_queues(users: Users) -> None:
    publisher, gauges = (
        Publisher(users.settings("relay"), "test"),
        QueueGauges(users.settings("relay")),
    )
    publisher.start()
    gauges.start()
    try:
        eventually(lambda: publisher.problem is None)
        properties = pika.BasicProperties(message_id="m", type=CREATED)
        assert (
            publisher.deliver(Outgoing(EXCHANGE, CREATED, properties, BODY))
            is PublishOutcome.CONFIRMED
        )
        unrouted = Outgoing(EXCHANGE, "order.unheard_of.v1", properties, BODY)
        assert publisher.deliver(unrouted) is PublishOutcome.CONFIRMED  # by the alternate exchange
        eventually(lambda: {f"{queue.name}" for queue in desired().queues} == measured())
    finally:
        gauges.close()
        publisher.close()


def measured() -> set[str]:
    return {
        sample.labels["queue"] for family in QUEUE_MESSAGES.collect() for sample in family.samples
    }


@pytest.mark.parametrize(
    ("process", "queue", "kind"),
    [("worker", PROCESSING, CREATED), ("notifier", NOTIFICATIONS, "order.completed.v1")],
)
def test_a_consumer_handles_retries_and_puts_aside(
    users: Users, channel: Callable[[str], BlockingChannel], process: str, queue: str, kind: str
) -> None:
    handled: list[str] = []

    def handle(message: Message) -> None:
        if message.try_number == 1 and message.message_id.endswith("1"):
            raise Permanent("a test", reason="test")
        handled.append(message.message_id)

    relay = channel("relay")
    limits = Limits(prefetch=2, max_tries=2, drain_s=5)
    consumer = Consumer(users.settings(process), queue, handle, limits)
    consumer.start()
    try:
        for number in range(2):
            message_id = f"00000000-0000-4000-8000-00000000000{number}"
            properties = pika.BasicProperties(
                message_id=message_id, type=kind, content_type="application/json", delivery_mode=2,
                correlation_id="test", headers={"traceparent": ""},
            )  # fmt: skip
            relay.basic_publish(EXCHANGE, kind, BODY, properties, mandatory=True)
        eventually(lambda: handled)
        eventually(lambda: letters(users, queue))
    finally:
        consumer.stop()


def letters(users: Users, queue: str) -> list[str]:
    """Return the dead letters of a queue, as support sees them."""
    with opened(users.settings("support"), dead_queue(queue)) as dead_letters:
        return [str(letter.properties.message_id) for letter in dead_letters.letters()]


def test_support_sends_dead_letters_back(users: Users) -> None:
    with opened(users.settings("support"), UNROUTED) as dead_letters:
        assert dead_letters.letters() is not None
    with opened(users.settings("support"), dead_queue(NOTIFICATIONS)) as dead_letters:
        for letter in dead_letters.letters():
            dead_letters.replay(letter)


def test_the_page_lists_the_permissions() -> None:
    page = Path(__file__).parents[2] / "docs" / "least-privilege.md"
    text = page.read_text().replace("\\|", "|")
    for process, deeds in permissions().items():
        [row] = [
            line for line in text.splitlines() if line.startswith(f"| {process}") and "`^" in line
        ]
        for pattern in (deeds.configure, deeds.write, deeds.read):
            assert f"`{pattern}`" in row, process
