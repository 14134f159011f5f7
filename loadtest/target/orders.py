"""Where the orders of a run are read from: the database, or the API where there is none to see."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import psycopg
from psycopg.rows import class_row

from loadtest.books import Order
from loadtest.evidence import ENDED
from loadtest.locusts.identity import Tokens, headers
from loadtest.purchase import Purchase
from loadtest.target import http, simulators
from loadtest.target.addresses import Target

_AT_ONCE: Final = 8
# Only what marks this run: the database of an own stack may hold a million seeded orders.
_OF_RUN: Final = """
SELECT id, user_id, product_id, quantity, total, status, refunded, created_at, updated_at,
       payment_method
FROM orders WHERE id > %(after)s
  AND (payment_method LIKE %(cards)s OR payment_method LIKE %(declined)s)
"""
_LAST: Final = "SELECT coalesce(max(id), 0) FROM orders"


class Orders(Protocol):
    """Gives every visible order of a run; `whole`: also those whose answers got lost.

    `after` is the last order before the run: none of it or of those below it is the run's.
    """

    whole: bool
    after: int

    def read(self, purchases: Sequence[Purchase]) -> dict[int, Order]:
        """Read them as they are now."""


class InDatabase:
    """Read with SQL: all orders, including those that no customer knows."""

    whole = True

    def __init__(self, url: str, run: str, after: int = 0) -> None:
        """Take the address, the mark of the run, and the last order that was there before it."""
        self._url, self._run, self.after = url, run, after

    def read(self, purchases: Sequence[Purchase]) -> dict[int, Order]:  # noqa: ARG002 all are read
        """Read them as they are now."""
        run = self._run.replace("_", r"\_")
        marks = {"cards": f"card-{run}-%", "declined": f"decline-{run}-%", "after": self.after}
        with (
            psycopg.connect(self._url, options="-c statement_timeout=60s") as connection,
            connection.cursor(row_factory=class_row(Order)) as cursor,
        ):
            return {order.id: order for order in cursor.execute(_OF_RUN, marks)}


def last_order(target: Target) -> int:
    """Give the highest id of an order so far, where it can be seen: the run's own lie above it."""
    ids = [0]
    if target.database:
        with psycopg.connect(target.database) as connection:
            ids += [int(row[0]) for row in connection.execute(_LAST)]
    if target.payment:
        ids += [payment.order_id for payment in simulators.payments(target.payment)]
    if target.inventory:
        ids += [entry.order_id for entry in simulators.reservations(target.inventory)]
    return max(ids)


class InApi:
    """Read each order that a customer knows, as that customer."""

    whole = False

    def __init__(self, host: str, signing: Tokens | None, baggage: str, after: int) -> None:
        """Take the address, the means to speak for the customers, and the last earlier order."""
        self._host, self._signing, self._baggage, self.after = host, signing, baggage, after
        self._ended: dict[int, Order] = {}

    def read(self, purchases: Sequence[Purchase]) -> dict[int, Order]:
        """Read their current state; ended orders are not read again."""
        asked_for = [
            (purchase.user, order_id)
            for purchase in purchases
            for order_id in purchase.order_ids
            if order_id not in self._ended
        ]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            answers = list(threads.map(self._ask_one, asked_for))
        orders = self._ended | {order.id: order for order in answers if order is not None}
        self._ended = {key: order for key, order in orders.items() if order.status in ENDED}
        return orders

    def _ask_one(self, order: tuple[int, int]) -> Order | None:
        """Read an order; a missing answer does not prove a loss. Raises Unreachable."""
        user, order_id = order
        url = f"{self._host}/api/orders/{order_id}"
        try:
            return http.get(url, Order, headers(self._signing, str(user), self._baggage))
        except http.Absent:
            return None
