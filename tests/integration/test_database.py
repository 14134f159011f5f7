"""PostgreSQL as the order service uses it: idempotency, outages, the replica, migrations."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import msgspec
import psycopg
import pytest
from prometheus_client import REGISTRY

from integration.handles import Database, Postgres
from integration.serving import eventually
from integration.stores import orders_on
from machine_time import machine_time_s
from orders import settings
from orders.database.connection import SESSION, Connection, Server, connect
from orders.database.leadership import HOUSEKEEPING, Leadership
from orders.database.migrate import migrate, pending
from orders.database.orders import KeyReused, Orders, Position, StoredAnswer
from orders.database.pool import Pool
from orders.database.routing import Reads, Replica, ReplicaLag
from orders.database.statements import Busy, Locked, OutcomeUnknown, Prepared, Row
from orders.domain.order import NewOrder
from orders.errors import Permanent, Transient
from orders.telemetry import context

ORDER = NewOrder(7, 1, 2, Decimal("19.90"), "card")


@pytest.fixture(scope="module")
def options(database: Database) -> settings.DatabaseSettings:
    return settings.load(
        settings.DatabaseSettings,
        {
            "ORDERS_DATABASE_URL": database.url,
            "ORDERS_DATABASE_REPLICA_URL": database.replica_url,
            "ORDERS_DATABASE_POOL_SIZE": "20",
        },
    )


@pytest.fixture
def pool(options: settings.DatabaseSettings) -> Iterator[Pool]:
    pool = Pool(options.url, options, "test")
    pool.open()
    yield pool
    pool.close()


@pytest.fixture
def ledger(pool: Pool) -> Orders:
    return orders_on(pool)


def accept(ledger: Orders, key: str | None = None, order: NewOrder = ORDER) -> StoredAnswer:
    return ledger.accept(order, context.accept("test", None)[0], "u:7", key)


def count(pool: Pool, table: str) -> int:
    with pool.connection() as connection:
        [(rows,)] = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchall()
    return int(rows)


def routed(target: str, reason: str) -> float:
    labels = {"target": target, "reason": reason}
    return REGISTRY.get_sample_value("db_route_total", labels) or 0.0


def test_key_order_history_and_outbox_commit_together(pool: Pool, ledger: Orders) -> None:
    tables = ("orders", "order_history", "outbox", "idempotency_keys")
    count_before = [count(pool, table) for table in tables]
    accept(ledger, str(uuid.uuid4()))
    assert [count(pool, table) for table in tables] == [number + 1 for number in count_before]


def test_the_same_key_gives_the_stored_answer(ledger: Orders) -> None:
    key = str(uuid.uuid4())
    first, second = accept(ledger, key), accept(ledger, key)
    assert second.replayed
    assert (second.status, second.body, second.location, second.etag) == (
        first.status, first.body, first.location, first.etag,
    )  # fmt: skip


def test_the_same_key_with_another_order_is_refused(ledger: Orders) -> None:
    key = str(uuid.uuid4())
    accept(ledger, key)
    with pytest.raises(KeyReused):
        accept(ledger, key, NewOrder(7, 1, 3, Decimal("19.90"), "card"))


def test_an_expired_key_is_free_again(pool: Pool, ledger: Orders) -> None:
    key = str(uuid.uuid4())
    first = accept(ledger, key)
    with pool.connection() as connection:
        connection.execute(b"UPDATE idempotency_keys SET expires_at = now() WHERE key = %s", (key,))
    second = accept(ledger, key)
    assert not second.replayed
    assert second.order_id != first.order_id


def test_fifty_equal_requests_at_once_make_one_order(pool: Pool, ledger: Orders) -> None:
    key, count_before = str(uuid.uuid4()), count(pool, "orders")
    gate = threading.Barrier(20)

    def send(_: int) -> bytes:
        gate.wait(timeout=30)
        return accept(ledger, key).body

    with ThreadPoolExecutor(20) as threads:
        bodies = set(threads.map(send, range(20))) | set(threads.map(send, range(20)))
    assert len(bodies) == 1
    assert count(pool, "orders") == count_before + 1


def test_the_loser_of_a_race_waits_a_second_and_is_told_that_the_winner_is_busy(
    database: Database, ledger: Orders
) -> None:
    key = str(uuid.uuid4())
    with psycopg.connect(database.url) as winner:
        winner.execute(
            b"INSERT INTO idempotency_keys (principal, route, key, fingerprint, status, body,"
            b" location, etag, expires_at) VALUES"
            b" ('u:7', 'POST /api/orders', %s, '', 202, '', '', '', now() + interval '1 day')",
            (key,),
        )
        began_s, started_s = time.monotonic(), machine_time_s()
        with pytest.raises(Busy):
            accept(ledger, key)
        assert time.monotonic() - began_s > 0.8
        assert machine_time_s() - started_s < 3
        winner.rollback()
    assert not accept(ledger, key).replayed, "a rolled-back winner leaves the key free"


def test_a_locked_table_is_no_answer_about_somebody_elses_key(
    database: Database, ledger: Orders
) -> None:
    with psycopg.connect(database.url) as migration:
        migration.execute(b"LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Locked):
            accept(ledger, None)
        with pytest.raises(Locked):
            ledger.find(1)


def test_what_a_migration_may_mend_is_transient_and_what_the_values_break_is_not(
    pool: Pool,
) -> None:
    for query in (b"SELECT nothing FROM orders", b"SELECT FROM no_such_table"):
        with pytest.raises(Transient), pool.connection() as connection:
            connection.execute(query)
    with pytest.raises(Permanent), pool.connection() as connection:
        connection.execute(b"INSERT INTO order_history (order_id, version) VALUES (0, 1)")


def test_a_statement_that_failed_runs_again_on_its_connection(
    options: settings.DatabaseSettings,
) -> None:
    """The statement stays prepared; plans for other values, or an error, must not affect it."""
    pool = Pool(options.url, msgspec.structs.replace(options, pool_size=1), "test")
    pool.open()
    try:
        ledger = orders_on(pool)
        for key in (None, f"first-{uuid.uuid4()}", None, f"second-{uuid.uuid4()}"):
            with pytest.raises(Permanent):
                accept(ledger, key, NewOrder(7, 1, 0, Decimal("19.90"), "card"))
            answer = accept(ledger, key)
            assert accept(ledger, key).replayed is (key is not None)
            order = ledger.find(answer.order_id or 0)
            assert order is not None and order.total == ORDER.total  # noqa: PT018 for mypy
    finally:
        pool.close()


def test_a_connection_keeps_a_bounded_number_of_prepared_statements(pool: Pool) -> None:
    query = b"SELECT %(number)s + 1, %(text)s || '%%'"
    with pool.connection() as connection:
        prepared = Prepared(connection, limit=2)
        for number in (1, 2**20, 2**40, 1, None):  # a type of its own for each size
            expected = None if number is None else number + 1
            assert prepared.rows(query, {"number": number, "text": "a"}) == [(expected, "a%")]
        [(statements,)] = connection.execute(
            b"SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT $1 + 1%'"
        ).fetchall()
    assert statements == 2


def test_pages_are_a_walk_without_gaps_while_orders_come_in(ledger: Orders) -> None:
    user = 4711
    user_orders = [
        accept(ledger, None, NewOrder(user, 1, 1, Decimal(1), "card")).order_id for _ in range(25)
    ]
    walk: list[int] = []
    position: Position | None = None
    while page := ledger.page(user, 10, position, 0, own_writes=True):
        walk += [order.id for order in page]
        position = Position(page[-1].created_at, page[-1].id)
        accept(ledger, None, NewOrder(user, 1, 1, Decimal(1), "card"))
    assert walk == user_orders[::-1]


def test_a_restart_of_the_server_costs_no_request_after_it(
    postgres: Postgres, pool: Pool, ledger: Orders
) -> None:
    accept(ledger)
    postgres.stop()
    postgres.start()
    eventually(lambda: not _fails(ledger))
    for _ in range(20):
        accept(ledger)


def _fails(ledger: Orders) -> bool:
    try:
        accept(ledger)
    except Transient:
        return True
    return False


class Unlucky(Pool):
    """A pool whose connections end between the look at them and the statement."""

    def __init__(self, database: Database, options: settings.DatabaseSettings) -> None:
        super().__init__(database.url, options, "unlucky")
        self._admin_url, self._thread = database.admin_url, threading.get_ident()
        self.breaks = 0  # how many connections are still to end, in the thread of the test
        self.statements = 0  # those of the test's thread

    def _take(self, timeout_s: float) -> Connection:
        connection = super()._take(timeout_s)
        if self.breaks and threading.get_ident() == self._thread:
            self.breaks -= 1
            with psycopg.connect(self._admin_url, autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(%s)", (connection.backend_pid,))
            eventually(connection.is_over)
        return connection

    def execute(self, name: str, arguments: Mapping[str, Any]) -> list[Row]:
        if threading.get_ident() == self._thread:  # not those that wake the relay
            self.statements += 1
        return super().execute(name, arguments)


@pytest.fixture
def unlucky(database: Database, options: settings.DatabaseSettings) -> Iterator[Unlucky]:
    pool = Unlucky(database, options)
    pool.open()
    pool.wait()
    yield pool
    pool.close()


@pytest.mark.parametrize("name", ["page", "find", "replay"])
def test_a_read_whose_connection_broke_is_tried_once_more(unlucky: Unlucky, name: str) -> None:
    ledger = orders_on(unlucky)
    stored = accept(ledger, key := str(uuid.uuid4()))
    reads: dict[str, Callable[[], object]] = {
        "page": lambda: ledger.page(ORDER.user_id, 1, None, 0, own_writes=True),
        "find": lambda: ledger.find(stored.order_id or 0),
        "replay": lambda: ledger.replay(ORDER, "u:7", key),
    }
    unlucky.breaks, unlucky.statements = 1, 0
    assert reads[name]()
    assert unlucky.statements == 2
    unlucky.breaks, unlucky.statements = 3, 0
    with pytest.raises(OutcomeUnknown):
        reads[name]()
    assert unlucky.statements == 2


def test_a_write_whose_connection_broke_is_not_tried_again(unlucky: Unlucky) -> None:
    ledger = orders_on(unlucky)
    accept(ledger)
    unlucky.breaks, unlucky.statements = 1, 0
    with pytest.raises(OutcomeUnknown):
        accept(ledger)
    assert unlucky.statements == 1


def test_an_outage_is_told_fast_and_ends_with_it(
    postgres: Postgres, pool: Pool, ledger: Orders
) -> None:
    accept(ledger)
    postgres.stop()
    try:
        with pytest.raises(Transient):
            accept(ledger)
        started_s = machine_time_s()
        for _ in range(20):
            with pytest.raises(Transient):
                accept(ledger)
        assert machine_time_s() - started_s < 6, "each request of an outage waited for it"
        time.sleep(4)  # longer than the pool keeps trying one connection
    finally:
        postgres.start()
    eventually(lambda: not _fails(ledger))


def test_reads_go_to_the_replica_while_it_keeps_up_and_misses_to_the_primary(
    options: settings.DatabaseSettings, pool: Pool
) -> None:
    assert options.replica_url
    replica = Pool(options.replica_url, options, "test", writes=False)
    lag = ReplicaLag(options)
    replica.open()
    lag.start()
    ledger = orders_on(pool, Reads(pool, replica, lag, options.replica_max_lag_s))
    try:
        eventually(lambda: lag.lag_s() < options.replica_max_lag_s)
        fresh_reads = routed("replica", "fresh")
        order_id = accept(ledger).order_id or 0
        order = ledger.find(order_id)
        assert order is not None, "a new order is found, on the replica or behind it"
        assert routed("replica", "fresh") > fresh_reads
        with psycopg.connect(_as_admin(options.replica_url), autocommit=True) as admin:
            admin.execute(b"SELECT pg_wal_replay_pause()")
            try:
                unseen = accept(ledger).order_id or 0
                assert ledger.find(unseen) is not None, "what the replica lacks is on the primary"
                eventually(lambda: lag.lag_s() > options.replica_max_lag_s)
                count_before = routed("primary", "no_replica")
                assert ledger.find(unseen) is not None
                assert routed("primary", "no_replica") == count_before + 1
            finally:
                admin.execute(b"SELECT pg_wal_replay_resume()")
        eventually(lambda: lag.lag_s() < options.replica_max_lag_s)
    finally:
        lag.stop()
        replica.close()


class Counted(Pool):
    """A pool that counts its statements."""

    statements = 0

    def execute(self, name: str, arguments: Mapping[str, Any]) -> list[Row]:
        self.statements += 1
        return super().execute(name, arguments)


def test_reads_go_in_turn_to_the_replicas_that_keep_up(
    options: settings.DatabaseSettings, pool: Pool, database: Database
) -> None:
    pools = [Counted(database.replica_url, options, f"r{n}", writes=False) for n in range(3)]
    lags = [ReplicaLag(options, database.replica_url) for _ in pools]
    reads = Reads.among(pool, list(map(Replica, pools, lags)), options.replica_max_lag_s)
    ledger = orders_on(pool, reads)
    order_id = accept(ledger).order_id or 0
    for replica, lag in zip(pools[:2], lags[:2], strict=True):  # the third one is never heard of
        replica.open()
        lag.start()
    pools[2].open()
    try:
        eventually(lambda: max(lag.lag_s() for lag in lags[:2]) < options.replica_max_lag_s)
        eventually(lambda: _rows_of(database.replica_url, order_id))
        count_before = routed("replica", "fresh")
        for _ in range(10):
            assert ledger.find(order_id) is not None
        assert routed("replica", "fresh") == count_before + 10
        statement_counts = [replica.statements for replica in pools]
        assert (min(statement_counts[:2]) >= 4, statement_counts[2]) == (True, 0)
    finally:
        for lag in lags:
            lag.stop()
        for replica in pools:
            replica.close()


def _rows_of(url: str, order_id: int) -> bool:
    with psycopg.connect(url) as session:
        return session.execute("SELECT FROM orders WHERE id = %s", (order_id,)).rowcount == 1


def _as_admin(url: str) -> str:
    return url.replace("//orders:", "//postgres:", 1)


def test_leadership_is_one_processes_and_passes_on(options: settings.DatabaseSettings) -> None:
    first = Leadership(options, HOUSEKEEPING, "first")
    second = Leadership(options, HOUSEKEEPING, "second")
    assert first.held()
    assert not second.held()
    assert first.held()
    first.close()
    eventually(second.held)
    second.close()


def test_the_server_notices_a_leader_that_vanished(options: settings.DatabaseSettings) -> None:
    with connect(Server(options.url), options, "leader", SESSION) as session:
        [(idle,)] = session.execute("SHOW tcp_keepalives_idle").fetchall()
    assert idle in ("5", "5s")


def test_a_migration_does_not_queue_behind_a_long_reader(postgres: Postgres) -> None:
    name = f"migrate_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}" OWNER orders'.encode())
    url = postgres.url_of(name)
    with psycopg.connect(url) as reader:
        reader.execute(b"CREATE TABLE orders (id int)")  # its name is taken until the block ends
        started_s = time.monotonic()
        with pytest.raises(Transient):
            migrate(url)
        assert time.monotonic() - started_s < 60  # the reader would stay for ever
        reader.rollback()
    assert migrate(url)
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def test_a_migration_that_cannot_be_noted_has_changed_nothing(postgres: Postgres) -> None:
    name = f"migrate_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}" OWNER orders'.encode())
    url = postgres.url_of(name)
    migrations = pending(url)  # makes the tables that note what is applied
    with psycopg.connect(url) as other:
        other.execute(b"LOCK TABLE _yoyo_migration IN EXCLUSIVE MODE")
        with pytest.raises(Transient):
            migrate(url)
        assert other.execute(b"SELECT to_regclass('orders')").fetchone() == (None,)
    assert migrate(url) == migrations
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def test_migrating_twice_at_once_applies_each_migration_once(postgres: Postgres) -> None:
    name = f"migrate_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}" OWNER orders'.encode())
    url = postgres.url_of(name)
    with ThreadPoolExecutor(4) as threads:
        applied = list(threads.map(lambda _: migrate(url), range(4)))
    assert sorted(len(names) > 0 for names in applied) == [False, False, False, True]
    assert pending(url) == []
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def test_threads_share_one_connection_and_none_of_them_is_passed_over(database: Database) -> None:
    """The connection that is kept beside the pool returns to it as soon as a thread waits."""
    options = settings.DatabaseSettings(url=database.url, pool_size=1, connect_timeout_s=5)
    shared = Pool(database.url, options, "shared")
    shared.open()
    try:
        with ThreadPoolExecutor(4) as threads:
            answers = list(
                threads.map(lambda n: shared.execute("find_order", {"id": n}), range(200))
            )
        assert len(answers) == 200
        assert shared.in_use == 0
        with psycopg.connect(database.admin_url) as admin:
            [(number,)] = admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'shared'"
            ).fetchall()
        assert number == 1
    finally:
        shared.close()
