"""`orders reconcile` against PostgreSQL and both simulators: what it finds, what it does not."""

from decimal import Decimal

import msgspec
import pytest

from integration.shop import TOTAL, Shop

CLEAN: tuple[int, list[tuple[int, str]]] = (0, [])


def violations(shop: Shop, *words: str) -> list[tuple[int, str]]:
    """Return the violations of a second run: some count only if they are still there."""
    shop.reconcile(*words)
    return shop.reconcile()[1]


def test_orders_that_all_agree_on_are_clean(shop: Shop) -> None:
    shop.sold()
    failed = shop.order("Failed", reservation="released")
    shop.attempt(failed, "declined")
    shop.units(failed, "release")
    assert shop.reconcile() == CLEAN
    code, output, _ = shop.command("reconcile", "--full")
    assert code == 0
    assert "clean: no violations" in output


def test_what_cannot_be_judged_yet_is_counted(shop: Shop) -> None:
    shop.sold()
    charging = shop.order("Charging", reservation="held", age_s=600)
    shop.attempt(charging, "unknown")
    shop.units(charging)
    shop.sold(age_s=0)
    report = msgspec.json.decode(shop.command("reconcile", "--json")[1])
    assert (report["tooYoung"], report["violations"]) == (2, [])
    assert "2 orders are too young to judge or under way" in shop.command("reconcile")[1]


def test_an_order_only_the_ledgers_know_is_lost(shop: Shop) -> None:
    shop.units(4711)
    shop.capture(4712)
    assert shop.reconcile() == (
        2, [(4711, "lost"), (4712, "charged_for_nothing"), (4712, "lost")],
    )  # fmt: skip


def test_a_second_capture_of_an_order_is_found_and_a_refund_of_it_mends_that(shop: Shop) -> None:
    order_id = shop.sold()
    assert shop.reconcile() == CLEAN
    shop.capture(order_id)
    assert shop.reconcile() == (2, [(order_id, "charged_twice")])
    shop.refund(order_id)
    assert shop.reconcile() == CLEAN


@pytest.mark.parametrize("status", ["Failed", "Cancelled"])
def test_a_capture_for_an_order_that_ended_unpaid_is_found(shop: Shop, status: str) -> None:
    order_id = shop.order(status, reservation="none")
    shop.attempt(order_id, "declined", sent=False)
    shop.capture(order_id)
    assert shop.reconcile() == (2, [(order_id, "charged_for_nothing")])


def test_a_capture_whose_order_does_not_get_any_further_is_found(shop: Shop) -> None:
    order_id = shop.order("Charging", reservation="held", age_s=3600)
    attempt = shop.attempt(order_id, "unknown")
    shop.units(order_id)
    shop.payment.send("GET", f"/payments/{attempt}")
    assert violations(shop) == [], "the capture is younger than the deadline"
    shop.run("UPDATE reconciliation_cases SET seen_at = now() - interval '1 hour'")
    assert shop.reconcile() == CLEAN


def test_a_completed_order_without_a_capture_is_found(shop: Shop) -> None:
    order_id = shop.order()
    shop.attempt(order_id, sent=False)
    shop.units(order_id, "commit")
    assert shop.reconcile() == (2, [(order_id, "completed_not_captured")])


def test_more_refunded_than_captured_is_found(shop: Shop) -> None:
    order_id = shop.sold()
    shop.refund(order_id, amount=TOTAL + 1)
    assert shop.reconcile() == (2, [(order_id, "refunded_too_much")])


def test_a_refund_that_nobody_asked_for_is_found(shop: Shop) -> None:
    order_id = shop.sold()
    shop.refund(order_id, amount=Decimal(1))
    assert shop.reconcile() == (2, [(order_id, "refunded_too_much")])


def test_a_partial_refund_that_all_agree_on_is_clean(shop: Shop) -> None:
    order_id = shop.sold()
    shop.run("UPDATE orders SET refund_requested = 5, refunded = 5 WHERE id = %s", order_id)
    shop.attempt(order_id, kind="refund", amount=Decimal(5))
    assert shop.reconcile() == CLEAN


def test_a_refund_the_ledger_does_not_have_is_found(shop: Shop) -> None:
    order_id = shop.sold()
    assert shop.reconcile() == CLEAN
    shop.run("UPDATE orders SET refund_requested = 5, refunded = 5 WHERE id = %s", order_id)
    shop.attempt(order_id, kind="refund", amount=Decimal(5), sent=False)
    assert shop.reconcile("--full") == (2, [(order_id, "charged_twice")])


def test_sold_units_that_are_not_committed_are_found(shop: Shop) -> None:
    order_id = shop.order()
    shop.attempt(order_id)
    shop.units(order_id, "release")
    assert shop.reconcile() == (2, [(order_id, "oversold")])


@pytest.mark.parametrize("ends", [(), ("commit",)])
def test_units_held_for_an_order_that_is_not_sold_are_found(
    shop: Shop, ends: tuple[str, ...]
) -> None:
    order_id = shop.order("Failed", reservation="released")
    shop.units(order_id, *ends)
    assert violations(shop) == [(order_id, "stock_held")]
    if not ends:
        shop.inventory.send("POST", f"/reservations/{order_id}/release")
        assert shop.reconcile() == CLEAN


def test_a_notification_that_was_not_sent_counts_when_it_is_overdue(shop: Shop) -> None:
    overdue_order, young = shop.sold(notified=False), shop.sold(notified=False, age_s=600)
    assert violations(shop) == [(overdue_order, "notification_missing")]
    for order_id in (overdue_order, young):
        shop.run(
            "INSERT INTO notifications (order_id, template, message_id, claimed_until, sent_at)"
            " VALUES (%s, 'order.completed.v1', gen_random_uuid(), now(), now())",
            order_id,
        )
    assert shop.reconcile() == CLEAN


def test_a_notification_that_is_tried_again_is_not_missing(shop: Shop) -> None:
    order_id = shop.sold(notified=False)
    shop.run(
        "INSERT INTO notifications (order_id, template, message_id, claimed_until)"
        " VALUES (%s, 'order.completed.v1', gen_random_uuid(), now())",
        order_id,
    )
    assert violations(shop) == []
    shop.run("UPDATE notifications SET ended_at = now(), outcome = 'gone'")
    assert violations(shop, "--full") == []
    shop.run("UPDATE notifications SET outcome = 'given_up'")
    assert violations(shop, "--full") == [(order_id, "notification_missing")]


@pytest.mark.parametrize("status", ["Pending", "Reserved", "Charging"])
def test_orders_under_way_are_no_violation_and_are_looked_at_when_they_end(
    shop: Shop, status: str
) -> None:
    order_id = shop.order(status, reservation="held", age_s=600)
    shop.units(order_id)
    attempt = shop.attempt(order_id, "unknown") if status == "Charging" else None
    assert violations(shop) == []
    shop.run("UPDATE orders SET status = 'Cancelled', reservation = 'released'")
    shop.inventory.send("POST", f"/reservations/{order_id}/release")
    kinds = {kind for _, kind in violations(shop)}
    assert ("charged_for_nothing" in kinds) is (attempt is not None)


def test_an_order_that_vanished_while_it_was_under_way_is_found(shop: Shop) -> None:
    order_id = shop.order("Reserved", reservation="held", age_s=600)
    shop.units(order_id)
    assert shop.reconcile() == CLEAN
    shop.run("DELETE FROM orders WHERE id = %s", order_id)
    shop.run("UPDATE reconciliation SET stock_at = now() + interval '1 hour'")
    assert shop.reconcile() == (2, [(order_id, "lost")])


def test_a_run_reads_what_is_new_and_a_full_one_everything(shop: Shop) -> None:
    for _ in range(3):
        shop.sold()
    shop.reconcile()
    shop.run("UPDATE reconciliation SET payments_at = now() + interval '1 hour', stock_at = now()"
             " + interval '1 hour'")  # fmt: skip
    counts = [
        msgspec.json.decode(shop.command("reconcile", "--json", *words)[1])
        for words in ((), ("--full",), ("--since", "2h"), ("--since", "1m"))
    ]
    assert [(count["payments"], count["orders"]) for count in counts] == [
        (0, 3), (3, 3), (3, 3), (3, 0),
    ]  # fmt: skip


def test_orders_that_agree_are_never_asked_for_one_by_one(shop: Shop) -> None:
    orders = [shop.sold(age_s=60) for _ in range(5)]
    shop.reconcile()
    shop.run("UPDATE orders SET created_at = created_at - interval '2 minutes'")
    code, output, _ = shop.command("reconcile", "--json")
    report = msgspec.json.decode(output)
    assert (code, report["orders"], report["judged"]) == (0, len(orders), 0)


def test_suspects_beyond_the_limit_are_left_to_the_next_run(shop: Shop) -> None:
    orders = [shop.order("Failed", reservation="none") for _ in range(3)]
    for order_id in orders:
        shop.capture(order_id)
    environ = {"ORDERS_RECONCILE_QUESTIONS": "2"}
    first = msgspec.json.decode(shop.command("reconcile", "--json", **environ)[1])
    assert (len(first["violations"]), first["leftOver"]) == (2, 1)
    second = msgspec.json.decode(shop.command("reconcile", "--json", **environ)[1])
    assert [each["orderId"] for each in second["violations"]] == orders


def test_a_violation_that_was_settled_elsewhere_is_accepted_until_it_changes(shop: Shop) -> None:
    order_id = shop.order("Failed", reservation="none")
    shop.capture(order_id)
    shop.reconcile()
    words = ("reconcile", "--accept", str(order_id))
    assert shop.command(*words)[0] == 1, "it wants a reason"
    assert shop.command(*words, "--because", "paid back by the bank", "--as", "ada")[0] == 0
    assert shop.reconcile("--full") == CLEAN
    assert "integrity.doubted" not in shop.command("reconcile", "--full")[2]
    assert shop.run("SELECT actor, action, subject FROM operator_actions") == [
        ("operator:ada", "reconcile --accept", f"order {order_id}")
    ]
    code, _, err = shop.command(*words, "--because", "again")
    assert code == 1
    assert "no open violations" in err
    shop.capture(order_id)
    assert shop.reconcile() == (2, [(order_id, "charged_twice")])


def test_what_cannot_run_says_why_and_is_not_taken_for_violations(shop: Shop) -> None:
    for environ, text in (
        ({"ORDERS_PAYMENT_URL": ""}, "ORDERS_PAYMENT_URL is not set"),
        ({"ORDERS_PAYMENT_URL": "http://127.0.0.1:9"}, "payment: GET /payments failed"),
        ({"ORDERS_DATABASE_URL": "postgresql://127.0.0.1:9/x"}, "PostgreSQL"),
    ):
        code, output, err = shop.command("reconcile", "--json", **environ)
        assert (code, output) == (1, "")
        assert text in err
    assert shop.command("reconcile", "--since", "yesterday")[0] == 1
    assert shop.run("SELECT succeeded_at IS NULL OR succeeded_at < started_at FROM reconciliation")


def test_two_runs_at_once_are_refused(shop: Shop) -> None:
    shop.run("SELECT pg_advisory_lock(%s)", 0x7265636F)
    code, _, err = shop.command("reconcile")
    shop.run("SELECT pg_advisory_unlock(%s)", 0x7265636F)
    assert code == 1
    assert "another reconciliation is running" in err


def test_no_payment_method_is_shown(shop: Shop) -> None:
    shop.capture(shop.order("Failed"))
    assert "tok_secret" not in "".join(map(str, shop.command("reconcile", "--json")))


def test_the_command_explains_itself(shop: Shop) -> None:
    code, output, _ = shop.command("reconcile", "--help")
    assert code == 0
    assert "2: violations" in output
