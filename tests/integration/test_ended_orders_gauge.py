"""Ended orders by status: counted in a small table, estimated in a large one."""

from collections.abc import Iterator

import psycopg
import pytest

from integration.handles import Database
from orders.database.pool import Pool
from orders.settings import DatabaseSettings
from orders.worker.collector import Collector


@pytest.fixture
def pool(database: Database) -> Iterator[Pool]:
    """Give connections to the primary."""
    primary = Pool(database.url, DatabaseSettings(url=database.url), "test")
    primary.open()
    yield primary
    primary.close()


def completed(pool: Pool) -> float:
    collector = Collector()
    collector.collect_from(pool)
    [family] = [metric for metric in collector.collect() if metric.name == "orders_in_state"]
    return next(s.value for s in family.samples if s.labels["status"] == "Completed")


def test_a_large_table_is_not_counted(pool: Pool, database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(
            b"INSERT INTO orders (user_id, product_id, quantity, total, payment_method,"
            b" correlation_id, traceparent, status)"
            b" SELECT 1, 1, 1, 1, 'card', 'c', 't', 'Completed' FROM generate_series(1, 50)"
        )
        connection.execute(b"ANALYZE orders")
    assert completed(pool) == 50
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        large = b"UPDATE pg_class SET reltuples = 1e6 WHERE oid = 'orders'::regclass"
        admin.execute(large)
    assert completed(pool) == 1e6
