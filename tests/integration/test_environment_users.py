"""The environment's chart gives each process its own user in PostgreSQL and RabbitMQ.

Its SQL and its resource are rendered by Helm and used on real servers. What each process may do is
in the matrices of test_roles.py and test_broker_permissions.py.
"""

import asyncio
import base64
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlsplit

import msgspec
import pika
import psycopg
import pytest
import requests
from pika.exceptions import ChannelClosedByBroker

from charts.helm import ENVIRONMENT, Helm, Manifest, only, values_of
from integration import test_broker_permissions as broker
from integration import test_roles as matrix
from integration.conftest import PASSWORD
from integration.handles import Database, RabbitMQ, Vhost
from kube import required
from orders.database import roles
from orders.database.migrate import migrate
from orders.errors import Transient
from orders.settings import DatabaseSettings
from orderservice_operator.children import environment, processes
from orderservice_operator.rabbitmq.reconciler import TopologyReconciler
from orderservice_operator.resource.key import Key
from orderservice_operator.resource.spec import OrderService

OPERATORS = ("CREATE ROLE mine", "COPY orders TO PROGRAM 'true'", "ALTER ROLE api SUPERUSER")
Secrets = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    helm = Helm(required.tool("helm"), tmp_path_factory.mktemp("helm"))
    password = f"--set=developmentPassword={PASSWORD}"  # that of the administrators here
    return helm.template(ENVIRONMENT, *values_of("dev"), password)


@pytest.fixture(scope="module")
def service(manifests: list[Manifest]) -> OrderService:
    return msgspec.convert(only(manifests, "OrderService"), OrderService)


@pytest.fixture(scope="module")
def secrets(manifests: list[Manifest]) -> Secrets:
    return {
        manifest["metadata"]["name"]: manifest["stringData"]
        for manifest in manifests
        if manifest["kind"] == "Secret"
    }


class Logins:
    """The URLs that the processes of the resource get, at the test's own server."""

    def __init__(self, service: OrderService, secrets: Secrets, database: Database) -> None:
        self._secrets, self._place = secrets, database.url.rpartition("@")[2]
        self._variables = {
            process.name: environment.secrets(service, process) for process in processes.ALL
        } | {
            "support": environment.reconciliation_variables(service),
            "migrate": environment.migration_variables(service),
        }
        [self._prefix] = service.spec.migrations.pod_template.env

    def url(self, process: str, variable: str = "ORDERS_DATABASE_URL") -> str:
        [variable_entry] = [
            entry for entry in self._variables[process] if entry["name"] == variable
        ]
        reference = variable_entry["valueFrom"]["secretKeyRef"]
        return self.here(self._secrets[reference["name"]][reference["key"]])

    def here(self, url: str) -> str:
        return f"{url.rpartition('@')[0]}@{self._place}"

    def migrate(self) -> list[str]:
        assert self._prefix.name == "ORDERS_DATABASE_ROLE_PREFIX"
        settings = DatabaseSettings(url=self.url("migrate"), role_prefix=self._prefix.value)
        return migrate(settings)


@pytest.fixture(scope="module")
def logins(service: OrderService, secrets: Secrets, database: Database) -> Iterator[Logins]:
    """Make the roles twice in a database that has none, as an upgrade from before would."""
    new = Logins(service, secrets, database)
    with pytest.raises(Transient):
        new.migrate()  # it waits for the Job
    names = [*roles.PROCESSES, "migrator", *(f"orders_{each}" for each in roles.PROCESSES)]
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        for _ in range(2):
            admin.execute(secrets["orders-database"]["roles.sql"].encode())
        new.migrate()
        yield new
        admin.execute(f"DROP OWNED BY {', '.join(names)}".encode())
        admin.execute(f"DROP ROLE {', '.join(names)}".encode())


def test_what_the_migrator_makes_belongs_to_the_owner_of_the_older_tables(logins: Logins) -> None:
    with psycopg.connect(logins.url("migrate")) as session:
        session.execute("CREATE TABLE newer (id int)")
        owners = session.execute(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        )
        assert owners.fetchall() == [("orders",)]
        session.rollback()


def test_the_migrator_is_no_superuser(logins: Logins) -> None:
    with psycopg.connect(logins.url("migrate")) as session:
        assert [query for query in OPERATORS if not matrix.is_refused(session, query)] == []


@pytest.mark.parametrize("process", ["api", "relay", "worker", "notifier", "support"])
def test_a_process_has_the_rights_of_its_role_in_postgresql_and_no_others(
    logins: Logins, process: str
) -> None:
    with psycopg.connect(logins.url(process)) as session:
        assert session.info.user == process
        privileges = {
            table: commands for table, commands in session.execute(matrix.PRIVILEGES) if commands
        }
        assert privileges == matrix.MAY[process]
        tried = (*matrix.NOBODY_MAY, *matrix.MAY_NOT[process])
        assert [query for query in tried if not matrix.is_refused(session, query)] == []


def test_people_have_a_login_to_read_and_one_to_settle(logins: Logins, secrets: Secrets) -> None:
    reader = logins.here(secrets["orders-database"]["readerUrl"])
    with psycopg.connect(reader) as session:
        privileges = {
            table: commands for table, commands in session.execute(matrix.PRIVILEGES) if commands
        }
        assert privileges == matrix.MAY["reader"]
    assert (
        secrets["orders-support"]["ORDERS_DATABASE_URL"] == secrets["orders-database"]["supportUrl"]
    )


@pytest.mark.parametrize("process", ["api", "worker"])
def test_the_replica_is_read_with_the_same_login(logins: Logins, process: str) -> None:
    url = urlsplit(logins.url(process, "ORDERS_DATABASE_REPLICA_URL"))
    assert url.username == process


def test_every_user_has_a_password_of_its_own(secrets: Secrets) -> None:
    passwords = [
        str(urlsplit(url).password)
        for name in ("orders-database", "orders-messaging")
        for key, url in secrets[name].items()
        if key.endswith("Url") and not key.lower().endswith("replicaurl")
    ]
    assert len(passwords) == len(set(passwords)) == 10
    assert PASSWORD not in passwords


class Cluster:
    """The part of a client that is used: it has the Secrets of the chart."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self._manifests = manifests

    async def get(self, path: str) -> Manifest:
        secret = only(self._manifests, "Secret", path.rpartition("/")[2])
        data = {
            key: base64.b64encode(value.encode()).decode()
            for key, value in secret["stringData"].items()
        }
        return {"data": data, "type": secret["type"], "metadata": secret["metadata"]}


Connect = Callable[[str], "closing[pika.BlockingConnection]"]


@pytest.fixture(scope="module")
def connect(
    manifests: list[Manifest], service: OrderService, secrets: Secrets, rabbitmq: RabbitMQ,
    vhost: Vhost,
) -> Iterator[Connect]:  # fmt: skip
    """Create topology and users as the operator does; yield a function that connects a process."""
    server = vhost.url.rpartition("@")[2]

    def connected(process: str) -> "closing[pika.BlockingConnection]":
        reference = environment.brokers(service)[process]
        url = secrets[reference.name][reference.key]
        assert urlsplit(url).username == process
        server_url = f"{url.rpartition('@')[0]}@{server}"
        return closing(pika.BlockingConnection(pika.URLParameters(server_url)))

    asyncio.run(reconcile(manifests, f"http://{rabbitmq.management_url.rpartition('@')[2]}", vhost))
    yield connected
    for process in environment.brokers(service):
        requests.delete(f"{rabbitmq.management_url}/api/users/{process}", timeout=60)


async def reconcile(manifests: list[Manifest], management_url: str, vhost: Vhost) -> None:
    """Write what the resource asks for, as the operator, and look once more."""
    resource = only(manifests, "OrderService")
    broker = {"managementUrl": management_url, "vhost": vhost.name}
    spec = resource["spec"] | {"messaging": resource["spec"]["messaging"] | broker}
    service, key = msgspec.convert(resource | {"spec": spec}, OrderService), Key("shop", "orders")
    topologies = TopologyReconciler(Cluster(manifests), lambda _: None, list)  # type: ignore[arg-type] # all that is used
    for _ in range(2):
        await topologies.reconcile(key, service)
    report = topologies.report(key, service)
    await topologies.close()
    assert (report.status, report.reason) == ("True", "InPlace"), report


def is_allowed(connection: pika.BlockingConnection, deed: broker.Deed) -> bool:
    """Try an operation on a new channel; return whether the broker allowed it."""
    channel = connection.channel()
    channel.confirm_delivery()
    try:
        deed(channel)
    except ChannelClosedByBroker as refused:
        return bool(refused.reply_code != 403)
    return True


@pytest.mark.parametrize("process", ["relay", "worker", "notifier"])
def test_a_process_may_do_in_rabbitmq_what_its_user_may_and_nothing_else(
    connect: Connect, process: str
) -> None:
    with connect(process) as connection:
        deeds = {name for name, deed in broker.DEEDS.items() if is_allowed(connection, deed)}
    assert deeds == broker.MAY[process]
