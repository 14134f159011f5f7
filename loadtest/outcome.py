"""The figures that the books give: how many orders, how they ended, how long they took."""

from collections import Counter
from collections.abc import Iterable, Sequence

from loadtest.books import Books
from loadtest.invariants import ENDED
from loadtest.purchase import Purchase


def figures(
    purchases: Sequence[Purchase], books: Books, products: Iterable[int] = ()
) -> dict[str, float]:
    """Give `orders.*`, `completion.*`, and `product.<id>.sold` of each product asked for."""
    found = {
        "orders.bought": float(len(purchases)),
        "orders.accepted": float(sum(bool(one.order_ids) for one in purchases)),
        "orders.refused": float(sum(one.refused is not None for one in purchases)),
        "orders.unanswered": float(
            sum(not one.order_ids and one.refused is None for one in purchases)
        ),
    }
    statuses = Counter(order.status for order in books.orders.values())
    found |= {f"orders.{status}": float(statuses[status]) for status in sorted(ENDED)}
    took = sorted(order.took_s for order in books.orders.values() if order.status in ENDED)
    found |= {f"product.{product}.sold": _sold(product, books) for product in products}
    return found | {f"completion.p{one}_s": _at(took, one) for one in (50, 95, 99)}


def _sold(product: int, books: Books) -> float:
    orders = books.orders.values()
    return sum(
        float(order.quantity)
        for order in orders
        if order.product_id == product and order.status == "Completed"
    )


def _at(ranked: list[float], percent: int) -> float:
    """Give the nearest-rank percentile."""
    return round(ranked[max(0, -(-len(ranked) * percent // 100) - 1)], 3) if ranked else 0.0
