"""Real servers for the integration tests, and simulators of Inventory and Payment.

The servers are PostgreSQL with a standby, Valkey and RabbitMQ.
Only the servers that the chosen tests ask for are started, all at once, on free ports with their
data in a temporary folder. They end with the session, however it ends.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from signal import SIGKILL
from typing import Any

import psycopg
import pytest
import requests

from devstack.certificates import Authority, Tls
from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import postgres as postgres_server
from devstack.servers import rabbitmq as rabbitmq_server
from devstack.servers import valkey as valkey_server
from devstack.state import remove
from integration.broker import Broker, connected, prepare
from integration.handles import Database, Postgres, RabbitMQ, Server, Vhost
from integration.serving import eventually
from integration.shop import Shop
from orders.database.pool import Pool
from orders.settings import DatabaseSettings
from upstreams.process import Control, running

PASSWORD = "only-for-tests"
TEMPLATE = "orders"
_principals = count(1)


@pytest.fixture(scope="session")
def state() -> Iterator[Path]:
    """Give the folder with the servers' data and logs; removed unless DEVSTACK_KEEP is set."""
    folder = Path(tempfile.mkdtemp(prefix="orders-tests-"))
    folder.chmod(0o755)
    yield folder
    if not os.environ.get("DEVSTACK_KEEP"):
        remove(folder)


@pytest.fixture(scope="session")
def starting(request: pytest.FixtureRequest, state: Path) -> Iterator[dict[str, Future[Any]]]:
    """Start every server that some chosen test asks for, in parallel; end them all at the end."""
    starts = {"postgres": start_postgres, "valkey": start_valkey, "rabbitmq": start_rabbitmq}
    names = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    programs: list[Program] = []
    # Its threads must outlive the servers: each ends with the thread that began it.
    with ThreadPoolExecutor(max_workers=len(starts)) as threads:
        try:
            yield {
                name: threads.submit(start, state, programs)
                for name, start in starts.items()
                if name in names
            }
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
            for program in reversed(programs):
                program.kill()


def start_postgres(state: Path, programs: list[Program]) -> Postgres:
    """Start a primary, migrate its database and start a standby."""
    cluster = postgres_server.Cluster(
        state=state, port=free_port(), password=PASSWORD, durable=False
    )
    port = free_port()
    primary, standby = (
        Program(postgres_server.primary(cluster)),
        Program(postgres_server.replica(cluster, port)),
    )
    programs += [primary, standby]
    primary.start()
    migrate(cluster.url())
    standby.start()
    replica = Server(cluster.url(port=port), standby)
    return Postgres(cluster.url(), primary, cluster, replica)


def start_valkey(state: Path, programs: list[Program]) -> Server:
    """Start a Valkey server on a free port."""
    port = free_port()
    program = Program(valkey_server.component(state, port))
    programs.append(program)
    program.start()
    return Server(valkey_server.url(port), program)


def start_rabbitmq(state: Path, programs: list[Program]) -> RabbitMQ:
    """Start a RabbitMQ node and the epmd it needs."""
    authority = Authority(state / "certificates")
    tls = Tls(
        authority.bundle,
        authority.server("localhost-only", ("localhost",)),
        authority.client("client"),
    )
    broker = rabbitmq_server.Broker(
        tls=tls,
        tls_port=free_port(),
        state=state,
        password=PASSWORD,
        amqp_port=free_port(),
        management_port=free_port(),
        distribution_port=free_port(),
        epmd_port=free_port(),
    )
    epmd = Program(rabbitmq_server.epmd(broker))
    # Ends 6 s sooner, and what a crash would lose is thrown away anyway. A busy machine may take
    # minutes for its start.
    node = Program(
        replace(rabbitmq_server.component(broker), stop_signal=SIGKILL, ready_within_s=300)
    )
    programs += [epmd, node]
    epmd.start()
    node.start()
    return RabbitMQ(broker.url(), node, broker.management_url, broker)


def migrate(url: str) -> None:
    """Run `orders migrate`, as a deployment does."""
    argv = [sys.executable, "-m", "orders", "migrate"]
    environment = os.environ | {"ORDERS_DATABASE_URL": url}
    process = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.fixture(scope="session")
def postgres(starting: dict[str, Future[Postgres]]) -> Postgres:
    """Give the running PostgreSQL primary and its standby."""
    return starting["postgres"].result()


@pytest.fixture(scope="session")
def valkey(starting: dict[str, Future[Server]]) -> Server:
    """Give the running Valkey."""
    return starting["valkey"].result()


@pytest.fixture(scope="session")
def rabbitmq(starting: dict[str, Future[RabbitMQ]]) -> RabbitMQ:
    """Give the running RabbitMQ."""
    return starting["rabbitmq"].result()


@pytest.fixture(scope="module")
def database(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[Database]:
    """Give the module its own migrated, empty database."""
    name = unique(request)
    replica_port = postgres.replica.url.rpartition(":")[2].partition("/")[0]
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}" OWNER orders TEMPLATE "{TEMPLATE}"'.encode())
    database = Database(
        name,
        postgres.url_of(name),
        postgres.cluster.url(name, port=int(replica_port)),
        postgres.admin_url(name),
    )
    eventually(lambda: postgres_server.answers(database.replica_url), within_s=60)
    yield database
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


@pytest.fixture(scope="module")
def pool(database: Database) -> Iterator[Pool]:
    """Give sessions for twenty threads."""
    pool = Pool(database.url, DatabaseSettings(url=database.url, pool_size=20), "test")
    pool.open()
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def redis_url(valkey: Server) -> str:
    """Give the module an empty Valkey."""
    valkey_server.flush(valkey.url)
    return valkey.url


@pytest.fixture
def principal() -> str:
    """Return a user whose requests no rate limit has counted yet."""
    return f"user:{next(_principals)}"


@pytest.fixture(scope="module")
def vhost(request: pytest.FixtureRequest, rabbitmq: RabbitMQ) -> Iterator[Vhost]:
    """Give the module its own virtual host, without topology."""
    name, api = unique(request), f"{rabbitmq.management_url}/api"
    permissions = {"configure": ".*", "write": ".*", "read": ".*"}
    user = rabbitmq_server.USER
    requests.put(f"{api}/vhosts/{name}", timeout=30).raise_for_status()
    requests.put(
        f"{api}/permissions/{name}/{user}", json=permissions, timeout=30
    ).raise_for_status()
    yield Vhost(name, rabbitmq.broker.url(name), rabbitmq.management_url)
    requests.delete(f"{api}/vhosts/{name}", timeout=30)


def unique(request: pytest.FixtureRequest) -> str:
    """Name something after the module that asks for it."""
    return f"{request.module.__name__.rpartition('.')[2]}_{time.monotonic_ns() % 10**9}"


@pytest.fixture(scope="module")
def inventory() -> Iterator[Control]:
    """Run a simulator of Inventory."""
    with running("inventory", free_port()) as control:
        yield control


@pytest.fixture(scope="module")
def payment() -> Iterator[Control]:
    """Run a simulator of Payment."""
    with running("payment", free_port()) as control:
        yield control


@pytest.fixture(scope="module")
def simulators() -> Iterator[tuple[Control, Control]]:
    """Run simulators of Inventory and Payment for `stock` and `till`, which empty them."""
    with running("inventory", free_port()) as stock, running("payment", free_port()) as till:
        yield stock, till


@pytest.fixture
def stock(simulators: tuple[Control, Control]) -> Control:
    """Give an empty Inventory."""
    simulators[0].reset()
    return simulators[0]


@pytest.fixture
def till(simulators: tuple[Control, Control]) -> Control:
    """Give an empty Payment."""
    simulators[1].reset()
    return simulators[1]


@pytest.fixture
def broker(vhost: Vhost) -> Iterator[Broker]:
    """Give a virtual host with the topology and without messages."""
    prepare(vhost)
    with connected(vhost) as broker:
        broker.purge()
        yield broker


@pytest.fixture(scope="module")
def shop_of_module(database: Database) -> Iterator[Shop]:
    """Build a shop: the database, Inventory and Payment."""
    with running("inventory", free_port()) as stock, running("payment", free_port()) as till:
        shop = Shop(database, stock, till)
        yield shop
        shop.close()


@pytest.fixture
def shop(shop_of_module: Shop) -> Shop:
    """Give an empty shop."""
    shop_of_module.empty()
    return shop_of_module
