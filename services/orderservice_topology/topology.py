"""The objects that must exist in RabbitMQ, as data in the shape of its definitions file.

The only queue argument is the queue type; everything else is a policy, because a policy can be
changed on a queue that holds messages. RabbitMQ applies one policy to a queue, so each queue has
its own. Source: https://www.rabbitmq.com/docs/definitions
"""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

EXCHANGE: Final = "orders"
UNROUTED: Final = "orders.unrouted"
PROCESSING: Final = "order-processing"
NOTIFICATIONS: Final = "order-notifications"

# The message types each queue is bound to; its consumer refuses all others.
ACCEPTS: Final[Mapping[str, tuple[str, ...]]] = {
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

# A guess: about a day of orders at 10 a second. Beyond it publishers are refused, nothing is lost.
MAX_LENGTH: Final = 1_000_000
DELIVERY_LIMIT: Final = 20
# Looking at dead letters counts as a delivery, and 4.x drops what exceeds its default limit of 20
# where there is no dead-letter exchange. -1 would say "no limit", but 3.10 refuses it.
UNLIMITED: Final = 1_000_000_000
# Above the 0 of catch-all policies that operators of brokers like to set.
PRIORITY: Final = 10

Rules = dict[str, str | int]


class Tier(msgspec.Struct, frozen=True):
    """A retry queue's name suffix, and how long a message waits in it (a policy: it can change)."""

    name: str
    delay_s: float


RETRY_TIERS: Final = (Tier("5s", 5), Tier("30s", 30), Tier("5m", 300))


class Exchange(msgspec.Struct, frozen=True):
    """An exchange, as the management API describes it."""

    name: str
    vhost: str
    type: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: dict[str, str] = {}


class Queue(msgspec.Struct, frozen=True):
    """A quorum queue, as the management API describes it."""

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
    """A policy for exactly one exchange or queue; `pattern` is a regular expression."""

    name: str
    vhost: str
    pattern: str
    definition: Rules
    apply_to: str = "queues"
    priority: int = PRIORITY


class Topology(msgspec.Struct, frozen=True):
    """The objects that must exist in one virtual host, in the order in which to create them."""

    policies: tuple[Policy, ...]
    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]


def retry_queue(queue: str, tier: Tier) -> str:
    """Return the name of the queue in which messages of `queue` wait out a tier."""
    return f"{queue}.retry.{tier.name}"


def dead_queue(queue: str) -> str:
    """Return the name of the queue in which messages of `queue` wait for a person."""
    return f"{queue}.dead"


def desired(
    vhost: str = "/",
    *,
    delivery_limit: int = DELIVERY_LIMIT,
    tiers: tuple[Tier, ...] = RETRY_TIERS,
    max_length: int = MAX_LENGTH,
) -> Topology:
    """Return the topology of `vhost`.

    The names of `tiers` are part of the contract between processes; their delays may differ.
    """
    rules = dict(_queue_rules(delivery_limit, tiers, max_length))
    alternate: Rules = {"alternate-exchange": UNROUTED}
    return Topology(
        policies=(
            _policy(vhost, EXCHANGE, alternate, "exchanges"),
            *(_policy(vhost, queue, definition, "queues") for queue, definition in rules.items()),
        ),
        exchanges=(Exchange(UNROUTED, vhost, "fanout"), Exchange(EXCHANGE, vhost, "topic")),
        queues=tuple(Queue(name, vhost) for name in rules),
        bindings=(
            Binding(UNROUTED, vhost, UNROUTED, ""),
            *(
                Binding(EXCHANGE, vhost, queue, routing_key)
                for queue, types in ACCEPTS.items()
                for routing_key in types
            ),
        ),
    )


def _queue_rules(
    delivery_limit: int, tiers: tuple[Tier, ...], max_length: int
) -> Iterator[tuple[str, Rules]]:
    """Yield each queue with its rules; a target of dead letters comes before its sources."""
    bounds: Rules = {"max-length": max_length, "overflow": "reject-publish"}
    yield UNROUTED, bounds | {"delivery-limit": UNLIMITED}
    for queue in ACCEPTS:
        yield dead_queue(queue), bounds | {"delivery-limit": UNLIMITED}
        for tier in tiers:
            wait: Rules = {"message-ttl": round(tier.delay_s * 1000)}
            yield retry_queue(queue, tier), bounds | _dead_lettered_to(queue) | wait
        limit: Rules = {"delivery-limit": delivery_limit}
        yield queue, bounds | _dead_lettered_to(dead_queue(queue)) | limit


def _dead_lettered_to(queue: str) -> Rules:
    """Return rules that dead-letter at least once, through the default exchange."""
    return {
        "dead-letter-exchange": "",
        "dead-letter-routing-key": queue,
        "dead-letter-strategy": "at-least-once",
    }


def _policy(vhost: str, name: str, definition: Rules, apply_to: str) -> Policy:
    pattern = "^" + name.replace(".", r"\.") + "$"
    kind = "exchange" if apply_to == "exchanges" else "queue"
    return Policy(f"orders:{kind}:{name}", vhost, pattern, definition, apply_to)
