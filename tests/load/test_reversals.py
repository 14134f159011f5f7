"""Cancellations and refunds: what went right is not blamed, each way to go wrong is found."""

from decimal import Decimal

import pytest

from load.evidence import CHARGED, MONEY, OVERPAID, STOCKED, UNITS, books, broken, order, purchase
from loadtest.books import Payment, Reservation
from loadtest.evidence import Evidence
from loadtest.outcome import figures
from loadtest.purchase import Cancellation, Refund
from loadtest.reversals import unmade

FINAL = "an end that a customer saw is final"
TRUTH = "a cancellation was answered truly"
PROMISED = "each refund that was accepted is made, no other"
UNASKED = "nothing is cancelled that nobody cancelled"


def captured(amount: str = "19.90") -> Payment:
    return Payment(1, "capture", Decimal(amount), "captured")


def paid_back(amount: str = "19.90") -> Payment:
    return Payment(1, "refund", Decimal(amount), "refunded")


def cancelled(**fields: object) -> Evidence:
    """Return a completed order that was cancelled, announced and refunded."""
    answer = Cancellation(**({"status": 202, "order_status": "Refunding"} | fields))  # type: ignore[arg-type]
    evidence = Evidence(
        [purchase(1, cancellations=[answer])],
        books(order(1, status="Refunded", refunded=Decimal("19.90"))),
    )
    evidence.books.payments = [captured(), paid_back()]
    evidence.books.reservations = [Reservation(1, 101, 1, "returned")]
    return evidence


def partly(*refunds: Refund, refunded: str, paid: tuple[str, ...]) -> Evidence:
    """Return a completed order of which support paid parts back."""
    evidence = Evidence(
        [purchase(1, refunds=list(refunds))], books(order(1, refunded=Decimal(refunded)))
    )
    evidence.books.payments = [captured(), *map(paid_back, paid)]
    return evidence


def refund(key: str, cents: int, status: int = 202) -> Refund:
    return Refund(key=key, cents=cents, status=status)


def ended(status: str, cancellation: Cancellation) -> Evidence:
    """Return an order that ended without a payment, and how its cancellation was answered."""
    return Evidence(
        [purchase(1, ended=status, cancellations=[cancellation])], books(order(1, status=status))
    )


def test_a_completed_order_may_be_cancelled_by_who_asks_and_is_paid_back_once() -> None:
    assert broken(cancelled()) == set()


def test_a_cancelled_order_that_was_completed_before_is_one_whose_end_changed() -> None:
    evidence = Evidence(
        [purchase(1, ended="Cancelled", cancellations=[Cancellation()])], books(order(1))
    )
    assert broken(evidence) == {FINAL}


def test_a_refunded_order_that_nobody_cancelled_is_found() -> None:
    evidence = cancelled()
    evidence.purchases[0].cancellations.clear()
    assert broken(evidence) == {UNASKED, FINAL}


def test_money_of_a_refunded_order_that_did_not_go_back_is_found() -> None:
    evidence = cancelled()
    evidence.books.payments = [captured()]
    assert broken(evidence) == {CHARGED, MONEY}


def test_a_second_refund_of_the_same_money_is_found() -> None:
    evidence = cancelled()
    evidence.books.payments = [captured(), paid_back(), paid_back()]
    assert broken(evidence) == {CHARGED, MONEY, OVERPAID}


def test_stock_of_a_refunded_order_that_stays_taken_is_found() -> None:
    evidence = cancelled()
    evidence.books.reservations = [Reservation(1, 101, 1, "committed")]
    assert broken(evidence) == {STOCKED}


def test_a_reservation_that_is_left_of_a_cancelled_order_is_found() -> None:
    evidence = ended("Cancelled", Cancellation(status=202, order_status="Cancelled"))
    evidence.books.reservations = [Reservation(1, 101, 1, "reserved")]
    assert broken(evidence) == {STOCKED, UNITS}


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (Cancellation(status=202, order_status="Cancelled"), "Failed"),
        (Cancellation(status=202, order_status="Charging"), "Failed"),
        (Cancellation(status=200, order_status="Cancelled"), "Failed"),
        (Cancellation(status=200, order_status="Completed"), "Failed"),
        (Cancellation(status=409, reason="Failed"), "Cancelled"),
        (Cancellation(status=409, reason="WindowClosed"), "Cancelled"),
    ],
)
def test_an_answer_to_a_cancellation_that_was_not_true_is_found(
    answer: Cancellation, end: str
) -> None:
    assert broken(ended(end, answer)) == {TRUTH}


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (Cancellation(status=202, order_status="Cancelled"), "Cancelled"),
        (Cancellation(status=202, order_status="Charging"), "Cancelled"),
        (Cancellation(status=409, reason="Failed"), "Failed"),
        (Cancellation(status=0), "Failed"),
        (Cancellation(status=0), "Cancelled"),
    ],
)
def test_an_answer_to_a_cancellation_that_was_true_or_did_not_come_is_no_fault(
    answer: Cancellation, end: str
) -> None:
    assert broken(ended(end, answer)) == set()


def test_a_cancellation_that_was_accepted_and_forgotten_is_found() -> None:
    answer = Cancellation(status=202, order_status="Charging")
    evidence = Evidence([purchase(1, cancellations=[answer])], books(order(1)))
    assert broken(evidence) == {TRUTH}


def test_refunds_in_parts_leave_an_order_completed_and_balance() -> None:
    refunds = refund("a", 500), refund("a", 500), refund("b", 290), refund("c", 1500, 409)
    evidence = partly(*refunds, refunded="7.90", paid=("5.00", "2.90"))
    assert broken(evidence) == set()
    counts = figures(evidence.purchases, evidence.books)
    assert counts["orders.partly_refunded"] == 1
    assert "completion.p99_s" not in counts, "its last change was not its first end"


def test_a_refund_that_nobody_saw_answered_may_have_been_made_or_not() -> None:
    unknown = refund("a", 500, 0)
    assert broken(partly(unknown, refunded="5.00", paid=("5.00",))) == set()
    assert broken(partly(unknown, refunded="0", paid=())) == set()


def test_a_refund_that_was_accepted_and_never_made_is_found_and_waited_for() -> None:
    evidence = partly(refund("a", 500), refunded="0", paid=())
    assert broken(evidence) == {PROMISED}
    assert list(unmade(evidence)) == ["order 1 is not paid back yet"]


def test_a_refund_made_twice_is_found() -> None:
    evidence = partly(refund("a", 500), refunded="5.00", paid=("5.00", "5.00"))
    assert broken(evidence) == {CHARGED, MONEY}


def test_a_refund_that_support_was_refused_and_that_was_made_is_found() -> None:
    evidence = partly(refund("a", 500, 409), refunded="5.00", paid=("5.00",))
    assert broken(evidence) == {PROMISED}


def test_refunds_beyond_the_capture_are_found() -> None:
    evidence = partly(
        refund("a", 1500), refund("b", 1500), refunded="30.00", paid=("15.00", "15.00")
    )
    assert broken(evidence) == {OVERPAID, PROMISED}


def test_a_refund_of_an_order_that_was_never_charged_is_found() -> None:
    evidence = ended("Cancelled", Cancellation(status=202, order_status="Cancelled"))
    evidence.books.payments = [paid_back("1.00")]
    assert broken(evidence) == {CHARGED, MONEY, OVERPAID}
