"""Both sides of a run, which the invariants hold against each other."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from loadtest.books import Books, Order
from loadtest.purchase import Purchase

ENDED: Final = frozenset({"Completed", "Failed", "Cancelled", "Refunded"})


class Evidence(msgspec.Struct, frozen=True):
    """The answers to customers, the books, and the initial stock."""

    purchases: Sequence[Purchase]
    books: Books
    stock: Mapping[int, int] = {}

    def orders_of(self, purchase: Purchase) -> list[Order]:
        """Return the orders of a purchase that the books know."""
        orders = self.books.orders
        return [orders[order_id] for order_id in purchase.order_ids if order_id in orders]

    def is_known(self, order_id: int) -> bool:
        """Return whether an order is the run's, as far as that can be seen.

        Where others buy too, an order that the books do not know is one of theirs.
        """
        all_known = self.books.alone and self.books.whole
        return all_known or order_id in self.books.orders
