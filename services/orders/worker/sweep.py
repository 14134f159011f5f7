"""Emits stalled orders again: more of them in each sweep while that helps, else fewer."""

from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client import Counter

from orders.database.pool import Pool
from orders.database.statements import Row
from orders.domain.deadlines import Deadline
from orders.domain.lifecycle import Status
from orders.errors import Transient

_BATCH: Final = 500  # orders in one statement: short locks
_MIN_ORDERS: Final = 500  # orders in one sweep while emitting them does not help
_MAX_ORDERS: Final = 16_000  # the relay publishes this many in a few seconds
_HELPS: Final = 0.5  # emitting helps if this share of the last sweep's orders has moved

ORDERS_STALLED: Final = Counter(
    "orders_stalled_total", "Orders emitted again because they were in one status for too long."
)
_log = structlog.get_logger()


class Pace:
    """How many orders one sweep may emit: twice the last number if those moved, else half."""

    def __init__(self) -> None:
        self.limit = _MIN_ORDERS

    def adapt(self, emitted_count: int, moved_count: int) -> None:
        """Set the limit from the last sweep: how many orders it emitted, and how many moved."""
        if emitted_count == 0:
            return
        if moved_count >= emitted_count * _HELPS:
            self.limit = min(self.limit * 2, _MAX_ORDERS)
        else:
            self.limit = max(self.limit // 2, _MIN_ORDERS)


class Sweeper:
    """Emits stalled orders; `must_stop` returns whether to end a sweep early."""

    def __init__(
        self, pool: Pool, deadlines: dict[Status, Deadline], must_stop: Callable[[], bool]
    ) -> None:
        self._pool, self._must_stop = pool, must_stop
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
        emitted_rows: list[Row] = []
        is_stopped = False
        while len(emitted_rows) < self._pace.limit:
            is_stopped = self._must_stop()
            if is_stopped:
                break
            batch = min(_BATCH, self._pace.limit - len(emitted_rows))
            rows = self._pool.execute("emit_stalled", {**self._table, "limit": batch})
            emitted_rows += rows
            if len(rows) < batch:
                break
        self._last = emitted_rows
        if emitted_rows:
            ORDERS_STALLED.inc(len(emitted_rows))
            _log.warning("order.stalled", orders=len(emitted_rows), first=emitted_rows[0].id)
        return not is_stopped

    def _adapt(self) -> None:
        if not self._last:
            return
        sample = self._last[:1000]
        arguments = {
            "orders": [row.id for row in sample],
            "versions": [row.version for row in sample],
        }
        try:
            [(moved_count,)] = self._pool.execute("count_moved", arguments)
        except Transient:  # sweep even if this count fails
            moved_count = 0
        self._pace.adapt(len(sample), moved_count)
