"""Snapshots that could not be written: they follow when Redis is back.

Without it the entry of an order that was refunded while Redis was away would go on saying
Completed for the rest of its five minutes.
"""

import threading
from collections import OrderedDict
from typing import Final

import structlog

from orders.cache.client import RedisDown
from orders.cache.shared import SharedOrders
from orders.cache.snapshot import CachedOrder

log = structlog.get_logger()

ENTRIES: Final = 10_000  # ~5 MB. Beyond it the oldest go; their entries in Redis end by their TTL
_BATCH: Final = 100  # ~50 kB a round trip, well within the budget of one call


class Backlog:
    """The newest unwritten snapshot of each order, and the thread that writes them."""

    def __init__(
        self, shared: SharedOrders, *, retry_after_s: float, entries: int = ENTRIES
    ) -> None:
        self._shared = shared
        self._retry_after_s = retry_after_s
        self._limit = entries
        self._orders: OrderedDict[int, CachedOrder] = OrderedDict()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._orders)

    def add(self, order: CachedOrder) -> None:
        """Keep a snapshot until it is written, unless a newer one of the order waits already."""
        with self._lock:
            waiting = self._orders.get(order.id)
            if waiting is not None and waiting.version >= order.version:
                return
            self._orders[order.id] = order
            if len(self._orders) > self._limit:
                self._orders.popitem(last=False)
        self._wake.set()

    def written(self, order: CachedOrder) -> None:
        """Forget what this snapshot makes needless."""
        if not self._orders:
            return
        with self._lock:
            waiting = self._orders.get(order.id)
            if waiting is not None and waiting.version <= order.version:
                del self._orders[order.id]

    def start(self) -> None:
        """Start the thread; call it after fork."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="cache-backlog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and try once more to write what is left."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=2)
        unwritten = len(self) - self.flush()
        if unwritten:
            log.warning("cache.writes_lost", orders=unwritten)

    def flush(self) -> int:
        """Write all that waits, until Redis fails; return how many were written."""
        written = 0
        while batch := self._batch():
            try:
                self._shared.put_all(batch)
            except RedisDown:
                break
            for order in batch:
                self.written(order)
            written += len(batch)
        return written

    def _batch(self) -> list[CachedOrder]:
        with self._lock:
            return [order for order, _ in zip(self._orders.values(), range(_BATCH), strict=False)]

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            while self._orders and not self._stop.wait(self._retry_after_s):
                if written := self.flush():
                    log.info("cache.writes_caught_up", orders=written)
