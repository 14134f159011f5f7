"""The books after the load: orders, payments, reservations."""

import datetime as dt
from decimal import Decimal

import msgspec


class Order(msgspec.Struct, rename="camel", kw_only=True):
    """An order as the service stores it; only the database has `payment_method`."""

    id: int
    user_id: int
    product_id: int
    quantity: int
    total: Decimal
    status: str
    refunded: Decimal = Decimal(0)
    created_at: dt.datetime
    updated_at: dt.datetime | None = None
    payment_method: str | None = None

    @property
    def took_s(self) -> float:
        """Give the time from the 202 to the last change."""
        return ((self.updated_at or self.created_at) - self.created_at).total_seconds()


class Payment(msgspec.Struct, rename="camel"):
    """A row of the payment ledger."""

    order_id: int
    kind: str
    amount: Decimal
    status: str


class Reservation(msgspec.Struct, rename="camel"):
    """A row of the inventory ledger."""

    order_id: int
    product_id: int
    quantity: int
    status: str


class Books(msgspec.Struct):
    """Orders and ledgers at one moment.

    `whole`: `orders` are all orders of the run. Without the database they are only those whose ids
    customers received. A ledger is None without its simulator. `alone`: only this run used the
    simulators.
    """

    orders: dict[int, Order]
    whole: bool
    payments: list[Payment] | None
    reservations: list[Reservation] | None
    alone: bool = False
