"""Money and stock of a run: the ledgers of Payment and Inventory held against the orders."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Final

import msgspec

from loadtest.books import Books, Order, Payment
from loadtest.evidence import ENDED, Evidence

PAID: Final = frozenset({"Completed", "Refunded"})
_MOVED: Final = frozenset({"captured", "refunded"})
_SETTLED: Final = ("committed", "released", "returned")


class Account(msgspec.Struct):
    """The payments of one order that moved money."""

    captures: list[Decimal] = []
    refunds: list[Decimal] = []

    @property
    def captured(self) -> Decimal:
        """Return the sum of all captures."""
        return sum(self.captures, Decimal())

    @property
    def refunded(self) -> Decimal:
        """Return the sum of all refunds."""
        return sum(self.refunds, Decimal())

    def add(self, payment: Payment) -> None:
        """Add a payment to the captures or the refunds."""
        entries = self.captures if payment.kind == "capture" else self.refunds
        entries.append(payment.amount)


def wrongly_charged(evidence: Evidence) -> Iterator[str]:
    """Find orders charged twice, for nothing, not at all, or with another amount than they cost.

    A completed order may have been paid back in part, a refunded one was in whole.
    """
    accounts = _accounts(evidence)
    for order in evidence.books.orders.values():
        if order.status not in ENDED:
            continue
        account = accounts[order.id]
        captures = [order.total] if order.status in PAID else []
        if account.captures != captures:
            charged = " and ".join(map(str, account.captures)) or "nothing"
            yield f"order {order.id} is {order.status}: charged {charged}"
        elif account.refunded != _back(order):
            yield (
                f"order {order.id} is {order.status}: {_back(order)} should be paid back, "
                f"{account.refunded} is"
            )
    for order_id in unknown_orders(accounts, evidence.books):
        yield f"order {order_id} was charged but is not among the orders"


def overpaid(evidence: Evidence) -> Iterator[str]:
    """Find orders with more refunded than captured, in any status."""
    for order_id, account in _accounts(evidence).items():
        if evidence.is_known(order_id) and account.refunded > account.captured:
            yield f"order {order_id}: {account.refunded} of {account.captured} is paid back"


def unbalanced_money(evidence: Evidence) -> Iterator[str]:
    """Find whether the whole run took another sum than its completed orders cost."""
    accounts = _accounts(evidence)
    moved = sum(
        (
            account.captured - account.refunded
            for order_id, account in accounts.items()
            if evidence.is_known(order_id)
        ),
        Decimal(),
    )
    completed = (order for order in evidence.books.orders.values() if order.status == "Completed")
    cost = sum((order.total - order.refunded for order in completed), Decimal())
    if moved != cost:
        yield f"captures less refunds are {moved}, completed orders cost {cost}"


def unbalanced_stock(evidence: Evidence) -> Iterator[str]:
    """Find whether units are left that were reserved and neither committed nor given back."""
    units: Counter[str] = Counter()
    for reservation in evidence.books.reservations or ():
        if evidence.is_known(reservation.order_id):
            units[reservation.status] += reservation.quantity
    reserved = units.total() - sum(units[status] for status in _SETTLED)
    if reserved:
        yield f"{units.total()} units were reserved, {reserved} of them still are: {dict(units)}"


def unknown_orders(ids: Iterable[int], books: Books) -> list[int]:
    """Return those that are no orders of the run, where all in the ledgers must be."""
    return (
        [order_id for order_id in ids if order_id not in books.orders]
        if books.alone and books.whole
        else []
    )


def _accounts(evidence: Evidence) -> defaultdict[int, Account]:
    accounts: defaultdict[int, Account] = defaultdict(Account)
    for payment in evidence.books.payments or ():
        if payment.status in _MOVED:
            accounts[payment.order_id].add(payment)
    return accounts


def _back(order: Order) -> Decimal:
    """Return what of an ended order was to be paid back."""
    if order.status == "Refunded":
        return order.total
    return order.refunded if order.status == "Completed" else Decimal()
