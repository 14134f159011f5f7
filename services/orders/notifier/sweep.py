"""Sends notifications that no message brings: those that failed before, and those left behind."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from orders.database.notifications import Notification, Notifications
from orders.errors import OrdersError
from orders.notifier import metrics
from orders.notifier.sending import Sending
from orders.telemetry import context, tracing
from orders.watch import Watch

_COUNT_EVERY_S: Final = 15.0
_log = structlog.get_logger()


class Sweep:
    """A thread that looks for due notifications; any number of processes may do so at once."""

    def __init__(
        self, notifications: Notifications, sending: Sending, *, width: int, every_s: float
    ) -> None:
        """Send up to `width` at once, and look every `every_s` seconds while nothing is due."""
        self._notifications, self._sending = notifications, sending
        self._width, self._every_s = width, every_s
        self.watch = Watch("notification sweep")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notification-sweep", daemon=True)
        self._senders = ThreadPoolExecutor(width, thread_name_prefix="notification-sweep")
        self._count_at_s = 0.0
        _unknown()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End after what is being sent; true if that ended in time."""
        self._stopping.set()
        self._thread.join(timeout_s)
        self._senders.shutdown(wait=False, cancel_futures=True)
        return not self._thread.is_alive()

    def _run(self) -> None:
        more = False
        while more or not self._stopping.wait(self._every_s):
            more = False
            try:
                with self.watch.in_hand():
                    self._count()
                    more = self.round() and not self._stopping.is_set()
            except OrdersError as error:
                _unknown()
                _log.warning("notification.sweep_failed", error=str(error))
            except Exception:  # noqa: BLE001 a bug in one round must not end the thread
                _unknown()
                _log.exception("notification.sweep_failed")

    def round(self) -> bool:
        """Send what is due now, up to a number; true if more may be due.

        Raises Transient when PostgreSQL is not to be had.
        """
        if self._sending.resting:
            return False
        limit = 1 if self._sending.trying else self._width
        due = self._notifications.claim_due(limit)
        for sent in [self._senders.submit(self._send, notification) for notification in due]:
            sent.result()
        return len(due) == limit

    def _send(self, notification: Notification) -> None:
        ids, remote = context.accept(notification.correlation_id, notification.traceparent)
        attributes: dict[str, str | int] = {
            "order.id": notification.order_id,
            "messaging.message.id": notification.webhook_id,
        }
        name = "notification send"
        with tracing.root(ids, name, tracing.CONSUMER, attributes, remote=remote):
            self._sending.send(notification)

    def _count(self) -> None:
        if time.monotonic() < self._count_at_s:
            return
        counts = self._notifications.count()
        metrics.WAITING.set(counts.waiting)
        metrics.OLDEST_AGE.set(counts.oldest_age_s)
        metrics.GIVEN_UP.set(counts.given_up)
        self._count_at_s = time.monotonic() + _COUNT_EVERY_S


def _unknown() -> None:
    for gauge in (metrics.WAITING, metrics.OLDEST_AGE, metrics.GIVEN_UP):
        gauge.set(float("nan"))
