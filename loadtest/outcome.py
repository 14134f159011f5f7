"""The figures that the books give: how many orders, how they ended, how long they took."""

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from loadtest.books import Books
from loadtest.purchase import Purchase
from loadtest.story import ENDED

_FIRST: Final = frozenset({"Completed", "Failed"})


def figures(
    purchases: Sequence[Purchase], books: Books, products: Iterable[int] = ()
) -> dict[str, float]:
    """Give `orders.*`, `completion.*`, and `product.<id>.sold` of each product that may sell out.

    Being refused one of those is `orders.sold_out`, not `orders.refused`.
    """
    scarce = set(products)
    refused = Counter(one.product in scarce for one in purchases if one.refused is not None)
    found = {
        "orders.bought": float(len(purchases)),
        "orders.accepted": float(sum(bool(one.order_ids) for one in purchases)),
        "orders.refused": float(refused[False]),
        "orders.sold_out": float(refused[True]),
        "orders.undeclined_failed": float(_undeclined_failed(purchases, books, scarce)),
        "orders.unanswered": float(
            sum(not one.order_ids and one.refused is None for one in purchases)
        ),
    }
    statuses = Counter(order.status for order in books.orders.values())
    found |= {f"orders.{status}": float(statuses[status]) for status in sorted(ENDED)}
    # A later cancellation or refund moved the time of an order's last change.
    reached = (one for one in books.orders.values() if one.status in _FIRST and not one.refunded)
    took = sorted(order.took_s for order in reached)
    refunded = sum((order.refunded for order in books.orders.values()), Decimal())
    found["orders.partly_refunded"] = float(
        sum(one.status == "Completed" and one.refunded > 0 for one in books.orders.values())
    )
    found["refunds.amount"] = float(refunded)
    found |= {f"product.{product}.sold": _sold(product, books) for product in sorted(scarce)}
    return found | {f"completion.p{one}_s": _at(took, one) for one in (50, 95, 99) if took}


def _undeclined_failed(purchases: Sequence[Purchase], books: Books, scarce: set[int]) -> int:
    """Count the failed orders that Payment had not been asked to decline."""
    told = {order_id for one in purchases if one.declined for order_id in one.order_ids}
    tokens = {one.token for one in purchases if one.declined}
    return sum(
        order.status == "Failed"
        and order.id not in told
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
