"""Decides whose order is published next while one customer has many.

Workers take a queue's messages in order, so a customer who places many orders at once would delay
all others. The relay reads in the outbox when an order was placed and when it ended. So it knows
how many of a customer's orders are under way. A few are published at once. The others are parked:
they stay in the outbox, and their customers take turns. A turn comes while the orders under way are
fewer than keep the workers busy, and do not make other customers' orders take much longer.

Nothing here has to survive a restart: the relay reads parked orders again.
"""

import bisect
import collections
import itertools
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from orders.domain import events
from orders.messaging.envelope import FEW, Customer, customer_of
from orders.relay.outbox import OutboxRow

# While only one customer has orders, the limit is multiplied by this. Then no worker waits for the
# relay, and another customer who comes waits only for the work of a fraction of a second.
_ALONE: Final = 2
_ALONE_AFTER_S: Final = 5.0  # since another customer's order was published
# An order under way for longer no longer keeps a worker busy: its message was put off or lost.
_FORGET_S: Final = 10.0
# If no order ends for this long (no worker, a slow Payment), turns do not help.
_STALLED_S: Final = 5.0
# An order parked for longer may use the whole limit, even if that delays other customers.
_FULL_AFTER_S: Final = 30.0
# Longest time that an order may be parked.
_MAX_PARKED_S: Final = 60.0
# An order counts for the usual time if no customer had many orders in this time before it was
# published.
_CALM_AFTER_S: Final = 5.0
# How much longer than usual other customers' orders may take while one customer has many. The aim
# is 1.2 times, so this is a little less. A delay of _UNNOTICED_S is always allowed.
_SLOWER: Final = 0.15
_UNNOTICED_S: Final = 0.01
# Orders that may be under way for each worker, however slow the others' orders are. A worker that
# holds this many gives priority to the others; a lower limit would help them little.
_MIN_UNDER_WAY: Final = 2 * FEW
# The share changes after this many orders and this many seconds at the earliest.
_SAMPLES: Final = 20
_CHANGED_AFTER_S: Final = 1.0
_USUAL_SAMPLES: Final = 64
# Parked rows that fit into memory, about 1 KB each. Further ones are published at once.
_MAX_PARKED: Final = 20_000

_ENDS: Final = frozenset({events.COMPLETED, events.FAILED, events.CANCELLED})


class _Parked(NamedTuple):
    row: OutboxRow
    since_s: float


class _Order(NamedTuple):
    """An order under way; `is_few`: it was published at once, because its customer has few."""

    customer: Customer
    placed_s: float  # by PostgreSQL's clock
    published_s: float  # by ours
    is_few: bool


class _Limits(NamedTuple):
    """How many orders may be under way: `shared` spares other customers, `full` does not."""

    shared: int
    full: int


class _Share:
    """The part of the limit that may be used while a customer has many orders.

    Orders of one customer that keep all workers busy use every core, and each step of other orders
    waits for a core. The share keeps enough cores idle: it falls while orders of customers with few
    take longer than usual, and rises while they do not.
    """

    def __init__(self, minimum: float) -> None:
        """Take the smallest share."""
        self.value = 1.0
        self._minimum = minimum
        # Times from placed to Completed: while no customer had many, and since the last change.
        self._usual_s: collections.deque[float] = collections.deque(maxlen=_USUAL_SAMPLES)
        self._crowded_s: list[float] = []
        self._changed_s = -math.inf

    def add_usual(self, took_s: float) -> None:
        """Add the time that an order took while no customer had many."""
        self._usual_s.append(took_s)

    def add_crowded(self, took_s: float, published_s: float, now_s: float) -> None:
        """Add the time of an order whose customer had few while another had many."""
        if published_s < self._changed_s:
            return  # it shared the workers with orders that were published under the previous share
        self._crowded_s.append(took_s)
        enough = len(self._crowded_s) >= _SAMPLES and len(self._usual_s) >= _SAMPLES
        if not enough or now_s - self._changed_s < _CHANGED_AFTER_S:
            return
        usual_s = statistics.median(self._usual_s)
        slower_s = statistics.median(self._crowded_s) - usual_s
        allowed_s = max(_SLOWER * usual_s, _UNNOTICED_S)
        # The delay is roughly proportional to the orders under way.
        factor = min(max(allowed_s / max(slower_s, 1e-6), 0.7), 1.25)
        self.value = min(max(self.value * factor, self._minimum), 1.0)
        self._crowded_s.clear()
        self._changed_s = now_s


class Turns:
    """The orders under way, and those that wait for their turn. Not thread-safe."""

    def __init__(
        self,
        per_worker: int,
        workers: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take how many orders keep a worker busy (0: no turns), and a function for the workers."""
        self._per_worker, self._workers, self._monotonic = per_worker, workers, monotonic
        # By the order's id. Oldest first.
        self._under_way: dict[str, _Order] = {}
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
        # When an order was last parked or released.
        self._crowd_seen_s = -math.inf
        self._share = _Share(_MIN_UNDER_WAY / max(per_worker, _MIN_UNDER_WAY))

    @property
    def parked(self) -> int:
        """How many rows wait for their turn."""
        return len(self._seqs)

    @property
    def share(self) -> float:
        """The part of the limit that customers with many orders may use while others have some."""
        return self._share.value

    def seqs(self, after: int) -> list[int]:
        """Return the `seq` of each parked row above `after`, which must not be read again."""
        return self._seqs[bisect.bisect_right(self._seqs, after) :]

    def take(self, rows: Sequence[OutboxRow], *, park: bool = True) -> list[OutboxRow]:
        """Return the rows to publish now, of those just read, and park the others.

        Without `park`, return all of them.
        """
        now_s = self._monotonic()
        if self._limits(now_s).full == 0:
            return list(rows)
        self._expire(now_s)
        return [row for row in rows if not self._parks(row, now_s, park=park)]

    def due(self, max_rows: int) -> list[OutboxRow]:
        """Return up to `max_rows` parked rows whose turn has come."""
        if not self._seqs:
            return []
        now_s = self._monotonic()
        limits = self._limits(now_s)
        self._expire(now_s)
        all_may = limits.full == 0 or now_s - self._moved_s > _STALLED_S
        rows: list[OutboxRow] = []
        # A customer whose turn has not come gets none later in this call: ask each only once.
        customers = collections.deque(self._parked)
        while customers and len(rows) < max_rows:
            customer = customers.popleft()
            if all_may or self._has_turn(customer, limits, now_s):
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

    def _limits(self, now_s: float) -> _Limits:
        full = self._per_worker * self._workers()
        if now_s - self._shared_s > _ALONE_AFTER_S:
            return _Limits(_ALONE * full, _ALONE * full)
        return _Limits(math.ceil(full * self._share.value), full)

    def _has_turn(self, customer: Customer, limits: _Limits, now_s: float) -> bool:
        waited_s = now_s - self._parked[customer][0].since_s
        limit = limits.full if waited_s > _FULL_AFTER_S else limits.shared
        return (
            len(self._under_way) < limit or self._counts[customer] < FEW or waited_s > _MAX_PARKED_S
        )

    def _parks(self, row: OutboxRow, now_s: float, *, park: bool) -> bool:
        order_id = row.aggregate_id
        if row.type in _ENDS:
            self._end(row, now_s)
        if row.type != events.CREATED or order_id in self._under_way:
            return False
        customer = customer_of(row.payload)
        if customer is None:
            return False
        few = customer not in self._parked and self._counts[customer] < FEW
        if few or not park or len(self._seqs) >= _MAX_PARKED:
            self._begin(row, customer, now_s, is_few=few)
            return False
        if not self._seqs:
            self._moved_s = now_s
        self._crowd_seen_s = now_s
        self._parked.setdefault(customer, collections.deque()).append(_Parked(row, now_s))
        bisect.insort(self._seqs, row.seq)
        return True

    def _released(self, customer: Customer, now_s: float) -> OutboxRow:
        waiting = self._parked[customer]
        row = waiting.popleft().row
        if not waiting:
            del self._parked[customer]
        del self._seqs[bisect.bisect_left(self._seqs, row.seq)]
        self._crowd_seen_s = now_s
        self._begin(row, customer, now_s, is_few=False)
        return row

    def _begin(self, row: OutboxRow, customer: Customer, now_s: float, *, is_few: bool) -> None:
        if self._latest not in (None, customer):
            self._shared_s = now_s
        self._latest = customer
        if row.aggregate_id in self._under_way:
            return  # a second row for one order, which our services never write
        order = _Order(customer, row.created_at_s, now_s, is_few)
        self._under_way[row.aggregate_id] = order
        self._counts[customer] += 1

    def _end(self, row: OutboxRow, now_s: float) -> None:
        if row.seq > self._last_end:  # a row whose queue refuses it is read again and again
            self._last_end, self._moved_s = row.seq, now_s
        order = self._under_way.pop(row.aggregate_id, None)
        if order is None:
            return
        self._discount(order.customer)
        if not order.is_few or row.type != events.COMPLETED:
            return
        took_s = row.created_at_s - order.placed_s
        if not 0 <= took_s < _FORGET_S:
            return
        if self._crowd_seen_s >= order.published_s:
            self._share.add_crowded(took_s, order.published_s, now_s)
        elif order.published_s - self._crowd_seen_s > _CALM_AFTER_S:
            self._share.add_usual(took_s)

    def _expire(self, now_s: float) -> None:
        # In one pass: asking a dict for its first key steps over every entry deleted before it.
        expired = [
            (order_id, order.customer)
            for order_id, order in itertools.takewhile(
                lambda entry: now_s - entry[1].published_s > _FORGET_S, self._under_way.items()
            )
        ]
        for order_id, customer in expired:
            del self._under_way[order_id]
            self._discount(customer)

    def _discount(self, customer: Customer) -> None:
        self._counts[customer] -= 1
        if not self._counts[customer]:
            del self._counts[customer]
