"""The names in RabbitMQ that dashboards, alerts, scalers and the operator rely on."""

from orderservice_topology import topology

EXPECTED_QUEUES = {
    "orders.unrouted",
    "order-processing",
    "order-processing.retry.5s",
    "order-processing.retry.30s",
    "order-processing.retry.5m",
    "order-processing.dead",
    "order-notifications",
    "order-notifications.retry.5s",
    "order-notifications.retry.30s",
    "order-notifications.retry.5m",
    "order-notifications.dead",
}


def test_the_queues_have_their_agreed_names() -> None:
    assert {queue.name for queue in topology.desired().queues} == EXPECTED_QUEUES


def test_the_exchanges_have_their_agreed_names_and_types() -> None:
    exchanges = {exchange.name: exchange.type for exchange in topology.desired().exchanges}
    assert exchanges == {"orders": "topic", "orders.unrouted": "fanout"}


def test_what_no_queue_is_bound_for_is_kept() -> None:
    (alternate,) = [p for p in topology.desired().policies if p.apply_to == "exchanges"]
    assert alternate.definition == {"alternate-exchange": "orders.unrouted"}
    assert any(b.source == b.destination == "orders.unrouted" for b in topology.desired().bindings)


def test_the_virtual_host_is_in_every_object() -> None:
    objects = topology.desired("shop")
    virtual_hosts = {
        *(policy.vhost for policy in objects.policies),
        *(exchange.vhost for exchange in objects.exchanges),
        *(queue.vhost for queue in objects.queues),
        *(binding.vhost for binding in objects.bindings),
    }
    assert virtual_hosts == {"shop"}
