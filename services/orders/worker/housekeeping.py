"""Duties of the elected worker: emit stalled orders, delete old rows, count for the gauges."""

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
# Rows deleted in one statement: as many as take about _STATEMENT_S, to keep locks short.
_MIN_ROWS, _MAX_ROWS = 1000, 20_000
_STATEMENT_S: Final = 0.2
# How long one table is purged before the other duties have their turn.
_SLICE_S: Final = 1.0
_TICK_S: Final = 0.5

# A duty that failed waits at least this long before it is tried again.
_RETRY_S: Final = 5.0

SWEPT_AT: Final = Gauge(
    "orders_sweep_last_success_timestamp_seconds",
    "When a sweep of this process last completed, in unix time; 0: none has.",
)
_log = structlog.get_logger()


class Housekeeping:
    """A thread that carries out the duties while this process holds their lock."""

    def __init__(
        self,
        pool: Pool,
        leadership: Leadership,
        collector: Collector,
        settings: WorkerSettings,
        *,
        on_lead: Callable[[], None] = lambda: None,
    ) -> None:
        """Take `on_lead`, which is called in each term as leader, again until it succeeds."""
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
        """End after the current statement."""
        self._stop.set()
        self._thread.join(timeout=5)
        self.stop_leading()

    def stop_leading(self) -> None:
        """Let another process take over the duties."""
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
                except Exception:  # noqa: BLE001 a dead thread with the lock would stop the duties everywhere
                    self.stop_leading()
                    _log.exception("housekeeping.failed")
                    self._stop.wait(1)

    def round(self) -> None:
        """Carry out the due duties if this process leads; one that fails does not stop the others.

        Raises Transient when the lock's session is lost. Raises a bug after the last duty.
        """
        bugs: list[Exception] = []
        for duty in self._duties:
            if not self._leadership.held():  # the check keeps the lock, too
                self._collector.clear()
                return
            if self._stop.is_set():
                return
            try:
                duty.do_if_due()
            except Exception as bug:  # noqa: BLE001 the other duties come first
                bugs.append(bug)
        if bugs:
            raise bugs[0]

    def _must_end(self) -> bool:
        """Return whether to stop. The check also keeps the lock during a long duty."""
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
    """A repeated duty; its interval begins at the end of the last run."""

    def __init__(self, name: str, every_s: float, work: Callable[[], bool]) -> None:
        """Take the work, which returns false if something is left for the next round."""
        self._name, self._every_s, self._work = name, every_s, work
        self._due_at_s = 0.0

    def do_if_due(self) -> None:
        """Do the work if it is due. Log an OrdersError and try again later; raise bugs."""
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
    """Deletes the old rows of one table, with limits that adapt to the server's speed."""

    def __init__(self, name: str) -> None:
        self.name, self._limit = name, _MIN_ROWS

    def run(self, pool: Pool, stop: threading.Event) -> bool:
        """Delete for about _SLICE_S; return true if no old row is left."""
        until_s = time.monotonic() + _SLICE_S
        while not stop.is_set():
            began_s = time.monotonic()
            count = self._delete(pool)
            if count < self._limit:
                return True
            ended_s = time.monotonic()
            rows = self._limit * _STATEMENT_S / max(ended_s - began_s, 0.001)
            # At most double the limit: the next statement may be slower than this one.
            self._limit = int(min(max(rows, _MIN_ROWS), 2 * self._limit, _MAX_ROWS))
            if ended_s > until_s:
                return False
        return False

    def _delete(self, pool: Pool) -> int:
        try:
            return pool.count(self.name, {"limit": self._limit})
        except OrdersError:
            self._limit = _MIN_ROWS  # the larger limit may have caused a timeout
            raise
