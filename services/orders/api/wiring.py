"""Builds the API from its settings: the one place that knows all of its parts."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final, Protocol, TypeVar
from wsgiref.types import WSGIApplication

import msgspec

from orders.api.app import create_app
from orders.api.cancellation import CANCELLED
from orders.api.metrics import BackgroundWriter
from orders.api.orders import ACCEPTED
from orders.api.ratelimit import RateLimiter
from orders.api.refunds import REFUND_REQUESTED
from orders.api.resource import ApiPorts, Authentication, NoAuthentication
from orders.cache.client import Redis
from orders.cache.orders import OrderCache
from orders.cache.writers import RecentWriters
from orders.database import connection
from orders.database.cancellations import Cancellations
from orders.database.orders import Batching, History, Orders, unbatched
from orders.database.pool import Pool
from orders.database.refund_requests import RefundRequests
from orders.database.routing import Reads, Replica, ReplicaLag
from orders.database.unmarked import UnmarkedWrites
from orders.errors import SettingError
from orders.probes import Check, Checks
from orders.settings import (
    ApiSettings,
    AuthSettings,
    CacheSettings,
    CancellationSettings,
    DatabaseSettings,
    Group,
    OrderSettings,
    RateLimitSettings,
    UpstreamSettings,
    load,
)
from orders.upstream.credential import credential_of
from orders.upstream.http import Upstream
from orders.upstream.inventory import AdmissionCheck, Inventory
from orders.upstream.policy import policy_of

_APPLICATION: Final = "orders-api"
# A promotion within this time makes no pod unready. All pods lose the same primary, and they would
# stay out of the Service until their next probe.
_PROMOTION_S: Final = 10.0


class Settings(msgspec.Struct, frozen=True):
    """The settings of the workers and the admin process; read once, before forking."""

    api: ApiSettings
    auth: AuthSettings
    cache: CacheSettings
    cancellation: CancellationSettings
    database: DatabaseSettings
    order: OrderSettings
    rate_limit: RateLimitSettings
    upstream: UpstreamSettings


class Service(msgspec.Struct, frozen=True):
    """A running API; `close` stops its threads and closes its connections."""

    app: WSGIApplication
    close: Callable[[], None]


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read and check all settings. Raises SettingError for the first that is wrong."""
    groups: dict[str, Group] = {
        field.name: load(field.type, environ) for field in msgspec.structs.fields(Settings)
    }
    loaded = Settings(**groups)  # type: ignore[arg-type] # by name: each is of its field's type
    _check_auth(loaded.auth)
    _check_tenants(loaded)
    Redis(loaded.cache)  # refuses a URL that it cannot use
    _check_database(loaded.database)
    credential_of(loaded.upstream, "inventory")  # refuses files that it cannot use
    return loaded


def build(settings: Settings) -> Service:
    """Connect to everything and return the service. Call it after fork: it starts threads.

    It waits for no server: connections to servers that are down are retried later.
    """
    closing = ExitStack()
    redis = _close_later(closing, Redis(settings.cache))
    primary, replicas = _pools(settings.database, closing)
    reads = _reads(primary, replicas, settings.database, closing)
    ports = ApiPorts(
        orders=Orders(primary, reads, ACCEPTED, _batching(settings)),
        cancellations=Cancellations(primary, settings.cancellation.window_s, CANCELLED),
        refund_requests=RefundRequests(primary, REFUND_REQUESTED),
        history=History(reads),
        stock=_stock(settings, closing),
        cache=_start(closing, OrderCache(redis, settings.cache)),
        writers=_writers(redis, primary, settings) if replicas else None,
        limiter=_start(closing, RateLimiter(redis, settings.rate_limit))
        if settings.rate_limit.enabled
        else None,
        authentication=_authentication(settings, closing),
        checks=Checks(_checks(primary, redis)),
        cursor_keys=settings.order.cursor_keys,
        key_required=settings.order.idempotency_required,
        trusted_proxies=settings.api.trusted_proxies,
        max_in_flight=settings.api.max_in_flight,
        max_wait_s=settings.api.max_wait_ms / 1000,
        docs=settings.api.docs,
        tokens=settings.auth.mode == "jwt",
    )
    return Service(create_app(ports), closing.close)


def probe_checks(settings: Settings) -> Sequence[Check]:
    """Return the admin process's checks, with separate connections. Call it after fork."""
    options = msgspec.structs.replace(settings.database, pool_size=1)
    pool = Pool(options.url, options, f"{_APPLICATION}-admin")
    pool.open()
    return [*_checks(pool, Redis(settings.cache)), *_issuer_checks(settings.auth)]


def _issuer_checks(settings: AuthSettings) -> Sequence[Check]:
    """Check that the issuer's keys were fetched once; without them no token can be verified."""
    if settings.mode == "off" or settings.jwks_url is None:
        return ()
    from orders.api.issuer import FetchedOnce, jwks
    from orders.api.tokens import accepted_algorithms

    fetch = jwks(settings.jwks_url, accepted_algorithms(settings))
    return (Check("issuer", FetchedOnce(fetch), only_readiness=True, budget_s=3.5),)


def _checks(pool: Pool, redis: Redis) -> Sequence[Check]:
    """Return the checks. Only PostgreSQL is critical: without Redis the service is just slower."""
    checks = [Check("postgres", pool.ping, forgiven=lambda: pool.unwell_s < _PROMOTION_S)]
    if redis.target is not None:
        checks.append(Check("redis", lambda: redis.call(b"PING"), critical=False))
    return checks


def _batching(settings: Settings) -> Batching:
    """Return how orders are committed: several in one statement if a process has one thread.

    That statement keeps a connection while it waits, so reads need a second one.
    """
    if not _commits_are_shared(settings):
        return unbatched
    from orders.api.server.overlap import CommitGroups

    return CommitGroups(settings.database.statement_timeout_s)


def _commits_are_shared(settings: Settings) -> bool:
    return settings.api.worker_class == "meinheld" and settings.database.pool_size > 1


def _pools(settings: DatabaseSettings, closing: ExitStack) -> tuple[Pool, list[Pool]]:
    primary = _close_later(closing, Pool(settings.url, settings, _APPLICATION))
    replicas = [
        _close_later(closing, Pool(url, settings, _APPLICATION, writes=False))
        for url in settings.replica_urls
    ]
    targets = ["replica", *(f"replica-{number}" for number in range(2, len(replicas) + 1))]
    for pool in (primary, *replicas):
        pool.open()
    writer = BackgroundWriter({"primary": primary, **dict(zip(targets, replicas, strict=False))})
    _start(closing, writer)
    return primary, replicas


def _reads(
    primary: Pool, replicas: Sequence[Pool], settings: DatabaseSettings, closing: ExitStack
) -> Reads:
    lags = [ReplicaLag(settings, url) for url in settings.replica_urls]
    for lag in lags:
        lag.start()
        closing.callback(lag.stop)
    candidates = [Replica(pool, lag) for pool, lag in zip(replicas, lags, strict=True)]
    return Reads.among(primary, candidates, settings.replica_max_lag_s)


def _writers(redis: Redis, primary: Pool, settings: Settings) -> RecentWriters:
    keep_s = settings.order.read_own_writes_s
    unmarked = UnmarkedWrites(primary, keep_s=keep_s, max_lag_s=settings.database.replica_max_lag_s)
    return RecentWriters(redis, keep_s=keep_s, announce=unmarked.announce)


def _stock(settings: Settings, closing: ExitStack) -> AdmissionCheck:
    order = settings.order
    policy = policy_of(settings.upstream).within(order.stock_check_budget_s)
    credential = credential_of(settings.upstream, "inventory")
    inventory = Upstream(
        "inventory", settings.upstream.inventory_url, policy, credential=credential
    )
    ask = Inventory(_close_later(closing, inventory)).availability
    if _commits_are_shared(settings):
        from orders.api.server.overlap import blocking

        ask = blocking(ask)
    return AdmissionCheck(
        ask,
        order.stock_check,
        ttl_s=order.stock_check_ttl_s,
        budget_s=order.stock_check_budget_s,
    )


def _authentication(settings: Settings, closing: ExitStack) -> Authentication:
    auth = settings.auth
    if auth.mode == "off":
        return NoAuthentication()
    # Imported late, here and above: without tokens, no process loads the cryptography library.
    from orders.api.issuer import IssuerKeys, jwks
    from orders.api.tokens import ConfiguredKeys, TokenAuthentication, accepted_algorithms

    claims = [policy.claim for policy in settings.rate_limit.further if policy.claim]
    if auth.jwks_url is None:
        return TokenAuthentication(ConfiguredKeys(auth.key or ""), auth, claims)
    keys = IssuerKeys(jwks(auth.jwks_url, accepted_algorithms(auth)))
    return TokenAuthentication(_start(closing, keys), auth, claims)


def _check_auth(settings: AuthSettings) -> None:
    if settings.mode == "off":
        return
    from orders.api.tokens import accepted_algorithms

    if (settings.jwks_url is None) == (settings.key is None):
        raise SettingError(
            "ORDERS_AUTH=jwt needs one of ORDERS_AUTH_JWKS_URL and ORDERS_AUTH_KEY, not both"
        )
    if settings.issuer is None or settings.audience is None:
        raise SettingError(
            "ORDERS_AUTH=jwt needs ORDERS_AUTH_ISSUER and ORDERS_AUTH_AUDIENCE: without them a "
            "token that the same key signed for another service would be accepted here"
        )
    accepted_algorithms(settings)


def _check_tenants(settings: Settings) -> None:
    tenants = [policy.name for policy in settings.rate_limit.further if policy.per == "tenant"]
    if tenants and settings.auth.mode == "off":
        raise SettingError(
            f"ORDERS_RATE_LIMIT_POLICIES is wrong: {tenants[0]} counts tenants, who are named by"
            " tokens; set ORDERS_AUTH=jwt"
        )


def _check_database(settings: DatabaseSettings) -> None:
    """Refuse malformed URLs once, before each worker reads them. Raises SettingError."""
    connection.primary(settings)
    connection.sessions(settings)
    for url in settings.replica_urls:
        connection.replica(url)


class _Closable(Protocol):
    def close(self) -> None: ...


class _Startable(_Closable, Protocol):
    def start(self) -> None: ...


C = TypeVar("C", bound=_Closable)
S = TypeVar("S", bound=_Startable)


def _close_later(closing: ExitStack, component: C) -> C:
    closing.callback(component.close)
    return component


def _start(closing: ExitStack, component: S) -> S:
    component.start()
    return _close_later(closing, component)
