"""Comparing a broker with the topology."""

from typing import Any

import msgspec
import pytest

from orders.errors import SettingError
from orders.messaging import topology
from orders.messaging.apply import Live, compare
from orders.messaging.management import Management

WANTED = topology.desired("/")


def live() -> Live:
    """Return the listings of a broker that is as wanted, with what RabbitMQ adds to them."""
    made: dict[str, list[dict[str, Any]]] = msgspec.to_builtins(WANTED)
    for queue in made["queues"]:
        queue |= {"type": "quorum", "messages": 3}
    for policy in made["policies"]:
        policy |= {"something": "new"}
    return {kind: list(made[kind]) for kind in ("exchanges", "queues", "bindings", "policies")}


def test_an_empty_broker_gets_everything() -> None:
    plan = compare(WANTED, {"exchanges": [], "queues": [], "bindings": [], "policies": []})
    assert plan.queues == WANTED.queues
    assert {change.action for change in plan.changes()} == {"created"}
    assert len(plan.changes()) == sum(
        map(len, (WANTED.queues, WANTED.exchanges, WANTED.bindings, WANTED.policies))
    )


def test_nothing_is_written_where_nothing_differs() -> None:
    plan = compare(WANTED, live())
    assert plan.changes() == []
    assert plan.conflicts == ()


def test_strangers_are_left_alone() -> None:
    found = live()
    found["queues"].append({"name": "somebody-elses", "durable": False, "arguments": {}})
    assert compare(WANTED, found).changes() == []


def test_only_a_stray_binding_of_ours_is_removed() -> None:
    """A consumer refuses what it does not know: such a binding fills the dead-letter queue."""
    found = live()
    ours = {"source": "orders", "destination": "order-processing", "routing_key": "order.#"}
    theirs = {"source": "amq.topic", "destination": "order-processing", "routing_key": "#"}
    found["bindings"] += [
        {**ours, "properties_key": "order.%23"},
        {**theirs, "properties_key": "%23"},
    ]
    (change,) = compare(WANTED, found).changes()
    assert (change.action, change.kind) == ("removed", "binding")
    assert "order.%23" in change.name


def test_a_policy_that_differs_is_replaced() -> None:
    found = live()
    found["policies"][1]["definition"] = {"max-length": 1}
    (change,) = compare(WANTED, found).changes()
    assert (change.action, change.name) == ("updated", WANTED.policies[1].name)


@pytest.mark.parametrize(
    ("kind", "field", "value", "words"),
    [
        ("queues", "arguments", {"x-queue-type": "classic"}, "'classic'}, not {'x-queue-type'"),
        ("queues", "arguments", {"x-queue-type": "quorum", "x-max-length": 1}, "x-max-length"),
        ("queues", "arguments", [], "{}, not"),
        ("queues", "durable", False, "durable False, not True"),
        ("exchanges", "type", "direct", "type 'direct', not 'fanout'"),
    ],
)
def test_what_cannot_be_changed_is_a_conflict_that_names_both_values(
    kind: str, field: str, value: object, words: str
) -> None:
    found = live()
    found[kind][0][field] = value
    (conflict,) = compare(WANTED, found).conflicts
    assert words in str(conflict)


def test_an_empty_argument_table_may_be_listed_as_an_array() -> None:
    found = live()
    found["exchanges"][0]["arguments"] = []
    assert compare(WANTED, found).conflicts == ()


@pytest.mark.parametrize("url", ["amqp://user:secret@host:5672", "http://", "https:///x"])
def test_a_wrong_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingError, match="ORDERS_MANAGEMENT_URL") as caught:
        Management(url, "/")
    assert "secret" not in str(caught.value)
