"""The topology of a resource in RabbitMQ."""

from orderservice_operator.resource.spec import OrderService
from orderservice_topology import topology
from orderservice_topology.topology import RETRY_TIERS, Tier, Topology


def desired(service: OrderService) -> Topology:
    """Return the topology with the limits and delays of a resource."""
    messaging = service.spec.messaging
    delays = zip(RETRY_TIERS, messaging.retry_delays_seconds, strict=True)
    return topology.desired(
        messaging.vhost,
        delivery_limit=messaging.delivery_limit,
        tiers=tuple(Tier(tier.name, delay_s) for tier, delay_s in delays),
        max_length=messaging.max_length,
    )
