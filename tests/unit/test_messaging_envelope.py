"""The door through which messages come in."""

import uuid
from typing import Any

import pytest
from pika import BasicProperties

from orders.domain import events
from orders.domain.events import OrderCreated
from orders.errors import Permanent
from orders.messaging import envelope
from orders.messaging.envelope import Delivery, Message
from orderservice_topology.topology import NOTIFICATIONS, PROCESSING

ID = "0194b2f0-5d9e-7c3a-9d52-6f4b8e1c2a3d"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
BODY = b'{"orderId": 7, "version": 1, "status": "Pending"}'


def delivery(
    body: bytes = BODY, queue: str = PROCESSING, headers: Any = None, **changes: Any
) -> Delivery:
    properties = envelope.properties(
        ID, events.CREATED, correlation_id="abc", traceparent=TRACEPARENT, created_at_s=1
    )
    properties.headers = headers if headers is not None else properties.headers
    for name, value in changes.items():
        setattr(properties, name, value)
    return Delivery(queue, "orders", events.CREATED, properties, body)


def decode(message: Delivery) -> Message:
    return envelope.decode(message, envelope.ids(message)[0])


def test_what_is_published_can_be_read() -> None:
    message = decode(delivery())
    assert message.message_id == ID
    assert message.type == events.CREATED
    assert message.body == OrderCreated(7, 1, "Pending")
    assert message.correlation_id == "abc"
    assert message.traceparent == TRACEPARENT
    assert (message.queue, message.try_number) == (PROCESSING, 1)


def test_a_new_message_is_persistent_and_described() -> None:
    properties = delivery().properties
    assert properties.delivery_mode == 2
    assert properties.content_type == "application/json"
    assert properties.app_id == "orders"
    assert properties.headers == {"traceparent": TRACEPARENT}


def test_a_member_that_is_not_known_yet_is_ignored() -> None:
    assert decode(delivery(BODY[:-1] + b', "colour": "red"}')).body.order_id == 7


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"orderId": "7", "version": 1, "status": "Pending"}',
        b'{"orderId": 0, "version": 1, "status": "Pending"}',
        b'{"orderId": 7, "version": 1}',
        BODY + b"x",
        b"[" * 100_000,
    ],
)
def test_a_body_that_cannot_be_read_is_malformed(body: bytes) -> None:
    with pytest.raises(Permanent) as caught:
        decode(delivery(body))
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"message_id": None},
        {"message_id": "7"},
        {"content_type": "text/xml"},
        {"content_encoding": "gzip"},
        {"headers": {"x-attempt": "2"}},
        {"headers": {"x-attempt": 0}},
        {"headers": {"x-attempt": True}},
    ],
)
def test_properties_that_no_process_of_ours_wrote_are_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(Permanent) as caught:
        decode(delivery(**changes))
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize("name", [None, "", "order.created.v2", 7])
def test_a_type_that_is_not_known_is_refused(name: object) -> None:
    with pytest.raises(Permanent) as caught:
        decode(delivery(type=name))
    assert caught.value.reason == "unknown_type"


def test_a_type_that_is_not_for_the_queue_is_refused() -> None:
    with pytest.raises(Permanent) as caught:
        decode(delivery(queue=NOTIFICATIONS))
    assert caught.value.reason == "unknown_type"


def test_the_error_does_not_repeat_the_contents() -> None:
    with pytest.raises(Permanent) as caught:
        decode(delivery(b'{"orderId": "secret", "version": 1, "status": "Pending"}'))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("headers", [{}, {"traceparent": 7}, {"traceparent": b"x"}])
def test_ids_that_are_missing_or_malformed_are_replaced(headers: dict[str, Any]) -> None:
    message = delivery(headers=headers)
    message.properties.correlation_id = "not allowed here!"
    ids, remote = envelope.ids(message)
    assert not remote
    assert uuid.UUID(ids.correlation_id)


def test_properties_without_any_header_can_be_read() -> None:
    bare = Delivery(PROCESSING, "", "", BasicProperties(), BODY)
    with pytest.raises(Permanent):
        decode(bare)
