"""`orders topology`: apply the topology to RabbitMQ, or print it."""

import sys
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from orders import settings
from orders.errors import Permanent, Transient
from orders.messaging.management import Management, foreign
from orders.settings import TopologySettings
from orderservice_topology import difference, topology
from orderservice_topology.difference import Broker, Change, Changes
from orderservice_topology.topology import Topology

_RETRY_S: Final = 1.0


def apply(management: Management, desired: Topology) -> list[Change]:
    """Write what differs and return it; a second call writes nothing.

    Raises Permanent, before anything is written, if an object exists with other arguments. Also
    raises it if a foreign policy overrides one of ours, or an operator policy would lose messages.
    Prints a warning for an operator policy that only has lower limits. Raises Transient when the
    broker cannot be reached: call again.
    """
    changes = difference.changes(desired, _broker(management))
    if changes.mismatches:
        raise Permanent(
            f"{'; '.join(changes.mismatches)}; empty and delete it, then run this again",
            reason="topology_conflict",
        )
    _write(management, changes)
    broker = _broker(management)
    if shadows := list(difference.shadows(desired, broker)):
        raise Permanent("; ".join(shadows), reason="policy_shadowed")
    limits = list(difference.limits(desired, broker))
    if losses := [limit.text for limit in limits if limit.loses]:
        raise Permanent("; ".join(losses), reason="operator_policy")
    for limit in limits:
        sys.stderr.write(f"warning: {limit.text}\n")
    return changes.steps()


def _broker(management: Management) -> Broker:
    try:
        return difference.broker(
            policies=management.list("policies"),
            operator_policies=management.list("operator-policies"),
            exchanges=management.list("exchanges"),
            queues=management.list("queues"),
            bindings=management.list("bindings"),
        )
    except KeyError as error:
        raise foreign("listings") from error


def _write(management: Management, changes: Changes) -> None:
    for policy in changes.policies:
        management.put("policies", policy.name, policy)
    for exchange in changes.exchanges:
        management.put("exchanges", exchange.name, exchange)
    for queue in changes.queues:
        management.put("queues", queue.name, queue)
    for binding in changes.bindings:
        body = {"routing_key": binding.routing_key, "arguments": binding.arguments}
        management.bind(binding.source, binding.destination, body)
    for bound in changes.strays:
        management.unbind(bound.source, bound.destination, bound.properties_key)


def main_show(environ: Mapping[str, str]) -> int:
    """Print the topology as JSON, in the format of RabbitMQ's definitions files."""
    # This needs no broker, so the setting with its address may be missing.
    topology_settings = settings.load(
        TopologySettings, {"ORDERS_MANAGEMENT_URL": "http://unused", **environ}
    )
    desired = topology.desired(
        topology_settings.vhost, delivery_limit=topology_settings.delivery_limit
    )
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(desired), indent=2).decode() + "\n")
    return 0


def main_apply(topology_settings: TopologySettings, wait_s: float = 120.0) -> int:
    """Apply the topology, waiting for the broker; print each change.

    Raises Permanent, and Transient when the broker cannot be reached within `wait_s`.
    """
    desired = topology.desired(
        topology_settings.vhost, delivery_limit=topology_settings.delivery_limit
    )
    management = Management(topology_settings.management_url, topology_settings.vhost)
    try:
        changes = _persistently(management, desired, time.monotonic() + wait_s)
    finally:
        management.close()
    for change in changes:
        sys.stdout.write(f"{change.action} {change.kind} {change.name}\n")
    sys.stdout.write(f"virtual host {topology_settings.vhost!r}: {len(changes) or 'no'} changes\n")
    return 0


def _persistently(management: Management, desired: Topology, deadline: float) -> list[Change]:
    while True:
        try:
            return apply(management, desired)
        except Transient as error:
            if time.monotonic() >= deadline:
                raise
            sys.stderr.write(f"waiting for RabbitMQ: {error}\n")
        time.sleep(_RETRY_S)
