"""The invariants of every run, under any fault: pure functions of purchases and books."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from loadtest import accounts, reversals
from loadtest.books import Books
from loadtest.evidence import ENDED, Evidence

# What stock an ended order may have; all others must have none.
_STOCK: Final = {"Completed": ("committed",), "Refunded": ("released", "returned")}
_SHOWN: Final = 5


class InvariantCheck(msgspec.Struct, frozen=True):
    """The result of one invariant: the number of violations, and examples."""

    invariant: str
    broken: int
    examples: tuple[str, ...] = ()
    checked: bool = True

    @property
    def holds(self) -> bool:
        """Whether no violation was found."""
        return self.broken == 0


def lost(evidence: Evidence) -> Iterator[str]:
    """Find orders that were accepted but that the service does not have."""
    for purchase in evidence.purchases:
        for order_id in purchase.order_ids:
            if order_id not in evidence.books.orders:
                yield f"order {order_id} was accepted but does not exist"


def unended(evidence: Evidence) -> Iterator[str]:
    """Find orders that never ended."""
    for order in evidence.books.orders.values():
        if order.status not in ENDED:
            yield f"order {order.id} is still {order.status}"


def doubled(evidence: Evidence) -> Iterator[str]:
    """Find purchases that became several orders."""
    ids_of: dict[str, set[int]] = defaultdict(set)
    for purchase in evidence.purchases:
        ids_of[purchase.token] |= set(purchase.order_ids)
    for order in evidence.books.orders.values():
        if order.payment_method:
            ids_of[order.payment_method].add(order.id)
    for token, ids in ids_of.items():
        if len(ids) > 1:
            yield f"purchase {token} became the orders {sorted(ids)}"


def altered(evidence: Evidence) -> Iterator[str]:
    """Find orders whose contents differ from the purchase."""
    for purchase in evidence.purchases:
        for order in evidence.orders_of(purchase):
            bought = (purchase.user, purchase.product, purchase.quantity)
            if (order.user_id, order.product_id, order.quantity) != bought:
                yield f"order {order.id} has another owner or other contents"
            elif order.total != purchase.total:
                yield f"order {order.id} costs {order.total}, not {purchase.total}"


def uninvited(evidence: Evidence) -> Iterator[str]:
    """Find orders that no customer placed, or whose purchase was refused."""
    placed = {purchase.token: purchase for purchase in evidence.purchases}
    for order in evidence.books.orders.values():
        if order.payment_method is None:
            continue
        purchase = placed.get(order.payment_method)
        if purchase is None:
            yield f"order {order.id} was placed by no customer"
        elif purchase.refused is not None:
            yield f"order {order.id} was refused with {purchase.refused}"


def changed_after_the_end(evidence: Evidence) -> Iterator[str]:
    """Find orders whose status changed after a customer saw their end.

    A completed order may still be cancelled or refunded on request.
    """
    for purchase in evidence.purchases:
        if purchase.ended not in ENDED:
            continue
        statuses = reversals.after_completion(purchase) if purchase.ended == "Completed" else ()
        for order in evidence.orders_of(purchase):
            if order.status not in (purchase.ended, *statuses):
                yield f"order {order.id} was seen {purchase.ended} and is {order.status}"


def wrongly_stocked(evidence: Evidence) -> Iterator[str]:
    """Find ended orders whose stock does not match their status."""
    # Without those that were released before they were made.
    reservations = {
        reservation.order_id: reservation
        for reservation in evidence.books.reservations or ()
        if reservation.quantity
    }
    for order in evidence.books.orders.values():
        reservation = reservations.get(order.id)
        status = reservation.status if reservation else "none"
        statuses = _STOCK.get(order.status, ("none", "released"))
        if order.status in ENDED and status not in statuses:
            yield f"order {order.id} is {order.status}, its stock is {status}"
        elif reservation and (reservation.product_id, reservation.quantity) != (
            order.product_id,
            order.quantity,
        ):
            stock = f"{reservation.quantity} of product {reservation.product_id}"
            yield f"order {order.id} holds {stock}"
    for order_id in accounts.unknown_orders(reservations, evidence.books):
        yield f"order {order_id} has stock but is not among the orders"


def completed_though_declined(evidence: Evidence) -> Iterator[str]:
    """Find orders that Payment declined and that are Completed, or were."""
    declined = [purchase for purchase in evidence.purchases if purchase.declined]
    tokens = {purchase.token for purchase in declined}
    ids = {order_id for purchase in declined for order_id in purchase.order_ids}
    for order in evidence.books.orders.values():
        was_declined = order.id in ids or order.payment_method in tokens
        if was_declined and order.status in accounts.PAID:
            yield f"order {order.id} was declined and is {order.status}"


def oversold(evidence: Evidence) -> Iterator[str]:
    """Find products that were sold beyond their stock."""
    reserved: Counter[int] = Counter()
    for reservation in evidence.books.reservations or ():
        if reservation.status not in ("released", "returned"):
            reserved[reservation.product_id] += reservation.quantity
    completed: Counter[int] = Counter()
    for order in evidence.books.orders.values():
        if order.status == "Completed":
            completed[order.product_id] += order.quantity
    for product, units in evidence.stock.items():
        if max(reserved[product], completed[product]) > units:
            yield f"product {product}: {max(reserved[product], completed[product])} of {units} sold"


INVARIANTS: Final[dict[str, Callable[[Evidence], Iterator[str]]]] = {
    "no accepted order is lost": lost,
    "every order has ended": unended,
    "no purchase became two orders": doubled,
    "an order is what was bought": altered,
    "nobody has an order they were refused or did not place": uninvited,
    "an end that a customer saw is final": changed_after_the_end,
    "each completed order is charged once, no other at all": accounts.wrongly_charged,
    "no more is paid back than was charged": accounts.overpaid,
    "captures less refunds are what completed orders cost": accounts.unbalanced_money,
    "stock is taken for completed orders alone": wrongly_stocked,
    "all stock that was reserved is committed, released or returned": accounts.unbalanced_stock,
    "a cancellation was answered truly": reversals.answered_wrongly,
    "each refund that was accepted is made, no other": reversals.wrongly_refunded,
    "nothing is cancelled that nobody cancelled": reversals.uncalled_for,
    "no declined order is completed": completed_though_declined,
    "nothing is oversold": oversold,
}
_NEEDS_PAYMENTS: Final = frozenset(
    {accounts.wrongly_charged, accounts.overpaid, accounts.unbalanced_money}
)
_NEEDS_SIMULATOR: Final = frozenset({completed_though_declined})  # it is what declines
_NEEDS_RESERVATIONS: Final = frozenset({wrongly_stocked, accounts.unbalanced_stock})
_NEEDS_ALL_ORDERS: Final = frozenset({uninvited})


IN_LEDGERS: Final = frozenset(
    name for name, rule in INVARIANTS.items() if rule in _NEEDS_PAYMENTS | _NEEDS_RESERVATIONS
)


def check(evidence: Evidence) -> list[InvariantCheck]:
    """Check every invariant; one whose evidence is missing is not checked."""
    return [_finding(name, rule, evidence) for name, rule in INVARIANTS.items()]


def _finding(
    name: str, rule: Callable[[Evidence], Iterator[str]], evidence: Evidence
) -> InvariantCheck:
    if not _checkable(rule, evidence.books):
        return InvariantCheck(name, 0, checked=False)
    examples = list(rule(evidence))
    return InvariantCheck(name, len(examples), tuple(examples[:_SHOWN]))


def _checkable(rule: Callable[[Evidence], Iterator[str]], books: Books) -> bool:
    return not (
        (rule in _NEEDS_PAYMENTS | _NEEDS_SIMULATOR and books.payments is None)
        or (rule in _NEEDS_RESERVATIONS and books.reservations is None)
        or (rule in _NEEDS_ALL_ORDERS and not books.whole)
    )
