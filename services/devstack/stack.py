"""The stack's components, built from settings and secrets."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from devstack import services, tls
from devstack.component import Component
from devstack.servers import alertmanager, nginx, postgres, prometheus, rabbitmq, valkey
from devstack.settings import Settings

HOST = "127.0.0.1"
# Which variables with a secret each process uses; it gets no others.
DATABASE = {"ORDERS_DATABASE_URL", "ORDERS_DATABASE_REPLICA_URL", "ORDERS_DATABASE_SESSION_URL"}
USES = {
    "inventory": set[str](),
    "payment": set[str](),
    "webhooks": {"ORDERS_NOTIFICATION_SECRET"},
    "migrate": DATABASE,
    "topology": {"ORDERS_MANAGEMENT_URL"},
    "api": {*DATABASE, "ORDERS_REDIS_URL", "ORDERS_CURSOR_SECRET"},
    "relay": {*DATABASE, "ORDERS_AMQP_URL"},
    "worker": {*DATABASE, "ORDERS_REDIS_URL", "ORDERS_AMQP_URL"},
    "notifier": {*DATABASE, "ORDERS_AMQP_URL", "ORDERS_NOTIFICATION_SECRET"},
}
SECRETS = set[str]().union(*USES.values())
# More than in a pod: here all clients of a load test have one address, and share its limit.
GATEWAY_MEMORY_MIB = 512


def components(settings: Settings, secrets: Mapping[str, str]) -> list[Component]:
    """Return every process of the stack, in the order of `status`."""
    cluster, broker = database(settings, secrets), message_broker(settings, secrets)
    servers: list[Component] = []
    if not settings.given("postgres"):
        standby = postgres.replica(cluster, settings.ports["postgres_replica"])
        servers += [postgres.primary(cluster), standby]
    if not settings.given("valkey"):
        access = cache_access(settings, secrets)
        port, secured = settings.ports["valkey"], tls.served(settings, "valkey")
        servers.append(valkey.component(settings.state, port, access=access, tls=secured))
    if not settings.given("rabbitmq"):
        servers += [rabbitmq.epmd(broker), rabbitmq.component(broker)]
    urls, process_logins = addresses(settings, secrets), logins(settings, secrets)
    return [
        *servers,
        *(
            prepared(component, settings, cluster, broker)
            for component in services.components(settings, urls, process_logins)
        ),
        *gateway(settings),
        alertmanager.component(settings),
        prometheus.component(settings),
    ]


def addresses(settings: Settings, secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the ORDERS_* variables with addresses and secrets of the servers started here."""
    cluster, broker = database(settings, secrets), message_broker(settings, secrets)
    urls = services.simulator_urls(settings)
    if not settings.given("postgres"):
        urls["ORDERS_DATABASE_URL"] = cluster.url()
        urls["ORDERS_DATABASE_REPLICA_URL"] = cluster.url(port=settings.ports["postgres_replica"])
    if not settings.given("valkey"):
        access = cache_access(settings, secrets)
        urls["ORDERS_REDIS_URL"] = valkey.url(settings.ports["valkey"], access, tls=settings.tls)
    if not settings.given("rabbitmq"):
        urls["ORDERS_AMQP_URL"] = broker.url()
        urls["ORDERS_MANAGEMENT_URL"] = broker.management_url
    if not settings.given("webhooks"):
        urls["ORDERS_NOTIFICATION_SECRET"] = secrets["webhook"]
    # The receiver is most likely on this machine or its network.
    private = settings.environment.get("ORDERS_NOTIFICATION_ALLOW_PRIVATE", "true")
    urls["ORDERS_NOTIFICATION_ALLOW_PRIVATE"] = private
    cursor = settings.environment.get("ORDERS_CURSOR_SECRET", secrets["cursor"])
    hosts = {"ORDERS_API_HOST": HOST, "ORDERS_ADMIN_HOST": HOST}
    return urls | hosts | {"ORDERS_CURSOR_SECRET": cursor} | tls.variables(settings)


def environment(settings: Settings, secrets: Mapping[str, str]) -> dict[str, str]:
    """Return every ORDERS_* variable that a service or tool needs to use this stack."""
    variables = {k: v for k, v in settings.environment.items() if k.startswith("ORDERS_")}
    return variables | addresses(settings, secrets) | tls.of_shell(settings)


def logins(settings: Settings, secrets: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the addresses for each process, with its own login, and no others."""
    variables = {process: dict.fromkeys(SECRETS - names, "") for process, names in USES.items()}
    if not settings.given("postgres"):
        cluster, standby = database(settings, secrets), settings.ports["postgres_replica"]
        for process in ("api", "relay", "worker", "notifier"):
            variables[process]["ORDERS_DATABASE_URL"] = cluster.login_url(process)
            variables[process]["ORDERS_DATABASE_REPLICA_URL"] = cluster.login_url(process, standby)
        variables["migrate"]["ORDERS_DATABASE_ROLE_PREFIX"] = postgres.ROLE_PREFIX
    if not settings.given("valkey"):
        access, port = cache_access(settings, secrets), settings.ports["valkey"]
        for process in ("api", "worker"):
            address = valkey.login_url(port, access, process, tls=settings.tls)
            variables[process]["ORDERS_REDIS_URL"] = address
    if not settings.given("rabbitmq"):
        broker = message_broker(settings, secrets)
        for process in ("relay", "worker", "notifier"):
            variables[process]["ORDERS_AMQP_URL"] = broker.login_url(process)
        variables["topology"]["ORDERS_MANAGEMENT_URL"] = broker.login_management_url("topology")
    return variables


def prepared(
    component: Component, settings: Settings, cluster: postgres.Cluster, broker: rabbitmq.Broker
) -> Component:
    """Return a component whose preparation also creates the logins."""
    if component.name == "migrate" and not settings.given("postgres"):
        make = partial(postgres.prepare_logins, cluster)
    elif component.name == "topology" and not settings.given("rabbitmq"):
        make = partial(rabbitmq.prepare_logins, broker)
    else:
        return component

    def prepare() -> None:
        component.prepare()
        make()

    return replace(component, prepare=prepare)


def cache_access(settings: Settings, secrets: Mapping[str, str]) -> valkey.Access:
    """Return the users of this stack's Valkey."""
    prefix = settings.environment.get("ORDERS_REDIS_PREFIX", "orders:")
    return valkey.Access(secrets["valkey"], prefix)


def database(settings: Settings, secrets: Mapping[str, str]) -> postgres.Cluster:
    """Return the PostgreSQL cluster of this stack."""
    port, password = settings.ports["postgres"], secrets["postgres"]
    secured = tls.served(settings, "postgres")
    return postgres.Cluster(state=settings.state, port=port, password=password, tls=secured)


def message_broker(settings: Settings, secrets: Mapping[str, str]) -> rabbitmq.Broker:
    """Return the RabbitMQ node of this stack."""
    return rabbitmq.Broker(
        state=settings.state,
        password=secrets["rabbitmq"],
        amqp_port=settings.ports["rabbitmq"],
        management_port=settings.ports["rabbitmq_management"],
        distribution_port=settings.ports["rabbitmq_distribution"],
        epmd_port=settings.ports["rabbitmq_epmd"],
        secured=tls.served(settings, "rabbitmq"),
    )


def gateway(settings: Settings) -> tuple[Component, Component]:
    """Describe the gateway in front of the api, and the process that counts its answers."""
    site = nginx.Site(
        state=settings.state,
        listen=f"{settings.gateway_host}:{settings.ports['gateway']}",
        api=f"{HOST}:{settings.ports['api']}",
        memory_mib=GATEWAY_MEMORY_MIB,
        tls=tls.served(settings, "gateway"),
        api_in_flight=max(64, 16 * int(settings.environment.get("ORDERS_API_WORKERS") or 4)),
    )
    metrics = nginx.metrics(site, settings.ports["gateway_admin"])
    return nginx.component(site, needs=("api",)), metrics
