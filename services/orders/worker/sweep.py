"""Finds stalled orders and emits them again, at a rate that adapts to the effect."""

from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client import Counter

from orders.database.pool import Pool, Row
from orders.domain.deadlines import Deadline
from orders.domain.lifecycle import Status
from orders.errors import Transient

_BATCH: Final = 500  # orders in one statement: short locks
_FEWEST: Final = 500  # orders in one sweep, when emitting them does not help
_MOST: Final = 16_000  # the relay publishes so many in a few seconds
_HELPS: Final = 0.5  # share of the last sweep's orders that have moved

ORDERS_STALLED: Final = Counter(
    "orders_stalled_total", "Orders emitted again because they sat in one status for too long."
)
_log = structlog.get_logger()


class Pace:
    """How many orders one sweep may emit: twice as many while the last ones get on, else half."""

    def __init__(self) -> None:
        self.limit = _FEWEST

    def adapt(self, emitted: int, moved: int) -> None:
        """Learn what became of the orders of the last sweep."""
        if emitted == 0:
            return
        if moved >= emitted * _HELPS:
            self.limit = min(self.limit * 2, _MOST)
        else:
            self.limit = max(self.limit // 2, _FEWEST)


class Sweeper:
    """One sweep after the other; `stopping` tells whether to end early."""

    def __init__(
        self, pool: Pool, deadlines: dict[Status, Deadline], stopping: Callable[[], bool]
    ) -> None:
        self._pool, self._stopping = pool, stopping
        self._pace = Pace()
        self._last: list[Row] = []  # (order id, version) of the last sweep
        self._table = {
            "statuses": [status.value for status in deadlines],
            "after_s": [deadline.after_s for deadline in deadlines.values()],
            "longest_s": [
                max(deadline.longest_s, deadline.after_s) for deadline in deadlines.values()
            ],
            "shortest_s": min(deadline.after_s for deadline in deadlines.values()),
        }

    def sweep(self) -> bool:
        """Emit the orders that are due, oldest first; false if it was stopped. Raises Transient."""
        self._adapt()
        emitted: list[Row] = []
        stopped = False
        while len(emitted) < self._pace.limit:
            stopped = self._stopping()
            if stopped:
                break
            batch = min(_BATCH, self._pace.limit - len(emitted))
            rows = self._pool.execute("emit_stalled", {**self._table, "limit": batch})
            emitted += rows
            if len(rows) < batch:
                break
        self._last = emitted
        if emitted:
            ORDERS_STALLED.inc(len(emitted))
            _log.warning("order.stalled", orders=len(emitted), first=emitted[0][0])
        return not stopped

    def _adapt(self) -> None:
        if not self._last:
            return
        sample = self._last[:1000]
        arguments = {"orders": [row[0] for row in sample], "versions": [row[1] for row in sample]}
        try:
            [(moved,)] = self._pool.execute("count_moved", arguments)
        except Transient:  # a count that fails is no reason not to sweep
            moved = 0
        self._pace.adapt(len(sample), moved)
