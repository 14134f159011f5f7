"""Inventory and Payment without HTTP: the simulators' own books behind the clients' methods."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from orders.upstream.inventory import _CONFLICTS, OutOfStock, ReservationStatus, Target
from orders.upstream.payment import _REFUND_REFUSALS, Captured, Declined, Refunded
from upstreams.inventory import NewReservation, Stock
from upstreams.payment import Asked, Kind, PaymentStore
from upstreams.web import Refusal


class InventoryBooks:
    """The worker's port to Inventory, on a simulator's stock without HTTP."""

    def __init__(self, stock: Stock) -> None:
        self.stock = stock

    def reserve(
        self, target: Target, product_id: int, quantity: int
    ) -> ReservationStatus | OutOfStock:
        reservation = NewReservation(product_id, quantity, target.order_id)
        try:
            return ReservationStatus(self.stock.reserve(target.key, reservation)[0].status)
        except Refusal as refusal:
            if refusal.code != "out_of_stock":
                raise
            return OutOfStock(target.order_id)

    def commit(self, target: Target) -> ReservationStatus:
        return self._end(self.stock.commit, target)

    def release(self, target: Target) -> ReservationStatus:
        return self._end(self.stock.release, target)

    def give_back(self, target: Target) -> ReservationStatus:
        return self._end(self.stock.give_back, target)

    def _end(self, verb: Callable[[str, int | None], Any], target: Target) -> ReservationStatus:
        try:
            return ReservationStatus(verb(target.key, target.order_id).status)
        except Refusal as refusal:
            return _CONFLICTS[refusal.code]


class PaymentBooks:
    """The worker's port to Payment, on a simulator's store without HTTP."""

    def __init__(self, till: PaymentStore, *, refuses_refunds: bool) -> None:
        self.till, self.refuses_refunds = till, refuses_refunds

    def find(self, key: str, order_id: int, amount: Decimal) -> Captured | Declined | None:
        entry = self.till.find(key)
        return None if entry is None else _capture(entry.status, key, order_id, amount)

    def capture(self, key: str, order_id: int, amount: Decimal, method: str) -> Captured | Declined:
        request = Asked(Kind.CAPTURE, order_id, amount, method)
        answer = self.till.capture(key, request, decline=method.startswith("decline"))
        return _capture(answer.status, key, order_id, amount)

    def refund(
        self, key: str, order_id: int, amount: Decimal, *, capture_id: str | None = None
    ) -> Refunded | Declined:
        request = Asked(Kind.REFUND, order_id, amount, capture_id)
        try:
            answer = self.till.refund(key, request, decline=self.refuses_refunds)
        except Refusal as refusal:
            if refusal.code not in _REFUND_REFUSALS:
                raise
            return Declined(key, order_id, amount)
        kind = Refunded if answer.status == "refunded" else Declined
        return kind(key, order_id, amount)


def _capture(status: str, key: str, order_id: int, amount: Decimal) -> Captured | Declined:
    return (Captured if status == "captured" else Declined)(key, order_id, amount)
