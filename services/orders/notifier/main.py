"""Puts the notifier together: the one place that knows all of its parts."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from orders.database.notifications import Notifications
from orders.database.pool import Pool
from orders.messaging.consumer import Consumer, Limits
from orders.messaging.topology import NOTIFICATIONS_QUEUE
from orders.notifier.delivery import Delivery
from orders.probes import Check
from orders.process import STALLED_AFTER_S, problem_check, running
from orders.settings import DatabaseSettings, MessagingSettings, NotificationSettings, load
from orders.upstream.http import Upstream
from orders.upstream.policy import UpstreamPolicy
from orders.watch import Watch

ADMIN_PORT = 8084


def run(environ: Mapping[str, str]) -> int:
    """Consume order-notifications until a signal comes; 0 if all in flight ended in time."""
    mine, database = load(NotificationSettings, environ), load(DatabaseSettings, environ)
    messaging = load(MessagingSettings, environ)

    pool = Pool(database.url, database, "orders-notifier")
    origin, path = _split(mine.url)
    # No retries in place: the retry tiers wait longer, and do not hold a thread meanwhile.
    policy = UpstreamPolicy(retries=0, concurrency=mine.prefetch).within(mine.timeout_s)
    receiver = Upstream("webhook", origin, policy)
    notifications = Notifications(pool, claim_s=mine.timeout_s * 2)
    delivery = Delivery(notifications, receiver, path, mine.secret)
    limits = Limits(prefetch=mine.prefetch, max_attempts=mine.max_attempts, drain_s=mine.drain_s)
    handling = Watch("message handling")
    handle = handling.watching(delivery.handle)
    consumer = Consumer(messaging, NOTIFICATIONS_QUEUE, handle, limits)

    checks = (Check("postgres", pool.ping), problem_check("rabbitmq", lambda: consumer.problem))
    with running("notifier", environ, ADMIN_PORT, checks) as life:
        life.watch(handling, STALLED_AFTER_S + mine.timeout_s)
        pool.open()
        consumer.start()
        life.last()
        drained = consumer.stop()
        receiver.close()
        pool.close()
    return 0 if drained else 1


def _split(url: str) -> tuple[str, str]:
    """Divide the address of the receiver into origin and path."""
    parts = urlsplit(url)
    path = parts.path or "/"
    return f"{parts.scheme}://{parts.netloc}", f"{path}?{parts.query}" if parts.query else path
