"""What has to be written to a broker, and what cannot be mended there. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from orderservice_operator.rabbitmq.topology import Binding, Exchange, Policy, Queue, Topology

Found = Mapping[str, Any]


class Broker(msgspec.Struct, frozen=True):
    """What a broker lists for one virtual host, by name (bindings: source, queue, key)."""

    policies: Mapping[str, Found]
    exchanges: Mapping[str, Found]
    queues: Mapping[str, Found]
    bindings: frozenset[tuple[str, str, str]]

    def messages(self, queue: str) -> int:
        """Return how many messages a queue holds, those being worked on included."""
        return int(self.queues.get(queue, {}).get("messages", 0))


class Changes(msgspec.Struct, frozen=True):
    """What is missing or different, and (`mismatches`, for people) what only they can mend."""

    policies: tuple[Policy, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()
    mismatches: tuple[str, ...] = ()

    def __str__(self) -> str:
        made: Iterable[Policy | Exchange | Queue] = (*self.policies, *self.exchanges, *self.queues)
        names = [f"{type(one).__name__.lower()} {one.name}" for one in made]
        return ", ".join(names + [f"binding {one.routing_key}" for one in self.bindings])


def changes(wanted: Topology, found: Broker) -> Changes:
    """Compare. Nothing is ever deleted: only people know what messages are worth."""
    queues = tuple(one for one in wanted.queues if one.name not in found.queues)
    made = {queue.name for queue in queues}  # a queue takes its bindings with it
    return Changes(
        policies=tuple(policy for policy in wanted.policies if not _same(policy, found.policies)),
        exchanges=tuple(one for one in wanted.exchanges if one.name not in found.exchanges),
        queues=queues,
        bindings=tuple(
            one
            for one in wanted.bindings
            if _place(one) not in found.bindings or one.destination in made
        ),
        mismatches=tuple(_mismatches(wanted, found)),
    )


def _same(policy: Policy, found: Mapping[str, Found]) -> bool:
    listed = found.get(policy.name)
    if listed is None:
        return False
    made = msgspec.to_builtins(policy)
    return all(listed.get(name) == value for name, value in made.items())


def _place(binding: Binding) -> tuple[str, str, str]:
    return binding.source, binding.destination, binding.routing_key


def _mismatches(wanted: Topology, found: Broker) -> Iterator[str]:
    for exchange in wanted.exchanges:
        listed = found.exchanges.get(exchange.name, {"type": exchange.type})
        if listed["type"] != exchange.type:
            yield f"exchange {exchange.name} is {listed['type']}, not {exchange.type}"
    for queue in wanted.queues:
        arguments = found.queues.get(queue.name, {}).get("arguments", queue.arguments)
        if arguments != queue.arguments:
            yield f"queue {queue.name} has arguments {arguments}, not {queue.arguments}"
