"""The figures that the books give: how many orders, how they ended, how long they took."""

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from loadtest.books import Books
from loadtest.evidence import ENDED
from loadtest.purchase import Purchase

_FIRST: Final = frozenset({"Completed", "Failed"})


def figures(
    purchases: Sequence[Purchase], books: Books, products: Iterable[int] = ()
) -> dict[str, float]:
    """Give `orders.*`, `completion.*`, and `product.<id>.sold` of each product that may sell out.

    Being refused one of those is `orders.sold_out`, not `orders.refused`.
    """
    scarce = set(products)
    refusals = Counter(
        purchase.product in scarce for purchase in purchases if purchase.refused is not None
    )
    values = {
        "orders.bought": float(len(purchases)),
        "orders.accepted": float(sum(bool(purchase.order_ids) for purchase in purchases)),
        "orders.refused": float(refusals[False]),
        "orders.sold_out": float(refusals[True]),
        "orders.undeclined_failed": float(_undeclined_failed(purchases, books, scarce)),
        "orders.unanswered": float(
            sum(not purchase.order_ids and purchase.refused is None for purchase in purchases)
        ),
    }
    statuses = Counter(order.status for order in books.orders.values())
    values |= {f"orders.{status}": float(statuses[status]) for status in sorted(ENDED)}
    orders = books.orders.values()
    # A later cancellation or refund moved the time of an order's last change.
    took = sorted(order.took_s for order in orders if order.status in _FIRST and not order.refunded)
    values["orders.partly_refunded"] = float(
        sum(order.status == "Completed" and order.refunded > 0 for order in orders)
    )
    values["refunds.amount"] = float(sum((order.refunded for order in orders), Decimal()))
    values |= {f"product.{product}.sold": _sold(product, books) for product in sorted(scarce)}
    return values | {
        f"completion.p{percent}_s": _at(took, percent) for percent in (50, 95, 99) if took
    }


def _undeclined_failed(purchases: Sequence[Purchase], books: Books, scarce: set[int]) -> int:
    """Count the failed orders that Payment had not been asked to decline."""
    declined = [purchase for purchase in purchases if purchase.declined]
    ids = {order_id for purchase in declined for order_id in purchase.order_ids}
    tokens = {purchase.token for purchase in declined}
    return sum(
        order.status == "Failed"
        and order.id not in ids
        and order.payment_method not in tokens
        and order.product_id not in scarce
        for order in books.orders.values()
    )


def _sold(product: int, books: Books) -> float:
    orders = books.orders.values()
    return sum(
        float(order.quantity)
        for order in orders
        if order.product_id == product and order.status == "Completed"
    )


def _at(ranked: list[float], percent: int) -> float:
    """Give the nearest-rank percentile."""
    return round(ranked[max(0, -(-len(ranked) * percent // 100) - 1)], 3)
