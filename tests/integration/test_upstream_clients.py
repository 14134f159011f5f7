"""Inventory and Payment clients on the real simulators, faults included."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import msgspec
import pytest

from machine_time import machine_time_s
from orders.errors import Permanent, Transient
from orders.upstream.http import Upstream
from orders.upstream.inventory import (
    AdmissionCheck,
    Availability,
    Inventory,
    OutOfStock,
    ReservationStatus,
    StockAnswer,
    Target,
)
from orders.upstream.payment import Captured, Declined, Payment, Refunded
from orders.upstream.policy import UpstreamPolicy
from upstreams.process import Control

# The defaults with the waits taken out.
POLICY = UpstreamPolicy(
    backoff_base_s=0.01, backoff_jitter_s=0, try_timeout_s=0.5, breaker_failures=50, concurrency=64
)
AMOUNT = Decimal("19.90")
BUDGET_S = 0.15


@pytest.fixture
def inventory(stock: Control) -> Iterator[Inventory]:
    with contextlib.closing(Upstream("inventory", stock.url, POLICY)) as upstream:
        yield Inventory(upstream)


@pytest.fixture
def payment(till: Control) -> Iterator[Payment]:
    with contextlib.closing(Upstream("payment", till.url, POLICY)) as upstream:
        yield Payment(upstream)


def of(order_id: int) -> Target:
    return Target(f"key-{order_id}", order_id)


def test_stock_is_asked_for_reserved_committed_released_and_returned(
    inventory: Inventory, stock: Control
) -> None:
    assert inventory.availability(5, 2) == Availability(5, 1_000_000, True)
    assert {inventory.reserve(of(1), 5, 2) for _ in range(2)} == {ReservationStatus.RESERVED}
    assert inventory.reserve(of(2), 5, 2) is ReservationStatus.RESERVED
    assert {inventory.commit(of(1)) for _ in range(2)} == {ReservationStatus.COMMITTED}
    assert {inventory.release(of(2)) for _ in range(2)} == {ReservationStatus.RELEASED}
    assert inventory.reserve(of(1), 5, 2) is ReservationStatus.COMMITTED
    assert {inventory.give_back(of(1)) for _ in range(2)} == {ReservationStatus.RETURNED}
    assert [row["status"] for row in stock.ledger()] == ["returned", "released"]
    assert inventory.availability(5, 2) == Availability(5, 1_000_000, True)


def test_out_of_stock_is_an_answer_and_not_a_failure(inventory: Inventory) -> None:
    for order_id in range(1, 60):
        assert inventory.reserve(of(order_id), 999_999, 1) == OutOfStock(order_id)
    assert inventory.reserve(of(100), 5, 1) is ReservationStatus.RESERVED


def test_a_reservation_that_comes_after_its_release_holds_nothing(
    inventory: Inventory, stock: Control
) -> None:
    assert inventory.release(of(1)) is ReservationStatus.RELEASED
    assert inventory.reserve(of(1), 5, 2) is ReservationStatus.RELEASED
    assert stock.send("GET", "/availability/5")[1]["available"] == 1_000_000


def test_how_a_reservation_stands_is_told_by_what_contradicts_it(inventory: Inventory) -> None:
    inventory.reserve(of(1), 5, 2)
    assert inventory.give_back(of(1)) is ReservationStatus.RESERVED
    inventory.release(of(1))
    assert inventory.commit(of(1)) is ReservationStatus.RELEASED
    inventory.reserve(of(2), 5, 2)
    inventory.commit(of(2))
    assert inventory.release(of(2)) is ReservationStatus.COMMITTED
    assert inventory.commit(of(9)) is ReservationStatus.UNKNOWN


def test_another_reservation_under_the_same_key_is_permanent(inventory: Inventory) -> None:
    inventory.reserve(of(1), 5, 2)
    with pytest.raises(Permanent) as conflict:
        inventory.reserve(of(1), 5, 3)
    assert conflict.value.reason == "upstream_conflict"
    with pytest.raises(Permanent, match="conflict"):
        inventory.commit(Target("key-1", 2))


def test_fifty_reservations_at_once_never_oversell_even_with_lost_replies(
    inventory: Inventory, stock: Control
) -> None:
    stock.stock(7, 10)
    stock.faults(dropReplyRatio=0.3)

    def reserve(order_id: int) -> object:
        with contextlib.suppress(Transient):
            return inventory.reserve(of(order_id), 7, 1)
        return None

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(reserve, range(1, 51)))
    assert sum(row["quantity"] for row in stock.ledger()) == 10
    assert answers.count(ReservationStatus.RESERVED) <= 10


def test_a_payment_is_captured_found_and_refunded(payment: Payment, till: Control) -> None:
    captured = Captured("a1", 1, AMOUNT)
    assert payment.find("a1", 1, AMOUNT) is None
    assert payment.capture("a1", 1, AMOUNT, "tok") == captured
    assert payment.find("a1", 1, AMOUNT) == captured
    assert payment.refund("r1", 1, AMOUNT, capture_id="a1") == Refunded("r1", 1, AMOUNT)
    assert payment.refund("r2", 1, AMOUNT) == Refunded("r2", 1, AMOUNT)
    more = payment.refund("r3", 1, AMOUNT, capture_id="a1")
    assert more == Declined("r3", 1, AMOUNT), "more than was captured"
    assert [row["amount"] for row in till.ledger()] == [AMOUNT] * 3


def test_a_decline_is_an_answer_and_stays_one(payment: Payment, till: Control) -> None:
    declined = Declined("a1", 1, AMOUNT)
    assert payment.capture("a1", 1, AMOUNT, "decline-me") == declined
    assert payment.find("a1", 1, AMOUNT) == declined
    assert till.ledger()[0]["status"] == "declined"


def test_one_attempt_for_two_amounts_is_permanent(payment: Payment) -> None:
    payment.capture("a1", 1, AMOUNT, "tok")
    with pytest.raises(Permanent) as conflict:
        payment.capture("a1", 1, AMOUNT + 1, "tok")
    assert conflict.value.reason == "upstream_conflict"


def test_what_is_found_is_the_capture_that_was_asked_for(payment: Payment) -> None:
    payment.capture("a1", 1, AMOUNT, "tok")
    for order_id, amount in ((2, AMOUNT), (1, AMOUNT + 1)):
        with pytest.raises(Transient, match="another attempt"):
            payment.find("a1", order_id, amount)


def test_a_404_of_somebody_else_is_no_answer_about_an_attempt_or_a_reservation(
    payment: Payment, inventory: Inventory, till: Control, stock: Control
) -> None:
    till.faults(errorRatio=1, errorStatus=404)
    stock.faults(errorRatio=1, errorStatus=404)
    with pytest.raises(Transient, match="404"):
        payment.find("a1", 1, AMOUNT)
    with pytest.raises(Transient, match="404"):
        inventory.release(of(1))
    with pytest.raises(Transient, match="404"):
        inventory.reserve(of(1), 5, 1)
    with pytest.raises(Transient, match="404"):
        payment.capture("a1", 1, AMOUNT, "tok")


def test_a_lost_reply_and_a_retry_make_one_capture(payment: Payment, till: Control) -> None:
    till.faults(dropReplyRatio=1)
    with pytest.raises(Transient, match="failed after 4 tries: connection_error"):
        payment.capture("a1", 1, AMOUNT, "tok")
    till.faults()
    assert payment.capture("a1", 1, AMOUNT, "tok") == Captured("a1", 1, AMOUNT)
    (row,) = till.ledger()
    assert (row["status"], row["calls"]) == ("captured", 5)


def test_a_hanging_upstream_is_transient_and_charges_nothing(till: Control) -> None:
    till.faults(hangRatio=1)
    policy = msgspec.structs.replace(POLICY, try_timeout_s=0.1)
    with (
        contextlib.closing(Upstream("payment", till.url, policy)) as upstream,
        pytest.raises(Transient, match="failed after 4 tries: timeout"),
    ):
        Payment(upstream).capture("a1", 1, AMOUNT, "tok")
    assert till.ledger() == []


@pytest.mark.parametrize("code", [500, 503, 429, 408])
def test_an_upstream_that_fails_half_of_the_time_is_reached(
    payment: Payment, till: Control, code: int
) -> None:
    till.faults(errorRatio=0.3, errorStatus=code)
    captures = 0
    for number in range(20):
        with contextlib.suppress(Transient):
            captures += isinstance(payment.capture(f"a{number}", 1, AMOUNT, "tok"), Captured)
    assert captures >= 15  # without retries 14 of 20 on average, with them all but 1 in 120
    till.faults()
    assert len(till.ledger()) == captures


def test_refused_credentials_are_no_fault_of_the_order(payment: Payment, till: Control) -> None:
    till.faults(errorRatio=1, errorStatus=401)
    with pytest.raises(Transient, match="status 401"):
        payment.capture("a1", 1, AMOUNT, "tok")


@pytest.fixture
def admission(stock: Control) -> Iterator[AdmissionCheck]:
    policy = UpstreamPolicy().within(BUDGET_S)
    with contextlib.closing(Upstream("inventory", stock.url, policy)) as upstream:
        yield AdmissionCheck(Inventory(upstream).availability, "best-effort")


def test_admission_knows_what_suffices(admission: AdmissionCheck, stock: Control) -> None:
    stock.stock(7, 3)
    assert admission.check(7, 3) is StockAnswer.SUFFICIENT
    assert admission.check(7, 4) is StockAnswer.INSUFFICIENT
    assert admission.check(999_999, 1) is StockAnswer.INSUFFICIENT


@pytest.mark.parametrize("faults", [{"latencyMs": 1000}, {"hangRatio": 1}, {"errorRatio": 1}])
def test_admission_never_fails_an_order_because_inventory_does(
    admission: AdmissionCheck, stock: Control, faults: dict[str, float]
) -> None:
    stock.faults(**faults)
    started_s = machine_time_s()
    for product_id in range(1, 8):  # the sixth and seventh find the breaker open
        assert admission.check(product_id, 1) is StockAnswer.UNKNOWN
    assert machine_time_s() - started_s < 3  # five budgets, and room for a slow machine
