"""Builds the notifier from its parts and runs it."""

from collections.abc import Mapping
from contextlib import ExitStack
from urllib.parse import urlsplit

from orders.database.notifications import Notifications
from orders.database.pool import Pool
from orders.messaging.consumer import Consumer, Limits
from orders.notifier.delivery import (
    NotificationSender,
    Receiver,
    RetrySchedule,
    Sweep,
    WebhookSender,
    is_gone,
)
from orders.probes import Check
from orders.process import STALLED_AFTER_S, problem_check, running
from orders.settings import DatabaseSettings, MessagingSettings, NotificationSettings, load
from orders.upstream.addresses import AllowedAddresses
from orders.upstream.credential import credential_of_webhooks
from orders.upstream.http import Upstream
from orders.upstream.policy import UpstreamPolicy
from orders.watch import Watch
from orderservice_topology.topology import NOTIFICATIONS


def run(environ: Mapping[str, str]) -> int:
    """Consume order-notifications until a signal comes; return 0 if all messages ended in time."""
    notifier, database = load(NotificationSettings, environ), load(DatabaseSettings, environ)
    messaging = load(MessagingSettings, environ)

    pool = Pool(database.url, database, "orders-notifier")
    url_parts = urlsplit(notifier.url)
    origin = f"{url_parts.scheme}://{url_parts.netloc}"
    path = (url_parts.path or "/") + (f"?{url_parts.query}" if url_parts.query else "")
    # No retries within a call: a notification waits in its row, so that it needs no thread.
    # The sweep makes as many calls at once as the handlers of messages.
    policy = UpstreamPolicy(retries=0, concurrency=2 * notifier.prefetch).within(notifier.timeout_s)
    addresses = AllowedAddresses(private=notifier.private_allowed, networks=notifier.networks)
    credential = credential_of_webhooks(notifier)
    receiver = Upstream(
        "webhook", origin, policy, definite=is_gone, addresses=addresses, credential=credential
    )
    notifications = Notifications(pool, claim_s=notifier.timeout_s * 2)
    schedule = RetrySchedule(
        notifier.first_retry_s, notifier.longest_retry_s, notifier.give_up_after_s
    )
    sender = WebhookSender(notifications, Receiver(receiver, path, notifier.secrets), schedule)
    sweep = Sweep(notifications, sender, width=notifier.prefetch, every_s=notifier.sweep_s)
    delivery = NotificationSender(notifications, sender)
    limits = Limits(
        prefetch=notifier.prefetch, max_tries=notifier.max_attempts, drain_s=notifier.drain_s
    )
    handling = Watch("message handling")
    handle = handling.watching(delivery.handle)
    consumer = Consumer(messaging, NOTIFICATIONS, handle, limits)

    checks = (
        Check("postgres", pool.ping),
        problem_check("rabbitmq", lambda: consumer.problem),
        # Shown, but without effect: a rollout must not fail because PostgreSQL is unavailable.
        problem_check("consumption", lambda: consumer.paused, critical=False),
    )
    with running("notifier", environ, checks) as life, ExitStack() as closing:
        life.watch(handling, STALLED_AFTER_S + notifier.timeout_s)
        life.watch(sweep.watch, STALLED_AFTER_S + notifier.timeout_s)
        # Parts close in reverse order: the later ones use the earlier ones.
        pool.open()
        closing.callback(pool.close)
        closing.callback(receiver.close)
        sweep.start()
        consumer.start()
        life.run_until_signal()
        drained = consumer.stop()
        sweep_ended = sweep.stop(notifier.timeout_s + 1)
    return 0 if drained and sweep_ended else 1
