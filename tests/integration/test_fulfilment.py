"""An order's way to its end, against PostgreSQL and the Inventory and Payment simulators."""

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from devstack.ports import free_port
from devstack.testing import Database
from orders import settings
from orders.database.orders import Ledger, Progress
from orders.database.pool import Pool
from orders.database.routing import Reads
from orders.domain import events
from orders.domain.lifecycle import Status
from orders.domain.order import NewOrder, Order
from orders.errors import Permanent, Transient
from orders.messaging.envelope import Message
from orders.telemetry import context
from orders.upstream.http import Upstream
from orders.upstream.inventory import Inventory, OutOfStock, Reserved
from orders.upstream.payment import Payment
from orders.upstream.policy import UpstreamPolicy
from orders.worker.fulfilment import Fulfilment, Ports
from upstreams.process import Control, running

POLICY = UpstreamPolicy(try_timeout_s=1, retries=0, breaker_failures=1000)
EVERYTHING = ("orders", "order_history", "outbox", "payment_attempts", "processed_messages")


@pytest.fixture(scope="module")
def inventory() -> Iterator[Control]:
    port = free_port()
    with running("inventory", port) as control:
        yield control


@pytest.fixture(scope="module")
def payment() -> Iterator[Control]:
    port = free_port()
    with running("payment", port) as control:
        yield control


@pytest.fixture(scope="module")
def pool(database: Database) -> Iterator[Pool]:
    environ = {"ORDERS_DATABASE_URL": database.url, "ORDERS_DATABASE_POOL_SIZE": "20"}
    made = Pool(database.url, settings.load(settings.DatabaseSettings, environ), "test")
    made.open()
    yield made
    made.close()


class World:
    """One fulfilment and everything it touches."""

    def __init__(self, pool: Pool, inventory: Control, payment: Control) -> None:
        self.pool, self.inventory, self.payment = pool, inventory, payment
        self.ledger = Ledger(pool, Reads(pool, None, None, 1))
        self.changed: list[Order] = []
        self.when_completed: Callable[[], None] = lambda: None
        self.upstreams = [
            Upstream("inventory", inventory.url, POLICY),
            Upstream("payment", payment.url, POLICY),
        ]
        self.fulfilment = Fulfilment(
            Ports(
                Progress(pool, "worker"),
                Inventory(self.upstreams[0]),
                Payment(self.upstreams[1]),
                self.note,
            )
        )

    def note(self, order: Order) -> None:
        self.changed.append(order)
        if order.status is Status.COMPLETED:
            self.when_completed()

    def order(self, product_id: int = 1, quantity: int = 2, method: str = "card") -> int:
        new = NewOrder(7, product_id, quantity, Decimal("19.90"), method)
        answer = self.ledger.accept(new, context.accept("test", None)[0], "u:7", None)
        assert answer.order_id is not None
        return answer.order_id

    def handle(self, order_id: int, kind: str = events.CREATED, message_id: str = "") -> None:
        ids, _ = context.accept("test", None)
        body = events.OrderEvent(order_id, 1, "Pending")
        message = Message(message_id or str(uuid.uuid4()), kind, body, ids, "order-processing", 1)
        with context.using(ids):
            self.fulfilment.handle(message)

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


@pytest.fixture
def world(pool: Pool, inventory: Control, payment: Control) -> Iterator[World]:
    inventory.reset()
    payment.reset()
    with pool.connection() as connection:
        connection.execute(f"TRUNCATE {', '.join(EVERYTHING)} CASCADE".encode())
    made = World(pool, inventory, payment)
    yield made
    for upstream in made.upstreams:
        upstream.close()


def test_an_order_is_reserved_charged_completed_and_its_stock_committed(world: World) -> None:
    order_id = world.order()
    world.handle(order_id)
    order = world.find(order_id)
    assert order.status is Status.COMPLETED
    assert [changed.status for changed in world.changed] == ["Reserved", "Charging", "Completed"]
    [capture] = world.captures(order_id)
    assert (capture["status"], capture["amount"], capture["calls"]) == (
        "captured", Decimal("19.90"), 1,
    )  # fmt: skip
    [held] = world.inventory.ledger()
    assert held["status"] == "committed"
    history = world.rows(
        "SELECT version, from_status, to_status FROM order_history WHERE order_id = %s"
        " ORDER BY version",
        order_id,
    )
    assert history == [
        (1, None, "Pending"), (2, "Pending", "Reserved"),
        (3, "Reserved", "Charging"), (4, "Charging", "Completed"),
    ]  # fmt: skip
    announced = world.rows("SELECT type, payload->>'version' FROM outbox ORDER BY seq")
    assert announced == [("order.created.v1", "1"), ("order.completed.v1", "4")]


def test_out_of_stock_fails_the_order_and_takes_no_money(world: World) -> None:
    order_id = world.order(product_id=999999)
    world.handle(order_id)
    order = world.find(order_id)
    assert (order.status, order.status_reason) == (Status.FAILED, "OutOfStock")
    assert world.captures(order_id) == []
    assert world.rows("SELECT type FROM outbox ORDER BY seq")[-1] == ("order.failed.v1",)


def test_stock_reserved_for_an_order_that_ended_meanwhile_is_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = world.order()
    reserve = Inventory.reserve

    def late(inventory: Inventory, *asked: int) -> Reserved | OutOfStock:
        held = reserve(inventory, *asked)
        with world.pool.connection() as connection:
            connection.execute(
                b"UPDATE orders SET status = 'Cancelled', version = version + 1 WHERE id = %s",
                (order_id,),
            )
        return held

    monkeypatch.setattr(Inventory, "reserve", late)
    world.handle(order_id)
    assert world.find(order_id).status is Status.CANCELLED
    assert [row["status"] for row in world.inventory.ledger()] == ["released"]


def test_a_declined_payment_fails_the_order_and_releases_its_stock(world: World) -> None:
    order_id = world.order(method="decline-1")
    world.handle(order_id)
    order = world.find(order_id)
    assert (order.status, order.status_reason) == (Status.FAILED, "PaymentDeclined")
    assert [row["status"] for row in world.inventory.ledger()] == ["released"]
    assert world.reservation(order_id) == "released"


def test_a_lost_payment_answer_leaves_the_order_charging_and_never_charges_twice(
    world: World,
) -> None:
    order_id = world.order()
    world.payment.faults(dropReplyRatio=1)
    with pytest.raises(Transient):
        world.handle(order_id)
    assert world.find(order_id).status is Status.CHARGING
    world.payment.faults()
    world.handle(order_id)
    assert world.find(order_id).status is Status.COMPLETED
    [capture] = world.captures(order_id)
    assert capture["calls"] == 1, "the outcome was asked for, not sent again"


def test_an_attempt_that_never_arrived_is_sent_again_under_its_id(world: World) -> None:
    order_id = world.order()
    world.payment.faults(errorRatio=1, errorStatus=503)
    with pytest.raises(Transient):
        world.handle(order_id)
    [(attempt,)] = world.rows("SELECT id FROM payment_attempts WHERE order_id = %s", order_id)
    world.payment.faults()
    world.handle(order_id)
    [capture] = world.captures(order_id)
    assert capture["attemptId"] == str(attempt)


def test_inventory_failing_at_the_commit_keeps_the_message_until_it_is_done(world: World) -> None:
    order_id, message_id = world.order(), str(uuid.uuid4())
    world.when_completed = lambda: world.inventory.faults(errorRatio=1, errorStatus=500)
    with pytest.raises(Transient):
        world.handle(order_id, message_id=message_id)
    assert world.find(order_id).status is Status.COMPLETED
    assert world.reservation(order_id) == "held"
    world.when_completed = lambda: None
    world.inventory.faults()
    world.changed.clear()
    world.handle(order_id, message_id=message_id)
    assert world.reservation(order_id) == "committed"
    assert [order.status for order in world.changed] == ["Completed"], "the cache is told again"
    assert len(world.captures(order_id)) == 1


def test_the_same_message_again_does_nothing(world: World) -> None:
    order_id, message_id = world.order(), str(uuid.uuid4())
    for _ in range(3):
        world.handle(order_id, message_id=message_id)
    assert world.find(order_id).version == 4
    assert [row["calls"] for row in world.captures(order_id)] == [1]


def test_many_deliveries_of_one_order_at_once_capture_once(world: World) -> None:
    order_id = world.order()
    gate = threading.Barrier(8)

    def deliver(_: int) -> None:
        gate.wait()
        world.handle(order_id)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(deliver, range(8)))
    assert world.find(order_id).status is Status.COMPLETED
    assert world.find(order_id).version == 4
    assert len(world.captures(order_id)) == 1
    assert world.rows("SELECT count(*) FROM outbox")[0][0] == 2


def test_a_flash_sale_never_sells_more_than_there_is(world: World) -> None:
    world.inventory.stock(42, 10)
    orders = [world.order(product_id=42, quantity=1) for _ in range(30)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(world.handle, orders))
    ended = [world.find(order_id).status for order_id in orders]
    assert ended.count(Status.COMPLETED) == 10
    assert ended.count(Status.FAILED) == 20


def test_a_message_about_no_order_is_permanent(world: World) -> None:
    with pytest.raises(Permanent, match="no order"):
        world.handle(2**40)


def test_a_stalled_order_is_emitted_again_and_its_failure_is_not_retried(world: World) -> None:
    order_id = world.order()
    world.payment.faults(errorRatio=1, errorStatus=500)
    with pytest.raises(Transient):
        world.handle(order_id)
    [(stalled,)] = world.pool.execute("emit_stalled", {"after_s": 0, "limit": 10})
    assert stalled == order_id
    assert world.pool.execute("emit_stalled", {"after_s": 60, "limit": 10}) == []
    world.handle(order_id, kind=events.STALLED)
    assert world.find(order_id).status is Status.CHARGING


def test_the_database_itself_refuses_a_second_live_capture(
    world: World, database: Database
) -> None:
    order_id = world.order()
    world.handle(order_id)
    with (
        pytest.raises(psycopg.errors.UniqueViolation),
        psycopg.connect(database.url) as connection,
    ):
        connection.execute(
            b"INSERT INTO payment_attempts (order_id, kind, amount) VALUES (%s, 'capture', 1)",
            (order_id,),
        )
