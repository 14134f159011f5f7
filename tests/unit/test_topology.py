"""The topology as data."""

import re

import msgspec
import pytest

from orders.domain import events
from orders.messaging.apply import main_show
from orderservice_topology import topology
from orderservice_topology.topology import Tier, Topology

WANTED = topology.desired("shop")


def policy_of(queue: str) -> dict[str, str | int]:
    policies = [
        p for p in WANTED.policies if p.apply_to == "queues" and re.search(p.pattern, queue)
    ]
    assert len(policies) == 1, "RabbitMQ applies one policy a queue"
    return policies[0].definition


def test_the_queue_type_is_the_only_argument() -> None:
    """All other settings must stay changeable on a queue that holds messages."""
    assert {tuple(queue.arguments.items()) for queue in WANTED.queues} == {
        (("x-queue-type", "quorum"),)
    }


@pytest.mark.parametrize("queue", [queue.name for queue in WANTED.queues])
def test_no_queue_ever_drops_a_message(queue: str) -> None:
    definition = policy_of(queue)
    assert definition["overflow"] == "reject-publish"
    assert int(definition["max-length"]) > 0
    if "dead-letter-exchange" in definition:
        assert definition["dead-letter-strategy"] == "at-least-once"
        target = definition["dead-letter-routing-key"]
        assert target in {other.name for other in WANTED.queues}, "dead letters need a queue"
    else:  # what has nowhere to go must never be sent there
        assert definition["delivery-limit"] == topology.UNLIMITED


@pytest.mark.parametrize("queue", topology.ACCEPTS)
def test_a_retry_tier_gives_the_message_back_after_its_delay(queue: str) -> None:
    delays = []
    for tier in topology.RETRY_TIERS:
        definition = policy_of(topology.retry_queue(queue, tier))
        assert definition["dead-letter-routing-key"] == queue
        delays.append(definition["message-ttl"])
    assert delays == [5_000, 30_000, 300_000]


def test_a_queue_is_made_after_the_queues_its_messages_may_go_to() -> None:
    names = [queue.name for queue in WANTED.queues]
    for queue in topology.ACCEPTS:
        assert names.index(topology.dead_queue(queue)) < names.index(queue)


def test_every_message_type_a_queue_accepts_is_bound_to_it() -> None:
    bound = {(b.destination, b.routing_key) for b in WANTED.bindings if b.source == "orders"}
    assert bound == {(q, key) for q, types in topology.ACCEPTS.items() for key in types}


def test_every_message_type_has_a_queue() -> None:
    assert {name for types in topology.ACCEPTS.values() for name in types} == set(events.TYPES)


def test_delays_can_change_without_changing_a_name() -> None:
    other = topology.desired("shop", tiers=(Tier("5s", 0.2), Tier("30s", 0.3), Tier("5m", 0.4)))
    assert other.queues == WANTED.queues
    assert [p.name for p in other.policies] == [p.name for p in WANTED.policies]
    assert other.policies != WANTED.policies


def test_the_data_survives_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(WANTED), type=Topology) == WANTED


def test_show_needs_no_address_of_a_broker(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_show({"ORDERS_TOPOLOGY_VHOST": "shop"}) == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=Topology) == WANTED
