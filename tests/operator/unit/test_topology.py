"""The operator's topology, what it changes in a broker, and what it leaves alone."""

from typing import Any

import msgspec
import pytest

from orders.messaging import topology as services
from orderservice_operator.rabbitmq import topology
from orderservice_operator.rabbitmq.changes import Broker, Changes, changes


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
        bindings=frozenset((b.source, b.destination, b.routing_key) for b in wanted.bindings),
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
    left = found.bindings - {("orders", "order-processing", "order.created.v1")}
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
    queues["order-processing"] = {"name": "order-processing", "arguments": {}}
    exchanges["orders"] = {**exchanges["orders"], "type": "direct"}
    broken = msgspec.structs.replace(found, queues=queues, exchanges=exchanges)
    made = changes(wanted, broken)
    assert made.mismatches == (
        "exchange orders is direct, not topic",
        "queue order-processing has arguments {}, not {'x-queue-type': 'quorum'}",
    )
    assert not str(made)
