"""The format of messages on the wire, their decoding, and their span attributes."""

import uuid
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from opentelemetry.util.types import AttributeValue
from pika import BasicProperties
from pika.spec import Basic

from orders.domain import events
from orders.domain.events import OrderCreated, OrderEvent
from orders.errors import Permanent
from orders.messaging.decoding import ReceivedProperties
from orders.messaging.publisher import Outgoing
from orders.telemetry import context
from orders.telemetry.context import Context
from orderservice_topology import topology

APP_ID: Final = "orders"
CONTENT_TYPE: Final = "application/json"
PERSISTENT: Final = 2

TRACEPARENT: Final = "traceparent"
TRY: Final = "x-attempt"
MAX_ATTEMPT: Final = 1_000_000  # refuses only nonsense

Customer = int
# A customer with at most this many orders has few: people place far fewer at once.
FEW: Final = 10

# The body of each message type; a type that needs more has its own.
BODIES: Final[dict[str, type[OrderEvent]]] = {
    **dict.fromkeys(sorted(events.TYPES), OrderEvent),
    events.CREATED: OrderCreated,
}
_DECODERS: Final = {name: msgspec.json.Decoder(body) for name, body in BODIES.items()}


class _Named(msgspec.Struct, rename="camel"):
    user_id: Customer | None = None


_named: Final = msgspec.json.Decoder(_Named)


class Delivery(msgspec.Struct, frozen=True, eq=False):
    """A received message before it is decoded."""

    queue: str
    exchange: str
    routing_key: str
    properties: BasicProperties
    body: bytes
    tag: int = 0
    fault: str | None = None  # why some of its properties could not be read


class Message(msgspec.Struct, frozen=True):
    """A message that can be worked on. `try_number` is 1 the first time."""

    message_id: str
    type: str
    body: OrderEvent
    context: Context
    queue: str
    try_number: int

    @property
    def correlation_id(self) -> str:
        """The id that all log lines about this order's request share."""
        return self.context.correlation_id

    @property
    def traceparent(self) -> str:
        """The W3C trace context the message came with, or a new one."""
        return self.context.traceparent


def properties(
    message_id: str,
    message_type: str,
    *,
    correlation_id: str | None,
    traceparent: str | None,
    created_at_s: int,
) -> BasicProperties:
    """Return the properties of a new message; `message_id` is what consumers deduplicate by.

    `created_at_s` is unix time.
    """
    return BasicProperties(
        message_id=message_id,
        type=message_type,
        correlation_id=correlation_id,
        headers={TRACEPARENT: traceparent} if traceparent else None,
        content_type=CONTENT_TYPE,
        delivery_mode=PERSISTENT,
        timestamp=created_at_s,
        app_id=APP_ID,
    )


def delivery_of(
    queue: str,
    method: Basic.Deliver | Basic.GetOk,
    properties: BasicProperties,
    body: bytes,
) -> Delivery:
    """Return a delivery; exchange and routing key become text, even if they are not UTF-8."""
    fault = properties.fault if isinstance(properties, ReceivedProperties) else None
    exchange, routing_key = _text(method.exchange), _text(method.routing_key)
    return Delivery(queue, exchange, routing_key, properties, body, method.delivery_tag, fault)


def _text(name: str | bytes) -> str:
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else name


def ids(delivery: Delivery) -> tuple[Context, bool]:
    """Return the ids of a message, even an unreadable one, as `context.accept` does."""
    correlation_id = delivery.properties.correlation_id
    traceparent = headers(delivery.properties).get(TRACEPARENT)
    return context.accept(
        correlation_id if isinstance(correlation_id, str) else None,
        traceparent if isinstance(traceparent, str) else None,
    )


def headers(properties: BasicProperties) -> Mapping[str, Any]:
    """Return a message's headers, or an empty mapping."""
    return properties.headers or {}


def try_number(properties: BasicProperties) -> int:
    """Return which try this delivery is: 1 for a message that was never put off.

    Raises Permanent for a header no process of ours wrote.
    """
    number = headers(properties).get(TRY, 1)
    if type(number) is not int or not 1 <= number <= MAX_ATTEMPT:
        raise Permanent(f"header {TRY} is not a count", reason="malformed")
    return number


def decode(delivery: Delivery, ids_of_work: Context) -> Message:
    """Read a delivery into a message.

    Raises Permanent with reason `unknown_type` or `malformed`, never repeating the contents.
    """
    if delivery.fault is not None:
        raise Permanent(f"the properties cannot be read: {delivery.fault}", reason="malformed")
    message_type = delivery.properties.type
    decoder = _DECODERS.get(message_type) if isinstance(message_type, str) else None
    if message_type is None or decoder is None:
        raise Permanent("the message's type is not known here", reason="unknown_type")
    if message_type not in topology.ACCEPTS.get(delivery.queue, BODIES):
        raise Permanent(f"{message_type} is not for {delivery.queue}", reason="unknown_type")
    _check_properties(delivery.properties)
    return Message(
        message_id=_message_id(delivery.properties),
        type=message_type,
        body=_body(decoder, delivery.body),
        context=ids_of_work,
        queue=delivery.queue,
        try_number=try_number(delivery.properties),
    )


def _check_properties(properties: BasicProperties) -> None:
    if properties.content_encoding is not None:
        raise Permanent("the body is encoded; expected plain JSON", reason="malformed")
    if properties.content_type not in (None, CONTENT_TYPE):
        raise Permanent(f"the content type is not {CONTENT_TYPE}", reason="malformed")


def _message_id(properties: BasicProperties) -> str:
    try:
        return str(uuid.UUID(properties.message_id))
    except (ValueError, TypeError, AttributeError) as error:
        raise Permanent("the message id is not a UUID", reason="malformed") from error


def _body(decoder: msgspec.json.Decoder[OrderEvent], body: bytes) -> OrderEvent:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # msgspec names the member and the type, never the value.
        raise Permanent(f"the body cannot be read: {error}", reason="malformed") from error


def customer_of(body: str | bytes) -> Customer | None:
    """Return the customer in a message; None if there is none, or the body is unreadable."""
    try:
        return _named.decode(body).user_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # nested too deeply
        return None  # the handler of the message reports it


# The conventions for these span attributes may still change, so only this module has them:
# https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/


def publishing_attributes(outgoing: Outgoing, order_id: int | str) -> dict[str, AttributeValue]:
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


def processing_attributes(delivery: Delivery) -> dict[str, AttributeValue]:
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
