"""What has to be written to a broker, and what only a person can mend there.

No exchange or queue is ever deleted: only people know what its messages are worth. A binding of our
exchanges to our queues that the topology does not list is removed: it brings messages that the
queue's consumer has to refuse.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from orderservice_topology.topology import Binding, Exchange, Policy, Queue, Topology

Listed = Mapping[str, Any]  # an object as the management API lists it
Place = tuple[str, str, str]  # source, destination, routing key


class Bound(msgspec.Struct, frozen=True):
    """A binding of a queue as it is listed; `properties_key` names it in paths."""

    source: str
    destination: str
    routing_key: str
    properties_key: str = ""


class Broker(msgspec.Struct, frozen=True):
    """What a broker lists for one virtual host, by name."""

    policies: Mapping[str, Listed]
    exchanges: Mapping[str, Listed]
    queues: Mapping[str, Listed]
    bindings: frozenset[Bound]

    def messages(self, queue: str) -> int:
        """Return how many messages a queue holds, those being worked on included."""
        return int(self.queues.get(queue, {}).get("messages", 0))


class Change(msgspec.Struct, frozen=True):
    """Something that was written, or would be."""

    action: str
    kind: str
    name: str


class Changes(msgspec.Struct, frozen=True):
    """What is missing or different, and for people: what only they can mend.

    `replaced` names the policies that exist with other contents. `mismatches` cannot be changed in
    place, `shadows` are policies of others that keep ours from taking effect.
    """

    policies: tuple[Policy, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()
    strays: tuple[Bound, ...] = ()
    replaced: frozenset[str] = frozenset()
    mismatches: tuple[str, ...] = ()
    shadows: tuple[str, ...] = ()

    def __str__(self) -> str:
        items: Iterable[Policy | Exchange | Queue] = (*self.policies, *self.exchanges, *self.queues)
        names = [f"{type(item).__name__.lower()} {item.name}" for item in items]
        names += [f"binding {item.routing_key}" for item in self.bindings]
        return ", ".join(names + [f"no binding {item.routing_key}" for item in self.strays])

    def steps(self) -> list[Change]:
        """Return what writing does, in the order in which it has to be written.

        Policies come first and bindings last: a queue has its rules before it gets a message.
        """
        return [
            *(Change(self._action(item), "policy", item.name) for item in self.policies),
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

    def _action(self, policy: Policy) -> str:
        return "updated" if policy.name in self.replaced else "created"


def broker(
    *,
    policies: Iterable[Listed],
    exchanges: Iterable[Listed],
    queues: Iterable[Listed],
    bindings: Iterable[Listed],
) -> Broker:
    """Return a broker from its listings. Raises KeyError for what RabbitMQ does not list so."""
    return Broker(
        policies={item["name"]: item for item in policies},
        exchanges={item["name"]: item for item in exchanges},
        queues={item["name"]: item for item in queues},
        bindings=frozenset(
            Bound(item["source"], item["destination"], item["routing_key"], item["properties_key"])
            for item in bindings
            if item["destination_type"] == "queue"
        ),
    )


def changes(wanted: Topology, broker: Broker) -> Changes:
    """Compare a topology with a broker."""
    queues = tuple(item for item in wanted.queues if item.name not in broker.queues)
    new = {queue.name for queue in queues}  # a queue takes its bindings with it
    bound = {_place(item) for item in broker.bindings}
    policies = tuple(policy for policy in wanted.policies if not _same(policy, broker.policies))
    return Changes(
        policies=policies,
        exchanges=tuple(item for item in wanted.exchanges if item.name not in broker.exchanges),
        queues=queues,
        bindings=tuple(
            item for item in wanted.bindings if _place(item) not in bound or item.destination in new
        ),
        strays=tuple(_strays(wanted, broker)),
        replaced=frozenset(policy.name for policy in policies) & broker.policies.keys(),
        mismatches=tuple(_mismatches(wanted, broker)),
        shadows=tuple(shadows(wanted, broker)),
    )


def shadows(wanted: Topology, broker: Broker) -> Iterator[str]:
    """Yield policies that win over ours: a broker applies one to a queue, the one that ranks first.

    One that is listed and ranks behind ours is obeyed only until ours is there.
    """
    ours = {policy.name: policy.priority for policy in wanted.policies}
    least = min(ours.values())
    for queue in wanted.queues:
        name = broker.queues.get(queue.name, {}).get("policy")
        if not name or name in ours:
            continue
        priority = broker.policies.get(name, {}).get("priority")
        if priority is None or priority >= least:
            yield (
                f"queue {queue.name} obeys policy {name!r} of priority {priority}; "
                f"give that one a priority below {least}"
            )


def _same(policy: Policy, policies: Mapping[str, Listed]) -> bool:
    listed = policies.get(policy.name)
    members = msgspec.to_builtins(policy)
    return listed is not None and all(listed.get(name) == members[name] for name in members)


def _place(binding: Binding | Bound) -> Place:
    return binding.source, binding.destination, binding.routing_key


def _arrow(binding: Binding | Bound, key: str) -> str:
    return f"{binding.source} -{key}-> {binding.destination}"


def _strays(wanted: Topology, broker: Broker) -> Iterator[Bound]:
    places = {_place(binding) for binding in wanted.bindings}
    sources = {exchange.name for exchange in wanted.exchanges}
    queues = {queue.name for queue in wanted.queues}
    for binding in sorted(broker.bindings, key=_place):
        ours = binding.source in sources and binding.destination in queues
        if ours and _place(binding) not in places:
            yield binding


def _mismatches(wanted: Topology, broker: Broker) -> Iterator[str]:
    for exchange in wanted.exchanges:
        yield from _differing("exchange", exchange, broker.exchanges)
    for queue in wanted.queues:
        yield from _differing("queue", queue, broker.queues)


def _differing(kind: str, item: Exchange | Queue, listed: Mapping[str, Listed]) -> Iterator[str]:
    """Yield what an exchange or a queue was made with otherwise, and keeps."""
    existing = listed.get(item.name)
    if existing is None:
        return
    for field, value in msgspec.to_builtins(item).items():
        if field in {"name", "vhost"}:  # it was found under these
            continue
        # An empty table of arguments is listed as [] by some versions.
        present = existing.get(field) or type(value)()
        if present != value:
            yield f"{kind} {item.name} has {field} {present}, not {value}"
