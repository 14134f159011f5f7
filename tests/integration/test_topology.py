"""Making exchanges, queues, bindings and policies on a real broker."""

import contextlib
import threading
import time
import urllib.parse
from collections.abc import Iterator

import pika
import pytest
import requests

from devstack.ports import free_port
from integration.broker import Broker, body, connected, new_properties, prepare
from integration.handles import RabbitMQ, Vhost
from integration.serving import eventually
from orders.domain import events
from orders.errors import Permanent, Transient
from orders.messaging.apply import apply, main_apply
from orders.messaging.management import Management
from orders.settings import TopologySettings
from orderservice_topology import topology


@pytest.fixture
def management(vhost: Vhost) -> Iterator[Management]:
    management = Management(vhost.management_url, vhost.name)
    yield management
    management.close()


def desired(vhost: Vhost) -> topology.Topology:
    return topology.desired(vhost.name)


def place(vhost: Vhost, kind: str, name: str) -> str:
    quoted = urllib.parse.quote(name, safe="")
    return f"{vhost.management_url}/api/{kind}/{vhost.name}/{quoted}"


def test_a_second_run_writes_nothing(vhost: Vhost, management: Management) -> None:
    assert apply(management, desired(vhost))
    assert apply(management, desired(vhost)) == []


def test_what_people_changed_by_hand_is_repaired(vhost: Vhost, management: Management) -> None:
    apply(management, desired(vhost))
    requests.delete(place(vhost, "queues", "order-processing.retry.5s"), timeout=30)
    requests.delete(place(vhost, "policies", "orders:queue:order-processing"), timeout=30)
    stray = f"{vhost.management_url}/api/bindings/{vhost.name}/e/orders/q/order-processing"
    requests.post(stray, json={"routing_key": "order.#"}, timeout=30).raise_for_status()
    requests.put(
        place(vhost, "policies", "orders:queue:order-notifications"),
        json={"pattern": "^x$", "definition": {"max-length": 1}, "apply-to": "queues"},
        timeout=10,
    ).raise_for_status()
    changes = {
        (change.action, change.kind, change.name) for change in apply(management, desired(vhost))
    }
    assert changes == {
        ("created", "queue", "order-processing.retry.5s"),
        ("created", "policy", "orders:queue:order-processing"),
        ("updated", "policy", "orders:queue:order-notifications"),
        ("removed", "binding", "orders -order.%23-> order-processing"),
    }
    assert apply(management, desired(vhost)) == []


def test_the_delivery_limit_can_be_changed(vhost: Vhost, management: Management) -> None:
    apply(management, desired(vhost))
    changes = apply(management, topology.desired(vhost.name, delivery_limit=7))
    assert {change.kind for change in changes} == {"policy"}
    apply(management, desired(vhost))


def test_a_queue_with_other_arguments_is_reported_and_nothing_is_written(
    rabbitmq: RabbitMQ, vhost: Vhost
) -> None:
    other = Vhost("with_classic", "", vhost.management_url)
    make_vhost(other)
    classic = {"durable": True, "arguments": {"x-queue-type": "classic"}}
    requests.put(place(other, "queues", "order-processing"), json=classic, timeout=30)
    management = Management(other.management_url, other.name)
    with pytest.raises(Permanent, match=r"order-processing.*classic.*quorum") as caught:
        apply(management, topology.desired(other.name))
    assert caught.value.reason == "topology_conflict"
    assert management.list("policies") == []
    assert len(management.list("queues")) == 1
    delete_vhost(other)


def test_a_stronger_policy_of_somebody_else_is_an_error(rabbitmq: RabbitMQ, vhost: Vhost) -> None:
    """Such a policy would disable the dead-letter rules without an error."""
    other = Vhost("with_catch_all", "", vhost.management_url)
    make_vhost(other)
    catch_all = {"pattern": ".*", "definition": {"max-length": 5}, "priority": 99}
    requests.put(place(other, "policies", "catch-all"), json=catch_all, timeout=30)
    management = Management(other.management_url, other.name)
    with pytest.raises(Permanent, match="obeys policy 'catch-all'"):
        apply(management, topology.desired(other.name))
    delete_vhost(other)


def test_an_operator_policy_that_limits_is_a_warning_and_one_that_loses_an_error(
    rabbitmq: RabbitMQ, vhost: Vhost, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Vhost("with_operator_policy", "", vhost.management_url)
    make_vhost(other)
    management = Management(other.management_url, other.name)
    limit = {"pattern": ".*", "definition": {"max-length": 10}, "apply-to": "queues"}
    requests.put(place(other, "operator-policies", "strict"), json=limit, timeout=30)
    assert apply(management, topology.desired(other.name))
    assert "max-length 10 instead of 1000000" in capsys.readouterr().err
    losing = limit | {"definition": {"expires": 60_000}}
    requests.put(place(other, "operator-policies", "strict"), json=losing, timeout=30)
    with pytest.raises(Permanent, match="expires 60000 by operator policy 'strict'") as caught:
        apply(management, topology.desired(other.name))
    assert caught.value.reason == "operator_policy"
    delete_vhost(other)


def test_names_are_quoted(rabbitmq: RabbitMQ, vhost: Vhost) -> None:
    other = Vhost(urllib.parse.quote("a/b c%", safe=""), "", vhost.management_url)
    make_vhost(other)
    management = Management(other.management_url, "a/b c%")
    assert apply(management, topology.desired("a/b c%"))
    assert apply(management, topology.desired("a/b c%")) == []
    delete_vhost(other)


def test_wrong_credentials_are_named_and_not_shown(vhost: Vhost) -> None:
    url = vhost.management_url.replace("orders:", "orders:wrong-")
    with pytest.raises(Permanent, match="ORDERS_MANAGEMENT_URL") as caught:
        apply(Management(url, vhost.name), desired(vhost))
    assert "wrong-" not in str(caught.value)


def test_a_virtual_host_that_is_not_there_is_named(vhost: Vhost) -> None:
    with pytest.raises(Permanent, match="'nowhere'"):
        apply(Management(vhost.management_url, "nowhere"), topology.desired("nowhere"))


def test_it_waits_for_the_broker(vhost: Vhost, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    url = f"http://orders:secret@127.0.0.1:{port}"
    with pytest.raises(Transient) as caught:
        main_apply(TopologySettings(management_url=url, vhost=vhost.name), wait_s=1.5)
    assert "secret" not in str(caught.value)
    assert "waiting for RabbitMQ" in capsys.readouterr().err


def test_the_command_reports_what_it_changed(
    vhost: Vhost, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = TopologySettings(management_url=vhost.management_url, vhost=vhost.name)
    assert main_apply(settings) == 0
    assert main_apply(settings) == 0
    assert "no changes" in capsys.readouterr().out


def test_two_at_once_do_not_disturb_each_other(rabbitmq: RabbitMQ, vhost: Vhost) -> None:
    other = Vhost("twice", "", vhost.management_url)
    make_vhost(other)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            apply(Management(other.management_url, other.name), topology.desired(other.name))
        except BaseException as error:  # noqa: BLE001 told to the test
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    delete_vhost(other)


def test_what_no_queue_is_bound_for_goes_to_unrouted(broker: Broker) -> None:
    properties = new_properties("order.unheard_of.v1")
    broker.channel.basic_publish("orders", "order.unheard_of.v1", b"{}", properties, mandatory=True)
    broker.wait_for("orders.unrouted", 1)


def test_a_message_goes_to_every_queue_that_is_interested(broker: Broker) -> None:
    for key in (events.CREATED, events.CANCELLED):
        broker.channel.basic_publish("orders", key, b"{}", new_properties(key), mandatory=True)
    broker.wait_for("order-processing", 2)
    broker.wait_for("order-notifications", 1)


def test_a_tier_gives_its_message_back(broker: Broker) -> None:
    broker.send("order-processing.retry.5s", b"{}")
    broker.wait_for("order-processing", 1)


def test_a_message_that_crashes_its_consumers_is_dead_lettered(
    vhost: Vhost, broker: Broker
) -> None:
    prepare(vhost, delivery_limit=2)
    broker.send("order-processing", b"{}")
    for _ in range(3):
        method = None
        while method is None:
            method, _properties, _body = broker.channel.basic_get("order-processing")
        broker.channel.basic_nack(method.delivery_tag, requeue=True)
    broker.wait_for("order-processing.dead", 1)
    prepare(vhost)


def make_vhost(vhost: Vhost) -> None:
    api = f"{vhost.management_url}/api"
    requests.put(f"{api}/vhosts/{vhost.name}", timeout=30).raise_for_status()
    rights = {"configure": ".*", "write": ".*", "read": ".*"}
    requests.put(f"{api}/permissions/{vhost.name}/orders", json=rights, timeout=30)


def delete_vhost(vhost: Vhost) -> None:
    requests.delete(f"{vhost.management_url}/api/vhosts/{vhost.name}", timeout=30)


def fill(broker: Broker, queue: str) -> None:
    with contextlib.suppress(pika.exceptions.NackError):
        while True:
            broker.send(queue, body())


def test_a_retry_that_meets_a_full_queue_is_tried_again_within_seconds(vhost: Vhost) -> None:
    prepare(vhost, max_length=1)
    with connected(vhost) as broker:
        fill(broker, "order-processing")
        broker.send("order-processing.retry.5s", body(7))
        broker.wait_for("order-processing.retry.5s", 0)
        time.sleep(0.5)  # it is refused meanwhile; if not yet, the test shows less
        while broker.take("order-processing"):
            pass
        eventually(lambda: broker.take("order-processing"))
