"""Faults under traffic: every 202 ends, each completed order is captured once, nothing oversold."""

import time
from collections import Counter
from collections.abc import Callable

import pytest

from loadtest.drill.stack import Stack, Traffic, eventually
from loadtest.evidence import ENDED

UNDER_FIRE_S = 3.0


def settle(stack: Stack, traffic: Traffic, within_s: float = 90) -> Counter[str]:
    """Wait until every accepted order has ended and return how."""
    assert traffic.accepted, traffic.statuses
    assert traffic.disagreements == []
    open_ids = set(traffic.accepted.values())
    status_counts: Counter[str] = Counter()
    until = time.monotonic() + within_s
    while open_ids:
        assert time.monotonic() < until, f"{len(open_ids)} orders never ended, e.g. {min(open_ids)}"
        for order_id in sorted(open_ids):
            status = stack.status_of(order_id)
            if status in ENDED:
                open_ids.discard(order_id)
                status_counts[status] += 1
        time.sleep(0.1)
    return status_counts


def assert_books_balance(stack: Stack, traffic: Traffic) -> None:
    """Compare the ledgers of Payment and Inventory with the orders."""
    own_ids = set(traffic.accepted.values())
    completed = {order_id for order_id in own_ids if stack.status_of(order_id) == "Completed"}
    captures = Counter(
        row["orderId"]
        for row in stack.simulator("payment", "GET", "ledger")
        if row["kind"] == "capture" and row["status"] == "captured" and row["orderId"] in own_ids
    )
    assert dict(captures) == dict.fromkeys(completed, 1)

    def committed() -> bool:
        reserved = {
            row["orderId"]: row["status"]
            for row in stack.simulator("inventory", "GET", "ledger")
            if row["orderId"] in own_ids
        }
        return all(
            (reserved.get(order_id) == "committed") == (order_id in completed)
            for order_id in own_ids
        )

    eventually(committed)


def _kill_a_gunicorn_worker(stack: Stack) -> None:
    processes = stack.processes("orders api")
    next(process for process in processes if process.name() == "orders-worker").kill()


FAULTS: dict[str, Callable[[Stack], None]] = {
    "a gunicorn worker is killed": _kill_a_gunicorn_worker,
    "the worker is killed": lambda stack: stack.do("kill", "worker"),
    "the relay is killed": lambda stack: stack.do("kill", "relay"),
    "the notifier is killed": lambda stack: stack.do("kill", "notifier"),
    "RabbitMQ is killed": lambda stack: stack.do("kill", "rabbitmq"),
    "Valkey is killed": lambda stack: stack.do("kill", "valkey"),
    "PostgreSQL is restarted": lambda stack: stack.do("restart", "postgres"),
    "the replica is killed": lambda stack: stack.do("kill", "postgres-replica"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_accepted_order_ends_although(stack: Stack, fault: str) -> None:
    with Traffic(stack) as traffic:
        time.sleep(1)
        FAULTS[fault](stack)
        time.sleep(UNDER_FIRE_S)
    eventually(stack.whole, 180)  # all of RabbitMQ's start included
    status_counts = settle(stack, traffic)
    assert set(status_counts) == {"Completed"}
    assert_books_balance(stack, traffic)


def test_redis_down_is_no_error_for_anybody(stack: Stack) -> None:
    stack.do("stop", "valkey")
    try:
        with Traffic(stack) as traffic:
            time.sleep(2)
        assert set(traffic.statuses) <= {202, 409}, traffic.statuses
        order_id = next(iter(traffic.accepted.values()))
        assert stack.request("GET", f"/api/orders/{order_id}").status == 200
        assert stack.request("GET", "/api/orders/user/10000").status == 200
        health = stack.request("GET", "/health")
        assert (health.status, health.body["status"]) == (200, "Degraded")
    finally:
        stack.do("start", "valkey")
    eventually(stack.whole)
    settle(stack, traffic)
    assert_books_balance(stack, traffic)


def test_rabbitmq_down_does_not_stop_a_post_and_the_outbox_drains_after(stack: Stack) -> None:
    stack.do("stop", "rabbitmq")
    try:
        with Traffic(stack) as traffic:
            time.sleep(2)
        assert set(traffic.statuses) <= {202, 409}, traffic.statuses
        eventually(lambda: stack.metric("relay", "outbox_pending") >= len(traffic.accepted))
    finally:
        stack.do("start", "rabbitmq")
    eventually(stack.whole)
    settle(stack, traffic)
    eventually(lambda: stack.metric("relay", "outbox_pending") == 0)
    assert_books_balance(stack, traffic)


@pytest.mark.parametrize(
    ("upstream", "faults"),
    [
        ("payment", {"errorRatio": 0.5, "errorStatus": 503}),
        ("payment", {"dropReplyRatio": 0.5}),
        ("payment", {"latencyMs": 300, "jitterMs": 200}),
        ("inventory", {"errorRatio": 0.5, "errorStatus": 500}),
        ("inventory", {"dropReplyRatio": 0.5}),
        ("inventory", {"hangRatio": 0.3}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_a_misbehaving_upstream_costs_time_but_no_order(
    stack: Stack, upstream: str, faults: dict[str, float]
) -> None:
    with stack.faults(upstream, **faults), Traffic(stack, customers=2) as traffic:
        time.sleep(2)
    assert not {status for status in traffic.statuses if status not in (202, 409)}
    settle(stack, traffic, within_s=120)
    assert_books_balance(stack, traffic)


def test_a_flash_sale_sells_exactly_what_there_is(stack: Stack) -> None:
    stack.simulator("inventory", "PUT", "stock/777", {"available": 20})
    with Traffic(stack, customers=8, product=777) as traffic:
        time.sleep(3)
    status_counts = settle(stack, traffic)
    assert status_counts["Completed"] == 20
    assert_books_balance(stack, traffic)


def test_the_outcome_of_lost_payments_is_found_by_asking(stack: Stack) -> None:
    with stack.faults("payment", dropReplyRatio=1), Traffic(stack, customers=1) as traffic:
        time.sleep(1)
    settle(stack, traffic)
    rows = stack.simulator("payment", "GET", "ledger")
    own_ids = set(traffic.accepted.values())
    assert {row["status"] for row in rows if row["orderId"] in own_ids} == {"captured"}
