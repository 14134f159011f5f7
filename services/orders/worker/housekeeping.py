"""What one elected worker does besides: stalled orders, old rows, counts for the gauges."""

import threading
import time
from typing import Final

import structlog

from orders.database.leadership import Leadership
from orders.database.pool import Pool
from orders.domain.deadlines import deadlines
from orders.errors import OrdersError
from orders.settings import WorkerSettings
from orders.worker.collector import Collector
from orders.worker.sweep import Sweeper

_PURGE_LIMIT: Final = 1000  # rows deleted in one statement: short locks, short transactions
_PURGES: Final = ("purge_idempotency_keys", "purge_processed_messages", "purge_stalled_orders")
_PURGE_TURNS: Final = 20
_TICK_S: Final = 0.5

_log = structlog.get_logger()


class Housekeeping:
    """A thread that does its rounds while this process holds the lock for it."""

    def __init__(
        self, pool: Pool, leadership: Leadership, collector: Collector, settings: WorkerSettings
    ) -> None:
        self._pool, self._leadership, self._collector = pool, leadership, collector
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        self._sweeper = Sweeper(pool, deadlines(settings.stalled_after_s), self._stop.is_set)
        self._next_sweep_s = self._next_collect_s = 0.0

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
        while not self._stop.wait(_TICK_S):
            try:
                self.round()
            except OrdersError as error:
                self._collector.clear()
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
        now_s = time.monotonic()
        if now_s >= self._next_collect_s:
            self._next_collect_s = now_s + self._settings.collect_s
            self._collector.collect_from(self._pool)
        if now_s >= self._next_sweep_s:
            self._next_sweep_s = now_s + self._settings.sweep_s
            self._sweeper.sweep()
            self._purge()

    def _purge(self) -> None:
        for name in _PURGES:
            for _ in range(_PURGE_TURNS):
                if self._stop.is_set() or self._pool.count(name, {"limit": _PURGE_LIMIT}) == 0:
                    break
