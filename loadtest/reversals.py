"""Cancellations and refunds after a purchase, compared with the orders."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from loadtest.evidence import ENDED, Evidence
from loadtest.purchase import Cancellation, Purchase

ACCEPTED: Final = frozenset({200, 202})
_REFUSED: Final = 409
_CANCELLED: Final = frozenset({"Cancelled", "Refunding", "Refunded"})
# How an order may end whose cancellation was answered with a status.
_ENDS: Final = {
    "Cancelled": frozenset({"Cancelled"}),
    "Charging": frozenset({"Cancelled", "Refunded"}),
    "Refunding": frozenset({"Refunded"}),
    "Refunded": frozenset({"Refunded"}),
}
# How an order may end whose cancellation was refused; support may refund it later.
_REFUSALS: Final = {
    "Failed": frozenset({"Failed"}),
    "WindowClosed": frozenset({"Completed", "Refunded"}),
}


def after_completion(purchase: Purchase) -> frozenset[str]:
    """Return the statuses that a completed order may have after the requests for it."""
    requests = purchase.cancellations or purchase.refunds
    return frozenset({"Refunding", "Refunded"}) if requests else frozenset()


def answered_wrongly(evidence: Evidence) -> Iterator[str]:
    """Find cancellations whose answer was not true at the end."""
    for purchase in evidence.purchases:
        for order in evidence.orders_of(purchase):
            if order.status not in ENDED:
                continue  # another invariant's
            for cancellation in purchase.cancellations:
                if cancellation.status and order.status not in _ends(cancellation):
                    text = cancellation.order_status or cancellation.reason or ""
                    answer = f"{cancellation.status} {text}".strip()
                    yield f"order {order.id} is {order.status}; its cancellation got {answer}"


def wrongly_refunded(evidence: Evidence) -> Iterator[str]:
    """Find orders of which another sum was paid back than support was promised.

    A request without an answer may have been carried out or not.
    """
    for purchase in evidence.purchases:
        promised = _cents(purchase, {202})
        possible = _cents(purchase, {0, 202})
        for order in evidence.orders_of(purchase):
            if order.status == "Completed" and not promised <= order.refunded <= possible:
                yield f"order {order.id}: {order.refunded} is paid back, {promised} was promised"
            elif promised > order.total:
                yield f"order {order.id} costs {order.total}, {promised} was promised back"


def uncalled_for(evidence: Evidence) -> Iterator[str]:
    """Find orders that were cancelled, or paid back, without a request."""
    for purchase in evidence.purchases:
        if purchase.cancellations or purchase.refunds:
            continue
        for order in evidence.orders_of(purchase):
            if order.status in _CANCELLED or order.refunded:
                yield f"order {order.id} is {order.status}, nobody asked for it"


def unmade(evidence: Evidence) -> Iterator[str]:
    """Find refunds that were accepted but not made yet: waiting may resolve this."""
    for purchase in evidence.purchases:
        for order in evidence.orders_of(purchase):
            if order.status == "Completed" and order.refunded < _cents(purchase, {202}):
                yield f"order {order.id} is not paid back yet"


def _ends(cancellation: Cancellation) -> frozenset[str]:
    if cancellation.status in ACCEPTED:
        return _ENDS.get(cancellation.order_status or "", frozenset())
    if cancellation.status == _REFUSED:
        return _REFUSALS.get(cancellation.reason or "", frozenset())
    return ENDED


def _cents(purchase: Purchase, statuses: set[int]) -> Decimal:
    """Add up the refunds that were answered so; those under one key are one."""
    amounts = {refund.key: refund.cents for refund in purchase.refunds if refund.status in statuses}
    return Decimal(sum(amounts.values())).scaleb(-2)
