"""The bounds that `make bench` measures against, each for a moment, on real servers."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from devstack.ports import free_port
from devstack.servers import postgres
from devstack.services import answers
from integration.handles import Database, Server
from integration.serving import eventually
from loadtest.bench import data, light, statements
from loadtest.bench.generators import BenchFailed, PgBench, redis_get
from orders.database.connection import as_options, pinned
from orders.settings import DatabaseSettings, load
from orders.upstream.http import Upstream
from orders.upstream.inventory import Inventory, ReservationStatus, Target
from orders.upstream.payment import Captured, Payment
from orders.upstream.policy import UpstreamPolicy
from orders.upstream.transport import HttpRequest

ONCE = ("-c", "2", "-t", "5")


@pytest.fixture(scope="module")
def rows(database: Database) -> Iterator[data.Database]:
    tables = data.Database(database.url)
    tables.seed()
    yield tables
    tables.close()


@pytest.fixture(scope="module")
def pgbench(database: Database, state: Path) -> PgBench:
    loaded = load(DatabaseSettings, {"ORDERS_DATABASE_URL": database.url})
    options = as_options(pinned(loaded))
    return PgBench(postgres.programs(state) / "pgbench", database.url, options)


def test_pgbench_takes_and_lists_orders_by_the_services_statements(
    pgbench: PgBench, rows: data.Database
) -> None:
    variables = statements.CONSTANTS | {"first": 1, "last": 3}
    assert pgbench.run(statements.accept_order(), variables, *ONCE).done == 10
    assert not rows.outbox_is_empty()
    assert pgbench.run(statements.list_orders(), variables, *ONCE).rate > 0


def test_pgbench_reads_an_order_and_a_page_far_down_a_list(
    pgbench: PgBench, rows: data.Database
) -> None:
    assert rows.all_settled(1, data.ORDERS + data.DEEP)
    variables = statements.CONSTANTS | {"first": data.DEEP_USER, "last": data.DEEP_USER}
    assert pgbench.run(statements.list_deep(), variables, *ONCE).done == 10
    assert pgbench.run(statements.find_order(), variables, *ONCE).done == 10


def test_pgbench_brings_every_order_to_its_end_by_the_workers_statements(
    pgbench: PgBench, rows: data.Database
) -> None:
    orders = rows.add_pending(10)
    turns = {"first": orders[0], "taken": 0, "clients": 2}
    pgbench.run(statements.bring_to_end(), statements.CONSTANTS | turns, *ONCE)
    assert rows.settled(orders) == 10
    assert rows.all_settled(orders[0], orders[-1])
    more = rows.add_pending(1)
    assert not rows.all_settled(orders[0], more[-1])


def test_a_statement_that_fails_ends_the_run(pgbench: PgBench) -> None:
    with pytest.raises(BenchFailed, match="does not exist"):
        pgbench.run("SELECT nothing;\n", {}, *ONCE)


def test_light_upstreams_answer_as_the_contracts_say() -> None:
    port = free_port()
    folder = Path(light.__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-m", "loadtest.bench.light", str(port)], cwd=folder)
    upstream = Upstream("light", f"http://127.0.0.1:{port}", UpstreamPolicy(retries=0))
    try:
        eventually(lambda: answers(port, "/livez"))
        inventory, payment = Inventory(upstream), Payment(upstream)
        target, total = Target("key", 7), Decimal("19.90")
        assert inventory.availability(1, 2).sufficient
        assert inventory.commit(target) is ReservationStatus.UNKNOWN
        assert inventory.reserve(target, 1, 2) is ReservationStatus.RESERVED
        assert inventory.commit(target) is ReservationStatus.COMMITTED
        first_contract = HttpRequest("PUT", "/reservations/9", "/", b'{"productId":1,"quantity":2}')
        assert upstream.call(first_contract, lambda reply: b'"orderId":9' in reply.body)
        assert payment.find("a", 7, total) is None
        assert isinstance(payment.capture("a", 7, total, "card"), Captured)
        assert isinstance(payment.find("a", 7, total), Captured)
    finally:
        upstream.close()
        child.kill()
        child.wait()


def test_light_upstreams_take_as_long_as_they_are_told() -> None:
    port = free_port()
    child = subprocess.Popen(
        [sys.executable, "-m", "loadtest.bench.light", str(port)],
        cwd=Path(light.__file__).parents[2],
        env=os.environ | {"LIGHT_LATENCY_MS": "300"},
    )
    upstream = Upstream("light", f"http://127.0.0.1:{port}", UpstreamPolicy(retries=0))
    try:
        eventually(lambda: answers(port, "/livez"))
        began_s = time.monotonic()
        assert Inventory(upstream).availability(1, 2).sufficient
        assert time.monotonic() - began_s >= 0.3
    finally:
        upstream.close()
        child.kill()
        child.wait()


def test_redis_benchmark_tells_its_rate(valkey: Server) -> None:
    port = int(valkey.url.rpartition(":")[2].partition("/")[0])
    reading = redis_get(port, "order:1", 2, 200)
    assert reading.done == 200
    assert reading.rate > 0
    assert reading.p99_ms is not None
