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
        made: Iterable[Policy | Exchange | Queue] = (*self.policies, *self.exchanges, *self.queues)
        names = [f"{type(one).__name__.lower()} {one.name}" for one in made]
        names += [f"binding {one.routing_key}" for one in self.bindings]
        return ", ".join(names + [f"no binding {one.routing_key}" for one in self.strays])


def changes(wanted: Topology, found: Broker) -> Changes:
    """Compare. No exchange or queue is ever deleted: only people know what messages are worth."""
    queues = tuple(one for one in wanted.queues if one.name not in found.queues)
    made = {queue.name for queue in queues}  # a queue takes its bindings with it
    bound = {(one.source, one.destination, one.routing_key) for one in found.bindings}
    return Changes(
        policies=tuple(policy for policy in wanted.policies if not _same(policy, found.policies)),
        exchanges=tuple(one for one in wanted.exchanges if one.name not in found.exchanges),
        queues=queues,
        bindings=tuple(
            one for one in wanted.bindings if _place(one) not in bound or one.destination in made
        ),
        strays=tuple(_strays(wanted, found)),
        mismatches=tuple(_mismatches(wanted, found)),
        shadows=tuple(_shadows(wanted, found)),
    )


def _same(policy: Policy, found: Mapping[str, Found]) -> bool:
    listed = found.get(policy.name)
    if listed is None:
        return False
    made = msgspec.to_builtins(policy)
    return all(listed.get(name) == value for name, value in made.items())


def _place(binding: Binding) -> tuple[str, str, str]:
    return binding.source, binding.destination, binding.routing_key


def _strays(wanted: Topology, found: Broker) -> Iterator[Bound]:
    """Yield what binds our exchange to one of our queues and is not wanted."""
    places = {_place(one) for one in wanted.bindings}
    queues = {one.name for one in wanted.queues}
    for one in sorted(found.bindings, key=lambda one: one.routing_key):
        ours = one.source == EXCHANGE and one.destination in queues
        if ours and (one.source, one.destination, one.routing_key) not in places:
            yield one


def _mismatches(wanted: Topology, found: Broker) -> Iterator[str]:
    for exchange in wanted.exchanges:
        yield from _differing("exchange", exchange, found.exchanges)
    for queue in wanted.queues:
        yield from _differing("queue", queue, found.queues)


def _differing(kind: str, item: Exchange | Queue, listed: Mapping[str, Found]) -> Iterator[str]:
    found = listed.get(item.name)
    if found is None:
        return
    for field, value in msgspec.to_builtins(item).items():
        # An empty table of arguments is listed as [] by some versions.
        present = found.get(field) or type(value)()
        if field in _IMMUTABLE and field in found and present != value:
            yield f"{kind} {item.name} has {field} {present}, not {value}"


def _shadows(wanted: Topology, found: Broker) -> Iterator[str]:
    """Yield policies that win over ours: a broker applies one to a queue, the one that ranks first.

    One that ranks behind ours is obeyed only until ours is there.
    """
    ours = {policy.name: policy.priority for policy in wanted.policies}
    least = min(ours.values())
    for queue in wanted.queues:
        name = found.queues.get(queue.name, {}).get("policy")
        priority = found.policies.get(name, {}).get("priority", 0) if name else 0
        if name and name not in ours and priority >= least:
            yield (
                f"queue {queue.name} obeys policy {name!r} of priority {priority}; "
                f"give that one a priority below {least}"
            )
