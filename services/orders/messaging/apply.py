"""Makes RabbitMQ what the topology says: list, compare, write only what differs.

No exchange or queue is ever deleted: one that exists with other arguments is reported, because only
a person can know what its messages are worth. A binding of our exchange to one of our queues that
the topology does not list is removed: it brings messages that the queue's consumer has to refuse.
"""

import sys
import time
from typing import Any, Final

import msgspec

from orders.errors import Permanent, Transient
from orders.messaging import topology
from orders.messaging.management import Management
from orders.messaging.topology import Binding, Exchange, Policy, Queue, Topology
from orders.settings import TopologySettings

_RETRY_S: Final = 1.0
_LIVE: Final = ("exchanges", "queues", "bindings", "policies")

Live = dict[str, list[dict[str, Any]]]


class Change(msgspec.Struct, frozen=True):
    """Something that was written, or would be."""

    action: str
    kind: str
    name: str


class Stray(msgspec.Struct, frozen=True):
    """A binding that should not be there."""

    source: str
    destination: str
    key: str


class Conflict(msgspec.Struct, frozen=True):
    """Something that exists otherwise and cannot be changed in place."""

    kind: str
    name: str
    field: str
    wanted: object
    found: object

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.name!r} has {self.field} {self.found!r}, not {self.wanted!r}; "
            "empty and delete it, then run this again"
        )


class Plan(msgspec.Struct, frozen=True):
    """What differs between a broker and a topology, as the objects to write."""

    policies: tuple[Policy, ...]
    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]
    strays: tuple[Stray, ...]
    conflicts: tuple[Conflict, ...]
    replaced: frozenset[str]  # names of policies that exist, with other contents

    def changes(self) -> list[Change]:
        """Say what writing the plan does, in that order."""
        return [
            *(
                Change("updated" if p.name in self.replaced else "created", "policy", p.name)
                for p in self.policies
            ),
            *(Change("created", "exchange", exchange.name) for exchange in self.exchanges),
            *(Change("created", "queue", queue.name) for queue in self.queues),
            *(
                Change("created", "binding", f"{b.source} -{b.routing_key}-> {b.destination}")
                for b in self.bindings
            ),
            *(
                Change("removed", "binding", f"{stray.source} -{stray.key}-> {stray.destination}")
                for stray in self.strays
            ),
        ]


def compare(wanted: Topology, live: Live) -> Plan:
    """Find what to write so that `live` (listings of the management API) is as wanted."""
    exchanges = {found["name"]: found for found in live["exchanges"]}
    queues = {found["name"]: found for found in live["queues"]}
    policies = {found["name"]: found for found in live["policies"]}
    bindings = {
        (found["source"], found["destination"], found["routing_key"]) for found in live["bindings"]
    }
    differing = tuple(p for p in wanted.policies if not _same(p, policies.get(p.name)))
    return Plan(
        policies=differing,
        exchanges=tuple(e for e in wanted.exchanges if e.name not in exchanges),
        queues=tuple(q for q in wanted.queues if q.name not in queues),
        bindings=tuple(
            b for b in wanted.bindings if (b.source, b.destination, b.routing_key) not in bindings
        ),
        strays=_strays(wanted, live["bindings"]),
        conflicts=(
            *_conflicts("exchange", wanted.exchanges, exchanges),
            *_conflicts("queue", wanted.queues, queues),
        ),
        replaced=frozenset(policies) & {p.name for p in differing},
    )


def apply(management: Management, wanted: Topology) -> list[Change]:
    """Write what differs and return it; a second call writes nothing.

    Raises Permanent, before anything is written, when something exists with other arguments; and
    when a stronger policy of somebody else keeps one of ours from taking effect. Transient when the
    broker cannot be had: call again.
    """
    plan = compare(wanted, _listing(management))
    if plan.conflicts:
        raise Permanent("; ".join(map(str, plan.conflicts)), reason="topology_conflict")
    _write(management, plan)
    changes = plan.changes()
    _refuse_shadowed(wanted, management.list("queues"))
    return changes


def _listing(management: Management) -> Live:
    return {kind: management.list(kind) for kind in _LIVE}


def _write(management: Management, plan: Plan) -> None:
    # Policies first and bindings last: a queue has its rules before it can get a message.
    for policy in plan.policies:
        management.put("policies", policy.name, policy)
    for exchange in plan.exchanges:
        management.put("exchanges", exchange.name, exchange)
    for queue in plan.queues:
        management.put("queues", queue.name, queue)
    for binding in plan.bindings:
        body = {"routing_key": binding.routing_key, "arguments": binding.arguments}
        management.bind(binding.source, binding.destination, body)
    for stray in plan.strays:
        management.unbind(stray.source, stray.destination, stray.key)


def _same(policy: Policy, found: dict[str, Any] | None) -> bool:
    wanted = msgspec.to_builtins(policy)
    return found is not None and all(found.get(field) == wanted[field] for field in wanted)


def _strays(wanted: Topology, live: list[dict[str, Any]]) -> tuple[Stray, ...]:
    listed = {(b.source, b.destination, b.routing_key) for b in wanted.bindings}
    exchanges, queues = {b.source for b in wanted.bindings}, {q.name for q in wanted.queues}
    return tuple(
        Stray(found["source"], found["destination"], found["properties_key"])
        for found in live
        if found["source"] in exchanges
        and found["destination"] in queues
        and (found["source"], found["destination"], found["routing_key"]) not in listed
    )


def _conflicts(
    kind: str, wanted: tuple[Exchange, ...] | tuple[Queue, ...], live: dict[str, dict[str, Any]]
) -> list[Conflict]:
    conflicts = []
    for item in wanted:
        found = live.get(item.name)
        if found is None:
            continue
        for field, value in msgspec.to_builtins(item).items():
            # A missing argument table is listed as [] by some versions.
            present = found.get(field) or type(value)()
            if present != value:
                conflicts.append(Conflict(kind, item.name, field, value, present))
    return conflicts


def _refuse_shadowed(wanted: Topology, queues: list[dict[str, Any]]) -> None:
    """Raise if a queue obeys another policy than ours: its messages could be dropped."""
    ours = {policy.name for policy in wanted.policies} | {None}  # None: not yet in effect
    names = {queue.name for queue in wanted.queues}
    strangers = sorted(
        f"queue {found['name']!r} obeys policy {found.get('policy')!r}"
        for found in queues
        if found["name"] in names and found.get("policy") not in ours
    )
    if strangers:
        raise Permanent(
            f"{'; '.join(strangers)}: give that policy a priority below {topology.PRIORITY}",
            reason="policy_shadowed",
        )


def main_apply(settings: TopologySettings, wait_s: float = 120.0) -> int:
    """Apply the topology, waiting for the broker; print each change.

    Raises Permanent, and Transient when the broker cannot be had within `wait_s`.
    """
    wanted = topology.desired(settings.vhost, delivery_limit=settings.delivery_limit)
    management = Management(settings.management_url, settings.vhost)
    try:
        changes = _persistently(management, wanted, time.monotonic() + wait_s)
    finally:
        management.close()
    for change in changes:
        sys.stdout.write(f"{change.action} {change.kind} {change.name}\n")
    sys.stdout.write(f"virtual host {settings.vhost!r}: {len(changes) or 'no'} changes\n")
    return 0


def _persistently(management: Management, wanted: Topology, deadline: float) -> list[Change]:
    while True:
        try:
            return apply(management, wanted)
        except Transient as error:
            if time.monotonic() >= deadline:
                raise
            sys.stderr.write(f"waiting for RabbitMQ: {error}\n")
        time.sleep(_RETRY_S)
