"""The environment of each process: settings from a ConfigMap, secrets from Secrets.

The names are the services' contract; a test compares them with the services' settings.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec

from orderservice_operator.children import authorities
from orderservice_operator.children.manifest import Manifest
from orderservice_operator.children.pod_options import of_process
from orderservice_operator.children.processes import (
    API,
    API_PORT,
    NOTIFIER,
    RELAY,
    WORKER,
    Process,
    section,
)
from orderservice_operator.resource.dependencies import Database, DatabaseCredentials
from orderservice_operator.resource.operations import Cancellation
from orderservice_operator.resource.schema_types import SecretKey
from orderservice_operator.resource.spec import OrderService

Variables = dict[str, str]

_PROTOCOL_PORTS = {"http": 80, "https": 443}


def settings(service: OrderService, process: Process) -> Variables:
    """Return the settings that are not secret; the keys are sorted."""
    variables = _telemetry(service, process) | {
        "ORDERS_ADMIN_PORT": str(process.admin_port),
        "ORDERS_DATABASE_POOL_SIZE": str(service.spec.database.pool_size),
    }
    variables |= {
        API.name: _api,
        RELAY.name: lambda _: {},
        WORKER.name: _worker,
        NOTIFIER.name: _notifier,
    }[process.name](service)
    if process in {API, WORKER}:
        # Installations that share a Redis must not serve each other's orders.
        variables["ORDERS_REDIS_PREFIX"] = f"{service.metadata.namespace}/{service.metadata.name}:"
    variables |= authorities.settings(service)
    if service.spec.database.durability != "Local":
        variables["ORDERS_DATABASE_DURABILITY"] = service.spec.database.durability.lower()
    return dict(sorted(variables.items()))


def _telemetry(service: OrderService, process: Process) -> Variables:
    observability = service.spec.observability
    variables = {"ORDERS_LOG_LEVEL": observability.log_level, "ORDERS_LOG_FORMAT": "json"}
    if observability.otlp_endpoint:
        variables |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": observability.otlp_endpoint,
            "OTEL_SERVICE_NAME": f"orders-{process.name}",
            "OTEL_TRACES_SAMPLER_ARG": f"{observability.sampler_ratio:g}",
        }
    return variables


def _api(service: OrderService) -> Variables:
    spec = service.spec
    return {
        "ORDERS_API_HOST": "127.0.0.1",
        "ORDERS_API_PORT": str(API_PORT),
        "ORDERS_API_WORKER_CLASS": spec.api.worker_class,
        "ORDERS_API_WORKERS": str(spec.api.workers),
        "ORDERS_API_GRACEFUL_TIMEOUT_S": str(API.drain_s),
        "ORDERS_API_MAX_WAIT_MS": str(spec.api.max_wait_milliseconds),
        "ORDERS_RATE_LIMIT_ENABLED": "true" if spec.rate_limit.enabled else "false",
        "ORDERS_RATE_LIMIT_REQUESTS": str(spec.rate_limit.requests),
        "ORDERS_RATE_LIMIT_WINDOW_S": str(spec.rate_limit.window_seconds),
        "ORDERS_ORDER_STOCK_CHECK": spec.upstreams.inventory.stock_check,
        "ORDERS_INVENTORY_URL": spec.upstreams.inventory.url,
        **_policies(service),
        **_auth(service),
        **_cancellation(service),
    }


def _policies(service: OrderService) -> Variables:
    """Set the policies only if there are any, so that an upgrade replaces no pods."""
    policies = [msgspec.structs.asdict(policy) for policy in service.spec.rate_limit.policies]
    if not policies:
        return {}
    members = [
        {name: value for name, value in policy.items() if value is not None} for policy in policies
    ]
    return {"ORDERS_RATE_LIMIT_POLICIES": msgspec.json.encode(members).decode()}


def _cancellation(service: OrderService) -> Variables:
    """Set the window only if it is not the default, so that an upgrade replaces no pods."""
    cancellation = service.spec.cancellation
    if cancellation == Cancellation():
        return {}
    return {"ORDERS_CANCELLATION_WINDOW_S": str(cancellation.window_seconds)}


def _auth(service: OrderService) -> Variables:
    auth = service.spec.auth
    variables = {
        "ORDERS_AUTH": auth.mode,
        "ORDERS_AUTH_JWKS_URL": auth.jwks_url,
        "ORDERS_AUTH_ISSUER": auth.issuer,
        "ORDERS_AUTH_AUDIENCE": auth.audience,
        "ORDERS_AUTH_ALGORITHMS": auth.algorithms,
    }
    return {name: value for name, value in variables.items() if value}


def _worker(service: OrderService) -> Variables:
    spec = service.spec
    return {
        "ORDERS_WORKER_PREFETCH": str(spec.worker.prefetch),
        "ORDERS_WORKER_MAX_ATTEMPTS": str(spec.messaging.max_attempts),
        "ORDERS_WORKER_DRAIN_S": str(WORKER.drain_s),
        "ORDERS_INVENTORY_URL": spec.upstreams.inventory.url,
        "ORDERS_PAYMENT_URL": spec.upstreams.payment.url,
        "ORDERS_UPSTREAM_TIMEOUT_S": str(spec.upstreams.timeout_seconds),
        "ORDERS_UPSTREAM_RETRIES": str(spec.upstreams.retries),
    }


def _notifier(service: OrderService) -> Variables:
    # Set only if it is not the default, so that an upgrade replaces no pods.
    private = {"ORDERS_NOTIFICATION_ALLOW_PRIVATE": "true"}
    return {
        **(private if service.spec.notifier.allow_private_receiver else {}),
        "ORDERS_NOTIFICATION_PREFETCH": str(service.spec.notifier.prefetch),
        "ORDERS_NOTIFICATION_MAX_ATTEMPTS": str(service.spec.messaging.max_attempts),
        "ORDERS_NOTIFICATION_DRAIN_S": str(NOTIFIER.drain_s),
    }


def secrets(service: OrderService, process: Process) -> list[Manifest]:
    """Return the variables that come from Secrets, in the form of a container's `env`."""
    return [from_secret(*entry) for entry in _secrets(service, process)]


def secret_entries(service: OrderService, process: Process) -> set[tuple[str, str]]:
    """Return the Secrets a process reads and the entry of each."""
    entries = {(name, key) for _, name, key in _secrets(service, process)}
    return entries | _further_entries(service, process.name)


def migration_entries(service: OrderService) -> set[tuple[str, str]]:
    """Return the Secrets the migration reads and the entry of each."""
    primary = database(service, "migrate").primary_secret_ref
    return {(primary.name, primary.key)} | _further_entries(service, "migrate")


def optional_entries(service: OrderService, component: str) -> set[tuple[str, str]]:
    """Return the optional entries of Secrets that variables of podTemplate read."""
    return _template_entries(service, component, optional=True)


def _further_entries(service: OrderService, component: str) -> set[tuple[str, str]]:
    """Return the bundle of authorities and the entries that variables of podTemplate need."""
    entries = _template_entries(service, component, optional=False)
    return authorities.entries(service) | entries


def _template_entries(
    service: OrderService, component: str, *, optional: bool
) -> set[tuple[str, str]]:
    sources = (variable.value_from for variable in of_process(service, component).env)
    secrets = (source.secret_key_ref for source in sources if source)
    return {
        (entry.name, entry.key) for entry in secrets if entry and bool(entry.optional) is optional
    }


def database(service: OrderService, component: str) -> Database | DatabaseCredentials:
    """Return the section with the URLs of a component: its own, or spec.database."""
    spec = service.spec
    sections: dict[str, DatabaseCredentials | None] = {
        "api": spec.api.database,
        "relay": spec.relay.database,
        "worker": spec.worker.database,
        "notifier": spec.notifier.database,
        "migrate": spec.migrations.database,
        "reconcile": spec.reconciliation.database,
    }
    return sections[component] or spec.database


def brokers(service: OrderService) -> dict[str, SecretKey]:
    """Return where the amqp URL of each process is."""
    return {process.name: _broker(service, process) for process in (RELAY, WORKER, NOTIFIER)}


def _broker(service: OrderService, process: Process) -> SecretKey:
    messaging = getattr(section(service, process), "messaging", None)
    secret: SecretKey = (messaging or service.spec.messaging).secret_ref
    return secret


def _cache(service: OrderService, process: Process) -> SecretKey | None:
    spec = service.spec
    caches = {API.name: spec.api.cache, WORKER.name: spec.worker.cache}
    if process.name not in caches:
        return None
    cache = caches[process.name] or spec.cache
    return cache.secret_ref


def _secrets(service: OrderService, process: Process) -> Iterator[tuple[str, str, str]]:
    spec = service.spec
    urls = database(service, process.name)
    replica = getattr(urls, "replica_secret_ref", None)
    yield from _database_urls(urls)
    if process is API:
        yield "ORDERS_CURSOR_SECRET", spec.api.secret_ref.name, spec.api.secret_ref.key
        if key := spec.auth.key_secret_ref:
            yield "ORDERS_AUTH_KEY", key.name, key.key
    # The worker exports how far the replicas are behind.
    if process in {API, WORKER} and replica:
        yield "ORDERS_DATABASE_REPLICA_URL", replica.name, replica.key
    if cache := _cache(service, process):
        yield "ORDERS_REDIS_URL", cache.name, cache.key
    if process is not API:
        broker = _broker(service, process)
        yield "ORDERS_AMQP_URL", broker.name, broker.key
    if process is NOTIFIER:
        yield "ORDERS_NOTIFICATION_URL", spec.notifier.secret_ref.name, "url"
        yield "ORDERS_NOTIFICATION_SECRET", spec.notifier.secret_ref.name, "secret"


def _database_urls(urls: Database | DatabaseCredentials) -> Iterator[tuple[str, str, str]]:
    primary, session = urls.primary_secret_ref, urls.session_secret_ref
    yield "ORDERS_DATABASE_URL", primary.name, primary.key
    if session:
        yield "ORDERS_DATABASE_SESSION_URL", session.name, session.key


def migration_variables(service: OrderService) -> list[Manifest]:
    """Return the variables of the migration."""
    urls = [from_secret(*entry) for entry in _database_urls(database(service, "migrate"))]
    values = {"ORDERS_LOG_FORMAT": "json"} | authorities.settings(service)
    primary, *replicas = urls
    return [primary, *({"name": name, "value": value} for name, value in values.items()), *replicas]


def reconciliation_variables(service: OrderService) -> list[Manifest]:
    """Return the variables of a run of reconciliation."""
    upstreams = service.spec.upstreams
    values = {
        "ORDERS_INVENTORY_URL": upstreams.inventory.url,
        "ORDERS_LOG_FORMAT": "json",
        "ORDERS_PAYMENT_URL": upstreams.payment.url,
        "ORDERS_UPSTREAM_RETRIES": str(upstreams.retries),
        "ORDERS_UPSTREAM_TIMEOUT_S": str(upstreams.timeout_seconds),
        **authorities.settings(service),
    }
    urls = [from_secret(*entry) for entry in _database_urls(database(service, "reconcile"))]
    return urls + [{"name": name, "value": value} for name, value in values.items()]


def reconciliation_ports(service: OrderService) -> list[int]:
    """Return the TCP ports that reconciliation connects to."""
    spec = service.spec
    urls = (spec.upstreams.inventory.url, spec.upstreams.payment.url)
    extra = spec.network_policy.extra_egress_ports
    return sorted({spec.database.port, *extra, *(url_port(url) for url in urls)})


def from_secret(variable: str, secret: str, key: str) -> Manifest:
    """Return one variable of a container that comes from a Secret."""
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def outgoing_ports(service: OrderService, process: Process) -> list[int]:
    """Return the TCP ports a process connects to, without DNS; for its NetworkPolicy."""
    spec = service.spec
    ports = {spec.database.port, *spec.network_policy.extra_egress_ports}
    ports |= {
        API.name: {spec.cache.port, url_port(spec.upstreams.inventory.url)},
        RELAY.name: {spec.messaging.port},
        WORKER.name: {
            spec.cache.port,
            spec.messaging.port,
            url_port(spec.upstreams.inventory.url),
            url_port(spec.upstreams.payment.url),
        },
        # The webhook URL is in a Secret, so these are the usual ports of the web and of services.
        NOTIFIER.name: {spec.messaging.port, 80, 443, 8080, 8443},
    }[process.name]
    if process is API and spec.auth.jwks_url:
        ports.add(url_port(spec.auth.jwks_url))
    if spec.observability.otlp_endpoint:
        ports.add(url_port(spec.observability.otlp_endpoint))
    return sorted(ports)


def url_port(url: str) -> int:
    """Return the port of a URL, given or implied."""
    address = urlsplit(url)
    return address.port or _PROTOCOL_PORTS[address.scheme]
