"""Webhooks: signed, sent once per order and event, and never given up before days have passed."""

import argparse
import base64
import os
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import psycopg
import pytest
from prometheus_client import REGISTRY

from devstack.ports import free_port
from integration.handles import Database
from integration.serving import eventually
from orders import settings
from orders.database.notifications import (
    Notification,
    NotificationOutcome,
    Notifications,
    SendResult,
)
from orders.database.pool import Pool
from orders.database.statements import Row
from orders.domain import events
from orders.messaging.envelope import Message
from orders.notifier import listing
from orders.notifier.delivery import (
    DEFERRED,
    NotificationSender,
    Receiver,
    RetrySchedule,
    Sweep,
    WebhookSender,
    is_gone,
    signed_headers,
)
from orders.telemetry import context
from orders.upstream.addresses import AllowedAddresses
from orders.upstream.http import Upstream
from orders.upstream.policy import UpstreamPolicy
from orderservice_topology import topology
from upstreams.process import Control, running

R = TypeVar("R")


def new_secret() -> str:
    return f"whsec_{base64.b64encode(os.urandom(24)).decode()}"


SECRET = new_secret()
POLICY = UpstreamPolicy(retries=0, breaker_failures=1000).within(1)
BREAKING = UpstreamPolicy(retries=0, breaker_failures=3, breaker_reset_s=0.3).within(1)
CLAIM_S = 0.5
SOON = RetrySchedule(0.05, 0.2, 3600)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Control]:
    with running("webhooks", free_port(), UPSTREAMS_WEBHOOK_SECRET=SECRET) as control:
        yield control


@pytest.fixture
def notifications(pool: Pool) -> Notifications:
    run(pool, "DELETE FROM notifications")
    return Notifications(pool, CLAIM_S)


def webhook_sender(
    notifications: Notifications,
    receiver: Control,
    policy: UpstreamPolicy = POLICY,
    schedule: RetrySchedule = SOON,
    secrets: tuple[str, ...] = (SECRET,),
    addresses: AllowedAddresses | None = None,
) -> WebhookSender:
    upstream = Upstream("webhook", receiver.url, policy, definite=is_gone, addresses=addresses)
    return WebhookSender(notifications, Receiver(upstream, "/webhooks", secrets), schedule)


@pytest.fixture
def sender(notifications: Notifications, receiver: Control) -> WebhookSender:
    receiver.reset()
    return webhook_sender(notifications, receiver)


@pytest.fixture
def delivery(notifications: Notifications, sender: WebhookSender) -> NotificationSender:
    return NotificationSender(notifications, sender)


def sweep(notifications: Notifications, sender: WebhookSender) -> Sweep:
    return Sweep(notifications, sender, width=10, every_s=0.05)


def run(pool: Pool, query: str, *values: object) -> "list[tuple[object, ...]]":
    with pool.connection() as connection:
        cursor = connection.execute(query.encode(), values)
        return cursor.fetchall() if cursor.description else []


def new_order(pool: Pool) -> int:
    [(order_id,)] = run(
        pool,
        "INSERT INTO orders (user_id, product_id, quantity, total, payment_method,"
        " correlation_id, traceparent) VALUES (1, 1, 1, 1, 'card', '', '') RETURNING id",
    )
    return int(str(order_id))


def announced(
    pool: Pool, kind: str = events.COMPLETED, order_id: int | None = None, version: int = 4
) -> Message:
    """Put an event into the outbox, as its transition does, and return its message."""
    order_id = new_order(pool) if order_id is None else order_id
    [(message_id,)] = run(
        pool,
        "INSERT INTO outbox (aggregateid, type, payload, correlation_id) VALUES (%s, %s,"
        " jsonb_build_object('orderId', %s::bigint, 'version', %s::int, 'status', 'X'), 'test')"
        " RETURNING id",
        str(order_id), kind, order_id, version,
    )  # fmt: skip
    return message(order_id, kind, str(message_id), version)


def message(order_id: int, kind: str, message_id: str, version: int = 4) -> Message:
    body = events.OrderEvent(order_id, version, "X")
    ids, _ = context.accept("test", None)
    return Message(message_id, kind, body, ids, "order-notifications", 1)


def states(pool: Pool) -> list[tuple[object, ...]]:
    return run(
        pool,
        "SELECT tries, coalesce(outcome, CASE WHEN sent_at IS NULL THEN 'waiting' ELSE 'sent' END)"
        " FROM notifications",
    )


def due_now(pool: Pool) -> None:
    run(pool, "UPDATE notifications SET next_at = now(), claimed_until = '-infinity'")


def tried(outcome: str) -> float:
    return REGISTRY.get_sample_value("notifications_total", {"outcome": outcome}) or 0.0


def test_a_signed_webhook_says_what_happened(
    pool: Pool, delivery: NotificationSender, receiver: Control
) -> None:
    message = announced(pool)
    with context.using(message.context):
        assert delivery.handle(message) is None
    [row] = receiver.deliveries()
    assert row["webhookId"] == message.message_id
    assert row["payload"]["type"] == "order.completed"
    assert row["payload"]["data"] == {
        "orderId": message.body.order_id, "version": 4, "status": "X", "reason": None,
    }  # fmt: skip
    assert row["correlationId"] == "test"
    assert states(pool) == [(1, "sent")]


def test_the_same_message_again_is_not_sent_again(
    pool: Pool, delivery: NotificationSender, receiver: Control
) -> None:
    message = announced(pool)
    for _ in range(3):
        delivery.handle(message)
    assert [row["calls"] for row in receiver.deliveries()] == [1]


def test_only_events_that_customers_hear_of_get_a_row(
    pool: Pool, notifications: Notifications, database: Database
) -> None:
    for kind in {*events.TYPES, "order.unheard_of.v1"}:
        announced(pool, kind)
    run(pool, "INSERT INTO outbox (aggregateid, type, payload) VALUES ('x', %s, '{}')",
        events.COMPLETED)  # fmt: skip
    rows = run(pool, "SELECT template FROM notifications ORDER BY template")
    assert [row[0] for row in rows] == sorted(topology.ACCEPTS[topology.NOTIFICATIONS])
    with psycopg.connect(database.url) as session, session.transaction() as undone:
        session.execute("DELETE FROM notifications")
        session.execute(
            "INSERT INTO outbox (aggregateid, type, payload) SELECT max(id)::text, %s, '{}'"
            " FROM orders",
            (events.FAILED,),
        )
        row = session.execute("SELECT count(*) FROM notifications").fetchone()
        assert row == (1,), "in the transaction of the event"
        raise psycopg.Rollback(undone)


def test_a_message_from_before_there_were_rows_is_sent(
    pool: Pool, delivery: NotificationSender, receiver: Control
) -> None:
    order_id = new_order(pool)
    run(pool, "UPDATE orders SET version = 4 WHERE id = %s", order_id)
    delivery.handle(message(order_id, events.FAILED, str(uuid.uuid4())))
    assert len(receiver.deliveries()) == 1


def test_an_event_that_a_failover_lost_is_told_to_nobody(
    pool: Pool, delivery: NotificationSender, receiver: Control
) -> None:
    order_id = new_order(pool)
    run(pool, "UPDATE orders SET version = 3 WHERE id = %s", order_id)
    delivery.handle(message(order_id, events.CANCELLED, str(uuid.uuid4()), version=4))
    assert receiver.deliveries() == []
    assert states(pool) == []


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 429, 500, 503])
def test_whatever_a_receiver_answers_it_is_tried_again_under_the_same_id(
    pool: Pool, notifications: Notifications, delivery: NotificationSender, sender: WebhookSender,
    receiver: Control, status: int,
) -> None:  # fmt: skip
    message = announced(pool)
    receiver.faults(errorRatio=1, errorStatus=status)
    delivery.handle(message)
    assert states(pool) == [(1, "waiting")]
    receiver.faults()
    due_now(pool)
    sweep(notifications, sender).round()
    assert [row["webhookId"] for row in receiver.deliveries()] == [message.message_id]
    assert states(pool) == [(2, "sent")]


def test_a_lost_answer_sends_again_and_the_receiver_can_tell(
    pool: Pool,
    notifications: Notifications,
    delivery: NotificationSender,
    sender: WebhookSender,
    receiver: Control,
) -> None:
    receiver.faults(dropReplyRatio=1)
    delivery.handle(announced(pool))
    receiver.faults()
    due_now(pool)
    sweep(notifications, sender).round()
    assert [row["calls"] for row in receiver.deliveries()] == [2], "one id, counted twice"


def test_a_receiver_that_is_gone_is_not_asked_again(
    pool: Pool,
    notifications: Notifications,
    delivery: NotificationSender,
    sender: WebhookSender,
    receiver: Control,
) -> None:
    count_before = tried("gone")
    receiver.faults(errorRatio=1, errorStatus=410)
    delivery.handle(announced(pool))
    assert states(pool) == [(1, "gone")]
    assert tried("gone") == count_before + 1
    receiver.faults()
    due_now(pool)
    sweep(notifications, sender).round()
    assert receiver.deliveries() == []


def test_after_the_last_try_it_is_counted_listed_and_can_be_sent_again(
    pool: Pool, notifications: Notifications, receiver: Control, database: Database,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    receiver.reset()
    count_before = tried("given_up")
    impatient = webhook_sender(notifications, receiver, schedule=RetrySchedule(0.05, 0.1, 0.5))
    receiver.faults(errorRatio=1, errorStatus=404)
    order_id = announced(pool).body.order_id
    sweeping = sweep(notifications, impatient)
    due_now(pool)
    sweeping.start()
    eventually(lambda: states(pool)[0][1] == "given_up")
    assert sweeping.stop(5)
    assert tried("given_up") == count_before + 1
    assert notifications.count().given_up == 1
    capsys.readouterr()  # the log
    assert command(database, "list") == 0
    listed = capsys.readouterr().out.splitlines()[1]
    assert listed.split()[:3] == [str(order_id), events.COMPLETED, "given_up"]
    assert "404" in listed
    receiver.faults()
    why = ("--because", "the receiver is mended", "--as", "ada")
    assert command(database, "resend", "--order", str(order_id), *why) == 0
    assert audited(pool)[-1] == (
        "operator:ada", f"order {order_id}", "the receiver is mended", {"notifications": 1},
    )  # fmt: skip
    assert f"queued order.completed.v1 of order {order_id}" in capsys.readouterr().out
    sweep(notifications, impatient).round()
    assert states(pool) == [(1, "sent")]
    assert len(receiver.deliveries()) == 1
    assert command(database, "resend", "--state", "given_up") == 1
    assert len(audited(pool)) == 1, "what changed nothing is not recorded"


def test_what_was_sent_is_sent_again_only_by_name(
    pool: Pool, delivery: NotificationSender, receiver: Control, database: Database
) -> None:
    message = announced(pool)
    delivery.handle(message)
    order_id = str(message.body.order_id)
    assert command(database, "resend", "--order", order_id) == 1
    assert command(database, "resend", "--order", order_id, "--template", events.COMPLETED) == 0
    delivery.handle(message)
    assert [row["calls"] for row in receiver.deliveries()] == [2]


def audited(pool: Pool) -> list[tuple[object, ...]]:
    query = (
        b"SELECT actor, subject, because, detail FROM operator_actions"
        b" WHERE action = 'notifications resend' ORDER BY id"
    )
    with pool.connection() as connection:
        return connection.execute(query).fetchall()


def command(database: Database, *words: str) -> int:
    parser = argparse.ArgumentParser()
    listing.add_arguments(parser)
    return listing.run(parser.parse_args(words), settings.DatabaseSettings(url=database.url))


def test_an_order_that_was_paid_back_hears_first_that_it_was_paid(
    pool: Pool,
    notifications: Notifications,
    delivery: NotificationSender,
    sender: WebhookSender,
    receiver: Control,
) -> None:
    receiver.faults(errorRatio=1)
    first = announced(pool)
    delivery.handle(first)
    receiver.faults()
    second = announced(pool, events.REFUNDED, first.body.order_id, version=6)
    due_now(pool)
    run(pool, "UPDATE notifications SET next_at = now() + interval '1 h' WHERE tries = 1")
    assert delivery.handle(second) == DEFERRED
    sweep(notifications, sender).round()
    assert receiver.deliveries() == []
    due_now(pool)
    while sweep(notifications, sender).round() or len(receiver.deliveries()) < 2:
        pass
    kinds = [row["payload"]["type"] for row in receiver.deliveries()]
    assert kinds == ["order.completed", "order.refunded"]


def test_one_message_sends_all_that_its_order_has_to_tell(
    pool: Pool, delivery: NotificationSender, receiver: Control
) -> None:
    first = announced(pool)
    announced(pool, events.REFUNDED, first.body.order_id, version=6)
    delivery.handle(first)
    kinds = [row["payload"]["type"] for row in receiver.deliveries()]
    assert kinds == ["order.completed", "order.refunded"]


def test_a_later_event_of_a_kind_takes_the_row_over(
    pool: Pool, delivery: NotificationSender, receiver: Control
) -> None:
    first = announced(pool, events.REFUNDED, version=5)
    delivery.handle(first)
    second = announced(pool, events.REFUNDED, first.body.order_id, version=6)
    delivery.handle(second)
    delivery.handle(first)
    webhook_ids = [row["webhookId"] for row in receiver.deliveries()]
    assert webhook_ids == [first.message_id, second.message_id]


def test_two_senders_at_once_send_once(
    pool: Pool,
    notifications: Notifications,
    delivery: NotificationSender,
    sender: WebhookSender,
    receiver: Control,
) -> None:
    message = announced(pool)
    due_now(pool)
    assert notifications.claim(message.body.order_id) is not None
    assert delivery.handle(message) == DEFERRED
    assert not sweep(notifications, sender).round()
    assert receiver.deliveries() == []


def test_the_claim_of_a_crashed_sender_runs_out(
    pool: Pool, notifications: Notifications, sender: WebhookSender, receiver: Control
) -> None:
    message = announced(pool)
    notifications.claim(message.body.order_id)
    run(pool, "UPDATE notifications SET next_at = now()")
    eventually(lambda: sweep(notifications, sender).round() or receiver.deliveries())
    assert len(receiver.deliveries()) == 1


def test_a_long_outage_costs_no_tries_and_all_is_sent_after_it(
    pool: Pool, notifications: Notifications, receiver: Control
) -> None:
    """With the breaker open nothing is sent, so nothing is counted; one probe at a time."""
    receiver.reset()
    sender = webhook_sender(notifications, receiver, BREAKING)
    delivery, sweeping = NotificationSender(notifications, sender), sweep(notifications, sender)
    receiver.faults(errorRatio=1, errorStatus=503)
    sweeping.start()
    failed = tried("failed")
    for _ in range(40):
        delivery.handle(announced(pool))
    due_now(pool)
    eventually(lambda: tried("failed") >= failed + 6)  # three before it opened, then probes
    tries = [int(str(row[0])) for row in states(pool)]
    assert sum(tries) < 40, "most were never tried"
    receiver.faults()
    due_now(pool)
    eventually(lambda: all(state == "sent" for _, state in states(pool)))
    assert sweeping.stop(5)
    assert len(receiver.deliveries()) == 40


def test_a_signature_the_receiver_does_not_know_yet_is_for_later(
    pool: Pool, notifications: Notifications, receiver: Control
) -> None:
    receiver.reset()
    rotated = new_secret()
    sender = webhook_sender(notifications, receiver, secrets=(rotated,))
    NotificationSender(notifications, sender).handle(announced(pool))
    assert states(pool) == [(1, "waiting")]


def test_a_receiver_with_a_private_address_is_refused_and_the_notification_waits(
    pool: Pool, notifications: Notifications, receiver: Control
) -> None:
    receiver.reset()
    sender = webhook_sender(notifications, receiver, BREAKING, addresses=AllowedAddresses())
    delivery = NotificationSender(notifications, sender)
    for _ in range(BREAKING.breaker_failures + 1):
        delivery.handle(announced(pool))
    assert receiver.deliveries() == []
    assert sender.resting, "the breaker is open, which the alert tells"
    assert set(states(pool)) == {(1, "waiting"), (0, "waiting")}
    [(error,)] = run(pool, "SELECT DISTINCT last_error FROM notifications WHERE tries = 1")
    assert "address_refused: the receiver's address 127.0.0.1 is not public" in str(error)


def test_a_secret_is_rotated_without_a_webhook_that_is_not_believed(
    pool: Pool, notifications: Notifications, receiver: Control
) -> None:
    """The notifier signs with both secrets while the receiver changes its own."""
    receiver.reset()
    rotated = new_secret()
    sender_before = NotificationSender(notifications, webhook_sender(notifications, receiver))
    sender_of_both = NotificationSender(
        notifications, webhook_sender(notifications, receiver, secrets=(rotated, SECRET))
    )
    sender_after = NotificationSender(
        notifications, webhook_sender(notifications, receiver, secrets=(rotated,))
    )
    for delivery in (sender_before, sender_of_both):
        delivery.handle(announced(pool))
    assert len(receiver.deliveries()) == 2
    with running("webhooks", free_port(), UPSTREAMS_WEBHOOK_SECRET=rotated) as changed:
        sender = webhook_sender(notifications, changed, secrets=(rotated, SECRET))
        NotificationSender(notifications, sender).handle(announced(pool))
        assert len(changed.deliveries()) == 1
    accepting = f"{rotated} {SECRET}"
    with running("webhooks", free_port(), UPSTREAMS_WEBHOOK_SECRET=accepting) as accepts_both:
        for secrets in ((SECRET,), (rotated,), (SECRET, rotated)):
            sender = webhook_sender(notifications, accepts_both, secrets=secrets)
            NotificationSender(notifications, sender).handle(announced(pool))
        assert len(accepts_both.deliveries()) == 3
    sender_after.handle(announced(pool))
    assert len(receiver.deliveries()) == 2, "the old secret alone believes no more"


@pytest.fixture
def sample() -> dict[str, Any]:
    """Return what the receiver sample of the docs defines."""
    text = (Path(__file__).parents[2] / "docs" / "messaging.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102 the sample of the docs
    return names


def test_the_receiver_sample_of_the_docs_believes_either_signature(sample: dict[str, Any]) -> None:
    old, new, other, now_s = new_secret(), new_secret(), new_secret(), int(time.time())
    headers = signed_headers("msg_1", now_s, b"{}", (new, old))
    believes = sample["is_authentic"]
    assert believes(headers, b"{}", old)
    assert believes(headers, b"{}", new)
    assert not believes(headers, b"{}", other)
    assert not believes(headers, b"[]", old)
    assert not believes({}, b"{}", old)
    for field, value in (
        ("webhook-id", "msg_2"), ("webhook-timestamp", "soon"), ("webhook-timestamp", "²"),
        ("webhook-signature", "v1,é"), ("webhook-signature", ""),
    ):  # fmt: skip
        assert not believes(headers | {field: value}, b"{}", old)
    for at_s in (now_s - 600, now_s + 600):
        assert not believes(signed_headers("msg_1", at_s, b"{}", (old,)), b"{}", old)


def test_the_sample_and_the_simulator_believe_the_same_webhook(
    receiver: Control, sample: dict[str, Any]
) -> None:
    receiver.reset()
    for secrets, status in (((new_secret(), SECRET), 204), ((new_secret(),), 401)):
        headers = signed_headers("msg_1", int(time.time()), b"{}", secrets)
        assert receiver.send("POST", "/webhooks", b"{}", headers)[0] == status
        assert sample["is_authentic"](headers, b"{}", SECRET) == (status == 204)


def test_what_an_older_release_never_sent_is_sent_now(
    pool: Pool, notifications: Notifications, sender: WebhookSender, receiver: Control
) -> None:
    run(
        pool,
        "INSERT INTO notifications (order_id, template, message_id, claimed_until)"
        " VALUES (%s, 'order.completed.v1', %s, now() - interval '1 h')",
        new_order(pool), uuid.uuid4(),
    )  # fmt: skip
    sweep(notifications, sender).round()
    [row] = receiver.deliveries()
    assert row["payload"]["data"]["status"] == "Completed"


class Held:
    """A pool that counts its statements by name, and holds the first one back."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.names: Counter[str] = Counter()
        self.go_on = threading.Event()

    def execute(self, name: str, arguments: Mapping[str, Any]) -> list[Row]:
        is_first = not self.names
        self.names[name] += 1
        if is_first:
            assert self.go_on.wait(60)
        return self._pool.execute(name, arguments)

    def at_once(self, shared: Any, calls: Sequence[Callable[[], R]]) -> "list[Future[R]]":
        """Make calls on threads of their own: all but the first wait for a statement together."""
        with ThreadPoolExecutor(len(calls)) as threads:
            futures = [threads.submit(calls[0])]
            eventually(lambda: self.names)
            futures += [threads.submit(call) for call in calls[1:]]
            eventually(lambda: len(shared._waiting) == len(calls) - 1)
            self.go_on.set()
        return futures


@pytest.fixture
def slow_pool(pool: Pool, notifications: Notifications) -> Held:
    return Held(pool)


@pytest.fixture
def together(slow_pool: Held) -> Notifications:
    return Notifications(cast("Pool", slow_pool), claim_s=3600, patience_s=60)


def test_notifications_that_come_at_once_are_claimed_by_one_statement_and_sent_once(
    pool: Pool, slow_pool: Held, together: Notifications, receiver: Control
) -> None:
    receiver.reset()
    delivery = NotificationSender(together, webhook_sender(together, receiver))
    calls = [partial(delivery.handle, announced(pool)) for _ in range(8)]
    futures = slow_pool.at_once(together._claims, calls)
    assert [future.result() for future in futures] == [None] * 8
    assert states(pool) == [(1, "sent")] * 8
    assert [row["calls"] for row in receiver.deliveries()] == [1] * 8
    assert slow_pool.names["claim_order_notification"] == 1, "the first, which waits for nobody"
    assert slow_pool.names["claim_order_notifications"] == 1
    assert slow_pool.names["settle_notification"] + slow_pool.names["settle_notifications"] <= 8


def test_only_what_one_claim_would_get_is_claimed_in_a_set(
    pool: Pool, notifications: Notifications, together: Notifications, slow_pool: Held,
    database: Database,
) -> None:  # fmt: skip
    slow_pool.go_on.set()
    first, two, waits, busy, sent, locked = (announced(pool).body.order_id for _ in range(6))
    announced(pool, events.REFUNDED, two, version=6)
    statement = "UPDATE notifications SET tries = 1, next_at = now() + interval '1 h'"
    run(pool, f"{statement} WHERE order_id = %s", waits)
    assert together.claim(busy) is not None
    run(pool, "UPDATE notifications SET sent_at = now() WHERE order_id = %s", sent)
    order_ids = [first, two, waits, busy, sent, locked, first]
    with psycopg.connect(database.url) as session:
        session.execute(b"SELECT FROM notifications WHERE order_id = %s FOR UPDATE", (locked,))
        claimed = together._claim_several(order_ids)
    assert {index: (claim.order_id, claim.template) for index, claim in claimed.items()} == {
        0: (first, events.COMPLETED), 1: (two, events.COMPLETED),
    }  # fmt: skip
    assert together._claim_several(order_ids).keys() == {5}, "it is not locked any more"


SETTLEMENTS = (
    SendResult(sent=True),
    SendResult(outcome=NotificationOutcome.GONE, error="the receiver answered 410"),
    SendResult(again_in_s=7200, error="status 503"),
    SendResult(again_in_s=86400.5, error="circuit_open", tried=False),
    SendResult(outcome=NotificationOutcome.GIVEN_UP, error="timeout"),
)


def test_claims_that_end_in_a_set_end_as_single_ones_do(
    pool: Pool, notifications: Notifications
) -> None:
    alone, in_set = (claimed_with_another(pool, notifications) for _ in range(2))
    single = [notifications._settle_one(pair) for pair in zip(alone, SETTLEMENTS, strict=True)]
    several = notifications._settle_several(list(zip(in_set, SETTLEMENTS, strict=True)))
    assert single == [True, False, False, False, False]
    assert several == dict(enumerate(single))
    assert rows_of(pool, alone) == rows_of(pool, in_set)


def claimed_with_another(pool: Pool, notifications: Notifications) -> list[Notification]:
    """Claim a notification for each settlement; the first order has another one."""
    orders = [announced(pool).body.order_id for _ in SETTLEMENTS]
    announced(pool, events.REFUNDED, orders[0], version=6)
    claims = [notifications.claim(order_id) for order_id in orders]
    return [claim for claim in claims if claim is not None]


def rows_of(pool: Pool, claims: Sequence[Notification]) -> list[tuple[object, ...]]:
    query = (
        "SELECT template, tries, last_error, outcome, claimed_until::text, sent_at IS NULL,"
        " ended_at IS NULL, next_at > now() + interval '1 h', next_at > now() + interval '12 h'"
        " FROM notifications WHERE order_id = ANY(%s) ORDER BY order_id, template"
    )
    return run(pool, query, [claim.order_id for claim in claims])


def test_a_claim_whose_row_a_later_event_took_over_is_left_out_of_its_set(
    pool: Pool, notifications: Notifications
) -> None:
    first, second = (announced(pool, events.REFUNDED, version=5) for _ in range(2))
    claims = [notifications.claim(each.body.order_id) for each in (first, second)]
    announced(pool, events.REFUNDED, first.body.order_id, version=6)
    results = [(claim, SendResult(sent=True)) for claim in claims if claim is not None]
    assert notifications._settle_several(results) == {1: False}
    assert sorted(states(pool)) == [(0, "waiting"), (1, "sent")]


def test_one_row_that_cannot_be_written_holds_up_nobody_in_its_set(
    pool: Pool, slow_pool: Held, together: Notifications, notifications: Notifications
) -> None:
    orders = [announced(pool).body.order_id for _ in range(4)]
    claims = [claim for order in orders if (claim := notifications.claim(order)) is not None]
    errors = (None, None, "no text may have a \0", None)
    calls = [
        partial(together.settle, claim, SendResult(sent=True, error=error))
        for claim, error in zip(claims, errors, strict=True)
    ]
    futures = slow_pool.at_once(together._results, calls)
    assert [future.exception() is None for future in futures] == [True, True, False, True]
    assert sorted(states(pool)) == [(0, "waiting"), *[(1, "sent")] * 3]


def test_a_set_that_was_claimed_by_a_crashed_process_is_sent_once_its_claims_have_run_out(
    pool: Pool, notifications: Notifications, sender: WebhookSender, receiver: Control
) -> None:
    orders = [announced(pool).body.order_id for _ in range(3)]
    assert len(notifications._claim_several(orders)) == 3
    run(pool, "UPDATE notifications SET next_at = now()")
    sweeping = sweep(notifications, sender)
    eventually(lambda: sweeping.round() or len(receiver.deliveries()) == 3)
    assert [row["calls"] for row in receiver.deliveries()] == [1, 1, 1]
