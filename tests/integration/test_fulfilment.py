"""An order's way to its end, against PostgreSQL and the Inventory and Payment simulators."""

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import psycopg
import pytest

from devstack.ports import free_port
from integration.handles import Database
from integration.world import World, empty_world
from orders.database.pool import Pool
from orders.database.statements import ServerAway
from orders.domain import events
from orders.domain.deadlines import deadlines
from orders.domain.lifecycle import Status
from orders.errors import Permanent, Transient, Unavailable
from orders.messaging.handling import NextAction, Pause
from orders.messaging.verdict import Retry, RetryPolicy, judge
from orders.upstream.inventory import Inventory
from orders.worker.steps import target
from orders.worker.sweep import Sweeper
from upstreams.process import Control, running


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


@pytest.fixture(params=["one by one", "as a set"])
def world(
    pool: Pool, inventory: Control, payment: Control, request: pytest.FixtureRequest
) -> Iterator[World]:
    with empty_world(pool, inventory, payment, sets=request.param == "as a set") as world:
        yield world


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
    [reservation] = world.inventory.ledger()
    assert reservation["status"] == "committed"
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
    statuses = [world.find(order_id).status for order_id in orders]
    assert statuses.count(Status.COMPLETED) == 10
    assert statuses.count(Status.FAILED) == 20


def test_a_message_about_no_order_is_permanent(world: World) -> None:
    with pytest.raises(Permanent, match="no order"):
        world.handle(2**40)


def test_a_stalled_order_is_emitted_again_and_its_failure_is_not_retried(world: World) -> None:
    order_id = world.order()
    work = world.progress.load(order_id, str(uuid.uuid4()))
    assert work is not None
    # Inventory holds something else under the order's key: it refuses the order for ever.
    Inventory(world.upstreams[0]).reserve(target(work), 1, 3)
    with pytest.raises(Permanent, match="conflict"):
        world.handle(order_id)
    emit_stalled(world, order_id)
    world.handle(order_id, kind=events.STALLED)
    assert world.find(order_id).status is Status.PENDING


def test_a_stalled_order_tells_of_an_outage_so_that_consumption_pauses(world: World) -> None:
    order_id = world.order()
    world.payment.faults(errorRatio=1, errorStatus=500)
    with pytest.raises(Unavailable):
        world.handle(order_id)
    emit_stalled(world, order_id)
    with pytest.raises(Unavailable):
        world.handle(order_id, kind=events.STALLED)
    assert world.find(order_id).status is Status.CHARGING
    world.payment.faults()
    world.handle(order_id, kind=events.STALLED)
    assert world.find(order_id).status is Status.COMPLETED


def emit_stalled(world: World, order_id: int) -> None:
    Sweeper(world.pool, deadlines(0.001), lambda: False).sweep()
    stalled = world.rows("SELECT aggregateid::bigint FROM outbox WHERE type = 'order.stalled.v1'")
    assert stalled == [(order_id,)]


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


def test_a_lock_that_outlasts_its_timeout_costs_the_message_time_and_no_attempt(
    world: World, database: Database
) -> None:
    """A commit whose synchronous standby does not answer holds such a lock."""
    order_id, pause = world.order(), Pause("order-processing")
    pause.leave(NextAction.WORK, ServerAway("away", retry_after_s=0.01))
    assert pause.enter(time.monotonic() + 10, lambda: True) is NextAction.PROBE
    with psycopg.connect(database.url) as committing:
        committing.execute(b"SELECT FROM orders WHERE id = %s FOR UPDATE", (order_id,))
        with pytest.raises(Unavailable) as raised:
            world.handle(order_id)
    decided = judge(raised.value, 8, RetryPolicy(8))
    assert isinstance(decided, Retry)
    assert not decided.spent
    pause.leave(NextAction.PROBE, raised.value)
    assert pause.problem is not None
