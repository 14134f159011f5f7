"""Webhooks: signed, sent once per order and event, whatever fails in between."""

import base64
import os
import uuid
from collections.abc import Iterator

import pytest

from devstack.ports import free_port
from devstack.testing import Database
from orders import settings
from orders.database.notifications import Notifications
from orders.database.pool import Pool
from orders.domain import events
from orders.errors import Permanent, Transient
from orders.messaging.envelope import Message
from orders.notifier.delivery import Delivery
from orders.telemetry import context
from orders.upstream.http import Upstream
from orders.upstream.policy import UpstreamPolicy
from upstreams.process import Control, running

SECRET = f"whsec_{base64.b64encode(os.urandom(24)).decode()}"
POLICY = UpstreamPolicy(retries=0, breaker_failures=1000).within(1)
CLAIM_S = 0.5


@pytest.fixture(scope="module")
def receiver() -> Iterator[Control]:
    with running("webhooks", free_port(), UPSTREAMS_WEBHOOK_SECRET=SECRET) as control:
        yield control


@pytest.fixture(scope="module")
def pool(database: Database) -> Iterator[Pool]:
    environ = {"ORDERS_DATABASE_URL": database.url}
    made = Pool(database.url, settings.load(settings.DatabaseSettings, environ), "test")
    made.open()
    yield made
    made.close()


@pytest.fixture
def notifications(pool: Pool) -> Notifications:
    return Notifications(pool, CLAIM_S)


@pytest.fixture
def delivery(notifications: Notifications, receiver: Control) -> Iterator[Delivery]:
    receiver.reset()
    upstream = Upstream("webhook", receiver.url, POLICY)
    yield Delivery(notifications, upstream, "/webhooks", SECRET)
    upstream.close()


def message(pool: Pool, kind: str = events.COMPLETED) -> Message:
    with pool.connection() as connection:
        [(order_id,)] = connection.execute(
            b"INSERT INTO orders (user_id, product_id, quantity, total, payment_method,"
            b" correlation_id, traceparent) VALUES (1, 1, 1, 1, 'card', '', '') RETURNING id"
        ).fetchall()
    body = events.OrderEvent(order_id, 4, "Completed")
    ids, _ = context.accept("test", None)
    return Message(str(uuid.uuid4()), kind, body, ids, "order-notifications", 1)


def test_a_signed_webhook_says_what_happened(
    pool: Pool, delivery: Delivery, receiver: Control
) -> None:
    sent = message(pool)
    with context.using(sent.context):
        delivery.handle(sent)
    [row] = receiver.deliveries()
    assert row["webhookId"] == sent.message_id
    assert row["payload"]["type"] == "order.completed"
    assert row["payload"]["data"]["orderId"] == sent.body.order_id
    assert row["correlationId"] == "test"


def test_the_same_message_again_is_not_sent_again(
    pool: Pool, delivery: Delivery, receiver: Control
) -> None:
    sent = message(pool)
    for _ in range(3):
        delivery.handle(sent)
    assert [row["calls"] for row in receiver.deliveries()] == [1]


def test_a_failed_delivery_is_tried_again_under_the_same_id(
    pool: Pool, delivery: Delivery, receiver: Control
) -> None:
    sent = message(pool)
    receiver.faults(errorRatio=1, errorStatus=503)
    with pytest.raises(Transient):
        delivery.handle(sent)
    receiver.faults()
    delivery.handle(sent)
    assert [row["webhookId"] for row in receiver.deliveries()] == [sent.message_id]


def test_a_lost_answer_sends_again_and_the_receiver_can_tell(
    pool: Pool, delivery: Delivery, receiver: Control
) -> None:
    sent = message(pool)
    receiver.faults(dropReplyRatio=1)
    with pytest.raises(Transient):
        delivery.handle(sent)
    receiver.faults()
    delivery.handle(sent)
    assert [row["calls"] for row in receiver.deliveries()] == [2], "one id, counted twice"


def test_two_senders_at_once_send_once(
    pool: Pool, notifications: Notifications, delivery: Delivery, receiver: Control
) -> None:
    sent = message(pool)
    assert notifications.claim(sent.body.order_id, sent.type, sent.message_id).granted
    with pytest.raises(Transient):  # the other one has it
        delivery.handle(sent)
    assert receiver.deliveries() == []


def test_the_claim_of_a_crashed_sender_runs_out(
    pool: Pool, notifications: Notifications, delivery: Delivery, receiver: Control
) -> None:
    sent = message(pool)
    notifications.claim(sent.body.order_id, sent.type, sent.message_id)
    with pool.connection() as connection:
        connection.execute(b"UPDATE notifications SET claimed_until = now() - interval '1 s'")
    delivery.handle(sent)
    assert len(receiver.deliveries()) == 1


def test_a_receiver_that_refuses_for_good_is_not_asked_again(
    pool: Pool, delivery: Delivery, receiver: Control
) -> None:
    receiver.faults(errorRatio=1, errorStatus=410)
    with pytest.raises(Permanent):
        delivery.handle(message(pool))


def test_a_signature_the_receiver_does_not_know_yet_is_for_later(
    pool: Pool, notifications: Notifications, receiver: Control
) -> None:
    receiver.reset()
    rotated = f"whsec_{base64.b64encode(os.urandom(24)).decode()}"
    upstream = Upstream("webhook", receiver.url, POLICY)
    with pytest.raises(Transient):
        Delivery(notifications, upstream, "/webhooks", rotated).handle(message(pool))
    upstream.close()
