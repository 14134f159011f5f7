"""Whose order is published next, while one customer has many.

A queue is worked on in the order of its messages, so all that a customer places at once would go
before everything that others place a moment later. The relay reads from the outbox both that an
order was placed and that it ended, so it knows how many of a customer's orders are under way. A few
are published at once. What a customer has beyond that stays in the outbox and is published in turns
of customers, as long as no more orders are under way than keep the workers busy.

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

# While only one customer has orders, so many times as many are under way: a worker never waits for
# the relay, and whoever comes next waits once behind a fraction of a second's work.
_ALONE: Final = 2
_ALONE_AFTER_S: Final = 5.0  # since another customer's order was published
# An order that is under way for longer is somewhere else: put off, or lost.
_FORGET_S: Final = 10.0
# Where nothing ends (no worker, a slow Payment), turns help nobody.
_STALLED_S: Final = 5.0
# Turns delay whoever has many orders, but by no more than this.
_LONGEST_S: Final = 30.0
# Rows in memory, about 1 KB each. What comes beyond them is published at once.
_MOST: Final = 20_000

_ENDS: Final = frozenset({events.COMPLETED, events.FAILED, events.CANCELLED})


class _Parked(NamedTuple):
    row: Row
    since_s: float


class Turns:
    """The orders under way, and those that wait for their turn. Of the relay's thread alone."""

    def __init__(
        self,
        per_worker: int,
        workers: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take how many orders keep a worker busy, and how many workers there are; 0: no turns."""
        self._per_worker, self._workers, self._monotonic = per_worker, workers, monotonic
        # By the order's id: its customer, and since when. The oldest first.
        self._under_way: dict[str, tuple[Customer, float]] = {}
        self._counts: Counter[Customer] = Counter()
        # The customer whose turn it is comes first.
        self._parked: dict[Customer, collections.deque[_Parked]] = {}
        self._seqs: list[int] = []  # of all parked rows, sorted
        self._moved_s = 0.0  # when an order ended last, or the first one was parked
        self._last_end = 0  # the largest `seq` of the rows that told of one
        self._latest: Customer | None = None  # whose order was published last
        self._shared_s = -math.inf  # when that was another customer's than the one before

    @property
    def parked(self) -> int:
        """How many rows wait for their turn."""
        return len(self._seqs)

    def seqs(self, after: int) -> list[int]:
        """Return the parked rows with a larger `seq`: they must not be read again."""
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
        # Whose turn it is not now has none later in this call: each is asked until then.
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
            return  # a second row of an order, which nobody of ours writes
        self._under_way[order_id] = customer, now_s
        self._counts[customer] += 1

    def _end(self, row: Row, now_s: float) -> None:
        if row.seq > self._last_end:  # a row that its queue refuses is read again and again
            self._last_end, self._moved_s = row.seq, now_s
        begun = self._under_way.pop(row.aggregate_id, None)
        if begun is not None:
            self._discount(begun[0])

    def _expire(self, now_s: float) -> None:
        # One pass: a dict that is asked again and again for its first key steps over all that
        # were deleted before it.
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
