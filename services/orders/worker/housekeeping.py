"""What one elected worker does besides: stalled orders, old rows, counts for the gauges."""

import functools
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client import Gauge

from orders.database.leadership import Leadership
from orders.database.pool import Pool
from orders.domain.deadlines import deadlines
from orders.errors import OrdersError
from orders.settings import WorkerSettings
from orders.watch import Watch
from orders.worker.collector import Collector
from orders.worker.sweep import Sweeper

_PURGES: Final = ("purge_idempotency_keys", "purge_processed_messages", "purge_stalled_orders")
# Rows deleted in one statement, as many as take about so long: short locks, short transactions.
_FEWEST, _MOST = 1000, 20_000
_STATEMENT_S: Final = 0.2
# How long one table is purged before the other duties are looked at.
_SLICE_S: Final = 1.0
_TICK_S: Final = 0.5

# How soon a duty that failed is tried again, if it would be due earlier.
_RETRY_S: Final = 5.0

SWEPT_AT: Final = Gauge(
    "orders_sweep_last_success_timestamp_seconds",
    "When a sweep of this process last came to its end, in unix time; 0: none has.",
)
_log = structlog.get_logger()


class Housekeeping:
    """A thread that does its rounds while this process holds the lock for it."""

    def __init__(
        self,
        pool: Pool,
        leadership: Leadership,
        collector: Collector,
        settings: WorkerSettings,
        *,
        on_lead: Callable[[], None] = lambda: None,
    ) -> None:
        """Take what is done in every term, again and again until it comes to its end."""
        self._pool, self._leadership, self._collector = pool, leadership, collector
        self._on_lead, self._term = on_lead, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        self._sweeper = Sweeper(pool, deadlines(settings.stalled_after_s), self._must_end)
        purges = [_Purge(name) for name in _PURGES]
        # Counting comes last: it matters least, and may take longest.
        self._duties = [
            _Duty("term", 0, self._begin_term),
            _Duty("sweep", settings.sweep_s, self._sweep),
            *(
                _Duty(purge.name, settings.sweep_s, functools.partial(purge.run, pool, self._stop))
                for purge in purges
            ),
            _Duty("collect", settings.collect_s, self._collect),
        ]
        self.watch = Watch("housekeeping")

    def start(self) -> None:
        """Begin; the first round is due at once."""
        self._thread.start()

    def stop(self) -> None:
        """End after the statement at hand."""
        self._stop.set()
        self._thread.join(timeout=5)
        self.stop_leading()

    def stop_leading(self) -> None:
        """Leave the rounds to another process."""
        self._collector.clear()
        self._leadership.close()

    def _run(self) -> None:
        with self.watch.in_hand():
            while not self._stop.wait(_TICK_S):
                self.watch.step()
                try:
                    self.round()
                except OrdersError as error:
                    self._collector.lose()
                    _log.warning("housekeeping.failed", error=str(error))
                    self._stop.wait(1)
                except Exception:  # noqa: BLE001 a dead thread that holds the lock ends it for everybody
                    self.stop_leading()
                    _log.exception("housekeeping.failed")
                    self._stop.wait(1)

    def round(self) -> None:
        """Run the due duties if this process leads; a duty that fails stops no other.

        Raises Transient when the lock's session is lost. A bug is raised when the round is over.
        """
        bugs: list[Exception] = []
        for duty in self._duties:
            if not self._leadership.held():  # asking keeps the lock, too
                self._collector.clear()
                return
            if self._stop.is_set():
                return
            try:
                duty.do_if_due()
            except Exception as bug:  # noqa: BLE001 the others are still to be done
                bugs.append(bug)
        if bugs:
            raise bugs[0]

    def _must_end(self) -> bool:
        """Tell whether another process may lead; asking keeps the lock during a long duty."""
        return self._stop.is_set() or not self._leadership.held()

    def _begin_term(self) -> bool:
        if self._leadership.term != self._term:
            term = self._leadership.term
            self._on_lead()
            self._term = term
        return True

    def _sweep(self) -> bool:
        if self._sweeper.sweep():
            SWEPT_AT.set_to_current_time()
        return True

    def _collect(self) -> bool:
        self._collector.collect_from(self._pool, self._must_end)
        return True


class _Duty:
    """A repeated duty; the next run is counted from the end of the last."""

    def __init__(self, name: str, every_s: float, work: Callable[[], bool]) -> None:
        """Take the work: false if something is left for the next round."""
        self._name, self._every_s, self._work = name, every_s, work
        self._due_at_s = 0.0

    def do_if_due(self) -> None:
        """Do it; a failure is logged, and tried again when it is due. Raises bugs."""
        if time.monotonic() < self._due_at_s:
            return
        pause_s = max(self._every_s, _RETRY_S)
        try:
            pause_s = self._every_s if self._work() else 0.0
        except OrdersError as error:
            _log.warning("housekeeping.failed", duty=self._name, error=str(error))
        finally:
            self._due_at_s = time.monotonic() + pause_s


class _Purge:
    """Deletes the old rows of one table, as fast as the server lets it."""

    def __init__(self, name: str) -> None:
        self.name, self._limit = name, _FEWEST

    def run(self, pool: Pool, stop: threading.Event) -> bool:
        """Delete for at most _SLICE_S; true if no old row is left."""
        until_s = time.monotonic() + _SLICE_S
        while not stop.is_set():
            began_s = time.monotonic()
            deleted = self._delete(pool)
            if deleted < self._limit:
                return True
            ended_s = time.monotonic()
            in_time = self._limit * _STATEMENT_S / max(ended_s - began_s, 0.001)
            # Not more than double: one quick statement promises little for the next.
            self._limit = int(min(max(in_time, _FEWEST), 2 * self._limit, _MOST))
            if ended_s > until_s:
                return False
        return False

    def _delete(self, pool: Pool) -> int:
        try:
            return pool.count(self.name, {"limit": self._limit})
        except OrdersError:
            self._limit = _FEWEST  # so many may be what the server had no time for
            raise
