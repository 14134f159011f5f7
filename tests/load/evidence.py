"""Purchases and books that agree with each other, to be broken by a test one detail at a time."""

import datetime as dt
from decimal import Decimal

from loadtest.books import Books, Order, Payment, Reservation
from loadtest.evidence import Evidence
from loadtest.invariants import check
from loadtest.purchase import Purchase

CHARGED = "each completed order is charged once, no other at all"
MONEY = "captures less refunds are what completed orders cost"
OVERPAID = "no more is paid back than was charged"
STOCKED = "stock is taken for completed orders alone"
UNITS = "all stock that was reserved is committed, released or returned"

NOW = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)


def purchase(number: int, **fields: object) -> Purchase:
    defaults = {
        "key": f"run-{number}", "user": 1000 + number, "product": 101, "quantity": 1,
        "cents": 1990, "order_ids": [number], "ended": "Completed",
    }  # fmt: skip
    return Purchase(**(defaults | fields))  # type: ignore[arg-type]


def order(number: int, **fields: object) -> Order:
    defaults = {
        "id": number, "user_id": 1000 + number, "product_id": 101, "quantity": 1,
        "total": Decimal("19.90"), "status": "Completed", "created_at": NOW,
        "updated_at": NOW + dt.timedelta(seconds=1), "payment_method": f"card-run-{number}",
    }  # fmt: skip
    return Order(**(defaults | fields))  # type: ignore[arg-type]


def books(*orders: Order) -> Books:
    """Charge and stock each order as its status wants it."""
    completed = [order for order in orders if order.status == "Completed"]
    return Books(
        {order.id: order for order in orders},
        whole=True,
        payments=[Payment(order.id, "capture", order.total, "captured") for order in completed],
        reservations=[
            Reservation(order.id, order.product_id, order.quantity, "committed")
            for order in completed
        ],
        alone=True,
    )


def broken(evidence: Evidence) -> set[str]:
    """Return the invariants that the evidence breaks."""
    return {finding.invariant for finding in check(evidence) if not finding.holds}
