"""The elected worker's further duties: stalled orders, old rows, gauges."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal

import msgspec
import psycopg
import pytest
from prometheus_client import REGISTRY

from integration.handles import Database
from integration.serving import eventually
from integration.stores import orders_on
from orders import settings
from orders.database.leadership import HOUSEKEEPING, Leadership
from orders.database.pool import Pool
from orders.domain.order import NewOrder
from orders.errors import Transient
from orders.settings import DatabaseSettings, WorkerSettings
from orders.telemetry import context
from orders.worker.collector import Collector
from orders.worker.housekeeping import Housekeeping

SETTINGS = WorkerSettings(stalled_after_s=0.01, sweep_s=0.01, collect_s=0.01)


@pytest.fixture(scope="module")
def options(database: Database) -> DatabaseSettings:
    return settings.load(DatabaseSettings, {"ORDERS_DATABASE_URL": database.url})


@pytest.fixture
def pool(options: DatabaseSettings) -> Iterator[Pool]:
    pool = Pool(options.url, options, "test")
    pool.open()
    with pool.connection() as connection:
        connection.execute(
            b"TRUNCATE orders, outbox, idempotency_keys, processed_messages, stalled_orders CASCADE"
        )
    yield pool
    pool.close()


def housekeeping(
    pool: Pool,
    options: DatabaseSettings,
    collector: Collector | None = None,
    *,
    leads: bool = True,
) -> tuple[Housekeeping, Collector]:
    leadership = Leadership(options, HOUSEKEEPING, "test")
    if leads:
        eventually(leadership.held)  # the server ends the session of the test before in its time
    collector = collector or Collector()
    return Housekeeping(pool, leadership, collector, SETTINGS), collector


class BuggyCollector(Collector):
    """Fails once, as a bug does."""

    bugs = 1

    def collect_from(self, pool: Pool, must_end: Callable[[], bool] = lambda: False) -> None:
        if self.bugs:
            self.bugs -= 1
            raise KeyError("a bug")
        super().collect_from(pool, must_end)


@contextmanager
def locked(database: Database, *tables: str) -> Iterator[None]:
    """Lock some tables, so that every statement about them waits until its timeout."""
    with psycopg.connect(database.url) as session:
        session.execute(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE".encode())
        yield
        session.rollback()


def accept(pool: Pool, key: str | None = None) -> None:
    order = NewOrder(1, 1, 1, Decimal(1), "card")
    orders_on(pool).accept(order, context.accept("", None)[0], "u:1", key)


def values(collector: Collector) -> dict[str, float]:
    return {
        sample.labels.get("status", sample.name): sample.value
        for family in collector.collect()
        if family.name not in {"orders_oldest_age_seconds", "orders_stuck"}
        for sample in family.samples
    }


def series(collector: Collector) -> dict[tuple[str, str], float]:
    """Return every sample, by its name and labels."""
    return {
        (sample.name, str(sample.labels)): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


STALLED = "SELECT count(*) FROM outbox WHERE type = 'order.stalled.v1'"


def test_a_count_that_takes_too_long_keeps_nothing_else_from_being_done(
    pool: Pool, options: DatabaseSettings, database: Database
) -> None:
    accept(pool, "old")
    with pool.connection() as connection:
        connection.execute(b"UPDATE idempotency_keys SET expires_at = now()")
    keeper, counted = housekeeping(pool, options)
    with locked(database, "reconciliation_cases"):
        keeper.round()
        assert rows(pool, STALLED) > 0
        assert rows(pool, "SELECT count(*) FROM idempotency_keys") == 0
    gauges = series(counted)
    keeper.stop_leading()
    names = {name for (name, _), value in gauges.items() if math.isnan(value)}
    assert names == {
        "orders_integrity_violations", "orders_reconcile_last_success_timestamp_seconds",
    }  # fmt: skip


def test_a_purge_that_fails_keeps_nothing_else_from_being_done(
    pool: Pool, options: DatabaseSettings, database: Database
) -> None:
    accept(pool)
    keeper, counted = housekeeping(pool, options)
    with locked(database, "idempotency_keys"):
        keeper.round()
    assert rows(pool, STALLED) > 0
    assert values(counted)["Pending"] == 1
    keeper.stop_leading()


def test_counts_that_take_long_together_do_not_cost_the_lock(
    pool: Pool, options: DatabaseSettings, database: Database
) -> None:
    """Three counts of 1.2 s each, and a session that may be silent for 3 s."""
    slow = msgspec.structs.replace(options, lock_timeout_s=1.2)
    slow_pool = Pool(slow.url, slow, "test-slow")
    slow_pool.open()
    leadership = Leadership(options, HOUSEKEEPING, "test", silence_s=3)
    keeper = Housekeeping(slow_pool, leadership, Collector(), SETTINGS)
    with closing(slow_pool), locked(database, "payment_attempts", "reconciliation_cases"):
        eventually(leadership.held)
        keeper.round()
        assert leadership.held()
        assert leadership.term == 1
    keeper.stop_leading()


def test_what_a_new_leader_has_to_do_is_done_again_until_it_succeeds(
    pool: Pool, options: DatabaseSettings
) -> None:
    accept(pool)
    calls: list[float] = []

    def fail_once() -> None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise Transient("not now")

    leadership = Leadership(options, HOUSEKEEPING, "test")
    eventually(leadership.held)
    keeper = Housekeeping(pool, leadership, Collector(), SETTINGS, on_lead=fail_once)
    before_s = time.time()
    keeper.round()
    assert rows(pool, STALLED) > 0, "the other duties are done meanwhile"
    swept_at_s = REGISTRY.get_sample_value("orders_sweep_last_success_timestamp_seconds")
    assert swept_at_s is not None
    assert before_s - 1 <= swept_at_s <= time.time() + 1
    until_s = time.monotonic() + 60
    while len(calls) < 2 and time.monotonic() < until_s:
        keeper.round()
        time.sleep(0.1)
    keeper.round()
    assert len(calls) == 2
    assert leadership.term == 1
    keeper.stop_leading()


def rows(pool: Pool, query: str) -> int:
    with pool.connection() as connection:
        [(number,)] = connection.execute(query.encode()).fetchall()
    return int(number)


def test_a_stalled_order_gets_a_message_with_its_own_ids(
    pool: Pool, options: DatabaseSettings
) -> None:
    accept(pool)
    time.sleep(0.05)
    keeper, _ = housekeeping(pool, options)
    keeper.round()
    keeper.stop_leading()
    emitted = rows(
        pool,
        "SELECT count(*) FROM outbox WHERE type = 'order.stalled.v1' AND traceparent <> ''",
    )
    assert emitted == 1


def test_expired_rows_go_and_live_ones_stay(pool: Pool, options: DatabaseSettings) -> None:
    accept(pool, "old")
    accept(pool, "new")
    with pool.connection() as connection:
        connection.execute(b"UPDATE idempotency_keys SET expires_at = now() WHERE key = 'old'")
        connection.execute(
            b"INSERT INTO processed_messages VALUES"
            b" ('worker', gen_random_uuid(), now() - interval '8 days'),"
            b" ('worker', gen_random_uuid(), now() - interval '6 days')"
        )
    keeper, _ = housekeeping(pool, options)
    keeper.round()
    keeper.stop_leading()
    assert rows(pool, "SELECT count(*) FROM idempotency_keys") == 1
    assert rows(pool, "SELECT count(*) FROM processed_messages") == 1


def test_old_rows_go_faster_than_they_can_come(pool: Pool, options: DatabaseSettings) -> None:
    """Two tables with 60,000 each: 1,333 a second, which was the limit, would need 45 s."""
    with pool.connection() as connection:
        connection.execute(
            b"INSERT INTO processed_messages SELECT 'worker', gen_random_uuid(),"
            b" now() - interval '8 days' FROM generate_series(1, 60000)"
        )
        connection.execute(
            b"INSERT INTO idempotency_keys SELECT 'u', 'r', i, '', 202, '', '', '', now()"
            b" FROM generate_series(1, 60000) AS i"
        )
    keeper, _ = housekeeping(pool, options)
    began_s = time.monotonic()
    while rows(pool, "SELECT count(*) FROM processed_messages") + rows(
        pool, "SELECT count(*) FROM idempotency_keys"
    ):
        keeper.round()
        assert time.monotonic() - began_s < 30
    keeper.stop_leading()


def test_what_cannot_be_counted_is_not_a_number_and_does_not_vanish(
    pool: Pool, options: DatabaseSettings
) -> None:
    keeper, counted = housekeeping(pool, options)
    counted.lose()
    assert values(counted) == {}, "a process that never counted has nothing to lose"
    keeper.round()
    gauges = series(counted)
    counted.lose()
    names = series(counted)
    assert all(math.isnan(value) for value in names.values())
    assert gauges.keys() <= names.keys(), "the alert on a series that vanishes does not fire"
    assert {"orders_stuck", "orders_integrity_violations"} <= {name for name, _ in names}
    keeper.stop_leading()


def test_only_the_elected_process_exports_the_counts(pool: Pool, options: DatabaseSettings) -> None:
    accept(pool)
    first, counted = housekeeping(pool, options)
    second, empty = housekeeping(pool, options, leads=False)
    first.round()
    second.round()
    assert values(counted)["Pending"] == 1
    assert values(counted)["Completed"] == 0
    assert values(counted)["payment_unknown"] == 0
    assert values(empty) == {}
    first.stop_leading()
    until_s = time.monotonic() + 60
    while not values(empty):  # the server frees the lock when it notices the end of the session
        assert time.monotonic() < until_s
        second.round()
    assert values(empty)["Pending"] == 1
    second.stop_leading()


def test_the_oldest_unknown_payment_is_told_with_its_age(
    pool: Pool, options: DatabaseSettings
) -> None:
    accept(pool)
    with pool.connection() as connection:
        connection.execute(
            b"INSERT INTO payment_attempts (order_id, kind, amount, outcome, created_at)"
            b" SELECT id, 'capture', 1, 'unknown', now() - interval '700 s' FROM orders UNION ALL"
            b" SELECT id, 'capture', 1, 'declined', now() - interval '900 s' FROM orders"
        )
    keeper, counted = housekeeping(pool, options)
    keeper.round()
    gauges = values(counted)
    keeper.stop_leading()
    assert gauges["payment_unknown"] == 1
    assert 700 <= gauges["payment_unknown_oldest_age_seconds"] < 800


def test_the_metrics_are_declared_before_there_is_a_count() -> None:
    names = {family.name for family in Collector().collect()}
    assert names == {
        "db_replica_lag_seconds",
        "orders_in_state",
        "orders_integrity_violations",
        "orders_oldest_age_seconds",
        "orders_reconcile_last_success_timestamp_seconds",
        "orders_stuck",
        "payment_unknown",
        "payment_unknown_oldest_age_seconds",
    }


def test_a_bug_in_one_round_ends_neither_the_rounds_nor_leaves_the_lock_taken(
    pool: Pool, options: DatabaseSettings
) -> None:
    accept(pool)
    buggy = BuggyCollector()
    keeper, collector = housekeeping(pool, options, buggy)
    keeper.start()
    until_s = time.monotonic() + 60
    while not values(collector) and time.monotonic() < until_s:
        time.sleep(0.1)
    keeper.stop()
    assert buggy.bugs == 0
    assert rows(pool, "SELECT count(*) FROM outbox WHERE type = 'order.stalled.v1'") > 0
