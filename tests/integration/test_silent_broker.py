"""A broker that accepts messages and then goes silent, while others of its cluster answer."""

from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from pika import BasicProperties

from failover.proxy import Proxy, proxies
from integration.broker import prepare
from integration.handles import Vhost
from integration.serving import eventually
from orders.messaging.publisher import Outgoing, Publisher, PublishOutcome
from orders.settings import MessagingSettings
from orderservice_topology import topology

CONFIRM_TIMEOUT_S = 1.0
MESSAGE = Outgoing(topology.EXCHANGE, "order.created.v1", BasicProperties(message_id="1"), b"{}")


@pytest.fixture
def proxy(vhost: Vhost) -> Iterator[Proxy]:
    with proxies() as group:
        yield group.to(port_of(vhost))


@pytest.fixture
def publisher(vhost: Vhost, proxy: Proxy) -> Iterator[Publisher]:
    url = vhost.url.replace(f":{port_of(vhost)}/", f":{proxy.port}/")
    # Heartbeats would end a silent connection too, but only after several minutes here.
    settings = MessagingSettings(url=url, heartbeat_s=300)
    with closing(Publisher(settings, "test", CONFIRM_TIMEOUT_S)) as publisher:
        publisher.start()
        yield publisher


def port_of(vhost: Vhost) -> int:
    port = urlsplit(vhost.url).port
    assert port is not None
    return port


def test_a_publisher_leaves_a_connection_on_which_no_confirm_comes(
    vhost: Vhost, proxy: Proxy, publisher: Publisher
) -> None:
    prepare(vhost)
    eventually(lambda: publisher.problem is None)
    assert publisher.deliver(MESSAGE) is PublishOutcome.CONFIRMED
    proxy.freeze()
    proxy.point(port_of(vhost))  # connections made from now on are well
    assert publisher.deliver(MESSAGE) is PublishOutcome.LOST
    eventually(lambda: publisher.deliver(MESSAGE) is PublishOutcome.CONFIRMED)
