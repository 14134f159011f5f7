"""What has to be written to a broker, and what cannot be mended there. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from orderservice_operator.children.topology import (
    EXCHANGE,
    Binding,
    Exchange,
    Policy,
    Queue,
    Topology,
)

Found = Mapping[str, Any]

# What an exchange or a queue is made with, and keeps.
_IMMUTABLE: Final = ("type", "durable", "auto_delete", "internal", "arguments")


class Bound(msgspec.Struct, frozen=True):
    """A binding of a queue as it is listed; `properties_key` names it in paths."""

    source: str
    destination: str
    routing_key: str
    properties_key: str = ""


class Broker(msgspec.Struct, frozen=True):
    """What a broker lists for one virtual host, by name."""

    policies: Mapping[str, Found]
    exchanges: Mapping[str, Found]
    queues: Mapping[str, Found]
    bindings: frozenset[Bound]

    def messages(self, queue: str) -> int:
        """Return how many messages a queue holds, those being worked on included."""
        return int(self.queues.get(queue, {}).get("messages", 0))


class Changes(msgspec.Struct, frozen=True):
    """What is missing or different, and for people: what only they can mend.

    `strays` bring a queue messages that its consumer refuses. `mismatches` cannot be changed in
    place, `shadows` are policies of others that keep ours from taking effect.
    """

    policies: tuple[Policy, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()
    strays: tuple[Bound, ...] = ()
    mismatches: tuple[str, ...] = ()
    shadows: tuple[str, ...] = ()

    def __str__(self) -> str:
        items: Iterable[Policy | Exchange | Queue] = (*self.policies, *self.exchanges, *self.queues)
        names = [f"{type(item).__name__.lower()} {item.name}" for item in items]
        names += [f"binding {item.routing_key}" for item in self.bindings]
        return ", ".join(names + [f"no binding {item.routing_key}" for item in self.strays])


def changes(wanted: Topology, broker: Broker) -> Changes:
    """Compare. No exchange or queue is ever deleted: only people know what messages are worth."""
    queues = tuple(item for item in wanted.queues if item.name not in broker.queues)
    new = {queue.name for queue in queues}  # a queue takes its bindings with it
    bound = {(item.source, item.destination, item.routing_key) for item in broker.bindings}
    return Changes(
        policies=tuple(policy for policy in wanted.policies if not _same(policy, broker.policies)),
        exchanges=tuple(item for item in wanted.exchanges if item.name not in broker.exchanges),
        queues=queues,
        bindings=tuple(
            item for item in wanted.bindings if _place(item) not in bound or item.destination in new
        ),
        strays=tuple(_strays(wanted, broker)),
        mismatches=tuple(_mismatches(wanted, broker)),
        shadows=tuple(_shadows(wanted, broker)),
    )


def _same(policy: Policy, policies: Mapping[str, Found]) -> bool:
    listed = policies.get(policy.name)
    if listed is None:
        return False
    members = msgspec.to_builtins(policy)
    return all(listed.get(name) == value for name, value in members.items())


def _place(binding: Binding) -> tuple[str, str, str]:
    return binding.source, binding.destination, binding.routing_key


def _strays(wanted: Topology, broker: Broker) -> Iterator[Bound]:
    """Yield what binds our exchange to one of our queues and is not wanted."""
    places = {_place(binding) for binding in wanted.bindings}
    queues = {binding.name for binding in wanted.queues}
    for binding in sorted(broker.bindings, key=lambda binding: binding.routing_key):
        ours = binding.source == EXCHANGE and binding.destination in queues
        if ours and (binding.source, binding.destination, binding.routing_key) not in places:
            yield binding


def _mismatches(wanted: Topology, broker: Broker) -> Iterator[str]:
    for exchange in wanted.exchanges:
        yield from _differing("exchange", exchange, broker.exchanges)
    for queue in wanted.queues:
        yield from _differing("queue", queue, broker.queues)


def _differing(kind: str, item: Exchange | Queue, listed: Mapping[str, Found]) -> Iterator[str]:
    existing = listed.get(item.name)
    if existing is None:
        return
    for field, value in msgspec.to_builtins(item).items():
        # An empty table of arguments is listed as [] by some versions.
        present = existing.get(field) or type(value)()
        if field in _IMMUTABLE and field in existing and present != value:
            yield f"{kind} {item.name} has {field} {present}, not {value}"


def _shadows(wanted: Topology, broker: Broker) -> Iterator[str]:
    """Yield policies that win over ours: a broker applies one to a queue, the one that ranks first.

    One that ranks behind ours is obeyed only until ours is there.
    """
    ours = {policy.name: policy.priority for policy in wanted.policies}
    least = min(ours.values())
    for queue in wanted.queues:
        name = broker.queues.get(queue.name, {}).get("policy")
        priority = broker.policies.get(name, {}).get("priority", 0) if name else 0
        if name and name not in ours and priority >= least:
            yield (
                f"queue {queue.name} obeys policy {name!r} of priority {priority}; "
                f"give that one a priority below {least}"
            )
