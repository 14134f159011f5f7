"""One worker's fulfilment with all it touches: PostgreSQL and the simulators."""

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from integration.stores import cancellations_on, orders_on
from integration.together import DirectOrderCalls, Messages, handle_by_itself, work_on
from orders.database.cancellations import CancellationCommand, Cancelled
from orders.database.pool import Pool
from orders.database.progress import Progress, ProgressSets, Work
from orders.domain import events
from orders.domain.lifecycle import Status
from orders.domain.order import NewOrder, Order
from orders.messaging.envelope import Message
from orders.telemetry import context
from orders.upstream.http import Upstream
from orders.upstream.inventory import Inventory
from orders.upstream.payment import Payment
from orders.upstream.policy import UpstreamPolicy
from orders.worker.fulfilment import Fulfilment, WorkerPorts
from upstreams.process import Control

POLICY = UpstreamPolicy(try_timeout_s=1, retries=0, breaker_failures=1000)
EVERYTHING = (
    "orders", "order_history", "outbox", "payment_attempts", "processed_messages",
    "idempotency_keys",
)  # fmt: skip
USER = 7


class World:
    """One fulfilment and everything it touches."""

    def __init__(
        self, pool: Pool, inventory: Control, payment: Control, *, sets: bool = False
    ) -> None:
        self.sets = sets
        self.pool, self.inventory, self.payment = pool, inventory, payment
        self.ledger = orders_on(pool)
        self.cancellations = cancellations_on(pool)
        self.changed: list[Order] = []
        self.when_completed: Callable[[], None] = lambda: None
        self.upstreams = [
            Upstream("inventory", inventory.url, POLICY),
            Upstream("payment", payment.url, POLICY),
        ]
        self.progress = Progress(pool, "worker")
        self.replace()

    def replace(
        self,
        inventory: Callable[[Inventory], Inventory] = lambda inventory: inventory,
        payment: Callable[[Payment], Payment] = lambda payment: payment,
    ) -> None:
        """Make a new worker, with something of the test's between it and the simulators."""
        stock, money = inventory(Inventory(self.upstreams[0])), payment(Payment(self.upstreams[1]))
        self.fulfilment = Fulfilment(WorkerPorts(self.progress, stock, money, self.note))
        self.order_calls = DirectOrderCalls(stock, money)

    def handle_loaded(self, work: Work) -> None:
        """Make a worker that read the order earlier (`work`) take the next step."""
        with context.using(context.accept("test", None)[0]):
            self.fulfilment._step(work, str(uuid.uuid4()))

    def note(self, order: Order) -> None:
        self.changed.append(order)
        if order.status is Status.COMPLETED:
            self.when_completed()

    def order(self, product_id: int = 1, quantity: int = 2, method: str = "card") -> int:
        new = NewOrder(USER, product_id, quantity, Decimal("19.90"), method)
        answer = self.ledger.accept(new, context.accept("test", None)[0], "u:7", None)
        assert answer.order_id is not None
        return answer.order_id

    def handle(self, order_id: int, kind: str = events.CREATED, message_id: str = "") -> None:
        ids, _ = context.accept("test", None)
        body = events.OrderEvent(order_id, 1, "Pending")
        message = Message(message_id or str(uuid.uuid4()), kind, body, ids, "order-processing", 1)
        if self.sets:
            handle_by_itself(self.together([message]).refused, self.fulfilment.handle)
        else:
            with context.using(ids):
                self.fulfilment.handle(message)

    def together(self, messages: Sequence[Message]) -> Messages:
        """Work on orders as a set; return the outcome of each message."""
        order_calls = self.order_calls
        progress = ProgressSets(self.pool, "worker")
        return work_on(messages, progress, order_calls.calls, order_calls, self.note_all)

    def note_all(self, orders: Sequence[Order]) -> None:
        for order in orders:
            self.note(order)

    def find(self, order_id: int) -> Order:
        order = self.ledger.find(order_id)
        assert order is not None
        return order

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.pool.connection() as connection:
            return connection.execute(query.encode(), values).fetchall()

    def captures(self, order_id: int) -> list[dict[str, object]]:
        return [row for row in self.payment.ledger() if row["orderId"] == order_id]

    def reservation(self, order_id: int) -> str:
        return str(self.rows("SELECT reservation FROM orders WHERE id = %s", order_id)[0][0])

    def cancel(self, order_id: int, **members: Any) -> Cancelled | None:
        """Cancel as the customer does."""
        fields: dict[str, Any] = {"subject": str(USER), "everyones": False, **members}
        request = CancellationCommand(
            order_id=order_id, principal=f"user:{fields['subject']}", **fields
        )
        return self.cancellations.cancel(request, context.accept("test", None)[0])

    def refunds(self, order_id: int) -> list[tuple[Decimal, str]]:
        """Return the amounts that Payment was to refund for an order, and their states."""
        rows = self.payment.ledger()
        return [
            (row["amount"], row["status"])
            for row in rows
            if row["orderId"] == order_id and row["kind"] == "refund"
        ]

    def stock(self, order_id: int) -> list[str]:
        """Return how Inventory has the order's reservations."""
        return [row["status"] for row in self.inventory.ledger() if row["orderId"] == order_id]

    def history(self, order_id: int) -> list[tuple[Any, ...]]:
        """Return the order's transitions: from, to, reason, actor."""
        return self.rows(
            "SELECT from_status, to_status, reason, actor FROM order_history"
            " WHERE order_id = %s ORDER BY version",
            order_id,
        )

    def announced(self, order_id: int) -> list[str]:
        """Return the types of the order's messages."""
        query = "SELECT type FROM outbox WHERE aggregateid = %s ORDER BY seq"
        return [row[0] for row in self.rows(query, str(order_id))]


def message_of(order_id: int, kind: str = events.CREATED) -> Message:
    """Return a new message about an order."""
    ids, _ = context.accept(f"order-{order_id}", None)
    body = events.OrderEvent(order_id, 1, "Pending")
    return Message(str(uuid.uuid4()), kind, body, ids, "order-processing", 1)


@contextlib.contextmanager
def empty_world(
    pool: Pool, inventory: Control, payment: Control, *, sets: bool = False
) -> Iterator[World]:
    """Forget everything, then give a world."""
    inventory.reset()
    payment.reset()
    with pool.connection() as connection:
        connection.execute(f"TRUNCATE {', '.join(EVERYTHING)} CASCADE".encode())
    world = World(pool, inventory, payment, sets=sets)
    try:
        yield world
    finally:
        for upstream in world.upstreams:
            upstream.close()
