"""Which differences are written to a broker, and which are left alone."""

import operator
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders.errors import SettingError
from orders.messaging.management import Management
from orderservice_topology import difference, topology
from orderservice_topology.difference import Broker, Change, Changes, Limit, changes

WANTED = topology.desired("/")
QUEUE = "order-processing"
Listings = Mapping[str, list[dict[str, Any]]]


def listings() -> Listings:
    """Return the listings of a broker that is as wanted, with what RabbitMQ adds to them."""
    lists: dict[str, list[dict[str, Any]]] = msgspec.to_builtins(WANTED)
    for queue in lists["queues"]:
        queue |= {"type": "quorum", "messages": 3, "policy": f"orders:queue:{queue['name']}"}
    for policy in lists["policies"]:
        policy |= {"something": "new"}
    for binding in lists["bindings"]:
        binding |= {"properties_key": binding["routing_key"]}
    return {kind: list(items) for kind, items in lists.items()}


def compared(lists: Listings) -> Changes:
    return changes(WANTED, difference.broker(**lists))


def binding(source: str, destination: str, key: str, **more: str) -> dict[str, Any]:
    arguments = {"source": source, "destination": destination, "destination_type": "queue"}
    return {**arguments, "routing_key": key, "properties_key": key.replace("#", "%23"), **more}


def test_an_empty_broker_gets_everything() -> None:
    steps = changes(WANTED, Broker({}, {}, {}, frozenset())).steps()
    assert {step.action for step in steps} == {"created"}
    kinds = [step.kind for step in steps]
    assert kinds == (
        ["policy"] * len(WANTED.policies)
        + ["exchange"] * len(WANTED.exchanges)
        + ["queue"] * len(WANTED.queues)
        + ["binding"] * len(WANTED.bindings)
    )


def test_nothing_is_written_where_nothing_differs() -> None:
    assert compared(listings()) == Changes()
    assert not str(compared(listings()))
    assert compared(listings()).steps() == []


def test_strangers_are_left_alone() -> None:
    lists = listings()
    lists["queues"].append({"name": "somebody-elses", "durable": False, "arguments": {}})
    assert compared(lists) == Changes()


def test_a_queue_deleted_by_hand_comes_back_with_its_bindings() -> None:
    """A listing of bindings may still have those that went with the queue."""
    lists = listings()
    lists["queues"][:] = [queue for queue in lists["queues"] if queue["name"] != QUEUE]
    result = compared(lists)
    assert [queue.name for queue in result.queues] == [QUEUE]
    assert {item.routing_key for item in result.bindings} == set(topology.ACCEPTS[QUEUE])


def test_a_binding_that_is_gone_comes_back() -> None:
    lists = listings()
    lists["bindings"].pop(1)
    assert str(compared(lists)) == "binding order.created.v1"


@pytest.mark.parametrize("change", [{"definition": {}}, {"priority": 0}, {"pattern": ".*"}])
def test_a_policy_that_differs_is_replaced(change: dict[str, Any]) -> None:
    lists = listings()
    lists["policies"][1] |= change
    assert compared(lists).steps() == [Change("updated", "policy", WANTED.policies[1].name)]


@pytest.mark.parametrize("source", ["orders", "orders.unrouted"])
def test_a_stray_binding_of_ours_is_removed(source: str) -> None:
    """A consumer refuses what it does not know: such a binding fills the dead-letter queue."""
    lists = listings()
    lists["bindings"].append(binding(source, QUEUE, "order.#"))
    (step,) = compared(lists).steps()
    assert step == Change("removed", "binding", f"{source} -order.%23-> {QUEUE}")
    assert str(compared(lists)) == "no binding order.#"


@pytest.mark.parametrize(
    "other",
    [
        binding("amq.topic", QUEUE, "#"),
        binding("orders", "of-somebody-else", "#"),
        binding("orders", "orders.unrouted", "#", destination_type="exchange"),
    ],
)
def test_other_bindings_are_left_alone(other: dict[str, Any]) -> None:
    lists = listings()
    lists["bindings"].append(other)
    assert compared(lists) == Changes()


@pytest.mark.parametrize(
    ("kind", "field", "value", "words"),
    [
        ("queues", "arguments", {"x-queue-type": "classic"}, "'classic'}, not {'x-queue-type'"),
        ("queues", "arguments", {"x-queue-type": "quorum", "x-max-length": 1}, "x-max-length"),
        ("queues", "arguments", [], "{}, not"),
        ("queues", "durable", False, "durable False, not True"),
        ("queues", "durable", None, "durable False, not True"),
        ("exchanges", "type", "direct", "type direct, not fanout"),
    ],
)
def test_what_cannot_be_changed_is_a_mismatch_that_names_both_values(
    kind: str, field: str, value: object, words: str
) -> None:
    lists = listings()
    lists[kind][0][field] = value
    result = compared(lists)
    (mismatch,) = result.mismatches
    assert words in mismatch
    assert result.steps() == []


def test_an_empty_argument_table_may_be_listed_as_an_array() -> None:
    lists = listings()
    lists["exchanges"][0]["arguments"] = []
    assert compared(lists).mismatches == ()


@pytest.mark.parametrize(
    ("policies", "refused"),
    [
        ([{"name": "all", "priority": 0}], False),
        ([{"name": "all", "priority": 10}], True),
        ([{"name": "all", "priority": 99}], True),
        ([], True),
    ],
)
def test_a_policy_of_others_that_wins_over_ours_is_told(
    policies: list[dict[str, Any]], *, refused: bool
) -> None:
    """One that ranks lower is obeyed only until ours is there; one that is not listed may win."""
    lists = listings()
    lists["queues"][0]["policy"] = "all"
    lists["policies"].extend(policies)
    shadows = compared(lists).shadows
    assert bool(shadows) is refused
    assert all("obeys policy 'all'" in shadow for shadow in shadows)


def test_a_policy_that_takes_the_alternate_exchange_away_is_told() -> None:
    lists = listings()
    lists["exchanges"][1]["policy"] = "all"
    lists["policies"].append({"name": "all", "priority": 20})
    (shadow,) = compared(lists).shadows
    assert shadow.startswith("exchange orders obeys policy 'all' of priority 20")
    lists["exchanges"][1]["policy"] = "orders:exchange:orders"
    lists["exchanges"][0]["policy"] = "all"  # of the other exchange we have no policy
    assert compared(lists).shadows == ()


def _limited(definition: Mapping[str, Any], **members: Any) -> tuple[Limit, ...]:
    policy = {"name": "strict", "pattern": f"^{QUEUE}$", "definition": definition, "priority": 0}
    lists = {**listings(), "operator_policies": [policy | {"apply-to": "queues"} | members]}
    return compared(lists).limits


@pytest.mark.parametrize(
    ("definition", "words", "loses"),
    [
        ({"max-length": 10}, "has max-length 10 instead of 1000000 by operator policy", False),
        ({"max-length": 10}, "or lower messaging.maxLength", False),
        ({"max-length-bytes": 10_000}, "or lower messaging.maxLength", False),
        ({"delivery-limit": 3}, "or lower messaging.deliveryLimit", False),
        ({"message-ttl": 60_000}, "has message-ttl 60000 by", False),
        ({"expires": 60_000}, "has expires 60000 by", True),
        ({"overflow": "drop-head"}, "instead of reject-publish", True),
    ],
)
def test_an_operator_policy_that_is_stricter_is_told_with_what_to_do(
    definition: dict[str, Any], words: str, *, loses: bool
) -> None:
    (limit,) = _limited(definition)
    assert words in limit.text
    assert limit.loses is loses


@pytest.mark.parametrize("rule", [{"message-ttl": 60_000}, {"delivery-limit": 20}])
def test_an_operator_policy_by_which_dead_letters_go_loses_messages(rule: dict[str, Any]) -> None:
    (limit,) = _limited(rule, pattern=rf"^{QUEUE}\.dead$")
    assert limit.loses
    assert "lower" not in limit.text


@pytest.mark.parametrize(
    ("definition", "members"),
    [
        ({"max-length": 1_000_000, "delivery-limit": 20, "overflow": "reject-publish"}, {}),
        ({"max-length": 2_000_000, "max-length-bytes": 2**40}, {}),
        ({"max-in-memory-length": 5, "target-group-size": 5}, {}),
        ({"max-length": 10}, {"pattern": "^somebody-elses"}),
        ({"max-length": 10}, {"apply-to": "classic_queues"}),
        ({"max-length": 10}, {"apply-to": "exchanges"}),
    ],
)
def test_an_operator_policy_that_takes_nothing_away_is_fine(
    definition: dict[str, Any], members: dict[str, Any]
) -> None:
    assert _limited(definition, **members) == ()


def test_of_several_operator_policies_the_one_that_ranks_first_counts() -> None:
    policy_of_all = {"pattern": ".*", "definition": {"max-length": 10}, "apply-to": "all"}
    lists = {
        **listings(),
        "operator_policies": [
            policy_of_all | {"name": "low", "priority": 1},
            policy_of_all
            | {"name": "high", "priority": 2, "definition": {"max-length": 10_000_000}},
        ],
    }
    assert compared(lists).limits == ()


def test_a_pattern_that_only_erlang_reads_may_take_in_every_queue() -> None:
    assert len(_limited({"max-length": 10}, pattern="(?|a|b)")) == len(WANTED.queues)


@pytest.mark.parametrize("pattern", ["a{99999999999}", "(" * 3000 + ")" * 3000])
def test_a_pattern_that_only_erlang_can_hold_may_take_in_every_queue(pattern: str) -> None:
    assert len(_limited({"max-length": 10}, pattern=pattern)) == len(WANTED.queues)


ODD: st.SearchStrategy[Any] = st.sampled_from([None, "", "x", 0, -1, 2**70, 0.5, True, [], {}])
MEMBERS = (
    "name", "policy", "messages", "priority", "pattern", "definition", "apply-to", "source",
    "destination", "destination_type", "routing_key", "properties_key", "arguments", "type",
)  # fmt: skip
RULES = ("max-length", "max-length-bytes", "delivery-limit", "message-ttl", "expires", "overflow")
ITEM: st.SearchStrategy[dict[str, Any]] = st.builds(
    operator.or_,
    st.sampled_from([item for items in listings().values() for item in items]),
    st.dictionaries(
        st.sampled_from(MEMBERS), ODD | st.dictionaries(st.sampled_from(RULES), ODD), max_size=3
    ),
)
BARE = st.dictionaries(st.sampled_from(MEMBERS), ODD, max_size=4)
KINDS = ("policies", "operator_policies", "exchanges", "queues", "bindings")


@given(lists=st.fixed_dictionaries({kind: st.lists(ITEM | BARE, max_size=3) for kind in KINDS}))
@settings(max_examples=150, deadline=None)
def test_listings_of_any_shape_are_compared_or_refused_at_once(lists: Listings) -> None:
    try:
        broker = difference.broker(**lists)
    except KeyError:
        return
    str(changes(WANTED, broker))


@pytest.mark.parametrize("url", ["amqp://user:secret@host:5672", "http://", "https:///x"])
def test_a_wrong_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingError, match="ORDERS_MANAGEMENT_URL") as caught:
        Management(url, "/")
    assert "secret" not in str(caught.value)
