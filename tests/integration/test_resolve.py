"""`orders payments resolve`: an attempt settled by a person moves its order as the worker would."""

import uuid
from decimal import Decimal

import msgspec
import pytest

from integration.shop import TOTAL, Shop

BECAUSE = ("--because", "Payment's support said so, ticket 17", "--as", "ada")


def resolve(shop: Shop, attempt: str, *words: str) -> tuple[int, str, str]:
    return shop.command("payments", "resolve", attempt, *words, *BECAUSE)


def state(shop: Shop, order_id: int) -> tuple[str, str | None]:
    [row] = shop.run("SELECT status, status_reason FROM orders WHERE id = %s", order_id)
    return row[0], row[1]


def charging_order(shop: Shop, *, sent: bool = False, cancelled: bool = False) -> tuple[int, str]:
    order_id = shop.order("Charging", reservation="held")
    attempt = shop.attempt(order_id, "unknown", sent=sent)
    if cancelled:
        shop.run("UPDATE orders SET cancel_requested = true, cancelled_by = 'customer'")
    return order_id, attempt


def refunding_order(shop: Shop, outcome: str) -> tuple[int, str]:
    """Plant a cancelled order whose refund Payment declined, or of which nothing is known."""
    order_id = shop.order("Refunding")
    shop.attempt(order_id)
    attempt = shop.attempt(order_id, outcome, kind="refund", sent=False)
    declined = outcome == "declined"
    shop.run(
        "UPDATE orders SET status_reason = %s, refund_requested = %s WHERE id = %s",
        "RefundDeclined" if declined else None, 0 if declined else TOTAL, order_id,
    )  # fmt: skip
    return order_id, attempt


@pytest.mark.parametrize(
    ("word", "cancelled", "status", "message"),
    [
        ("--captured", False, "Completed", "order.completed.v1"),
        ("--declined", False, "Failed", "order.failed.v1"),
        ("--captured", True, "Refunding", "order.refund_due.v1"),
        ("--declined", True, "Cancelled", "order.cancelled.v1"),
    ],
)
def test_a_capture_that_a_person_knows_the_outcome_of_moves_its_order(
    shop: Shop, word: str, cancelled: object, status: str, message: str
) -> None:
    order_id, attempt = charging_order(shop, cancelled=bool(cancelled))
    code, output, err = resolve(shop, attempt, word, "--yes")
    assert code == 0, err
    assert "Payment's ledger does not have the attempt" in output
    assert f"order {order_id} is {status}" in output
    assert state(shop, order_id)[0] == status
    outcome = "approved" if word == "--captured" else "declined"
    assert shop.run("SELECT outcome FROM payment_attempts") == [(outcome,)]
    assert shop.run("SELECT type, correlation_id FROM outbox") == [(message, "corr-1")]
    [history] = shop.run("SELECT from_status, to_status, actor FROM order_history")
    assert history == ("Charging", status, "operator:ada")
    [row] = shop.run("SELECT actor, action, subject, because, detail FROM operator_actions")
    assert row[:4] == (
        "operator:ada", f"payments resolve {word}", f"order {order_id}", BECAUSE[1],
    )  # fmt: skip
    assert row[4] == {
        "attempt": attempt, "before": "unknown", "orderVersion": 4, "paymentSaid": None,
    }  # fmt: skip
    assert f"payments resolve {word}: “{BECAUSE[1]}”" in shop.command("trace", str(order_id))[1]


def test_without_a_yes_nothing_changes(shop: Shop) -> None:
    order_id, attempt = charging_order(shop)
    code, output, _ = resolve(shop, attempt, "--captured")
    assert code == 0
    assert f"order {order_id}: Charging → Completed (order.completed.v1)" in output
    assert "nothing was changed" in output
    assert state(shop, order_id)[0] == "Charging"
    assert shop.run("SELECT count(*) FROM operator_actions") == [(0,)]


@pytest.mark.parametrize("outcome", ["declined", "unknown"])
def test_a_refund_that_was_made_after_all_ends_the_order(shop: Shop, outcome: str) -> None:
    order_id, attempt = refunding_order(shop, outcome)
    code, _, err = resolve(shop, attempt, "--refunded", "--yes")
    assert code == 0, err
    assert state(shop, order_id)[0] == "Refunded"
    assert shop.run("SELECT refunded, refund_requested FROM orders") == [(TOTAL, TOTAL)]
    assert shop.run("SELECT type FROM outbox") == [("order.refunded.v1",)]
    assert shop.command("stuck")[1].startswith("no order")


def test_a_refund_that_will_not_be_made_needs_a_person(shop: Shop) -> None:
    order_id, attempt = refunding_order(shop, "unknown")
    assert resolve(shop, attempt, "--declined", "--yes")[0] == 0
    assert state(shop, order_id) == ("Refunding", "RefundDeclined")
    assert str(order_id) in shop.command("stuck")[1]


def test_a_partial_refund_leaves_the_order_completed(shop: Shop) -> None:
    order_id = shop.sold()
    attempt = shop.attempt(order_id, "unknown", kind="refund", amount=Decimal(5), sent=False)
    shop.run("UPDATE orders SET refund_requested = 5")
    assert resolve(shop, attempt, "--refunded", "--yes")[0] == 0
    assert state(shop, order_id)[0] == "Completed"
    assert shop.run("SELECT refunded FROM orders") == [(Decimal(5),)]


def partly_declined(shop: Shop) -> tuple[int, str]:
    """Plant a completed order of which support wanted to pay a part back, and Payment declined."""
    order_id = shop.sold()
    attempt = shop.attempt(order_id, "declined", kind="refund", amount=Decimal(5), sent=False)
    shop.run("UPDATE payment_attempts SET reason = 'RefundDeclined' WHERE kind = 'refund'")
    return order_id, attempt


def test_a_declined_part_is_listed_until_a_person_says_that_it_will_not_be_made(
    shop: Shop,
) -> None:
    order_id, attempt = partly_declined(shop)
    [listed] = msgspec.json.decode(shop.command("stuck", "--json")[1])
    assert (listed["id"], listed["status"], listed["reason"]) == (
        order_id, "Completed", "RefundDeclined",
    )  # fmt: skip
    assert f"refund {attempt} declined" in shop.command("stuck")[1]
    code, _, err = resolve(shop, attempt, "--declined", "--yes")
    assert code == 0, err
    assert state(shop, order_id)[0] == "Completed"
    assert shop.run("SELECT reason, actor FROM order_history") == [
        ("RefundDropped", "operator:ada")
    ]
    assert shop.command("stuck")[1].startswith("no order")
    assert resolve(shop, attempt, "--declined", "--yes")[0] == 0, "said twice it is the same"


def test_a_declined_part_that_was_paid_back_after_all_is_listed_no_more(shop: Shop) -> None:
    order_id, attempt = partly_declined(shop)
    code, _, err = resolve(shop, attempt, "--refunded", "--yes")
    assert code == 0, err
    assert state(shop, order_id)[0] == "Completed"
    assert shop.run("SELECT refunded, refund_requested FROM orders") == [(5, 5)]
    assert shop.command("stuck")[1].startswith("no order")


def test_a_declined_refund_of_a_cancelled_order_is_settled_by_money_only(shop: Shop) -> None:
    order_id, attempt = refunding_order(shop, "declined")
    code, _, err = resolve(shop, attempt, "--declined", "--yes")
    assert code == 1
    assert "--refunded once the money went back" in err
    assert str(order_id) in shop.command("stuck")[1]


def test_what_payment_contradicts_is_refused_unless_it_is_said(shop: Shop) -> None:
    order_id, attempt = charging_order(shop, sent=True)
    code, output, err = resolve(shop, attempt, "--declined", "--yes")
    assert code == 1
    assert "Payment's ledger: captured 20.00" in output
    assert "ledger says captured, not declined" in err
    assert state(shop, order_id)[0] == "Charging"
    assert resolve(shop, attempt, "--declined", "--against-payment", "--yes")[0] == 0
    assert state(shop, order_id)[0] == "Failed"


def test_a_refund_of_another_amount_is_no_proof_of_this_one(shop: Shop) -> None:
    """A failover lost a partial refund, and the refund of all the money met its key."""
    order_id, attempt = refunding_order(shop, "declined")
    shop.refund(order_id, attempt, Decimal(5))
    code, _, err = resolve(shop, attempt, "--refunded", "--yes")
    assert code == 1
    assert "ledger says refunded 5.00, not refunded 20.00" in err
    assert state(shop, order_id)[0] == "Refunding"


def test_with_payment_out_a_person_can_still_settle(shop: Shop) -> None:
    order_id, attempt = charging_order(shop)
    out_of_reach = {"ORDERS_PAYMENT_URL": "http://127.0.0.1:9"}
    words = ("payments", "resolve", attempt, "--captured", *BECAUSE)
    code, output, err = shop.command(*words, **out_of_reach)
    assert code == 0
    assert "Payment cannot be queried" in err
    assert (
        "nothing was changed: --yes --against-payment settles it without Payment's confirmation"
        in output
    )
    code, _, err = shop.command(*words, "--yes", **out_of_reach)
    assert code == 1
    assert (
        "nothing was changed: --yes --against-payment settles it without Payment's confirmation"
        in err
    )
    assert state(shop, order_id)[0] == "Charging"
    assert shop.command(*words, "--yes", "--against-payment", **out_of_reach)[0] == 0
    assert state(shop, order_id)[0] == "Completed"


@pytest.mark.parametrize("paid_by_payment", [Decimal(0), Decimal(5)])
def test_a_refund_past_payment_is_no_violation_and_a_second_one_is(
    shop: Shop, paid_by_payment: Decimal
) -> None:
    order_id, attempt = refunding_order(shop, "declined")
    shop.run("UPDATE orders SET reservation = 'released'")
    if paid_by_payment:
        shop.refund(order_id, attempt, paid_by_payment)
    assert resolve(shop, attempt, "--refunded", "--against-payment", "--yes")[0] == 0
    assert shop.reconcile() == (0, [])
    assert shop.reconcile("--full") == (0, [])
    shop.refund(order_id, amount=TOTAL)
    assert shop.reconcile() == (2, [(order_id, "refunded_too_much")])


@pytest.mark.parametrize(
    ("outcome", "word", "text"),
    [
        ("approved", "--declined", "the capture is known to be approved"),
        ("unknown", "--refunded", "a capture is --captured or --declined"),
    ],
)
def test_what_leads_nowhere_is_refused(shop: Shop, outcome: str, word: str, text: str) -> None:
    order_id = shop.order("Charging", reservation="held")
    attempt = shop.attempt(order_id, outcome, sent=False)
    code, _, err = resolve(shop, attempt, word, "--yes")
    assert code == 1
    assert text in err
    assert state(shop, order_id)[0] == "Charging"


def test_an_order_that_was_moved_meanwhile_is_not_overwritten_and_leaves_no_row(
    shop: Shop,
) -> None:
    """The statement compares version and status; here the order moves between look and commit."""
    order_id, attempt = charging_order(shop)
    shop.run(
        "CREATE OR REPLACE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RETURN NULL; END $$"
    )
    shop.run("CREATE TRIGGER move BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION move()")
    try:
        code, _, err = resolve(shop, attempt, "--captured", "--yes")
    finally:
        shop.run("DROP TRIGGER move ON orders")
    assert code == 1
    assert "changed meanwhile" in err
    assert state(shop, order_id)[0] == "Charging"
    assert shop.run("SELECT count(*) FROM operator_actions") == [(0,)]
    assert shop.run("SELECT count(*) FROM outbox") == [(0,)]


def test_the_command_says_what_it_needs(shop: Shop) -> None:
    attempt = str(uuid.uuid4())
    code, _, err = resolve(shop, attempt, "--captured")
    assert code == 1
    assert f"there is no payment attempt {attempt}" in err
    for words in (
        ("resolve", attempt, "--captured"),
        ("resolve", attempt, *BECAUSE),
        ("resolve", attempt, "--captured", "--refunded", *BECAUSE),
        ("resolve", "17", "--captured", *BECAUSE),
    ):
        assert shop.command("payments", *words)[0] == 2
    code, output, _ = shop.command("payments", "resolve", "--help")
    assert code == 0
    assert "without --yes only" in output
