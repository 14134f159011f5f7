"""Cancelling an order in every state: database, worker and both upstreams."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from integration.stores import cancellations_on, refund_requests_on
from integration.world import World, empty_world
from orders.database.cancellations import Cancelled, NotCancellable
from orders.database.orders import KeyReused
from orders.database.pool import Pool
from orders.database.progress import AttemptOutcome, Progress
from orders.database.refund_requests import RefundCommand
from orders.domain import events
from orders.domain.deadlines import deadlines
from orders.domain.lifecycle import Status
from orders.domain.order import AttemptKind
from orders.errors import Transient
from orders.settlement.resolution import Attempt, LearnedOutcome, resolve
from orders.telemetry import context
from orders.upstream.inventory import Inventory, OutOfStock, ReservationStatus
from orders.upstream.payment import Declined, Payment, Refunded
from orders.worker.sweep import Sweeper
from upstreams.process import Control

TOTAL = Decimal("19.90")


@pytest.fixture(params=["one by one", "as a set"])
def world(
    pool: Pool, inventory: Control, payment: Control, request: pytest.FixtureRequest
) -> Iterator[World]:
    with empty_world(pool, inventory, payment, sets=request.param == "as a set") as world:
        yield world


def answer(cancelled: Cancelled | None) -> tuple[int, str]:
    assert cancelled is not None
    return cancelled.answer.status, cancelled.answer.body.decode()


def charging_order(world: World) -> int:
    """Give an order whose capture came through, but whose answer was lost."""
    order_id = world.order()
    world.payment.faults(dropReplyRatio=1)
    with pytest.raises(Transient):
        world.handle(order_id)
    world.payment.faults()
    assert world.find(order_id).status is Status.CHARGING
    return order_id


def test_before_payment_it_is_cancelled_at_once_its_stock_refused_and_nothing_charged(
    world: World,
) -> None:
    order_id = world.order()
    status, body = answer(world.cancel(order_id))
    assert (status, body) == (
        202, f'{{"orderId":{order_id},"status":"Cancelled","message":"Order is cancelled"}}'
    )  # fmt: skip
    order = world.find(order_id)
    assert (order.status, order.status_reason, order.version) == (
        Status.CANCELLED, "CancelledByCustomer", 2,
    )  # fmt: skip
    assert world.history(order_id)[1:] == [
        ("Pending", "Cancelled", "CancelledByCustomer", "customer")
    ]
    assert world.announced(order_id) == ["order.created.v1", "order.cancelled.v1"]
    world.handle(order_id, kind=events.CANCELLED)
    world.handle(order_id)
    assert (world.stock(order_id), world.captures(order_id)) == (["released"], [])
    assert world.reservation(order_id) == "released"


def test_reserved_stock_is_released(world: World) -> None:
    order_id = world.order()
    world.payment.faults(errorRatio=1)
    with pytest.raises(Transient):
        world.handle(order_id)
    with world.pool.connection() as connection:  # as if the worker had died before the charge
        connection.execute(
            b"WITH gone AS (DELETE FROM payment_attempts WHERE order_id = %(id)s)"
            b" UPDATE orders SET status = 'Reserved' WHERE id = %(id)s",
            {"id": order_id},
        )
    assert answer(world.cancel(order_id))[0] == 202
    world.payment.faults()
    world.handle(order_id, kind=events.CANCELLED)
    assert (world.stock(order_id), world.captures(order_id)) == (["released"], [])


def test_while_charging_it_is_remembered_and_a_capture_is_refunded(world: World) -> None:
    order_id = charging_order(world)
    status, body = answer(world.cancel(order_id))
    assert status == 202
    assert '"status":"Charging"' in body
    assert body.endswith('"cancelRequested":true}')
    order = world.find(order_id)
    assert (order.status, order.cancel_requested, order.version) == (Status.CHARGING, True, 4)
    world.handle(order_id)
    order = world.find(order_id)
    assert (order.status, order.status_reason, order.refunded) == (
        Status.REFUNDED, "CancelledByCustomer", TOTAL,
    )  # fmt: skip
    assert world.refunds(order_id) == [(TOTAL, "refunded")]
    assert world.stock(order_id) == ["released"]
    assert [row[:2] for row in world.history(order_id)[3:]] == [
        ("Charging", "Charging"), ("Charging", "Refunding"), ("Refunding", "Refunded"),
    ]  # fmt: skip
    assert "order.completed.v1" not in world.announced(order_id)


def test_while_charging_a_decline_makes_it_cancelled(world: World) -> None:
    order_id = world.order(method="decline-1")
    world.payment.faults(dropReplyRatio=1)
    with pytest.raises(Transient):
        world.handle(order_id)
    world.payment.faults()
    world.cancel(order_id)
    world.handle(order_id)
    order = world.find(order_id)
    assert (order.status, order.status_reason) == (Status.CANCELLED, "CancelledByCustomer")
    assert world.stock(order_id) == ["released"]
    assert world.refunds(order_id) == []


def test_after_payment_it_is_refunded_and_its_stock_returned(world: World) -> None:
    order_id = world.order()
    world.handle(order_id)
    status, body = answer(world.cancel(order_id, note="too late for me"))
    assert (status, '"status":"Refunding"' in body) == (202, True)
    world.handle(order_id, kind=events.REFUND_DUE)
    assert world.find(order_id).status is Status.REFUNDED
    assert world.refunds(order_id) == [(TOTAL, "refunded")]
    assert (world.stock(order_id), world.reservation(order_id)) == (["returned"], "returned")
    assert world.announced(order_id)[-2:] == ["order.refund_due.v1", "order.refunded.v1"]
    notes = world.rows("SELECT note FROM order_history WHERE order_id = %s", order_id)
    assert ("too late for me",) in notes


def test_cancelled_again_it_is_answered_200_and_changes_nothing(world: World) -> None:
    order_id = world.order()
    world.handle(order_id)
    world.cancel(order_id)
    version = world.find(order_id).version
    assert answer(world.cancel(order_id))[0] == 200
    world.handle(order_id, kind=events.REFUND_DUE)
    assert answer(world.cancel(order_id))[0] == 200
    assert world.find(order_id).version == version + 1
    assert len(world.refunds(order_id)) == 1


def test_a_failed_order_cannot_be_cancelled(world: World) -> None:
    order_id = world.order(product_id=999999)
    world.handle(order_id)
    with pytest.raises(NotCancellable) as error:
        world.cancel(order_id, key="k-1")
    assert error.value.reason == "Failed"
    assert world.rows("SELECT FROM idempotency_keys WHERE key = 'k-1'") == []


def test_the_window_is_judged_by_the_database_whatever_the_clock_of_the_api(world: World) -> None:
    order_id = world.order()
    world.handle(order_id)
    with world.pool.connection() as connection:
        connection.execute(
            b"UPDATE orders SET completed_at = now() - interval '31 minutes' WHERE id = %s",
            (order_id,),
        )
    with pytest.raises(NotCancellable) as error:
        world.cancel(order_id)
    assert error.value.reason == "WindowClosed"
    assert world.find(order_id).status is Status.COMPLETED
    world.cancellations = cancellations_on(world.pool, 3600)
    assert answer(world.cancel(order_id))[0] == 202


def test_an_order_that_the_previous_release_completed_has_its_window(world: World) -> None:
    order_id = world.order()
    world.handle(order_id)
    with world.pool.connection() as connection:
        connection.execute(b"UPDATE orders SET completed_at = NULL WHERE id = %s", (order_id,))
    assert answer(world.cancel(order_id))[0] == 202


def test_somebody_elses_order_does_not_exist_and_support_may_cancel_it(world: World) -> None:
    order_id = world.order()
    assert world.cancel(order_id, subject="8") is None
    assert world.cancel(2**40) is None
    assert answer(world.cancel(order_id, subject="8", everyones=True))[0] == 202
    assert world.history(order_id)[-1][2:] == ("CancelledBySupport", "support")


def test_a_key_gives_the_stored_answer_and_belongs_to_one_cancellation(world: World) -> None:
    first, second = world.order(), world.order()
    world.handle(first)
    stored = world.cancel(first, key="k-2")
    world.handle(first, kind=events.REFUND_DUE)
    repetition = world.cancel(first, key="k-2")
    assert stored is not None
    assert repetition is not None
    assert repetition.answer.replayed
    assert repetition.order is None
    for member in ("status", "body", "location", "etag"):
        assert getattr(repetition.answer, member) == getattr(stored.answer, member)
    with pytest.raises(KeyReused):
        world.cancel(second, key="k-2")
    assert world.find(second).status is Status.PENDING


def test_many_clients_at_once_cancel_once(world: World) -> None:
    order_id = world.order()
    world.handle(order_id)
    with ThreadPoolExecutor(10) as threads:
        keys: list[str | None] = [None, None, "k-3", "k-3", "k-4"] * 4
        answers = list(threads.map(lambda key: world.cancel(order_id, key=key), keys))
    assert {answer(cancelled)[0] for cancelled in answers} == {202, 200}
    assert len([1 for row in world.history(order_id) if row[1] == "Refunding"]) == 1
    world.handle(order_id, kind=events.REFUND_DUE)
    assert world.refunds(order_id) == [(TOTAL, "refunded")]


class Interposed(Inventory):
    """Inventory that lets something happen between its answer and the worker's next step."""

    def __init__(self, inventory: Inventory, then: Any) -> None:
        super().__init__(inventory._upstream)
        self.then = then

    def reserve(self, *arguments: Any) -> ReservationStatus | OutOfStock:
        answer = super().reserve(*arguments)
        self.then()
        return answer


def test_a_cancel_between_reservation_and_commit_leaves_no_stock_held_even_if_the_worker_dies(
    world: World,
) -> None:
    order_id = world.order()

    class Died(BaseException):
        pass

    def cancelled_then_died() -> None:
        world.cancel(order_id)
        raise Died

    world.replace(inventory=lambda inventory: Interposed(inventory, cancelled_then_died))
    with pytest.raises(Died):
        world.handle(order_id)
    assert world.stock(order_id) == ["reserved"]
    world.replace()
    Sweeper(world.pool, deadlines(0.001), lambda: False).sweep()
    assert world.announced(order_id)[-1] == events.STALLED
    world.handle(order_id, kind=events.STALLED)
    assert world.stock(order_id) == ["released"]


def test_a_reservation_under_way_while_the_order_is_cancelled_and_released_takes_no_stock(
    world: World,
) -> None:
    order_id = world.order()
    world.inventory.faults(errorRatio=1)
    with pytest.raises(Transient):
        world.handle(order_id)
    world.cancel(order_id)
    world.inventory.faults()
    world.handle(order_id, kind=events.CANCELLED)
    # The worker's first call comes through only now.
    [(key,)] = world.rows("SELECT nonce::text FROM orders WHERE id = %s", order_id)
    body = {"orderId": order_id, "productId": 1, "quantity": 2}
    assert world.inventory.send("PUT", f"/reservations/{key}", body)[1]["status"] == "released"
    assert world.inventory.send("GET", "/availability/1")[1]["available"] == 1_000_000
    world.handle(order_id)
    assert world.find(order_id).status is Status.CANCELLED


def test_out_of_stock_refuses_a_reservation_that_comes_through_later(world: World) -> None:
    world.inventory.stock(5, 0)
    order_id = world.order(product_id=5)
    world.handle(order_id)
    world.inventory.stock(5, 10)
    [(key,)] = world.rows("SELECT nonce::text FROM orders WHERE id = %s", order_id)
    body = {"orderId": order_id, "productId": 5, "quantity": 2}
    assert world.inventory.send("PUT", f"/reservations/{key}", body)[1]["status"] == "released"
    assert world.inventory.send("GET", "/availability/5")[1]["available"] == 10


def test_an_order_is_not_completed_by_a_worker_that_read_it_before_the_cancel(
    world: World,
) -> None:
    order_id = charging_order(world)
    message = str(uuid.uuid4())
    order = world.progress.load(order_id, message)
    assert order is not None
    world.cancel(order_id)
    assert not order.order.cancel_requested
    world.handle_loaded(order)
    assert world.find(order_id).status is not Status.COMPLETED
    world.handle(order_id)
    assert world.find(order_id).status is Status.REFUNDED


def test_stock_is_not_noted_as_committed_for_an_order_cancelled_meanwhile(world: World) -> None:
    order_id = world.order()
    world.when_completed = lambda: world.inventory.faults(errorRatio=1)
    with pytest.raises(Transient):
        world.handle(order_id)
    order = world.progress.load(order_id, str(uuid.uuid4()))
    assert order is not None
    world.when_completed = lambda: None
    world.inventory.faults()
    world.cancel(order_id)
    world.handle_loaded(order)  # commits at Inventory; the order has moved on
    assert (world.reservation(order_id), world.stock(order_id)) == ("held", ["committed"])
    world.handle(order_id, kind=events.REFUND_DUE)
    assert (world.reservation(order_id), world.stock(order_id)) == ("returned", ["returned"])


def test_a_commit_that_comes_after_the_stock_went_back_is_no_dead_letter(world: World) -> None:
    order_id = world.order()
    world.when_completed = lambda: world.inventory.faults(errorRatio=1)
    with pytest.raises(Transient):
        world.handle(order_id)
    order = world.progress.load(order_id, str(uuid.uuid4()))
    assert order is not None
    world.when_completed = lambda: None
    world.inventory.faults()
    world.cancel(order_id)
    world.handle(order_id, kind=events.REFUND_DUE)
    assert world.stock(order_id) == ["released"]
    world.handle_loaded(order)
    assert world.find(order_id).status is Status.REFUNDED


def test_a_refund_whose_answer_is_lost_is_asked_for_again_under_the_same_key(world: World) -> None:
    order_id = world.order()
    world.handle(order_id)
    world.cancel(order_id)
    world.payment.faults(dropReplyRatio=1)
    with pytest.raises(Transient):
        world.handle(order_id, kind=events.REFUND_DUE)
    world.payment.faults()
    world.handle(order_id, kind=events.REFUND_DUE)
    assert world.refunds(order_id) == [(TOTAL, "refunded")]
    assert world.find(order_id).status is Status.REFUNDED


def test_a_declined_refund_stays_refunding_and_is_not_tried_again(world: World) -> None:
    order_id = world.order()
    world.handle(order_id)
    world.cancel(order_id)
    world.payment.faults(refundDeclineRatio=1)
    world.handle(order_id, kind=events.REFUND_DUE)
    world.payment.faults()
    world.handle(order_id, kind=events.STALLED)
    order = world.find(order_id)
    assert (order.status, order.status_reason) == (Status.REFUNDING, "RefundDeclined")
    assert world.refunds(order_id) == [(TOTAL, "declined")]
    [attempt] = world.rows(
        "SELECT outcome, reason, actor FROM payment_attempts"
        " WHERE kind = 'refund' AND order_id = %s",
        order_id,
    )
    assert attempt == ("declined", "RefundDeclined", "worker")
    requested = world.rows("SELECT refund_requested, refunded FROM orders WHERE id = %s", order_id)
    assert requested == [(0, 0)]


def test_work_that_a_failover_lost_meets_the_same_keys(world: World) -> None:
    order_id = world.order()
    world.handle(order_id)
    lose_what_came_after_the_acceptance(world)
    world.handle(order_id)
    assert world.find(order_id).status is Status.COMPLETED
    assert [row["status"] for row in world.captures(order_id)] == ["captured"]
    assert world.stock(order_id) == ["committed"]


def test_an_id_issued_again_never_meets_the_lost_orders_reservation_or_payment(
    world: World,
) -> None:
    order_id = world.order()
    world.handle(order_id)
    with world.pool.connection() as connection:  # the order is lost, and its id issued again
        for table in ("notifications", "payment_attempts", "order_history", "orders"):
            connection.execute(f"DELETE FROM {table}".encode())
        connection.execute(b"SELECT setval('orders_id_seq', %s, false)", (order_id,))
    second_order = world.order()
    assert second_order == order_id
    world.handle(second_order)
    assert world.find(second_order).status is Status.COMPLETED
    assert [row["status"] for row in world.captures(order_id)] == ["captured"] * 2
    assert world.stock(order_id) == ["committed"] * 2, "both hold stock of their own"


def lose_what_came_after_the_acceptance(world: World) -> None:
    """Lose the rows that a failover to a standby far behind loses."""
    with world.pool.connection() as connection:
        connection.execute(b"DELETE FROM notifications")
        connection.execute(b"DELETE FROM payment_attempts")
        connection.execute(b"DELETE FROM processed_messages")
        connection.execute(b"DELETE FROM order_history WHERE version > 1")
        connection.execute(
            b"UPDATE orders SET status = 'Pending', version = 1, reservation = 'none',"
            b" reservation_key = NULL, completed_at = NULL"
        )


def test_a_capture_that_a_failover_lost_is_paid_back_when_the_order_is_cancelled(
    world: World,
) -> None:
    order_id = world.order()
    world.handle(order_id)
    lose_what_came_after_the_acceptance(world)
    assert '"status":"Cancelled"' in answer(world.cancel(order_id))[1]
    world.handle(order_id, kind=events.CANCELLED)
    order = world.find(order_id)
    assert (order.status, order.status_reason, order.refunded) == (
        Status.REFUNDED, "CancelledByCustomer", TOTAL,
    )  # fmt: skip
    assert world.refunds(order_id) == [(TOTAL, "refunded")]
    assert (world.stock(order_id), world.reservation(order_id)) == (["returned"], "returned")
    assert [row[:3] for row in world.history(order_id)[1:]] == [
        ("Pending", "Cancelled", "CancelledByCustomer"),
        ("Cancelled", "Refunding", "CaptureRecovered"),
        ("Refunding", "Refunded", "CancelledByCustomer"),
    ]
    attempts = "SELECT kind, outcome FROM payment_attempts WHERE order_id = %s ORDER BY kind"
    assert world.rows(attempts, order_id) == [("capture", "approved"), ("refund", "approved")]


def test_a_capture_that_arrives_after_a_person_called_it_declined_is_paid_back(
    world: World,
) -> None:
    order_id = world.order()
    world.payment.faults(errorRatio=1)
    with pytest.raises(Transient):
        world.handle(order_id)
    world.payment.faults()
    world.cancel(order_id)
    attempt = call_declined(world, order_id)
    assert world.find(order_id).status is Status.CANCELLED
    world.fulfilment._ports.payment.capture(attempt, order_id, TOTAL, "card")
    world.handle(order_id, kind=events.CANCELLED)
    order = world.find(order_id)
    assert (order.status, order.refunded) == (Status.REFUNDED, TOTAL)
    assert world.refunds(order_id) == [(TOTAL, "refunded")]
    assert (world.stock(order_id), world.reservation(order_id)) == (["released"], "released")
    attempts = "SELECT kind, outcome, reason FROM payment_attempts WHERE order_id = %s ORDER BY 1"
    assert world.rows(attempts, order_id) == [
        ("capture", "approved", None), ("refund", "approved", None),
    ]  # fmt: skip


def call_declined(world: World, order_id: int) -> str:
    """Settle a capture as `orders payments resolve --declined` does; return the attempt's id."""
    work = world.progress.load(order_id, str(uuid.uuid4()))
    assert work is not None
    assert work.attempt_id is not None
    attempt = Attempt(work.attempt_id, AttemptKind.CAPTURE, TOTAL, AttemptOutcome.UNKNOWN)
    resolution = resolve(work, attempt, LearnedOutcome.DECLINED)
    progress = Progress(world.pool, "operator:ada")
    progress.advance(work, resolution.change, resolution.step, context.accept("test", None)[0])
    return str(attempt.id)


def test_with_payment_out_a_cancelled_order_gives_its_stock_back_and_asks_later(
    world: World,
) -> None:
    order_id = world.order()
    world.handle(order_id)
    lose_what_came_after_the_acceptance(world)
    world.cancel(order_id)
    world.payment.faults(errorRatio=1)
    with pytest.raises(Transient):
        world.handle(order_id, kind=events.CANCELLED)
    assert (world.stock(order_id), world.find(order_id).status) == (
        ["returned"], Status.CANCELLED,
    )  # fmt: skip
    world.payment.faults()
    world.handle(order_id, kind=events.CANCELLED)
    assert world.find(order_id).status is Status.REFUNDED


def test_payment_is_asked_once_about_a_cancelled_order_and_never_about_a_completed_one(
    world: World,
) -> None:
    attempts: list[str] = []

    class Counting(Payment):
        def find(self, attempt: str, *about: Any) -> Any:
            attempts.append(attempt)
            return super().find(attempt, *about)

    cancelled, completed = world.order(), world.order()
    world.replace(payment=lambda payment: Counting(payment._upstream))
    world.cancel(cancelled)
    for order_id in (cancelled, completed) * 2:
        world.handle(order_id)
    assert world.find(completed).status is Status.COMPLETED
    assert len(attempts) == 1


def test_an_order_of_which_one_refund_is_made_and_one_is_not_still_has_one_pending(
    world: World,
) -> None:
    order_id = world.order()
    world.handle(order_id)
    requests = refund_requests_on(world.pool)
    for amount in (Decimal(5), Decimal(7)):
        requests.add(RefundCommand(order_id, amount, "user:1"), context.accept("test", None)[0])
    assert world.find(order_id).refund_pending
    world.changed.clear()
    world.replace(payment=lambda payment: DecliningParts(payment._upstream))
    world.handle(order_id, kind=events.REFUND_DUE)
    pending = {order.version: order.refund_pending for order in world.changed}
    assert pending == {6: True, 7: True, 8: False}
    assert not world.find(order_id).refund_pending


class DecliningParts(Payment):
    """Payment that declines refunds of 5.00."""

    def refund(
        self, attempt_id: str, order_id: int, amount: Decimal, *, capture_id: str | None = None
    ) -> Refunded | Declined:
        if amount == Decimal(5):
            return Declined(attempt_id, order_id, amount)
        return super().refund(attempt_id, order_id, amount, capture_id=capture_id)


def test_a_declined_refund_still_needs_a_person_after_a_later_one_was_made(world: World) -> None:
    order_id = world.order()
    world.handle(order_id)
    requests = refund_requests_on(world.pool)
    for amount in (Decimal(5), Decimal(7)):
        requests.add(RefundCommand(order_id, amount, "user:1"), context.accept("test", None)[0])
    world.cancel(order_id)
    world.replace(payment=lambda payment: DecliningParts(payment._upstream))
    world.handle(order_id, kind=events.REFUND_DUE)
    order = world.find(order_id)
    assert (order.status, order.status_reason, order.refunded) == (
        Status.REFUNDING, "RefundDeclined", Decimal(7),
    )  # fmt: skip
    assert [amount for amount, _ in world.refunds(order_id)] == [7], "what is left is not tried"
