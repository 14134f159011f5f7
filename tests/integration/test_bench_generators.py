"""The bounds that `make bench` measures against, each for a moment, on real servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.servers import postgres
from devstack.testing import Database, Server
from loadtest.bench import data, statements
from loadtest.bench.generators import BenchFailed, PgBench, redis_get
from orders.database.connection import as_options, pinned
from orders.settings import DatabaseSettings, load

ONCE = ("-c", "2", "-t", "5")


@pytest.fixture(scope="module")
def rows(database: Database) -> Iterator[data.Database]:
    made = data.Database(database.url)
    yield made
    made.close()


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


def test_pgbench_brings_every_order_to_its_end_by_the_workers_statements(
    pgbench: PgBench, rows: data.Database
) -> None:
    orders = rows.add_pending(10)
    turns = {"first": orders[0], "taken": 0, "clients": 2}
    pgbench.run(statements.bring_to_end(), statements.CONSTANTS | turns, *ONCE)
    assert rows.settled(orders) == 10


def test_a_statement_that_fails_ends_the_run(pgbench: PgBench) -> None:
    with pytest.raises(BenchFailed, match="does not exist"):
        pgbench.run("SELECT nothing;\n", {}, *ONCE)


def test_redis_benchmark_tells_its_rate(valkey: Server) -> None:
    port = int(valkey.url.rpartition(":")[2].partition("/")[0])
    reading = redis_get(port, "order:1", 2, 200)
    assert reading.done == 200
    assert reading.rate > 0
    assert reading.p99_ms is not None
