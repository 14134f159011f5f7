"""The worker of the previous release beside this one's api: its own statements, as they were.

`previous_release/` has them word for word. It knew cancellations of orders in Charging, but nothing
raised them, and no refunds.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from integration.first_release import INSERT_ORDER, first_release
from integration.handles import Postgres
from integration.world import World, empty_world
from orders import settings
from orders.database.migrate import migrate
from orders.database.pool import Pool
from orders.domain import events
from orders.domain.deadlines import deadlines
from orders.domain.lifecycle import Status
from orders.errors import Transient
from orders.upstream.inventory import Inventory
from orders.worker.sweep import Sweeper
from upstreams.process import Control

STATEMENTS = Path(__file__).parent / "previous_release"
# Members of a row of its load_work.sql.
STATUS, VERSION, CANCEL_REQUESTED, RESERVATION, ATTEMPT = 6, 7, 9, 10, 13


@pytest.fixture(scope="module")
def upgraded(postgres: Postgres) -> Iterator[str]:
    """Give a database that the previous release took orders into before it was migrated."""
    with first_release(postgres) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(INSERT_ORDER)
        migrate(url)
        yield url


@pytest.fixture
def world(upgraded: str, inventory: Control, payment: Control) -> Iterator[World]:
    environ = {"ORDERS_DATABASE_URL": upgraded}
    pool = Pool(upgraded, settings.load(settings.DatabaseSettings, environ), "test")
    pool.open()
    with empty_world(pool, inventory, payment) as world:
        yield world
    pool.close()


class PreviousWorker:
    """Reads and moves orders as the previous release did."""

    def __init__(self, world: World) -> None:
        self._world = world

    def load(self, order_id: int) -> tuple[Any, ...]:
        values = {"id": order_id, "message_id": uuid.uuid4(), "consumer": "worker"}
        return self._run("load_work", values)[0]

    def advance(self, order_id: int, row: tuple[Any, ...], to: str, **step: Any) -> bool:
        nulls = dict.fromkeys(
            ("reason", "announces", "reservation", "new_attempt", "attempt", "outcome",
             "message_id")
        )  # fmt: skip
        values = {
            "id": order_id, "version": row[VERSION], "from": row[STATUS], "to": to,
            "actor": "worker", "consumer": "worker", "correlation_id": "c", "traceparent": "t",
            "trace_id": "i",
        }  # fmt: skip
        return bool(self._run("advance_order", nulls | values | step))

    def _run(self, name: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        with self._world.pool.connection() as connection:
            text = (STATEMENTS / f"{name}.sql").read_bytes()
            return list(connection.execute(text, values).fetchall())

    def reserve(self, order_id: int, status: int = 201) -> None:
        """Reserve under the order's id, as the first contract had it."""
        body = {"productId": 1, "quantity": 2}
        assert self._world.inventory.send("PUT", f"/reservations/{order_id}", body)[0] == status
        row = self.load(order_id)
        assert self.advance(order_id, row, "Reserved", reservation="held")

    def charge(self, order_id: int) -> tuple[Any, ...]:
        """Begin the charge under a random attempt id, and take the money."""
        attempt = uuid.uuid4()
        assert self.advance(order_id, self.load(order_id), "Charging", new_attempt=attempt)
        body = {"orderId": order_id, "amount": 19.9, "paymentMethod": "card"}
        assert self._world.payment.send("PUT", f"/payments/{attempt}", body)[0] == 200
        return self.load(order_id)

    def decline(self, order_id: int) -> None:
        """Have an order in Charging fail, then give its stock back, by the order's id."""
        row = self.load(order_id)
        declined = {"attempt": row[ATTEMPT], "outcome": "declined", "reason": "PaymentDeclined"}
        assert self.advance(order_id, row, "Failed", announces="order.failed.v1", **declined)
        released = self._world.inventory.send("POST", f"/reservations/{order_id}/release")
        assert released[0] == 200
        with self._world.pool.connection() as connection:
            text = (STATEMENTS / "settle_stock.sql").read_bytes()
            values = {
                "id": order_id, "reservation": "released", "consumer": "worker",
                "message_id": uuid.uuid4(),
            }  # fmt: skip
            connection.execute(text, values)


def test_it_does_not_complete_an_order_that_was_cancelled_since_it_read_it(world: World) -> None:
    order_id, previous = world.order(), PreviousWorker(world)
    previous.reserve(order_id)
    order = previous.charge(order_id)
    world.cancel(order_id)
    captured = {"attempt": order[ATTEMPT], "outcome": "approved"}
    assert not previous.advance(order_id, order, "Completed", **captured)
    order_reloaded = previous.load(order_id)
    assert order_reloaded[CANCEL_REQUESTED], "it reads the order anew, and knows this mark"
    refund_due = {"announces": "order.refund_due.v1", **captured}
    assert previous.advance(order_id, order_reloaded, "Refunding", **refund_due)
    world.handle(order_id, kind=events.REFUND_DUE)
    assert world.find(order_id).status is Status.REFUNDED
    assert world.stock(order_id) == ["released"]


def test_what_it_began_is_brought_to_its_end_under_its_keys(world: World) -> None:
    order_id, previous = world.order(), PreviousWorker(world)
    previous.reserve(order_id)
    previous.charge(order_id)
    world.handle(order_id)
    assert world.find(order_id).status is Status.COMPLETED
    assert world.stock(order_id) == ["committed"]
    [capture] = world.captures(order_id)
    assert capture["calls"] == 1, "its attempt was asked for, not made again"
    world.cancel(order_id)
    world.handle(order_id, kind=events.REFUND_DUE)
    assert world.stock(order_id) == ["returned"]


def test_an_order_that_it_put_aside_as_refunding_comes_back_by_the_sweeper(world: World) -> None:
    order_id = world.order()
    world.handle(order_id)
    world.cancel(order_id)  # its message meets a worker that has no step for Refunding
    Sweeper(world.pool, deadlines(0.001), lambda: False).sweep()
    assert world.announced(order_id)[-1] == events.STALLED
    world.handle(order_id, kind=events.STALLED)
    assert world.find(order_id).status is Status.REFUNDED


def test_a_cancellation_while_it_reserves_leaves_no_stock_once_it_looks_again(
    world: World,
) -> None:
    order_id, previous = world.order(), PreviousWorker(world)
    order = previous.load(order_id)
    body = {"productId": 1, "quantity": 2}
    world.inventory.send("PUT", f"/reservations/{order_id}", body)
    world.cancel(order_id)
    assert not previous.advance(order_id, order, "Reserved", reservation="held")
    order_reloaded = previous.load(order_id)
    # An ended order with stock held: its next step is the release, under the order's id.
    assert (order_reloaded[STATUS], order_reloaded[RESERVATION]) == ("Cancelled", "held")
    assert world.inventory.send("POST", f"/reservations/{order_id}/release")[0] == 200


def test_this_releases_worker_retries_what_the_previous_one_left(world: World) -> None:
    order_id, previous = world.order(), PreviousWorker(world)
    previous.reserve(order_id)
    world.payment.faults(errorRatio=1)
    with pytest.raises(Transient):
        world.handle(order_id)
    world.payment.faults()
    world.cancel(order_id)
    world.handle(order_id)
    assert world.find(order_id).status is Status.REFUNDED
    assert world.stock(order_id) == ["released"]


def test_an_order_that_it_was_killed_over_is_reserved_once(world: World) -> None:
    order_id = world.order()
    body = {"productId": 1, "quantity": 2}  # its call came through, its commit did not
    assert world.inventory.send("PUT", f"/reservations/{order_id}", body)[0] == 201
    world.handle(order_id)
    assert world.find(order_id).status is Status.COMPLETED
    assert world.stock(order_id) == ["committed"]


def test_it_goes_on_with_what_this_releases_worker_was_killed_over(world: World) -> None:
    order_id, previous = world.order(), PreviousWorker(world)

    class Died(BaseException):
        pass

    class Killed(Inventory):
        def reserve(self, *arguments: Any) -> Any:
            super().reserve(*arguments)
            raise Died

    world.replace(inventory=lambda inventory: Killed(inventory._upstream))
    with pytest.raises(Died):
        world.handle(order_id)
    previous.reserve(order_id, status=200)
    assert world.stock(order_id) == ["reserved"]


def test_what_it_releases_of_an_order_that_this_releases_worker_reserved_is_free(
    world: World,
) -> None:
    order_id, previous = world.order(method="decline"), PreviousWorker(world)
    world.payment.faults(errorRatio=1)
    with pytest.raises(Transient):
        world.handle(order_id)  # reserved, and the charge begun
    world.payment.faults()
    previous.decline(order_id)
    assert world.stock(order_id) == ["released"]
    assert world.reservation(order_id) == "released"
