"""Builds the worker from its parts and runs it."""

from collections.abc import Mapping
from contextlib import ExitStack

import msgspec
from prometheus_client import REGISTRY

from orders import promotion, settings
from orders.cache.client import Redis
from orders.cache.orders import OrderCache, snapshot
from orders.database.leadership import HOUSEKEEPING, Leadership
from orders.database.pool import Pool
from orders.database.progress import Progress, ProgressSets
from orders.database.routing import ReplicaLag
from orders.errors import SettingError
from orders.messaging.consumer import PRIORITY, Consumer, Limits
from orders.probes import Check
from orders.process import STALLED_AFTER_S, problem_check, running
from orders.settings import DatabaseSettings, UpstreamSettings, WorkerSettings, load
from orders.upstream.credential import credential_of
from orders.upstream.http import Upstream
from orders.upstream.inventory import Inventory
from orders.upstream.payment import Payment
from orders.upstream.policy import UpstreamPolicy, policy_of
from orders.watch import Watch
from orders.worker.asking import Upstreams, set_fulfilment
from orders.worker.collector import Collector
from orders.worker.fulfilment import Fulfilment, WorkerPorts
from orders.worker.housekeeping import Housekeeping
from orderservice_topology.topology import PROCESSING


def run(environ: Mapping[str, str]) -> int:
    """Consume order-processing until a signal comes; return 0 if all messages ended in time."""
    worker, database = load(WorkerSettings, environ), load(DatabaseSettings, environ)
    upstreams, messaging = (
        load(UpstreamSettings, environ),
        load(settings.MessagingSettings, environ),
    )
    caching = load(settings.CacheSettings, environ)
    if upstreams.payment_url is None:
        raise SettingError("ORDERS_PAYMENT_URL is not set: the worker needs Payment")

    # A connection for every handler thread; sets, housekeeping and the probe share one more.
    # While sets do the work, few of the threads use theirs.
    size = max(database.pool_size, worker.prefetch + 1)
    pool_settings = msgspec.structs.replace(database, pool_size=size)
    pool = Pool(database.url, pool_settings, "orders-worker")
    cache = OrderCache(Redis(caching), caching)
    policy = wide_enough(policy_of(upstreams), worker)
    inventory = Upstream(
        "inventory",
        upstreams.inventory_url,
        policy,
        credential=credential_of(upstreams, "inventory"),
    )
    payment = Upstream(
        "payment", upstreams.payment_url, policy, credential=credential_of(upstreams, "payment")
    )
    fulfilment = Fulfilment(
        WorkerPorts(
            Progress(pool, "worker"),
            Inventory(inventory),
            Payment(payment),
            lambda order: cache.put(snapshot(order)),
        )
    )
    limits = Limits(
        prefetch=worker.prefetch,
        max_attempts=worker.max_attempts,
        drain_s=worker.drain_s,
        give_up_after_s=worker.give_up_after_s,
        set_size=worker.together,
    )
    handling, together = Watch("message handling"), Watch("sets of messages")
    handle = handling.watching(fulfilment.handle)
    # Each order has one call at a time: those with priority never wait for a connection.
    set_handlers = [
        set_fulfilment(
            ProgressSets(pool, "worker"),
            Upstreams(inventory, payment, width),
            lambda orders: cache.put_all([snapshot(order) for order in orders]),
            size=size,
            watch=together,
        )
        for size, width in (
            (worker.together, upstreams.concurrency),
            (PRIORITY, PRIORITY),
        )
    ]
    consumer = Consumer(messaging, PROCESSING, handle, limits, *set_handlers)
    lags = [ReplicaLag(database, url) for url in database.replica_urls]
    collector = Collector((lambda: max(lag.lag_s() for lag in lags)) if lags else None)
    REGISTRY.register(collector)
    leadership = Leadership(database, HOUSEKEEPING, "orders-housekeeping")
    housekeeping = Housekeeping(
        pool, leadership, collector, worker, on_lead=promotion.FollowUp(database, caching)
    )

    checks = (
        Check("postgres", pool.ping),
        problem_check("rabbitmq", lambda: consumer.problem),
        # Shown, but without effect: a rollout must not fail because Payment is unavailable.
        problem_check("consumption", lambda: consumer.paused, critical=False),
    )
    with running("worker", environ, checks) as life, ExitStack() as closing:
        # Between two statements there are at most two calls to upstreams.
        life.watch(handling, STALLED_AFTER_S + 2 * upstreams.timeout_s)
        life.watch(together, STALLED_AFTER_S + longest_call_s(upstreams))
        life.watch(housekeeping.watch)
        # Parts close in reverse order: the later ones use the earlier ones.
        pool.open()
        closing.callback(pool.close)
        for upstream in (payment, inventory):
            closing.callback(upstream.close)
        cache.start()
        closing.callback(cache.close)
        for lag in lags:
            lag.start()
            closing.callback(lag.stop)
        housekeeping.start()
        closing.callback(housekeeping.stop)
        consumer.start()
        life.run_until_signal()
        drained = consumer.stop()
    return 0 if drained else 1


def longest_call_s(upstreams: UpstreamSettings) -> float:
    """Return how long a set of one order may wait for a call, in seconds.

    This includes all tries and the waits between them; the last try may find no connection.
    """
    return upstreams.timeout_s + upstreams.try_timeout_s


def wide_enough(policy: UpstreamPolicy, worker: WorkerSettings) -> UpstreamPolicy:
    """Return the policy with a place in the bulkhead for every handler thread.

    A thread without a place would cost its message a try and 5 s. The setting names the places of
    sets; those of the threads and of orders with priority are added to it.
    """
    if worker.together > 1:
        concurrency = policy.concurrency + worker.prefetch + PRIORITY
    else:
        concurrency = max(policy.concurrency, worker.prefetch)
    return msgspec.structs.replace(policy, concurrency=concurrency)
