"""The evidence: the database, the ledgers of the simulators, and the dead-letter queues."""

from typing import Any

import msgspec
import pika
from pika.exceptions import ChannelClosedByBroker

from failover.clients import mark_of_product, mark_of_total
from failover.stack import Stack

DEAD = ("order-processing.dead", "order-notifications.dead", "orders.unrouted")
_ORDERS = """
    SELECT
        id, user_id, product_id, quantity, total, payment_method, status, version,
        (refunded * 100)::bigint
    FROM orders
"""
_MOVED = """
    SELECT order_id, version, from_status, to_status, extract(epoch FROM at)::float, actor
    FROM order_history ORDER BY order_id, version
"""
_PROCESSED = "SELECT count(*) FROM processed_messages WHERE consumer = 'worker'"


class OrderRow(msgspec.Struct, frozen=True):
    """An order in the database; `mark` is read from its payment method."""

    id: int
    user_id: int
    mark: int
    product_mark: int
    quantity: int
    total_mark: int
    status: str
    version: int
    refunded: int = 0  # cents, as the database has it


class Moved(msgspec.Struct, frozen=True):
    """A line of an order's history; `at_s` is when its transaction began."""

    order_id: int
    version: int
    before: str | None
    after: str
    at_s: float
    actor: str = ""  # who moved it: worker, customer, support


class Capture(msgspec.Struct, frozen=True):
    """Money that Payment took; the amount tells for whom."""

    attempt_id: str
    order_id: int
    mark: int


class PaidBack(msgspec.Struct, frozen=True):
    """Money that Payment gave back, in cents."""

    attempt_id: str
    order_id: int
    cents: int


class Held(msgspec.Struct, frozen=True):
    """Stock that Inventory took off; the product tells for whom."""

    order_id: int
    mark: int
    quantity: int
    status: str


class Notified(msgspec.Struct, frozen=True):
    """A webhook that came."""

    webhook_id: str
    type: str
    order_id: int
    version: int
    at_s: float


class Evidence(msgspec.Struct, frozen=True):
    """All of it, of one moment; `dead` counts messages per queue."""

    orders: list[OrderRow]
    captures: list[Capture]
    stock: list[Held]
    notified: list[Notified]
    dead: dict[str, int]
    outbox: int
    refunds: list[PaidBack] = []
    moved: list[Moved] = []
    refused: dict[str, int] = {}  # webhooks that the receiver did not believe, by reason
    processed: int = 0  # messages that the worker has noted as done with


def gather(stack: Stack) -> Evidence:
    """Read the evidence from every server."""
    money = stack.control("payment", "GET", "ledger")
    return Evidence(
        orders=[_order(row) for row in stack.rows(_ORDERS)],
        captures=[
            Capture(row["attemptId"], row["orderId"], mark_of_total(row["amount"]))
            for row in money
            if row["kind"] == "capture" and row["status"] == "captured"
        ],
        refunds=[
            PaidBack(row["attemptId"], row["orderId"], mark_of_total(row["amount"]))
            for row in money
            if row["kind"] == "refund" and row["status"] == "refunded"
        ],
        stock=[
            Held(row["orderId"], mark_of_product(row["productId"]), row["quantity"], row["status"])
            for row in stack.control("inventory", "GET", "ledger")
        ],
        notified=[_notified(row) for row in stack.control("webhooks", "GET", "deliveries")],
        dead=dead_letters(stack),
        outbox=int(stack.rows("SELECT count(*) FROM outbox")[0][0]),
        moved=[Moved(*row) for row in stack.rows(_MOVED)],
        refused=stack.control("webhooks", "GET", "refused"),
        processed=int(stack.rows(_PROCESSED)[0][0]),
    )


def dead_letters(stack: Stack) -> dict[str, int]:
    """Count the messages in the dead-letter queues; over AMQP, so the counts are current."""
    parameters = pika.URLParameters(stack.broker.url())
    connection = pika.BlockingConnection(parameters)
    try:
        return {name: _length(connection, name) for name in DEAD}
    finally:
        connection.close()


def purge_dead_letters(stack: Stack) -> None:
    """Delete the data of one run, so that it cannot fail the next."""
    connection = pika.BlockingConnection(pika.URLParameters(stack.broker.url()))
    try:
        for name, number in dead_letters(stack).items():
            if number:
                connection.channel().queue_purge(name)
    finally:
        connection.close()


def _length(connection: Any, queue: str) -> int:
    channel = connection.channel()
    try:
        return int(channel.queue_declare(queue, passive=True).method.message_count)
    except ChannelClosedByBroker:  # a queue that does not exist holds nothing
        return 0


def _order(row: tuple[Any, ...]) -> OrderRow:
    order_id, user_id, product_id, quantity, total, method, status, version, refunded = row
    digits = method.rpartition("m")[2]
    return OrderRow(
        order_id,
        user_id,
        int(digits) if digits.isdecimal() else -1,
        mark_of_product(product_id),
        quantity,
        mark_of_total(total),
        status,
        version,
        refunded,
    )


def _notified(row: dict[str, Any]) -> Notified:
    import datetime as dt

    data = row["payload"]["data"]
    at_s = dt.datetime.fromisoformat(row["at"]).timestamp()
    return Notified(
        row["webhookId"], row["payload"]["type"], data["orderId"], data["version"], at_s
    )
