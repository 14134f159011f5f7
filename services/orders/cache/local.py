"""L1: orders in this process, trusted only while Redis reports every change.

An entry outlives its trust: as the newest version this process knows, it keeps a late answer of a
lagging source from taking a reader back in time. `AbsentIds` are the ids that nobody ever had.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, NamedTuple

from orders.cache.shared import CachedOrder

# Seconds after the last proof for which an L1 is trusted. With the 50 ms that a writer may take to
# reach Redis it stays below the 1 s in which every reader must see a change.
TRUST_S: Final = 0.8
# Seconds for which a known version outweighs an older answer. Longer than any replica lags; not
# for ever, since a database restored from a backup is right to answer with older versions.
# After a promotion `flush` has them forgotten at once.
KNOWN_S: Final = 300.0
_STRIPES: Final = 4096  # a change drops the pending fills of 1/4096 of all orders
SETTLED_S: Final = 10.0  # twice the longest statement
ABSENT_S: Final = 1.0
_SAMPLE_S: Final = 0.5
_ABSENT_LIMIT: Final = 10_000


class Lease(NamedTuple):
    """The right to fill, good until the order changes or the connection to Redis is lost."""

    epoch: int
    changes: int


class _Entry:
    __slots__ = ("epoch", "fresh_until", "known_until", "order")

    def __init__(self, order: CachedOrder, known_until: float) -> None:
        self.order = order
        self.known_until = known_until
        self.epoch = -1
        self.fresh_until = 0.0


class LocalOrders:
    """A bounded LRU of snapshots; `invalidate` and its kin come from one tracking thread."""

    def __init__(self, entries: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = entries
        self._clock = clock
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._changes = [0] * _STRIPES
        self._epoch = 0
        self._trusted_until = 0.0
        self._lock = threading.Lock()

    # What readers call.

    @property
    def trusted(self) -> bool:
        """Whether all changes until a moment ago are known to have been heard of."""
        return self._clock() < self._trusted_until

    def read(self, order_id: int) -> CachedOrder | None:
        """Return the snapshot if it is current to within TRUST_S."""
        entry = self._entries.get(order_id)
        if entry is None or entry.epoch != self._epoch:
            return None
        now = self._clock()
        if now >= entry.fresh_until or now >= self._trusted_until:
            return None
        try:
            self._entries.move_to_end(order_id)
        except KeyError:  # another thread's fill has just pushed it out
            return None
        return entry.order

    def lease(self, order_id: int) -> Lease:
        """Take the right to fill before reading what to fill with."""
        return Lease(self._epoch, self._changes[order_id % _STRIPES])

    def fill(self, order: CachedOrder, lease: Lease, ttl_s: float) -> None:
        """Make a snapshot read from Redis current for `ttl_s`, unless the lease ended."""
        with self._lock:
            entry = self._newest(order)
            if entry is not None and entry.order is order and self.lease(order.id) == lease:
                entry.epoch = lease.epoch
                entry.fresh_until = self._clock() + ttl_s

    def newest(self, order: CachedOrder) -> CachedOrder:
        """Remember a snapshot and return the newest known: `order`, or one that outdates it."""
        with self._lock:
            entry = self._newest(order)
        return order if entry is None else entry.order

    def _newest(self, order: CachedOrder) -> _Entry | None:
        """Return the entry of the order's newest version; None when nothing is kept at all."""
        now = self._clock()
        entry = self._entries.get(order.id)
        if entry is not None and entry.order.version > order.version and now < entry.known_until:
            return entry
        if entry is None or entry.order.version != order.version:
            return self._insert(_Entry(order, now + KNOWN_S))
        entry.order, entry.known_until = order, now + KNOWN_S
        return entry

    def _insert(self, entry: _Entry) -> _Entry | None:
        if not self._limit:
            return None
        self._entries[entry.order.id] = entry
        self._entries.move_to_end(entry.order.id)
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)
        return entry

    # What the tracking thread calls.

    def prove(self, heard_until: float) -> None:
        """Note that every change made before `heard_until` (clock) has been invalidated here."""
        self._trusted_until = heard_until + TRUST_S

    def invalidate(self, order_id: int) -> None:
        """Stop serving an order: it changed. Its version stays known."""
        with self._lock:
            self._changes[order_id % _STRIPES] += 1
            entry = self._entries.get(order_id)
            if entry is not None:
                entry.fresh_until = 0.0

    def forget(self) -> None:
        """Drop everything, known versions too: some of them never happened."""
        with self._lock:
            self._epoch += 1
            self._entries.clear()

    def invalidate_all(self) -> None:
        """Stop serving everything: changes may have been missed. Versions stay known."""
        with self._lock:
            self._epoch += 1
            self._trusted_until = 0.0


class AbsentIds:
    """A bounded set of ids that are missing for good, each believed for ABSENT_S.

    Remembering a missing id is dangerous: ids are handed out in order, and an id probed a moment
    before its order is created must be found right after. Safe are only ids below one that exists
    since SETTLED_S: an id is drawn by the statement that inserts it, which ends within
    `statement_timeout` (5 s), so a lower one that is still missing will never appear. This needs an
    identity column without CACHE, and a "missing" that comes from the primary.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._highest = 0
        self._settled = 0  # highest id seen at least SETTLED_S ago
        self._samples: deque[tuple[float, int]] = deque()  # (when, highest id then)
        self._until: OrderedDict[int, float] = OrderedDict()
        self._lock = threading.Lock()

    def saw(self, order_id: int) -> None:
        """Note that this order exists (committed). Never feed it what a client sent."""
        if order_id > self._highest:
            with self._lock:
                self._highest = max(self._highest, order_id)
                now = self._clock()
                if not self._samples or now - self._samples[-1][0] >= _SAMPLE_S:
                    self._samples.append((now, self._highest))
                self._settle(now)
        if self._until:
            self._until.pop(order_id, None)

    def __contains__(self, order_id: int) -> bool:
        """Whether the order was found missing a moment ago, and that cannot have changed."""
        until = self._until.get(order_id)
        return until is not None and self._clock() < until

    def add(self, order_id: int) -> None:
        """Remember that the primary has no such order, if that is safe to remember."""
        now = self._clock()
        with self._lock:
            self._settle(now)
            if order_id > self._settled:
                return
            self._until[order_id] = now + ABSENT_S
            self._until.move_to_end(order_id)
            if len(self._until) > _ABSENT_LIMIT:
                self._until.popitem(last=False)

    def _settle(self, now: float) -> None:
        while self._samples and self._samples[0][0] <= now - SETTLED_S:
            self._settled = self._samples.popleft()[1]
