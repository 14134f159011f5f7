"""The operator's topology, what it changes in a broker, and what it leaves alone."""

from typing import Any

import msgspec
import pytest

from orders.messaging import topology as services
from orderservice_operator.children import topology
from orderservice_operator.rabbitmq import sharing
from orderservice_operator.state.broker import Bound, Broker, Changes, changes


def test_the_services_and_the_operator_mean_the_same_topology(make: Any) -> None:
    """A machine without a cluster gets the very same exchanges, queues, bindings and policies."""
    ours = msgspec.to_builtins(topology.desired(make()))
    assert ours == msgspec.to_builtins(services.desired())


def test_they_mean_the_same_with_other_settings(make: Any) -> None:
    tiers = tuple(
        services.Tier(name, delay_s)
        for name, delay_s in zip(("5s", "30s", "5m"), (10, 60, 600), strict=True)
    )
    theirs = services.desired("orders", delivery_limit=10, tiers=tiers, max_length=500_000)
    ours = topology.desired(make("full"))
    assert msgspec.to_builtins(ours) == msgspec.to_builtins(theirs)


def _listed(items: Any) -> dict[str, Any]:
    return {item.name: msgspec.to_builtins(item) | {"more": 1} for item in items}


@pytest.fixture
def wanted(make: Any) -> topology.Topology:
    return topology.desired(make())


@pytest.fixture
def found(wanted: topology.Topology) -> Broker:
    return Broker(
        policies=_listed(wanted.policies),
        exchanges=_listed(wanted.exchanges),
        queues=_listed(wanted.queues),
        bindings=frozenset(Bound(b.source, b.destination, b.routing_key) for b in wanted.bindings),
    )


def _without(found: Broker, kind: str, name: str) -> Broker:
    left = {key: value for key, value in getattr(found, kind).items() if key != name}
    return msgspec.structs.replace(found, **{kind: left})


def test_nothing_is_written_when_everything_is_there(wanted: Any, found: Broker) -> None:
    assert changes(wanted, found) == Changes()
    assert not str(changes(wanted, found))


def test_a_queue_deleted_by_hand_comes_back_with_its_bindings(wanted: Any, found: Broker) -> None:
    made = changes(wanted, _without(found, "queues", "order-processing"))
    assert [queue.name for queue in made.queues] == ["order-processing"]
    assert {binding.destination for binding in made.bindings} == {"order-processing"}
    assert len(made.bindings) == 4


def test_a_binding_that_is_gone_comes_back(wanted: Any, found: Broker) -> None:
    left = found.bindings - {Bound("orders", "order-processing", "order.created.v1")}
    made = changes(wanted, msgspec.structs.replace(found, bindings=left))
    assert str(made) == "binding order.created.v1"


@pytest.mark.parametrize("change", [{"definition": {}}, {"priority": 0}, {"pattern": ".*"}])
def test_a_changed_policy_is_put_right(wanted: Any, found: Broker, change: Any) -> None:
    name = "orders:queue:order-processing"
    policies = dict(found.policies)
    policies[name] = {**policies[name], **change}
    made = changes(wanted, msgspec.structs.replace(found, policies=policies))
    assert [policy.name for policy in made.policies] == [name]


def test_what_cannot_be_changed_is_told_with_both_values(wanted: Any, found: Broker) -> None:
    queues, exchanges = dict(found.queues), dict(found.exchanges)
    queues["order-processing"] = {"name": "order-processing", "arguments": [], "durable": False}
    exchanges["orders"] = {**exchanges["orders"], "type": "direct"}
    broken = msgspec.structs.replace(found, queues=queues, exchanges=exchanges)
    made = changes(wanted, broken)
    assert made.mismatches == (
        "exchange orders has type direct, not topic",
        "queue order-processing has durable False, not True",
        "queue order-processing has arguments {}, not {'x-queue-type': 'quorum'}",
    )
    assert not str(made)


def test_a_binding_that_brings_what_the_consumer_refuses_goes(wanted: Any, found: Broker) -> None:
    stray = Bound("orders", "order-processing", "order.completed.v1", "order.completed.v1")
    elsewhere = Bound("orders", "of-somebody-else", "#", "#")
    more = msgspec.structs.replace(found, bindings=found.bindings | {stray, elsewhere})
    assert changes(wanted, more).strays == (stray,)
    assert str(changes(wanted, more)) == "no binding order.completed.v1"


@pytest.mark.parametrize(("priority", "told"), [(0, False), (10, True), (99, True)])
def test_a_policy_of_others_that_wins_over_ours_is_told(
    wanted: Any, found: Broker, priority: int, *, told: bool
) -> None:
    """One that ranks lower is obeyed only until ours is there."""
    queues = dict(found.queues)
    queues["order-processing"] = {**queues["order-processing"], "policy": "all"}
    policies = {**found.policies, "all": {"name": "all", "priority": priority}}
    made = changes(wanted, msgspec.structs.replace(found, queues=queues, policies=policies))
    assert bool(made.shadows) is told
    assert not told or "'all' of priority" in made.shadows[0]


def _at(service: Any, created: str, uid: str, **metadata: Any) -> Any:
    known = msgspec.structs.replace(
        service.metadata, creation_timestamp=created, uid=uid, **metadata
    )
    return msgspec.structs.replace(service, metadata=known)


def test_a_virtual_host_belongs_to_the_oldest_whoever_asks(make: Any) -> None:
    service = make("prod")
    old = _at(service, "2026-01-01T00:00:00Z", "z", name="old")
    young = _at(service, "2026-01-01T00:00:01Z", "a", name="young")
    twin = _at(service, "2026-01-01T00:00:00Z", "zz", name="twin")
    assert sharing.older(old, [young, twin]) is None
    for other in (young, twin):
        holder = sharing.older(other, [old, young, twin])
        assert holder is not None
        assert holder.name == "shop/old"
    assert sharing.older(young, []) is None


@pytest.mark.parametrize(
    ("change", "claiming"),
    [
        ({}, True),
        ({"paused": True}, True),
        ({"mode": "Observe"}, False),
        ({"messaging": {"managementUrl": None, "deletionPolicy": "Retain"}}, False),
    ],
)
def test_who_writes_to_a_broker_claims_its_virtual_host(
    make: Any, change: Any, *, claiming: bool
) -> None:
    assert sharing.claims(make("prod", **change)) is claiming


def test_a_resource_that_is_going_claims_nothing(make: Any) -> None:
    going = _at(make("prod"), "", "u", deletion_timestamp="2026-01-01T00:00:00Z")
    assert not sharing.claims(going)


def test_an_address_is_the_same_however_it_is_written() -> None:
    assert sharing.address_of("http://Broker/") == sharing.address_of("http://broker:80")
    assert sharing.address_of("https://broker/api") == "broker:443"
