"""What has to exist in RabbitMQ for a resource, in the shape of RabbitMQ's definitions files.

The services' package has the same data for machines without a cluster; a test holds both together.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from orderservice_operator.resource.spec import OrderService

EXCHANGE: Final = "orders"
UNROUTED: Final = "orders.unrouted"
PROCESSING: Final = "order-processing"
NOTIFICATIONS: Final = "order-notifications"
TIERS: Final = ("5s", "30s", "5m")

# The message types each queue is bound to.
BINDINGS: Final[Mapping[str, tuple[str, ...]]] = {
    PROCESSING: (
        "order.created.v1",
        "order.stalled.v1",
        "order.cancelled.v1",
        "order.refund_due.v1",
    ),
    NOTIFICATIONS: (
        "order.completed.v1",
        "order.failed.v1",
        "order.cancelled.v1",
        "order.refunded.v1",
    ),
}
# People look at dead letters, which counts as a delivery; -1 is refused by 3.10.
_UNLIMITED: Final = 1_000_000_000
_PRIORITY: Final = 10

Rules = dict[str, str | int]


class Exchange(msgspec.Struct, frozen=True):
    """An exchange."""

    name: str
    vhost: str
    type: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: dict[str, str] = {}


class Queue(msgspec.Struct, frozen=True):
    """A quorum queue: all else about it is a policy, because a policy can be changed."""

    name: str
    vhost: str
    durable: bool = True
    auto_delete: bool = False
    arguments: dict[str, str] = msgspec.field(default_factory=lambda: {"x-queue-type": "quorum"})


class Binding(msgspec.Struct, frozen=True):
    """A binding of a queue to an exchange."""

    source: str
    vhost: str
    destination: str
    routing_key: str
    destination_type: str = "queue"
    arguments: dict[str, str] = {}


class Policy(msgspec.Struct, frozen=True, rename={"apply_to": "apply-to"}):
    """A policy for exactly one exchange or queue."""

    name: str
    vhost: str
    pattern: str
    definition: Rules
    apply_to: str = "queues"
    priority: int = _PRIORITY


class Topology(msgspec.Struct, frozen=True):
    """Everything in one virtual host, in the order in which it has to be made."""

    policies: tuple[Policy, ...]
    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]


def dead_queue(queue: str) -> str:
    """Name the queue in which messages of `queue` wait for a person."""
    return f"{queue}.dead"


def desired(service: OrderService) -> Topology:
    """Return what has to exist for a resource."""
    vhost = service.spec.messaging.vhost
    rules = dict(_rules(service))
    alternate: Rules = {"alternate-exchange": UNROUTED}
    return Topology(
        policies=(
            _policy(vhost, EXCHANGE, alternate, "exchanges"),
            *(_policy(vhost, queue, definition, "queues") for queue, definition in rules.items()),
        ),
        exchanges=(Exchange(UNROUTED, vhost, "fanout"), Exchange(EXCHANGE, vhost, "topic")),
        queues=tuple(Queue(name, vhost) for name in rules),
        bindings=(Binding(UNROUTED, vhost, UNROUTED, ""), *_bindings(vhost)),
    )


def _rules(service: OrderService) -> Iterator[tuple[str, Rules]]:
    """Yield each queue with its rules, those that are dead-lettered to before those that do."""
    messaging = service.spec.messaging
    kept: Rules = {"max-length": messaging.max_length, "overflow": "reject-publish"}
    yield UNROUTED, kept | {"delivery-limit": _UNLIMITED}
    for queue in BINDINGS:
        yield dead_queue(queue), kept | {"delivery-limit": _UNLIMITED}
        for tier, delay_s in zip(TIERS, messaging.retry_delays_seconds, strict=True):
            wait: Rules = {"message-ttl": delay_s * 1000}
            yield f"{queue}.retry.{tier}", kept | _dead_lettered_to(queue) | wait
        limit: Rules = {"delivery-limit": messaging.delivery_limit}
        yield queue, kept | _dead_lettered_to(dead_queue(queue)) | limit


def _dead_lettered_to(queue: str) -> Rules:
    return {
        "dead-letter-exchange": "",
        "dead-letter-routing-key": queue,
        "dead-letter-strategy": "at-least-once",
    }


def _bindings(vhost: str) -> Iterator[Binding]:
    for queue, types in BINDINGS.items():
        for routing_key in types:
            yield Binding(EXCHANGE, vhost, queue, routing_key)


def _policy(vhost: str, name: str, definition: Rules, apply_to: str) -> Policy:
    pattern = "^" + name.replace(".", r"\.") + "$"
    kind = "exchange" if apply_to == "exchanges" else "queue"
    return Policy(f"orders:{kind}:{name}", vhost, pattern, definition, apply_to)
