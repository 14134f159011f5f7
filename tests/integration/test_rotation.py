"""Every secret of the processes is replaced while clients place and read orders: none is refused.

`docs/rotation.md` has the steps, which are those of `Steps` here: each yields settings that a
changed Secret rolls out, and between two of them is done what has to be done elsewhere. Every
server is asked over TLS, by authorities that are read from a file.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import jwt
import psycopg
import pytest
import redis
import requests

from devstack.certificates import Authority
from devstack.servers import rabbitmq as rabbitmq_server
from integration.api_process import CURSOR_SECRET
from integration.broker import prepare
from integration.handles import Database, RabbitMQ, Vhost
from integration.issuer import AUDIENCE, ISSUER, Issuer
from integration.rollout import Clients, LoadBalancer, Rollout
from integration.serving import eventually
from integration.tls_front import Front
from orders import verified
from orderservice_topology.permissions import permissions
from upstreams.process import Control

PASSWORD = "only-for-tests"
OLD, NEW = "the-old-secret-" * 3, "the-new-secret-" * 3
TOKENS = {"AUTH": "jwt", "AUTH_AUDIENCE": AUDIENCE, "AUTH_ISSUER": ISSUER}
SCOPES = "orders:read orders:write"


def signed(secret: str, user: int) -> dict[str, str]:
    """Return the field with a token of the user."""
    claims = {
        "sub": str(user), "scope": SCOPES, "exp": int(time.time()) + 600, "aud": AUDIENCE,
        "iss": ISSUER,
    }  # fmt: skip
    return {"Authorization": f"Bearer {jwt.encode(claims, secret, 'HS256')}"}


class Servers(NamedTuple):
    """The servers on which the processes have logins, which are created and removed here."""

    database: Database
    redis_url: str
    rabbitmq: RabbitMQ
    vhost: Vhost
    fronts: dict[str, Front]
    bundle: Path

    @property
    def prefix(self) -> str:
        """The prefix of the logins' names, because other tests use the same servers."""
        return self.database.name

    def sql(self, statement: str) -> None:
        with psycopg.connect(self.database.admin_url, autocommit=True) as admin:
            admin.execute(statement.encode())

    def database_login(self, number: int) -> str:
        """Make a login of the database's role, and return its URL."""
        name, address = (
            f"{self.prefix}_{number}",
            f"{self.place('postgresql')}/{self.database.name}",
        )
        self.sql(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' IN ROLE orders")
        return f"postgresql://{name}:{PASSWORD}@{address}?sslmode=verify-full"

    def place(self, server: str) -> str:
        """Return the host of the certificates and the port of a server's front."""
        return f"localhost:{self.fronts[server].port}"

    def acl(self, *rules: str) -> None:
        """Change the user of the installation."""
        with redis.Redis.from_url(self.redis_url, driver_info=None) as admin:
            admin.execute_command("ACL", "SETUSER", self.prefix, *rules)

    def redis_login(self, password: str) -> str:
        return (
            f"rediss://{self.prefix}:{password}@{self.place('redis')}/0?ssl_ca_certs={self.bundle}"
        )

    def trust(self, *authorities: Authority) -> None:
        """Replace the bundle, as a kubelet does."""
        draft = self.bundle.with_suffix(".new")
        draft.write_bytes(b"".join(authority.bundle.read_bytes() for authority in authorities))
        draft.replace(self.bundle)

    def present(self, authority: Authority) -> None:
        """Give every server a certificate of another authority."""
        for front in self.fronts.values():
            front.present(authority.server())

    def reconnect(self) -> None:
        """Make running processes reconnect where this fails no request.

        Redis ends their connections itself, which they may have used for a command that it never
        read. A request needs its connection to PostgreSQL: only new processes make new ones.
        """
        counts_before = {name: front.accepted for name, front in self.fronts.items()}
        counts = {name: self.fronts[name].drop() for name in ("rabbitmq", "inventory", "payment")}
        with redis.Redis.from_url(self.redis_url, driver_info=None) as admin:
            counts["redis"] = admin.execute_command("CLIENT", "KILL", "USER", self.prefix)
        eventually(
            lambda: all(
                self.fronts[name].accepted > counts_before[name]
                for name, number in counts.items()
                if number
            ),
            120,
        )

    def broker_login(self, number: int) -> str:
        """Make a user that may do what relay and worker do, and return its URL."""
        name, address = f"{self.prefix}_{number}", f"{self.place('rabbitmq')}/{self.vhost.name}"
        both = [permissions()[process] for process in ("relay", "worker")]
        rights = {
            kind: "|".join(getattr(each, kind) for each in both)
            for kind in ("configure", "write", "read")
        }
        broker = self.rabbitmq.broker
        rabbitmq_server.put(broker, f"users/{name}", {"password": PASSWORD, "tags": ""})
        rabbitmq_server.put(broker, f"permissions/{self.vhost.name}/{name}", rights)
        return f"amqps://{name}:{PASSWORD}@{address}"

    def remove_broker_login(self, number: int) -> None:
        url = f"{self.rabbitmq.management_url}/api/users/{self.prefix}_{number}"
        requests.delete(url, timeout=60).raise_for_status()

    def remove(self) -> None:
        """Remove the logins that a test has left."""
        for number in (1, 2):
            self.sql(f"DROP ROLE IF EXISTS {self.prefix}_{number}")
            name = f"{self.prefix}_{number}"
            requests.delete(f"{self.rabbitmq.management_url}/api/users/{name}", timeout=60)
        with redis.Redis.from_url(self.redis_url, driver_info=None) as admin:
            admin.execute_command("ACL", "DELUSER", self.prefix)


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> list[Authority]:
    """Return the old authority and the new one."""
    folder = tmp_path_factory.mktemp("authorities")
    return [Authority(folder / name) for name in ("before", "new")]


@pytest.fixture(scope="module")
def servers(
    database: Database, redis_url: str, rabbitmq: RabbitMQ, vhost: Vhost, inventory: Control,
    payment: Control, authorities: list[Authority], tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Servers]:  # fmt: skip
    prepare(vhost)
    bundle = tmp_path_factory.mktemp("trusted") / "authorities.pem"
    pair = authorities[0].server()
    urls = {
        "postgresql": database.url, "redis": redis_url, "rabbitmq": vhost.url,
        "inventory": inventory.url, "payment": payment.url,
    }  # fmt: skip
    fronts = {
        name: Front(int(str(urlsplit(url).port)), pair, on_request=name == "postgresql")
        for name, url in urls.items()
    }
    servers = Servers(database, redis_url, rabbitmq, vhost, fronts, bundle)
    servers.trust(authorities[0])
    with pytest.MonkeyPatch.context() as environ:
        for variable in ("PGSSLROOTCERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            environ.setenv(variable, str(bundle))
        yield servers
    servers.remove()
    for front in fronts.values():
        front.stop()


class Installation:
    """An api, a relay and a worker, with clients."""

    def __init__(self, servers: Servers, clients: Clients, rollout: Rollout) -> None:
        self.servers, self.clients, self.rollout = servers, clients, rollout

    def open_orders(self) -> int:
        with psycopg.connect(self.servers.database.url) as session:
            [(number,)] = session.execute(
                "SELECT count(*) FROM orders WHERE status NOT IN ('Completed', 'Failed')"
            ).fetchall()
        return int(number)


@pytest.fixture(scope="module")
def installation(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    servers.acl("reset", "on", f">{OLD}", "~*", "&*", "+@all")
    settings = {
        "DATABASE_URL": servers.database_login(1),
        "REDIS_URL": servers.redis_login(OLD), "REDIS_PREFIX": f"{servers.prefix}:",
        # A busy machine is no reason to do without a server.
        "REDIS_TIMEOUT_S": "5", "DATABASE_CONNECT_TIMEOUT_S": "30",
        "DATABASE_STATEMENT_TIMEOUT_S": "30",
        "AMQP_URL": servers.broker_login(1),
        "INVENTORY_URL": f"https://{servers.place('inventory')}",
        "PAYMENT_URL": f"https://{servers.place('payment')}",
        "RATE_LIMIT_REQUESTS": "1000000", "RATE_LIMIT_MODE": "exact",
        "CURSOR_SECRET": CURSOR_SECRET, "AUTH_ALGORITHMS": "HS256", "AUTH_KEY": OLD, **TOKENS,
    }  # fmt: skip
    balancer = LoadBalancer()
    rollout = Rollout(tmp_path_factory.mktemp("rotation"), balancer, settings)
    clients = Clients(balancer, partial(signed, OLD))
    try:
        rollout.change(("api", "relay", "worker"))
        with clients:
            yield Installation(servers, clients, rollout)
    finally:
        rollout.kill()


Steps = Iterator[dict[str, str]]


def database_login(servers: Servers, *_: object) -> Steps:
    yield {"DATABASE_URL": servers.database_login(2)}
    servers.sql(f"ALTER ROLE {servers.prefix}_1 NOLOGIN")
    servers.sql(f"DROP ROLE {servers.prefix}_1")


def redis_password_and_authorities(
    servers: Servers, _: Clients, authorities: list[Authority]
) -> Steps:
    """Change the bundle without a roll-out: running processes read it, too."""
    before, new = authorities
    servers.acl(f">{NEW}")
    servers.trust(before, new)
    servers.reconnect()
    servers.present(new)
    servers.reconnect()
    yield {"REDIS_URL": servers.redis_login(NEW)}
    servers.acl(f"<{OLD}")
    servers.trust(new)
    servers.reconnect()
    counts = {name: front.accepted for name, front in servers.fronts.items()}
    yield {}
    assert all(front.accepted > counts[name] for name, front in servers.fronts.items())


def broker_user(servers: Servers, *_: object) -> Steps:
    yield {"AMQP_URL": servers.broker_login(2)}
    servers.remove_broker_login(1)


def keys_of_cursors_and_tokens(_: Servers, clients: Clients, __: object) -> Steps:
    new = "another-key-for-cursors"
    yield {"AUTH_KEY": f"{OLD} {NEW}", "CURSOR_SECRET": f"{CURSOR_SECRET} {new}"}
    clients.login = partial(signed, NEW)
    yield {"CURSOR_SECRET": f"{new} {CURSOR_SECRET}"}
    yield {"AUTH_KEY": NEW, "CURSOR_SECRET": new}


@pytest.mark.parametrize(
    ("steps", "processes"),
    [
        (database_login, ("api", "relay", "worker")),
        (redis_password_and_authorities, ("api", "relay", "worker")),
        (broker_user, ("relay", "worker")),
        (keys_of_cursors_and_tokens, ("api",)),
    ],
    ids=["PostgreSQL", "Redis and all authorities", "RabbitMQ", "keys of cursors and tokens"],
)
def test_a_secret_is_replaced_without_a_request_that_fails(
    installation: Installation,
    authorities: list[Authority],
    steps: Callable[[Servers, Clients, list[Authority]], Steps],
    processes: tuple[str, ...],
) -> None:
    clients = installation.clients
    clients.go_on()
    for settings in steps(installation.servers, clients, authorities):
        installation.rollout.change(processes, **settings)
        clients.go_on()
    clients.go_on()


def test_no_process_was_refused_by_redis_or_refused_it_and_every_order_came_to_its_end(
    installation: Installation,
) -> None:
    """The service does without Redis where it must, and orders wait for RabbitMQ."""
    installation.clients.stop()
    with redis.Redis.from_url(installation.servers.redis_url, driver_info=None) as admin:
        log = admin.execute_command("ACL", "LOG")
    assert [entry for entry in log if installation.servers.prefix in str(entry)] == []
    assert "CERTIFICATE_VERIFY_FAILED" not in (logged := installation.rollout.logged())
    assert verified.UNKNOWN_AUTHORITY not in logged
    eventually(lambda: installation.open_orders() == 0, 180)


class Guarded:
    """An api that knows an issuer's keys."""

    def __init__(self, servers: Servers, issuer: Issuer, folder: Path) -> None:
        self.issuer, self.balancer = issuer, LoadBalancer()
        self.old, self.new, _ = issuer.jwks
        issuer.jwks = [self.old]
        settings = {
            "DATABASE_URL": servers.database.url, "INVENTORY_URL": "http://127.0.0.1:9",
            "ORDER_STOCK_CHECK": "off", "RATE_LIMIT_ENABLED": "false",
            "CURSOR_SECRET": CURSOR_SECRET, "AUTH_JWKS_URL": issuer.url, **TOKENS,
        }  # fmt: skip
        self.rollout = Rollout(folder, self.balancer, settings)

    def login(self, key: str, user: int) -> dict[str, str]:
        return self.issuer.token(user, SCOPES, key)

    def accepts(self, key: str) -> bool:
        """Return whether a token is believed that was signed with this key."""
        with self.balancer.api() as api:
            url, user = f"{api.url}/api/orders/user/1", 1
            return requests.get(url, headers=self.login(key, user), timeout=120).ok


@pytest.fixture(scope="module", autouse=True)
def guarded(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Start it first: it asks an issuer again when the last answer is five seconds old."""
    issuer = Issuer()
    guarded = Guarded(servers, issuer, tmp_path_factory.mktemp("guarded"))
    try:
        guarded.rollout.change(("api",))
        yield guarded
    finally:
        guarded.rollout.kill()
        issuer.stop()


def test_an_issuer_replaces_its_key_without_a_request_that_fails(guarded: Guarded) -> None:
    """The issuer publishes a new key, signs with it once apis know it, then removes the old one."""
    issuer = guarded.issuer
    with Clients(guarded.balancer, partial(guarded.login, "r1")) as clients:
        clients.go_on()
        issuer.jwks = [guarded.old, guarded.new]
        eventually(lambda: guarded.accepts("e1"))
        clients.go_on()
        clients.login = partial(guarded.login, "e1")
        clients.go_on()
        issuer.jwks = [guarded.new]
        clients.go_on()
