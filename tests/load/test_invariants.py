"""Each way in which a run can be wrong is found, and a run that is right is not blamed."""

from decimal import Decimal

import pytest

from load.evidence import CHARGED, MONEY, OVERPAID, STOCKED, UNITS, books, broken, order, purchase
from loadtest.books import Payment, Reservation
from loadtest.evidence import Evidence
from loadtest.invariants import InvariantCheck, check
from loadtest.purchase import Cancellation


def two() -> Evidence:
    return Evidence([purchase(1), purchase(2)], books(order(1), order(2)))


def test_a_run_in_which_all_is_well_breaks_nothing() -> None:
    declined = order(3, status="Failed", payment_method="decline-run-3")
    purchase_refused = purchase(4, order_ids=[], ended=None, refused=400)
    unanswered = purchase(5, order_ids=[], ended=None)
    evidence = Evidence(
        [purchase(1), purchase(3, declined=True, ended="Failed"), purchase_refused, unanswered],
        books(order(1), declined, order(5)),
        {101: 2},
    )
    assert check(evidence) == [
        InvariantCheck(finding.invariant, 0) for finding in check(evidence)
    ], "an order whose 202 got lost on the way is no fault"


def test_an_accepted_order_that_is_not_there_is_lost() -> None:
    evidence = two()
    del evidence.books.orders[2]
    assert "no accepted order is lost" in broken(evidence)


def test_an_order_that_stands_still_has_not_ended() -> None:
    evidence = Evidence([purchase(1, ended="Charging")], books(order(1, status="Charging")))
    assert broken(evidence) == {"every order has ended"}


def test_one_purchase_answered_with_two_orders_is_doubled() -> None:
    evidence = Evidence([purchase(1, order_ids=[1, 2])], books(order(1), order(2, user_id=1001)))
    assert "no purchase became two orders" in broken(evidence)


def test_a_second_order_that_the_customer_was_never_told_of_is_doubled_too() -> None:
    twin = order(2, user_id=1001, payment_method="card-run-1")
    assert broken(Evidence([purchase(1)], books(order(1), twin))) == {
        "no purchase became two orders"
    }


@pytest.mark.parametrize(
    "wrong", [{"user_id": 9}, {"product_id": 9}, {"quantity": 9}, {"total": Decimal("19.91")}]
)
def test_an_order_that_is_not_what_was_bought_is_found(wrong: dict[str, object]) -> None:
    assert "an order is what was bought" in broken(
        Evidence([purchase(1)], books(order(1, **wrong)))
    )


def test_an_order_of_a_customer_who_was_refused_is_found() -> None:
    evidence = Evidence([purchase(1, order_ids=[], ended=None, refused=400)], books(order(1)))
    assert broken(evidence) == {"nobody has an order they were refused or did not place"}


def test_an_order_that_nobody_placed_is_found() -> None:
    evidence = Evidence([purchase(1)], books(order(1), order(2)))
    assert broken(evidence) == {"nobody has an order they were refused or did not place"}


def test_an_end_that_changes_after_a_customer_saw_it_is_found() -> None:
    evidence = Evidence([purchase(1, ended="Completed")], books(order(1, status="Failed")))
    assert broken(evidence) == {"an end that a customer saw is final"}


def test_charging_an_order_twice_is_found() -> None:
    evidence = two()
    assert evidence.books.payments is not None
    evidence.books.payments.append(Payment(1, "capture", Decimal("19.90"), "captured"))
    assert broken(evidence) == {CHARGED, MONEY}


def test_charging_a_failed_order_is_found() -> None:
    evidence = Evidence([purchase(1, ended="Failed")], books(order(1, status="Failed")))
    evidence.books.payments = [Payment(1, "capture", Decimal("19.90"), "captured")]
    assert broken(evidence) == {CHARGED, MONEY}


def test_completing_an_order_without_a_charge_is_found() -> None:
    evidence = two()
    evidence.books.payments = evidence.books.payments[:1] if evidence.books.payments else []
    assert broken(evidence) == {CHARGED, MONEY}


def test_charging_another_amount_is_found() -> None:
    evidence = Evidence([purchase(1)], books(order(1)))
    evidence.books.payments = [Payment(1, "capture", Decimal("1.99"), "captured")]
    assert broken(evidence) == {CHARGED, MONEY}


def test_a_reservation_released_before_it_was_made_holds_nothing() -> None:
    bought = purchase(1, ended="Cancelled", cancellations=[Cancellation()])
    evidence = Evidence([bought], books(order(1, status="Cancelled")))
    evidence.books.reservations = [Reservation(1, 0, 0, "released")]
    assert broken(evidence) == set()


def test_stock_that_a_failed_order_still_holds_is_found() -> None:
    evidence = Evidence([purchase(1, ended="Failed")], books(order(1, status="Failed")))
    evidence.books.reservations = [Reservation(1, 101, 1, "reserved")]
    assert broken(evidence) == {STOCKED, UNITS}


@pytest.mark.parametrize("wrong", [Reservation(1, 102, 1, ""), Reservation(1, 101, 2, "")])
def test_stock_of_another_product_or_quantity_is_found(wrong: Reservation) -> None:
    evidence = Evidence([purchase(1)], books(order(1)))
    wrong.status = "committed"
    evidence.books.reservations = [wrong]
    assert broken(evidence) == {STOCKED}


def test_a_charge_and_stock_of_an_order_that_nobody_knows_are_found_where_nobody_else_buys() -> (
    None
):
    evidence = Evidence([purchase(1)], books(order(1)))
    assert evidence.books.payments is not None
    assert evidence.books.reservations is not None
    evidence.books.payments.append(Payment(9, "capture", Decimal("19.90"), "captured"))
    evidence.books.reservations.append(Reservation(9, 101, 1, "reserved"))
    assert broken(evidence) == {CHARGED, MONEY, STOCKED, UNITS}
    evidence.books.alone = False
    assert broken(evidence) == set()


def test_a_declined_purchase_that_is_completed_is_found() -> None:
    evidence = Evidence(
        [purchase(1, declined=True)], books(order(1, payment_method="decline-run-1"))
    )
    assert broken(evidence) == {"no declined order is completed"}


def test_selling_more_than_there_was_is_found_even_if_inventory_knows_nothing_of_it() -> None:
    evidence = Evidence([purchase(1), purchase(2)], books(order(1), order(2)), {101: 1})
    assert broken(evidence) == {"nothing is oversold"}
    evidence.books.reservations = None
    assert broken(evidence) == {"nothing is oversold"}


def test_what_cannot_be_seen_is_said_to_be_unchecked_and_not_to_hold() -> None:
    evidence = two()
    evidence.books.payments = evidence.books.reservations = None
    evidence.books.whole = False
    unchecked = {finding.invariant for finding in check(evidence) if not finding.checked}
    assert unchecked == {
        CHARGED,
        OVERPAID,
        MONEY,
        STOCKED,
        UNITS,
        "no declined order is completed",
        "nobody has an order they were refused or did not place",
    }


def test_a_finding_shows_a_few_examples_and_counts_them_all() -> None:
    purchases = [purchase(number) for number in range(1, 101)]
    [violated] = [finding for finding in check(Evidence(purchases, books())) if not finding.holds]
    assert violated.broken == 100
    assert violated.examples[0] == "order 1 was accepted but does not exist"
    assert len(violated.examples) == 5
