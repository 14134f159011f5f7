"""What to write to a broker, and what only a person can correct there.

No exchange or queue is ever deleted, because only people know what its messages are worth. A
binding of our exchanges to our queues that the topology does not list is removed: it delivers
messages that the queue's consumer has to refuse.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from orderservice_topology.topology import (
    UNLIMITED,
    Binding,
    Exchange,
    Policy,
    Queue,
    Topology,
)

Listed = Mapping[str, Any]  # an object as the management API lists it
BindingKey = tuple[str, str, str]  # source, destination, routing key

# To what an operator policy can apply that takes in quorum queues.
_QUORUM: Final = frozenset({"all", "queues", "quorum_queues"})
# Messages carry ids, no payloads: 1 KiB is more than any of them takes.
_LARGEST_MESSAGE: Final = 1024  # bytes
_OWN_SETTINGS: Final = {
    "max-length": "messaging.maxLength",
    "max-length-bytes": "messaging.maxLength",
    "delivery-limit": "messaging.deliveryLimit",
    "message-ttl": "messaging.retryDelaysSeconds",
}


class Bound(msgspec.Struct, frozen=True):
    """A binding of a queue as the broker lists it; `properties_key` names it in paths."""

    source: str
    destination: str
    routing_key: str
    properties_key: str = ""


class _ListedItem(msgspec.Struct, frozen=True):
    """The compared members of an exchange or a queue."""

    name: str
    policy: str | None = None
    messages: int = 0


class _ListedPolicy(msgspec.Struct, frozen=True):
    """The compared members of a policy."""

    name: str
    priority: int | None = None
    pattern: str = ""
    apply_to: str = msgspec.field(name="apply-to", default="all")
    definition: dict[str, Any] = {}


class _ListedBinding(Bound, frozen=True, kw_only=True):
    """The compared members of a binding."""

    destination_type: str


class Broker(msgspec.Struct, frozen=True):
    """The objects that a broker lists for one virtual host, by name."""

    policies: Mapping[str, Listed]
    exchanges: Mapping[str, Listed]
    queues: Mapping[str, Listed]
    bindings: frozenset[Bound]
    operator_policies: tuple[_ListedPolicy, ...] = ()

    def messages(self, queue: str) -> int:
        """Return how many messages a queue has, unacknowledged ones included."""
        return int(self.queues.get(queue, {}).get("messages", 0))


class Change(msgspec.Struct, frozen=True):
    """An object that was written, or would be."""

    action: str
    kind: str
    name: str


class Limit(msgspec.Struct, frozen=True):
    """An operator policy's stricter value; with `loses`, messages are lost that ours would keep."""

    text: str
    loses: bool


class Changes(msgspec.Struct, frozen=True):
    """The missing and different objects, and what only people can correct.

    `replaced` names the policies that exist with other contents. `mismatches` cannot be changed in
    place. `shadows` are other policies that keep ours from taking effect. `limits` are operator
    policies (an administrator's, which rank above all others) with stricter values than ours.
    """

    policies: tuple[Policy, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()
    strays: tuple[Bound, ...] = ()
    replaced: frozenset[str] = frozenset()
    mismatches: tuple[str, ...] = ()
    shadows: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()

    def __str__(self) -> str:
        items: Iterable[Policy | Exchange | Queue] = (*self.policies, *self.exchanges, *self.queues)
        names = [f"{type(item).__name__.lower()} {item.name}" for item in items]
        names += [f"binding {item.routing_key}" for item in self.bindings]
        return ", ".join(names + [f"no binding {item.routing_key}" for item in self.strays])

    def steps(self) -> list[Change]:
        """Return the changes in the order in which they must be written.

        Policies come first and bindings last: a queue has its rules before it gets a message.
        """
        return [
            *(
                Change("updated" if item.name in self.replaced else "created", "policy", item.name)
                for item in self.policies
            ),
            *(Change("created", "exchange", item.name) for item in self.exchanges),
            *(Change("created", "queue", item.name) for item in self.queues),
            *(
                Change("created", "binding", _arrow(item, item.routing_key))
                for item in self.bindings
            ),
            *(
                Change("removed", "binding", _arrow(item, item.properties_key))
                for item in self.strays
            ),
        ]


def broker(
    *,
    policies: Iterable[Listed],
    exchanges: Iterable[Listed],
    queues: Iterable[Listed],
    bindings: Iterable[Listed],
    operator_policies: Iterable[Listed] = (),
) -> Broker:
    """Return a broker from its listings. Raises KeyError for a listing in another shape."""
    try:
        return Broker(
            policies=_by_name(policies, _ListedPolicy),
            exchanges=_by_name(exchanges, _ListedItem),
            queues=_by_name(queues, _ListedItem),
            bindings=frozenset(
                Bound(item.source, item.destination, item.routing_key, item.properties_key)
                for item in msgspec.convert(list(bindings), list[_ListedBinding])
                if item.destination_type == "queue"
            ),
            operator_policies=tuple(msgspec.convert(list(operator_policies), list[_ListedPolicy])),
        )
    except msgspec.ValidationError as error:
        raise KeyError(str(error)) from error


def _by_name(
    listing: Iterable[Listed], kind: "type[_ListedPolicy | _ListedItem]"
) -> dict[str, Listed]:
    """Return a listing by name, after a check of the compared members' types."""
    return {msgspec.convert(item, kind).name: item for item in listing}


def changes(desired: Topology, broker: Broker) -> Changes:
    """Compare a topology with a broker."""
    queues = tuple(item for item in desired.queues if item.name not in broker.queues)
    names = {queue.name for queue in queues}  # a queue takes its bindings with it
    keys = {_key(item) for item in broker.bindings}
    policies = tuple(policy for policy in desired.policies if not _same(policy, broker.policies))
    return Changes(
        policies=policies,
        exchanges=tuple(item for item in desired.exchanges if item.name not in broker.exchanges),
        queues=queues,
        bindings=tuple(
            item for item in desired.bindings if _key(item) not in keys or item.destination in names
        ),
        strays=tuple(_strays(desired, broker)),
        replaced=frozenset(policy.name for policy in policies) & broker.policies.keys(),
        mismatches=tuple(_mismatches(desired, broker)),
        shadows=tuple(shadows(desired, broker)),
        limits=tuple(limits(desired, broker)),
    )


def shadows(desired: Topology, broker: Broker) -> Iterator[str]:
    """Yield policies that win over ours: a broker applies only the one with the highest rank.

    A policy that ranks below ours applies only until ours exists.
    """
    names = {policy.name for policy in desired.policies}
    for policy in desired.policies:
        kind = "exchange" if policy.apply_to == "exchanges" else "queue"
        for item in _listed_for(policy, broker):
            name = item.get("policy")
            if not name or name in names:
                continue
            priority = broker.policies.get(name, {}).get("priority")
            if priority is None or priority >= policy.priority:
                yield (
                    f"{kind} {item['name']} obeys policy {name!r} of priority {priority}; "
                    f"give that one a priority below {policy.priority}"
                )


def limits(topology: Topology, broker: Broker) -> Iterator[Limit]:
    """Yield the values of operator policies that are stricter than ours.

    A broker applies one operator policy to a queue besides its policy, and uses the smaller of both
    values. Source: https://www.rabbitmq.com/docs/policies#operator-policies
    """
    for policy in topology.policies:
        if policy.apply_to != "queues":  # operator policies are about queues only
            continue
        for item in _listed_for(policy, broker):
            operator_policy = _operator_policy_of(item["name"], broker.operator_policies)
            if operator_policy is None:
                continue
            for rule, value in operator_policy.definition.items():
                if _is_stricter(rule, value, policy.definition):
                    yield _limit(item["name"], operator_policy.name, rule, value, policy)


def _listed_for(policy: Policy, broker: Broker) -> Iterator[Listed]:
    """Return the broker's exchanges or queues to which one of our policies applies."""
    items = broker.exchanges if policy.apply_to == "exchanges" else broker.queues
    return (item for name, item in items.items() if re.search(policy.pattern, name))


def _operator_policy_of(queue: str, policies: Iterable[_ListedPolicy]) -> _ListedPolicy | None:
    """Return the operator policy with the highest rank, which the broker applies to a queue."""
    matching = (
        policy
        for policy in policies
        if policy.apply_to in _QUORUM and _matches(policy.pattern, queue)
    )
    return max(matching, key=lambda policy: policy.priority or 0, default=None)


def _matches(pattern: str, name: str) -> bool:
    """Return whether a pattern matches a name; true for a pattern that only Erlang can read."""
    try:
        return re.search(pattern, name) is not None
    except (re.error, OverflowError, RecursionError):
        return True


def _is_stricter(rule: str, value: Any, definition: Mapping[str, str | int]) -> bool:
    """Return whether a rule refuses or removes messages that ours would keep."""
    if rule in {"expires", "overflow"}:  # overflow: anything but to refuse loses messages
        return bool(value != definition.get(rule))
    if not isinstance(value, int | float):
        return False
    if rule == "message-ttl":
        return value < float(definition.get(rule, "inf"))
    if rule == "max-length-bytes":
        return value < int(definition["max-length"]) * _LARGEST_MESSAGE
    if rule in {"max-length", "delivery-limit"}:
        return rule in definition and value < float(definition[rule])
    return False


def _limit(queue: str, name: str, rule: str, value: Any, policy: Policy) -> Limit:
    configured = policy.definition.get(rule)
    comparison = "" if configured is None else f" instead of {configured}"
    # A setting of the resource can adopt the limit.
    adoptable = rule in _OWN_SETTINGS and configured not in {None, UNLIMITED}
    can_be_lowered = rule == "max-length-bytes" or adoptable
    advice = f", or lower {_OWN_SETTINGS[rule]}" if can_be_lowered else ""
    return Limit(
        f"queue {queue} has {rule} {value}{comparison} by operator policy {name!r}; "
        f"have RabbitMQ's administrator except the queue{advice}",
        loses=_loses(rule, policy),
    )


def _loses(rule: str, policy: Policy) -> bool:
    """Return whether a rule loses messages, rather than refuse or dead-letter them."""
    dead_letters = "dead-letter-exchange" in policy.definition
    return rule in {"expires", "overflow"} or (
        rule in {"message-ttl", "delivery-limit"} and not dead_letters
    )


def _same(policy: Policy, policies: Mapping[str, Listed]) -> bool:
    existing = policies.get(policy.name)
    members = msgspec.to_builtins(policy)
    return existing is not None and all(existing.get(name) == members[name] for name in members)


def _key(binding: Binding | Bound) -> BindingKey:
    return binding.source, binding.destination, binding.routing_key


def _arrow(binding: Binding | Bound, key: str) -> str:
    return f"{binding.source} -{key}-> {binding.destination}"


def _strays(desired: Topology, broker: Broker) -> Iterator[Bound]:
    keys = {_key(binding) for binding in desired.bindings}
    sources = {exchange.name for exchange in desired.exchanges}
    queues = {queue.name for queue in desired.queues}
    for binding in sorted(broker.bindings, key=_key):
        is_ours = binding.source in sources and binding.destination in queues
        if is_ours and _key(binding) not in keys:
            yield binding


def _mismatches(desired: Topology, broker: Broker) -> Iterator[str]:
    for exchange in desired.exchanges:
        yield from _differing("exchange", exchange, broker.exchanges)
    for queue in desired.queues:
        yield from _differing("queue", queue, broker.queues)


def _differing(kind: str, item: Exchange | Queue, items: Mapping[str, Listed]) -> Iterator[str]:
    """Yield the differences of an exchange or a queue that it keeps for its lifetime."""
    existing = items.get(item.name)
    if existing is None:
        return
    for field, value in msgspec.to_builtins(item).items():
        if field in {"name", "vhost"}:  # it was found under these
            continue
        # An empty table of arguments is listed as [] by some versions.
        actual = existing.get(field) or type(value)()
        if actual != value:
            yield f"{kind} {item.name} has {field} {actual}, not {value}"
