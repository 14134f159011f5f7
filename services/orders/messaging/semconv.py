"""The names of span attributes for messages, in one place: the convention is still in development.

Source: https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/
"""

from opentelemetry.util.types import AttributeValue

from orders.messaging.envelope import Delivery
from orders.messaging.publisher import Outgoing

Attributes = dict[str, AttributeValue]


def publishing(outgoing: Outgoing, order_id: int | str) -> Attributes:
    """Describe the publication of a message."""
    return {
        "messaging.system": "rabbitmq",
        "messaging.operation.type": "send",
        "messaging.operation.name": "publish",
        "messaging.destination.name": outgoing.exchange,
        "messaging.rabbitmq.destination.routing_key": outgoing.routing_key,
        "messaging.message.id": outgoing.properties.message_id or "",
        "messaging.message.conversation_id": outgoing.properties.correlation_id or "",
        "messaging.message.body.size": len(outgoing.body),
        "order.id": order_id,
    }


def processing(delivery: Delivery) -> Attributes:
    """Describe the processing of a message."""
    return {
        "messaging.system": "rabbitmq",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": delivery.exchange,
        "messaging.destination.subscription.name": delivery.queue,
        "messaging.rabbitmq.destination.routing_key": delivery.routing_key,
        "messaging.rabbitmq.message.delivery_tag": delivery.tag,
        "messaging.message.id": delivery.properties.message_id or "",
        "messaging.message.conversation_id": delivery.properties.correlation_id or "",
        "messaging.message.body.size": len(delivery.body),
    }
