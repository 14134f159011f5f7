"""Builds the worker from its parts and runs it."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

import msgspec
from prometheus_client import REGISTRY

from orders import promotion
from orders.cache.client import Redis
from orders.cache.orders import OrderCache, snapshot
from orders.database.leadership import HOUSEKEEPING, Leadership
from orders.database.pool import Pool
from orders.database.progress import Progress, ProgressSets
from orders.database.routing import ReplicaLag
from orders.errors import SettingError
from orders.messaging.consumer import PRIORITY, Consumer, Limits
from orders.messaging.sets import SetHandler
from orders.probes import Check
from orders.process import STALLED_AFTER_S, Life, problem_check, running
from orders.settings import (
    CacheSettings,
    DatabaseSettings,
    MessagingSettings,
    UpstreamSettings,
    WorkerSettings,
    load,
)
from orders.upstream.credential import credential_of
from orders.upstream.http import Upstream
from orders.upstream.inventory import Inventory
from orders.upstream.payment import Payment
from orders.upstream.policy import UpstreamPolicy, policy_of
from orders.watch import Watch
from orders.worker.collector import Collector
from orders.worker.fulfilment import Fulfilment, WorkerPorts
from orders.worker.housekeeping import Housekeeping
from orders.worker.order_calls import Upstreams, set_fulfilment
from orderservice_topology.topology import PROCESSING

_ACTOR: Final = "worker"


class Settings(msgspec.Struct, frozen=True):
    """All settings of the worker."""

    worker: WorkerSettings
    database: DatabaseSettings
    upstream: UpstreamSettings
    messaging: MessagingSettings
    cache: CacheSettings


class Servers(msgspec.Struct, frozen=True):
    """The clients of the servers that the worker uses."""

    pool: Pool
    lags: list[ReplicaLag]
    cache: OrderCache
    inventory: Upstream
    payment: Upstream


class Watches(msgspec.Struct, frozen=True):
    """The work that liveness watches, in addition to housekeeping."""

    messages: Watch
    sets: Watch


def run(environ: Mapping[str, str]) -> int:
    """Consume order-processing until a signal comes; return 0 if all messages ended in time."""
    settings = read_settings(environ)
    servers = _servers(settings)
    watches = Watches(Watch("message handling"), Watch("sets of messages"))
    consumer = _consumer(settings, servers, watches)
    housekeeping = _housekeeping(settings, servers)
    checks = _checks(servers.pool, consumer)
    with running("worker", environ, checks) as life, ExitStack() as closing:
        _watch(life, watches, settings.upstream)
        life.watch(housekeeping.watch)
        # Parts close in reverse order: the later ones use the earlier ones.
        _start(servers, closing)
        housekeeping.start()
        closing.callback(housekeeping.stop)
        consumer.start()
        life.run_until_signal()
        drained = consumer.stop()
    return 0 if drained else 1


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read and check all settings. Raises SettingError for the first that is wrong."""
    return Settings(
        load(WorkerSettings, environ),
        load(DatabaseSettings, environ),
        load(UpstreamSettings, environ),
        load(MessagingSettings, environ),
        load(CacheSettings, environ),
    )


def _servers(settings: Settings) -> Servers:
    upstream, database = settings.upstream, settings.database
    if upstream.payment_url is None:
        raise SettingError("ORDERS_PAYMENT_URL is not set: the worker needs Payment")
    policy = wide_enough(policy_of(upstream), settings.worker)
    return Servers(
        pool=_pool(settings),
        lags=[ReplicaLag(database, url) for url in database.replica_urls],
        cache=OrderCache(Redis(settings.cache), settings.cache),
        inventory=Upstream(
            "inventory",
            upstream.inventory_url,
            policy,
            credential=credential_of(upstream, "inventory"),
        ),
        payment=Upstream(
            "payment", upstream.payment_url, policy, credential=credential_of(upstream, "payment")
        ),
    )


def _pool(settings: Settings) -> Pool:
    """Return a pool with a connection for every handler thread.

    Sets, housekeeping and the probe share one more: while sets do the work, few threads use theirs.
    """
    database = settings.database
    size = max(database.pool_size, settings.worker.prefetch + 1)
    pool_settings = msgspec.structs.replace(database, pool_size=size)
    return Pool(database.url, pool_settings, "orders-worker")


def _consumer(settings: Settings, servers: Servers, watches: Watches) -> Consumer:
    worker = settings.worker
    limits = Limits(
        prefetch=worker.prefetch,
        max_tries=worker.max_attempts,
        drain_s=worker.drain_s,
        give_up_after_s=worker.give_up_after_s,
        set_size=worker.effective_set_size,
    )
    handle = watches.messages.watching(_fulfilment(servers).handle)
    set_handlers = (
        _set_handler(
            servers,
            watches.sets,
            size=worker.effective_set_size,
            width=settings.upstream.concurrency,
        ),
        # Each order has one call at a time: those with priority never wait for a connection.
        _set_handler(servers, watches.sets, size=PRIORITY, width=PRIORITY),
    )
    return Consumer(settings.messaging, PROCESSING, handle, limits, *set_handlers)


def _fulfilment(servers: Servers) -> Fulfilment:
    return Fulfilment(
        WorkerPorts(
            Progress(servers.pool, _ACTOR),
            Inventory(servers.inventory),
            Payment(servers.payment),
            lambda order: servers.cache.put(snapshot(order)),
        )
    )


def _set_handler(servers: Servers, watch: Watch, *, size: int, width: int) -> SetHandler:
    return set_fulfilment(
        ProgressSets(servers.pool, _ACTOR),
        Upstreams(servers.inventory, servers.payment, width),
        lambda orders: servers.cache.put_all([snapshot(order) for order in orders]),
        size=size,
        watch=watch,
    )


def _housekeeping(settings: Settings, servers: Servers) -> Housekeeping:
    """Build housekeeping; its collector is registered, so call this once."""
    lags, database = servers.lags, settings.database
    collector = Collector((lambda: max(lag.lag_s() for lag in lags)) if lags else None)
    REGISTRY.register(collector)
    return Housekeeping(
        servers.pool,
        Leadership(database, HOUSEKEEPING, "orders-housekeeping"),
        collector,
        settings.worker,
        on_lead=promotion.FollowUp(database, settings.cache),
    )


def _checks(pool: Pool, consumer: Consumer) -> tuple[Check, ...]:
    return (
        Check("postgres", pool.ping),
        problem_check("rabbitmq", lambda: consumer.problem),
        # Shown, but without effect: a rollout must not fail because Payment is unavailable.
        problem_check("consumption", lambda: consumer.paused, critical=False),
    )


def _watch(life: Life, watches: Watches, upstream: UpstreamSettings) -> None:
    # Between two statements there are at most two calls to upstreams.
    life.watch(watches.messages, STALLED_AFTER_S + 2 * upstream.timeout_s)
    life.watch(watches.sets, STALLED_AFTER_S + longest_call_s(upstream))


def _start(servers: Servers, closing: ExitStack) -> None:
    servers.pool.open()
    closing.callback(servers.pool.close)
    for upstream in (servers.payment, servers.inventory):
        closing.callback(upstream.close)
    servers.cache.start()
    closing.callback(servers.cache.close)
    for lag in servers.lags:
        lag.start()
        closing.callback(lag.stop)


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
    if worker.effective_set_size > 1:
        concurrency = policy.concurrency + worker.prefetch + PRIORITY
    else:
        concurrency = max(policy.concurrency, worker.prefetch)
    return msgspec.structs.replace(policy, concurrency=concurrency)
