"""Sends notifications as signed webhooks, and records how each try ended.

`NotificationSender` sends the notifications of an order whose message arrived. `Sweep` sends those
for which no message will arrive: earlier failures, and those of a notifier that died.
"""

import base64
import hashlib
import hmac
import random
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec
import structlog

from orders.database.notifications import (
    Notification,
    NotificationOutcome,
    Notifications,
    SendResult,
)
from orders.domain.events import OrderEvent
from orders.errors import OrdersError, Permanent, Transient
from orders.messaging.envelope import Message
from orders.notifier import metrics
from orders.notifier.metrics import NOTIFICATIONS, Try
from orders.telemetry import context, tracing
from orders.upstream.http import NotAsked, Upstream
from orders.upstream.transport import HttpRequest, HttpResponse
from orders.watch import Watch

_PREFIX: Final = "whsec_"
_FACTOR: Final = 2.0
_SPREAD: Final = 0.2  # random share of a wait, so that not all tries come at once

DEFERRED: Final = "deferred"  # nothing was due: the sweep sends it later
_COUNT_EVERY_S: Final = 15.0

_log = structlog.get_logger()


class Webhook(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """The body: what happened to which order; the receiver asks the API for more."""

    type: str
    timestamp: str
    data: OrderEvent


class Receiver(msgspec.Struct, frozen=True):
    """Where webhooks go, and the secrets they are signed with."""

    upstream: Upstream
    path: str
    secrets: tuple[str, ...]


class RetrySchedule(msgspec.Struct, frozen=True):
    """When a notification that failed is tried again, and when it is given up.

    Waits grow from `first_s` to `longest_s`; after `give_up_s` there is no further try.
    """

    first_s: float
    longest_s: float
    give_up_s: float
    jitter: Callable[[], float] = random.random  # 0 to 1

    def next_s(self, tries: int, age_s: float, at_least_s: float = 0.0) -> float | None:
        """Return the wait after failure number `tries` (from 1), in seconds; None: give up."""
        left_s = self.give_up_s - age_s
        if left_s <= 0:
            return None
        backoff_s = min(self.first_s * _FACTOR ** min(tries - 1, 60), self.longest_s)
        wait_s = max(backoff_s * (1 + _SPREAD * (2 * self.jitter() - 1)), at_least_s)
        return min(wait_s, max(left_s, self.first_s))  # the last try comes when the time is over


class WebhookSender:
    """Delivers notifications. `wall_clock` is unix time in seconds."""

    def __init__(
        self,
        notifications: Notifications,
        receiver: Receiver,
        schedule: RetrySchedule,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._notifications, self._receiver, self._schedule = notifications, receiver, schedule
        self._wall_clock = wall_clock
        self._rest_until_s = 0.0

    @property
    def resting(self) -> bool:
        """Whether the receiver is known to be unavailable, so that nothing is sent."""
        return time.monotonic() < self._rest_until_s

    @property
    def is_probing(self) -> bool:
        """Whether the receiver was unavailable: send one notification to see if it is back."""
        return self._receiver.upstream.breaker_state != "closed"

    def send(self, notification: Notification) -> bool:
        """Send a claimed notification; return true if the order's next one may follow at once.

        After a crash between the receiver's answer and its record, the notification is sent again
        under the same webhook id, by which the receiver recognizes it (Standard Webhooks).
        Raises Transient when PostgreSQL is unavailable.
        """
        result = self._try(notification)
        next_is_due = self._notifications.settle(notification, result)
        _report(notification, result)
        return next_is_due and result.sent

    def _try(self, notification: Notification) -> SendResult:
        try:
            self._post(notification)
        except Permanent as error:
            return SendResult(outcome=NotificationOutcome.GONE, error=str(error))
        except NotAsked as error:
            wait_s = error.retry_after_s or 1.0
            self._rest_until_s = time.monotonic() + wait_s
            return SendResult(again_in_s=wait_s, error=str(error), tried=False)
        except Transient as error:
            return self._put_off(notification, error)
        except Exception as error:  # noqa: BLE001 a bug must not keep the claim until it expires
            _log.exception("notification.failed", orderId=notification.order_id)
            return self._put_off(notification, Transient(type(error).__name__))
        return SendResult(sent=True)

    def _put_off(self, notification: Notification, error: Transient) -> SendResult:
        wait_s = self._schedule.next_s(
            notification.tries + 1, notification.age_s, error.retry_after_s or 0.0
        )
        outcome = NotificationOutcome.GIVEN_UP if wait_s is None else None
        return SendResult(outcome=outcome, again_in_s=wait_s, error=str(error))

    def _post(self, notification: Notification) -> None:
        now_s = int(self._wall_clock())
        sent_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s))
        kind = notification.template.removesuffix(".v1")
        body = msgspec.json.encode(Webhook(kind, sent_at, notification.event))
        receiver = self._receiver
        headers = signed_headers(notification.webhook_id, now_s, body, receiver.secrets)
        request = HttpRequest("POST", receiver.path, "/", body, headers)
        receiver.upstream.call(request, _check_accepted)


class NotificationSender:
    """Sends the due notifications for the order of a message.

    Their rows decide what is sent, not the message. A row stays until its notification is sent.
    """

    def __init__(self, notifications: Notifications, sender: WebhookSender) -> None:
        self._notifications, self._sender = notifications, sender

    def handle(self, message: Message) -> str | None:
        """Send an order's due notifications, in the order of their events. Idempotent.

        Raises Transient when PostgreSQL is unavailable.
        """
        notification = self._claim_next(message)
        if notification is None:
            return DEFERRED
        while notification is not None and self._sender.send(notification):
            notification = self._notifications.claim(message.body.order_id)
        return None

    def _claim_next(self, message: Message) -> Notification | None:
        order_id = message.body.order_id
        if self._sender.resting:
            self._queue(message)
            return None
        notification = self._notifications.claim(order_id)
        if notification is None and self._queue(message):
            return self._notifications.claim(order_id)
        return notification

    def _queue(self, message: Message) -> bool:
        """Write the row of a message from before there were such rows; false if it has one."""
        ids = (message.correlation_id, message.traceparent)
        return self._notifications.queue(message.message_id, message.type, message.body, ids)


class Sweep:
    """A thread that looks for due notifications; any number of processes may do so at once."""

    def __init__(
        self, notifications: Notifications, sender: WebhookSender, *, width: int, every_s: float
    ) -> None:
        """Send up to `width` at once, and look every `every_s` seconds while nothing is due."""
        self._notifications, self._sender = notifications, sender
        self._width, self._every_s = width, every_s
        self.watch = Watch("notification sweep")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notification-sweep", daemon=True)
        self._executor = ThreadPoolExecutor(width, thread_name_prefix="notification-sweep")
        self._count_at_s = 0.0
        _clear_gauges()

    def start(self) -> None:
        """Start the thread that looks for due notifications."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Stop after the notifications being sent; true if they ended in time."""
        self._stopping.set()
        self._thread.join(timeout_s)
        self._executor.shutdown(wait=False, cancel_futures=True)
        return not self._thread.is_alive()

    def _run(self) -> None:
        more_due = False
        while more_due or not self._stopping.wait(self._every_s):
            more_due = False
            try:
                with self.watch.in_hand():
                    self._count()
                    more_due = self.round() and not self._stopping.is_set()
            except OrdersError as error:
                _clear_gauges()
                _log.warning("notification.sweep_failed", error=str(error))
            except Exception:  # noqa: BLE001 a bug in one round must not end the thread
                _clear_gauges()
                _log.exception("notification.sweep_failed")

    def round(self) -> bool:
        """Send up to `width` due notifications; return true if more may be due.

        Raises Transient when PostgreSQL is unavailable.
        """
        if self._sender.resting:
            return False
        limit = 1 if self._sender.is_probing else self._width
        notifications = self._notifications.claim_due(limit)
        for future in [
            self._executor.submit(self._send, notification) for notification in notifications
        ]:
            future.result()
        return len(notifications) == limit

    def _send(self, notification: Notification) -> None:
        ids, remote = context.accept(notification.correlation_id, notification.traceparent)
        attributes: dict[str, str | int] = {
            "order.id": notification.order_id,
            "messaging.message.id": notification.webhook_id,
        }
        name = "notification send"
        with tracing.root(ids, name, tracing.CONSUMER, attributes, remote=remote):
            self._sender.send(notification)

    def _count(self) -> None:
        if time.monotonic() < self._count_at_s:
            return
        counts = self._notifications.count()
        metrics.WAITING.set(counts.waiting)
        metrics.OLDEST_AGE.set(counts.oldest_age_s)
        metrics.GIVEN_UP.set(counts.given_up)
        self._count_at_s = time.monotonic() + _COUNT_EVERY_S


def is_gone(reply: HttpResponse) -> bool:
    """Return whether a receiver's 4xx is final: only 410 is, as Standard Webhooks specifies."""
    return reply.status == 410


def _check_accepted(reply: HttpResponse) -> None:
    if reply.status >= 400:
        raise Permanent(f"the receiver answered {reply.status}", reason="gone")


def _report(notification: Notification, result: SendResult) -> None:
    fields = {
        "orderId": notification.order_id,
        "template": notification.template,
        "tries": notification.tries + result.tried,
    }
    if result.sent:
        NOTIFICATIONS.labels(Try.SENT).inc()
        _log.info("notification.sent", **fields)
    elif result.outcome is not None:
        NOTIFICATIONS.labels(Try(result.outcome)).inc()
        _log.error("notification.ended", outcome=result.outcome, error=result.error, **fields)
    elif result.tried:
        NOTIFICATIONS.labels(Try.FAILED).inc()
        again_in_s = round(result.again_in_s or 0.0, 1)
        _log.warning("notification.put_off", again_in_s=again_in_s, error=result.error, **fields)


def signed_headers(
    webhook_id: str, at_s: int, body: bytes, secrets: Iterable[str]
) -> dict[str, str]:
    """Return the headers of a webhook, with a signature by each secret.

    A secret is `whsec_` + base64, `at_s` is unix time.
    Source: Standard Webhooks, https://www.standardwebhooks.com (symmetric signatures, `v1`).
    """
    content = b".".join((webhook_id.encode(), str(at_s).encode(), body))
    keys = [base64.b64decode(secret.removeprefix(_PREFIX)) for secret in secrets]
    digests = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)) for key in keys]
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{digest.decode()}" for digest in digests),
    }


def _clear_gauges() -> None:
    for gauge in (metrics.WAITING, metrics.OLDEST_AGE, metrics.GIVEN_UP):
        gauge.set(float("nan"))
