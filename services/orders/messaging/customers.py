"""Whose message it is: customers with few orders must not wait for one with many."""

from collections import Counter
from typing import Final

import msgspec

# So many orders of a customer are few: many more than people place at once.
FEW: Final = 10
# Messages that have priority at a time. Of more, each waits less behind others than for its kind.
PRIORITY: Final = 10

Customer = int


class _Named(msgspec.Struct, rename="camel"):
    user_id: Customer | None = None


_named: Final = msgspec.json.Decoder(_Named)


def customer_of(body: str | bytes) -> Customer | None:
    """Return the customer that a message names; None too for a body that cannot be read."""
    try:
        return _named.decode(body).user_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # nested too deeply
        return None  # whoever works on the message tells of it


class InHand:
    """The customers of the messages that a process holds. Not thread-safe.

    While one has many, messages of those with few have priority: at most `most` at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._with_priority = 0
        self._counts: Counter[Customer] = Counter()
        self._crowds = 0  # customers with more than a few messages

    def add(self, customer: Customer | None) -> bool:
        """Count a message; return whether it has priority."""
        if customer is None:
            return False
        self._counts[customer] += 1
        count = self._counts[customer]
        self._crowds += count == FEW + 1
        priority = count <= FEW and self._crowds > 0 and self._with_priority < self._most
        self._with_priority += priority
        return priority

    def remove(self, customer: Customer | None, *, priority: bool) -> None:
        """Count a message no longer; `priority` is what `add` returned for it."""
        if customer is None:
            return
        self._with_priority -= priority
        self._crowds -= self._counts[customer] == FEW + 1
        self._counts[customer] -= 1
        if not self._counts[customer]:
            del self._counts[customer]
