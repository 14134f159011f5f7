"""What one elected worker does besides: stalled orders, old rows, counts for the gauges."""

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

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
        self._pool, self._leadership, self._collector = pool, leadership, collector
        self._settings = settings
        self._on_lead, self._term = on_lead, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        self._sweeper = Sweeper(pool, deadlines(settings.stalled_after_s), self._must_end)
        self._next_sweep_s = self._next_collect_s = self._next_purge_s = 0.0
        self._purges = [_Purge(name) for name in _PURGES]
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
            self._do_rounds()

    def _do_rounds(self) -> None:
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
        """Do what is due, if this process leads."""
        if not self._leadership.held():
            self._collector.clear()
            return
        if self._leadership.term != self._term:
            self._on_lead()
            self._term = self._leadership.term
        now_s = time.monotonic()
        if now_s >= self._next_collect_s:
            self._next_collect_s = now_s + self._settings.collect_s
            self._collector.collect_from(self._pool)
        if now_s >= self._next_sweep_s:
            self._next_sweep_s = now_s + self._settings.sweep_s
            self._sweeper.sweep()
        if now_s >= self._next_purge_s:
            self._purge(now_s + self._settings.sweep_s)

    def _must_end(self) -> bool:
        """Tell whether another process may lead; asking keeps the lock during a long sweep."""
        return self._stop.is_set() or not self._leadership.held()

    def _purge(self, next_s: float) -> None:
        """Delete old rows; what is left after a slice of time is gone on with in the next round."""
        unfinished = False
        for purge in self._purges:
            if self._must_end():
                return
            unfinished |= not purge.run(self._pool, self._stop)
        if not unfinished:
            self._next_purge_s = next_s


class _Purge:
    """Deletes the old rows of one table, as fast as the server lets it."""

    def __init__(self, name: str) -> None:
        self._name, self._limit = name, _FEWEST

    def run(self, pool: Pool, stop: threading.Event) -> bool:
        """Delete for at most _SLICE_S; true if no old row is left."""
        until_s = time.monotonic() + _SLICE_S
        while not stop.is_set():
            began_s = time.monotonic()
            deleted = pool.count(self._name, {"limit": self._limit})
            if deleted < self._limit:
                return True
            ended_s = time.monotonic()
            self._adapt(ended_s - began_s)
            if ended_s > until_s:
                return False
        return False

    def _adapt(self, took_s: float) -> None:
        in_time = self._limit * _STATEMENT_S / max(took_s, 0.001)
        # Not more than double: one quick statement promises little for the next.
        self._limit = int(min(max(in_time, _FEWEST), 2 * self._limit, _MOST))
