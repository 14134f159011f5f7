"""`orders trace`: the story of an order, whole or with parts missing."""

import re

import msgspec
import pytest

from integration.shop import Shop


def completed(shop: Shop) -> tuple[int, str]:
    """Write an order with every kind of event."""
    order_id = shop.order()
    attempt = shop.attempt(order_id)
    shop.units(order_id, "commit")
    steps = [(1, None, "Pending"), (2, "Pending", "Reserved"), (3, "Reserved", "Charging"),
             (4, "Charging", "Completed")]  # fmt: skip
    for version, status_before, status_after in steps:
        shop.run(
            "INSERT INTO order_history (order_id, version, from_status, to_status, actor, at)"
            " VALUES (%s, %s, %s, %s, %s, now() - interval '1 hour' + make_interval(secs => %s))",
            order_id, version, status_before, status_after,
            "worker" if status_before else "customer", version,
        )  # fmt: skip
    return order_id, attempt


def test_the_whole_story_is_told_in_order_with_the_times_between(shop: Shop) -> None:
    order_id, attempt = completed(shop)
    shop.run(
        "INSERT INTO outbox (aggregateid, type, payload) VALUES (%s, 'order.stalled.v1', '{}')",
        str(order_id),
    )
    code, output, _ = shop.command("trace", str(order_id))
    assert code == 0
    lines = output.splitlines()
    assert lines[0].startswith(f"order {order_id}: Completed, 2 × product 5, total 20.00, user 7")
    assert "correlation id corr-1" in lines[0]
    phrases = ["accepted, by customer", "Pending → Reserved, by worker", "Charging → Completed",
            f"capture {attempt}: 20.00 requested", f"capture {attempt}: captured 20.00",
            "committed 2 × product 5", "order.completed.v1: sent, tries: 1"]  # fmt: skip
    for text in phrases:
        assert text in output
    assert output.index("accepted") < output.index("Reserved →") < output.index("→ Completed")
    assert re.search(r"\+[01]\.\d\d\d s +order +Pending → Reserved", output)
    assert "still to come: order.stalled.v1 waits in the outbox" in output
    assert "tok_secret" not in output


def test_the_story_as_json_has_the_same_events(shop: Shop) -> None:
    order_id, _ = completed(shop)
    code, output, _ = shop.command("trace", str(order_id), "--json")
    story = msgspec.json.decode(output)
    assert code == 0
    assert story["order"]["status"] == "Completed"
    assert {"order", "attempt", "Payment", "Inventory", "notification"} == {
        event["source"] for event in story["events"]
    }
    assert story["unknown"] == []
    assert "tok_secret" not in output


def test_a_ledger_that_cannot_be_asked_is_said_and_the_rest_is_told(shop: Shop) -> None:
    order_id, _ = completed(shop)
    environ = {"ORDERS_PAYMENT_URL": "", "ORDERS_INVENTORY_URL": "http://127.0.0.1:9"}
    code, output, _ = shop.command("trace", str(order_id), **environ)
    assert code == 0
    assert "Charging → Completed" in output
    assert "not known: Payment cannot be queried: ORDERS_PAYMENT_URL is not set" in output
    assert "not known: Inventory cannot be queried: inventory: GET /reservations failed" in output


def test_what_is_unknown_is_still_to_come(shop: Shop) -> None:
    order_id = shop.order("Charging", reservation="held")
    attempt = shop.attempt(order_id, "unknown", sent=False)
    _, output, _ = shop.command("trace", str(order_id))
    assert f"still to come: the outcome of capture {attempt} is not known" in output
    assert "still to come: Inventory holds the stock" in output


def test_a_notification_that_waits_or_was_given_up_is_told(shop: Shop) -> None:
    order_id = shop.order(notified=False)
    shop.run(
        "INSERT INTO notifications (order_id, template, message_id, claimed_until, tries,"
        " last_error) VALUES (%s, 'order.completed.v1', gen_random_uuid(), now(), 3, '503')",
        order_id,
    )
    _, output, _ = shop.command("trace", str(order_id))
    assert "still to come: order.completed.v1 is to be sent, tries so far: 3: 503" in output
    shop.run("UPDATE notifications SET ended_at = now(), outcome = 'given_up'")
    assert "order.completed.v1: given_up, tries: 3" in shop.command("trace", str(order_id))[1]


def test_an_order_only_the_ledgers_know_is_told_from_them(shop: Shop) -> None:
    shop.units(4711)
    shop.capture(4711)
    code, output, _ = shop.command("trace", "4711")
    assert code == 1
    assert "the database has no such order" in output
    assert "reserved 2 × product 5" in output
    assert "captured 20.00" in output


def test_without_the_database_the_ledgers_are_told(shop: Shop) -> None:
    order_id, _ = completed(shop)
    code, output, _ = shop.command(
        "trace", str(order_id), ORDERS_DATABASE_URL="postgresql://127.0.0.1:9/x"
    )
    assert code == 3
    assert "captured 20.00" in output
    assert f"order {order_id}: not known whether it exists" in output
    assert "no such order" not in output
    assert "not known: the database cannot be queried" in output


def test_a_declined_refund_names_the_command_that_settles_it(shop: Shop) -> None:
    order_id = shop.order("Refunding")
    attempt = shop.attempt(order_id, "declined", kind="refund", sent=False)
    shop.run("UPDATE payment_attempts SET reason = 'RefundDeclined'")
    output = shop.command("trace", str(order_id))[1]
    assert (
        "needs a person, because Payment declined to refund 20.00: "
        f"`orders payments resolve {attempt}" in output
    )


def test_a_reason_with_control_characters_does_not_reach_the_terminal(shop: Shop) -> None:
    order_id = shop.order()
    shop.run("UPDATE orders SET correlation_id = %s", "a\x1b[31m")
    assert "\x1b" not in shop.command("trace", str(order_id))[1]


@pytest.mark.parametrize("word", ["0", "-1", "abc", "9007199254740992", "1.0"])
def test_what_is_no_id_is_refused(shop: Shop, word: str) -> None:
    code, _, err = shop.command("trace", word)
    assert code == 2
    assert "id of an order" in err or "required" in err or "expected" in err
