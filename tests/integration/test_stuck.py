"""Stalled orders are emitted again at growing intervals, counted and listed."""

import msgspec
import pytest

from integration.shop import Shop
from machine_time import machine_time_s
from orders.database.pool import Pool
from orders.database.stuck import count_stuck
from orders.domain.deadlines import DEADLINES, deadlines
from orders.domain.lifecycle import Status
from orders.worker.sweep import Pace, Sweeper


def sweeper(pool: Pool, after_s: float | None = None) -> Sweeper:
    return Sweeper(pool, deadlines(after_s), lambda: False)


def emitted(shop: Shop) -> list[int]:
    """Return the orders in the outbox, and empty it."""
    return [int(row[0]) for row in shop.run("DELETE FROM outbox RETURNING aggregateid")]


def wait_ahead_s(shop: Shop, order_id: int) -> float:
    """Return how long from now the order will be due again, by the table's first deadline."""
    [(ahead_s,)] = shop.run(
        "SELECT extract(epoch FROM emitted_at - now())::float FROM orders WHERE id = %s", order_id
    )
    return float(ahead_s) + DEADLINES[Status.RESERVED].after_s


def test_an_order_that_does_not_move_is_emitted_more_and_more_seldom(
    shop: Shop, pool: Pool
) -> None:
    order_id = shop.order("Reserved", reservation="held")
    sweeps, waits = sweeper(pool), []
    for _ in range(6):
        shop.run("UPDATE orders SET emitted_at = now() - interval '1 day'")
        sweeps.sweep()
        assert emitted(shop) == [order_id]
        waits.append(round(wait_ahead_s(shop, order_id), -1))
        sweeps.sweep()
        assert emitted(shop) == [], "it is not due yet"
    assert waits == [1800, 3600, 7200, 14_400, 21_600, 21_600]


def test_an_order_that_moved_begins_anew(shop: Shop, pool: Pool) -> None:
    order_id = shop.order("Reserved", reservation="held")
    sweeps = sweeper(pool)
    for _ in range(2):
        shop.run("UPDATE orders SET emitted_at = now() - interval '1 day'")
        sweeps.sweep()
    shop.run("UPDATE orders SET emitted_at = now() - interval '1 day', version = version + 1")
    sweeps.sweep()
    assert shop.run("SELECT stalls FROM stalled_orders") == [(1,)]
    assert round(wait_ahead_s(shop, order_id), -1) == 1800


@pytest.mark.parametrize(
    ("status", "reservation", "debt", "due"),
    [
        ("Failed", "held", 0, 1), ("Completed", "held", 0, 1),
        ("Refunded", "committed", 0, 1), ("Completed", "committed", 5, 1),
        ("Completed", "committed", 0, 0), ("Refunded", "returned", 0, 0),
        ("Failed", "released", 0, 0),
    ],
)  # fmt: skip
def test_an_ended_order_is_emitted_as_long_as_it_owes_stock_or_money(
    shop: Shop, pool: Pool, status: str, reservation: str, debt: int, due: int
) -> None:
    order_id = shop.order(status, reservation=reservation)
    shop.run("UPDATE orders SET refund_requested = %s", debt)
    sweeper(pool).sweep()
    assert emitted(shop) == [order_id] * due


def test_a_backlog_is_emitted_faster_while_that_helps(shop: Shop, pool: Pool) -> None:
    for _ in range(3):
        shop.order("Pending", reservation="none")
    shop.run(
        "INSERT INTO orders (user_id, product_id, quantity, total, payment_method, correlation_id,"
        " traceparent, emitted_at) SELECT 1, 1, 1, 1, 'x', '', '', now() - interval '1 hour'"
        " FROM generate_series(1, 4000)"
    )
    sweeps, counts = sweeper(pool), []
    for _ in range(3):
        sweeps.sweep()
        orders = emitted(shop)
        counts.append(len(orders))
        shop.run("UPDATE orders SET version = version + 1 WHERE id = ANY(%s)", orders)
    assert counts == [500, 1000, 2000]


def test_the_pace_falls_when_nothing_moves_and_has_limits() -> None:
    pace = Pace()
    for _ in range(10):
        pace.adapt(100, 100)
    assert pace.limit == 16_000
    pace.adapt(0, 0)
    assert pace.limit == 16_000
    for _ in range(10):
        pace.adapt(100, 10)
    assert pace.limit == 500


def test_an_order_that_needs_a_person_is_counted_and_listed(shop: Shop, pool: Pool) -> None:
    order_id = shop.order("Charging", reservation="held")
    attempt = shop.attempt(order_id, "unknown")
    sweeps = sweeper(pool)
    for stalls in range(1, DEADLINES[Status.CHARGING].stalls + 1):
        assert count_stuck(pool) == {}
        shop.run("UPDATE orders SET emitted_at = now() - interval '1 day'")
        sweeps.sweep()
        assert shop.run("SELECT stalls FROM stalled_orders") == [(stalls,)]
    assert count_stuck(pool) == {"Charging": 1}
    code, output, _ = shop.command("stuck")
    assert code == 0
    assert str(order_id) in output
    assert f"capture {attempt} unknown" in output
    [listed] = msgspec.json.decode(shop.command("stuck", "--json")[1])
    assert (listed["id"], listed["status"], listed["emissions"]) == (order_id, "Charging", 3)
    shop.run("UPDATE orders SET version = version + 1")
    assert count_stuck(pool) == {}
    assert "no order needs a person" in shop.command("stuck")[1]


def test_a_declined_refund_needs_a_person_at_once(shop: Shop, pool: Pool) -> None:
    order_id = shop.order("Refunding")
    shop.run("UPDATE orders SET status_reason = 'RefundDeclined'")
    assert count_stuck(pool) == {"Refunding": 1}
    [listed] = msgspec.json.decode(shop.command("stuck", "--json")[1])
    assert (listed["id"], listed["reason"]) == (order_id, "RefundDeclined")


def test_a_declined_part_of_a_completed_order_is_counted_by_its_index(
    shop: Shop, pool: Pool
) -> None:
    order_id = shop.order("Completed")
    shop.attempt(order_id, "declined", kind="refund", sent=False)
    shop.run("UPDATE payment_attempts SET reason = 'RefundDeclined'")
    assert count_stuck(pool) == {"Completed": 1}
    shop.run("UPDATE orders SET status = 'Refunded'")
    assert count_stuck(pool) == {}, "all the money went back in another way"


def test_what_moved_or_settled_is_forgotten(shop: Shop, pool: Pool) -> None:
    orders = [shop.order("Failed", reservation="held") for _ in range(3)]
    sweeper(pool).sweep()
    assert shop.run("SELECT count(*) FROM stalled_orders") == [(3,)]
    shop.run("UPDATE orders SET reservation = 'released' WHERE id = %s", orders[0])
    shop.run("UPDATE orders SET version = version + 1 WHERE id = %s", orders[1])
    assert pool.count("purge_stalled_orders", {"limit": 10}) == 2
    assert shop.run("SELECT order_id FROM stalled_orders") == [(orders[2],)]


def test_a_sweep_over_many_waiting_orders_reads_only_those_that_are_due(
    shop: Shop, pool: Pool
) -> None:
    shop.run(
        "INSERT INTO orders (user_id, product_id, quantity, total, payment_method, correlation_id,"
        " traceparent) SELECT 1, 1, 1, 1, 'x', '', '' FROM generate_series(1, 20000)"
    )
    shop.run("ANALYZE orders")
    began_s = machine_time_s()
    sweeper(pool).sweep()
    assert emitted(shop) == []
    assert machine_time_s() - began_s < 5


def test_the_command_explains_itself(shop: Shop) -> None:
    code, output, _ = shop.command("stuck", "--help")
    assert code == 0
    assert "need a person" in output
    assert shop.command("stuck", "--limit", "0")[0] == 2
