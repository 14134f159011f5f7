"""Whose order is published next, while one customer has many.

Workers take a queue's messages in order, so a customer who places many orders at once would delay
all others. The outbox tells the relay when an order was placed and when it ended, so the
relay knows how many of a customer's orders are under way. A few are published at once. The others
are parked: they stay in the outbox, and customers take turns. A turn comes when fewer orders are
under way than keep the workers busy.

Nothing here has to survive a restart: forgotten orders are read again and published.
"""

import bisect
import collections
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from orders.domain import events
from orders.messaging.envelope import FEW, Customer, customer_of
from orders.relay.outbox import Row

# While only one customer has orders, this many times as many may be under way. Then no worker waits
# for the relay, and the next customer waits only for a fraction of a second's work.
_ALONE: Final = 2
_ALONE_AFTER_S: Final = 5.0  # since another customer's order was published
# An order under way for longer no longer keeps a worker busy: its message was put off or lost.
_FORGET_S: Final = 10.0
# If no order ends for this long (no worker, a slow Payment), turns help nobody.
_STALLED_S: Final = 5.0
# Longest time that an order may be parked.
_LONGEST_S: Final = 30.0
# Parked rows in memory, about 1 KB each. Further ones are published at once.
_MOST: Final = 20_000

_ENDS: Final = frozenset({events.COMPLETED, events.FAILED, events.CANCELLED})


class _Parked(NamedTuple):
    row: Row
    since_s: float


class Turns:
    """The orders under way, and those that wait for their turn. Not thread-safe."""

    def __init__(
        self,
        per_worker: int,
        workers: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take how many orders keep a worker busy, and what counts the workers; 0: no turns."""
        self._per_worker, self._workers, self._monotonic = per_worker, workers, monotonic
        # By the order's id: its customer, and when it was published. Oldest first.
        self._under_way: dict[str, tuple[Customer, float]] = {}
        self._counts: Counter[Customer] = Counter()
        # The customer whose turn is next comes first.
        self._parked: dict[Customer, collections.deque[_Parked]] = {}
        self._seqs: list[int] = []  # the parked rows, sorted
        # When the last order ended, or the first one was parked.
        self._moved_s = 0.0
        # The largest `seq` of a row that reported an order's end.
        self._last_end = 0
        # The customer of the order published last, and when that customer changed last.
        self._latest: Customer | None = None
        self._shared_s = -math.inf

    @property
    def parked(self) -> int:
        """How many rows wait for their turn."""
        return len(self._seqs)

    def seqs(self, after: int) -> list[int]:
        """Return the numbers of parked rows above `after`: they must not be read again."""
        return self._seqs[bisect.bisect_right(self._seqs, after) :]

    def take(self, rows: Sequence[Row], *, park: bool = True) -> list[Row]:
        """Take in rows that were read; return those to publish now, and park the others.

        Without `park` all are returned.
        """
        now_s = self._monotonic()
        if self._limit(now_s) == 0:
            return list(rows)
        self._expire(now_s)
        return [row for row in rows if not self._parks(row, now_s, park=park)]

    def due(self, most: int) -> list[Row]:
        """Return up to `most` parked rows whose turn has come."""
        if not self._seqs:
            return []
        now_s = self._monotonic()
        limit = self._limit(now_s)
        self._expire(now_s)
        everybody = limit == 0 or now_s - self._moved_s > _STALLED_S
        rows: list[Row] = []
        # A customer whose turn has not come gets none later in this call: ask each only once.
        customers = collections.deque(self._parked)
        while customers and len(rows) < most:
            customer = customers.popleft()
            if everybody or self._has_turn(customer, limit, now_s):
                rows.append(self._released(customer, now_s))
                if customer in self._parked:
                    self._parked[customer] = self._parked.pop(customer)
                    customers.append(customer)
        return rows

    def forget(self) -> None:
        """Forget the parked rows: another relay may have published them."""
        self._parked.clear()
        self._seqs.clear()
        self._last_end = 0  # a failover may issue numbers again

    def _limit(self, now_s: float) -> int:
        alone = now_s - self._shared_s > _ALONE_AFTER_S
        return self._per_worker * self._workers() * (_ALONE if alone else 1)

    def _has_turn(self, customer: Customer, limit: int, now_s: float) -> bool:
        return (
            len(self._under_way) < limit
            or self._counts[customer] < FEW
            or now_s - self._parked[customer][0].since_s > _LONGEST_S
        )

    def _parks(self, row: Row, now_s: float, *, park: bool) -> bool:
        order_id = row.aggregate_id
        if row.type in _ENDS:
            self._end(row, now_s)
        if row.type != events.CREATED or order_id in self._under_way:
            return False
        customer = customer_of(row.payload)
        if customer is None:
            return False
        few = customer not in self._parked and self._counts[customer] < FEW
        if few or not park or len(self._seqs) >= _MOST:
            self._begin(order_id, customer, now_s)
            return False
        if not self._seqs:
            self._moved_s = now_s
        self._parked.setdefault(customer, collections.deque()).append(_Parked(row, now_s))
        bisect.insort(self._seqs, row.seq)
        return True

    def _released(self, customer: Customer, now_s: float) -> Row:
        waiting = self._parked[customer]
        row = waiting.popleft().row
        if not waiting:
            del self._parked[customer]
        del self._seqs[bisect.bisect_left(self._seqs, row.seq)]
        self._begin(row.aggregate_id, customer, now_s)
        return row

    def _begin(self, order_id: str, customer: Customer, now_s: float) -> None:
        if self._latest not in (None, customer):
            self._shared_s = now_s
        self._latest = customer
        if order_id in self._under_way:
            return  # a second row for one order, which our services never write
        self._under_way[order_id] = customer, now_s
        self._counts[customer] += 1

    def _end(self, row: Row, now_s: float) -> None:
        if row.seq > self._last_end:  # a row whose queue refuses it is read again and again
            self._last_end, self._moved_s = row.seq, now_s
        begun = self._under_way.pop(row.aggregate_id, None)
        if begun is not None:
            self._discount(begun[0])

    def _expire(self, now_s: float) -> None:
        # In one pass: asking a dict for its first key steps over every entry deleted before it.
        expired = [
            (order_id, customer)
            for order_id, (customer, _) in itertools.takewhile(
                lambda begun: now_s - begun[1][1] > _FORGET_S, self._under_way.items()
            )
        ]
        for order_id, customer in expired:
            del self._under_way[order_id]
            self._discount(customer)

    def _discount(self, customer: Customer) -> None:
        self._counts[customer] -= 1
        if not self._counts[customer]:
            del self._counts[customer]
