"""PgBouncer in transaction mode between the service and PostgreSQL, and servers set up oddly."""

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import msgspec
import psycopg
import pytest

from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import pgbouncer
from integration.api_process import api_running, new_user
from integration.broker import connected, prepare, settings_of
from integration.handles import Database, Postgres, Vhost
from integration.serving import eventually
from integration.stores import orders_on
from machine_time import machine_time_s
from orders.database import connection
from orders.database.leadership import HOUSEKEEPING, Leadership
from orders.database.migrate import migrate, pending
from orders.database.orders import Orders
from orders.database.pool import Pool
from orders.database.progress import AttemptOutcome, Progress, Reservation, Step
from orders.database.routing import ReplicaLag
from orders.database.statements import Busy, ReadOnly
from orders.domain.lifecycle import Status, Transition
from orders.domain.order import NewOrder
from orders.errors import Transient
from orders.messaging.publisher import Publisher
from orders.relay.relay import Relay
from orders.settings import DatabaseSettings, RelaySettings
from orders.telemetry import context

ORDER = NewOrder(7, 1, 2, Decimal("19.90"), "card")
ODD = {
    "datestyle": "'SQL, DMY'",
    "intervalstyle": "'iso_8601'",
    "timezone": "'Asia/Kolkata'",
    "search_path": "'nowhere'",
    "default_transaction_isolation": "'serializable'",
    "default_transaction_deferrable": "on",
    "standard_conforming_strings": "off",
    "bytea_output": "'escape'",
    "extra_float_digits": "-15",
    "client_encoding": "'LATIN1'",
    "statement_timeout": "'250ms'",
    "lock_timeout": "0",
    "synchronous_commit": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "plan_cache_mode": "force_custom_plan",
}


@pytest.fixture(scope="module")
def pooler(postgres: Postgres) -> Iterator[int]:
    """Start PgBouncer in transaction mode, as Debian installs it; give its port."""
    program = Program(pgbouncer.component(postgres.cluster, port := free_port()))
    program.start()
    yield port
    program.stop()


@pytest.fixture(scope="module")
def odd(postgres: Postgres, database: Database) -> Iterator[None]:
    """Give the database every default that could change what its rows mean."""
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        for name, value in ODD.items():
            admin.execute(f'ALTER DATABASE "{database.name}" SET {name} = {value}'.encode())
    yield
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{database.name}" RESET ALL'.encode())


def settings(database: Database, postgres: Postgres, pooler: int | None) -> DatabaseSettings:
    if pooler is None:
        return DatabaseSettings(url=database.url)
    return DatabaseSettings(
        url=postgres.cluster.url(database.name, port=pooler), session_url=database.url
    )


@pytest.fixture(params=["direct", "pooled"])
def options(
    request: pytest.FixtureRequest, database: Database, postgres: Postgres, pooler: int, odd: None
) -> DatabaseSettings:
    return settings(database, postgres, pooler if request.param == "pooled" else None)


@pytest.fixture
def pool(options: DatabaseSettings) -> Iterator[Pool]:
    pool = Pool(options.url, options, "test")
    pool.open()
    yield pool
    pool.close()


def ledger_of(pool: Pool) -> Orders:
    return orders_on(pool)


def accept(pool: Pool, key: str | None = None) -> int:
    ids = context.accept("test", None)[0]
    return ledger_of(pool).accept(ORDER, ids, "u:7", key).order_id or 0


def test_rows_mean_the_same_whatever_the_database_is_set_to(pool: Pool) -> None:
    key = str(uuid.uuid4())
    order = ledger_of(pool).find(accept(pool, key))
    assert order is not None
    assert abs(order.created_at.timestamp() - time.time()) < 60
    assert (order.total, order.status) == (Decimal("19.90"), Status.PENDING)
    replayed = ledger_of(pool).replay(ORDER, "u:7", key)
    assert replayed is not None
    assert ledger_of(pool).page(7, 10, None, 0, own_writes=True)


def test_every_setting_holds_in_each_statement(pool: Pool, options: DatabaseSettings) -> None:
    expected = connection.pinned(options)
    query = ", ".join(f"current_setting('{name}')" for name in expected)
    with pool.connection() as lent:
        [values] = lent.execute(f"SELECT {query}".encode()).fetchall()
    actual = dict(zip(expected, values, strict=True))
    assert {
        name: value for name, value in actual.items() if ODD.get(name, "").strip("'") == value
    } == {}
    assert (actual["statement_timeout"], actual["lock_timeout"]) == ("5s", "1s")
    assert actual["search_path"] == "public,pg_temp"
    assert actual["synchronous_commit"] == "on"


def test_timeouts_of_statements_and_locks_hold(
    pool: Pool, options: DatabaseSettings, database: Database
) -> None:
    short = msgspec.structs.replace(options, statement_timeout_s=0.3)
    quick = Pool(short.url, short, "test")
    quick.open()
    with closing(quick):
        began_s = time.monotonic()
        with pytest.raises(Transient, match="QueryCanceled"), quick.connection() as lent:
            lent.execute(b"SELECT pg_sleep(20)")
        assert time.monotonic() - began_s < 15
    with psycopg.connect(database.url) as winner:
        winner.execute("SET search_path = public")
        winner.execute("SET statement_timeout = 0")
        winner.execute(
            "INSERT INTO idempotency_keys (principal, route, key, fingerprint, status, body,"
            " location, etag, expires_at) VALUES ('u:7', 'POST /api/orders', 'raced', '', 202, '',"
            " '', '', now() + interval '1 day')"
        )
        began_s, started_s = time.monotonic(), machine_time_s()
        with pytest.raises(Busy):
            accept(pool, "raced")
        assert time.monotonic() - began_s > 0.8
        assert machine_time_s() - started_s < 3
        winner.rollback()


def test_the_worker_brings_an_order_to_its_end(pool: Pool) -> None:
    progress, attempt = Progress(pool, "worker"), uuid.uuid4()
    ids = context.accept("test", None)[0]
    message_id = str(uuid.uuid4())
    work = progress.load(accept(pool), message_id)
    assert work is not None
    first = work
    for to, step in (
        (Status.RESERVED, Step(reservation=Reservation.HELD)),
        (Status.CHARGING, Step(new_attempt=attempt)),
        (Status.COMPLETED, Step(attempt=attempt, outcome=AttemptOutcome.APPROVED)),
    ):
        order = progress.advance(work, Transition(to), step, ids)
        assert order is not None
        work = work.after(order, step)
    assert (work.order.status, work.order.version) == (Status.COMPLETED, 4)
    assert progress.advance(first, Transition(Status.FAILED), Step(), ids) is None
    assert progress.settle_stock(work, Reservation.COMMITTED, message_id)
    reloaded = progress.load(work.order.id, message_id)
    assert reloaded is not None
    assert reloaded.processed


def test_many_clients_share_few_connections_and_no_settings(
    postgres: Postgres, database: Database, pooler: int, odd: None
) -> None:
    """Other clients of the pooler meet nothing of ours: settings end with each transaction."""
    options = msgspec.structs.replace(settings(database, postgres, pooler), pool_size=12)
    pool = Pool(options.url, options, "test")
    pool.open()
    with closing(pool), ThreadPoolExecutor(12) as threads:
        orders = list(threads.map(lambda _: accept(pool), range(120)))
        assert len(set(orders)) == 120
        with psycopg.connect(options.url, prepare_threshold=None, autocommit=True) as other:
            for _ in range(10):
                [(plans,)] = other.execute("SHOW plan_cache_mode").fetchall()
                assert plans == "force_custom_plan"


def test_a_read_only_server_behind_a_pooler_is_left(
    postgres: Postgres, database: Database, pooler: int, odd: None
) -> None:
    options = settings(database, postgres, pooler)
    pool = Pool(options.url, options, "test")
    pool.open()

    def write() -> None:
        with pool.connection() as lent:
            lent.execute(
                b"WITH fence AS MATERIALIZED"
                b" (SELECT set_config('transaction_read_only', 'on', true) AS fenced)"
                b" SELECT nextval('outbox_seq_seq') FROM fence WHERE fenced = 'on'"
            )

    with closing(pool):
        accept(pool)
        with pytest.raises(ReadOnly):
            write()
        assert accept(pool)
        pool.ping()


def test_sessions_go_to_the_server_itself_so_that_one_leads(
    postgres: Postgres, database: Database, pooler: int
) -> None:
    options = settings(database, postgres, pooler)
    first = Leadership(options, HOUSEKEEPING, "first")
    second = Leadership(options, HOUSEKEEPING, "second")
    with closing(first), closing(second):
        assert first.held()
        assert not second.held()
        assert first.held()


def test_a_pooler_that_nobody_told_of_is_refused_by_name(
    postgres: Postgres, database: Database, pooler: int
) -> None:
    """Else timeouts would not hold, and two relays could lead."""
    pooled = postgres.cluster.url(database.name, port=pooler)
    untold = DatabaseSettings(url=pooled, connect_timeout_s=2)
    twice = DatabaseSettings(url=pooled, session_url=pooled)
    for advice, attempt in (
        ("set ORDERS_DATABASE_SESSION_URL", lambda: Leadership(untold, HOUSEKEEPING, "t").held()),
        ("set ORDERS_DATABASE_SESSION_URL", lambda: used(untold)),
        ("ORDERS_DATABASE_SESSION_URL must", lambda: Leadership(twice, HOUSEKEEPING, "t").held()),
        ("ORDERS_DATABASE_REPLICA_URL must", lambda: used(untold, writes=False)),
    ):
        with pytest.raises(Transient, match=f"pooler in transaction mode .*{advice}"):
            attempt()


def test_a_pooler_that_drops_what_it_does_not_know_is_refused_by_name(
    postgres: Postgres, database: Database
) -> None:
    port = free_port()
    program = Program(
        pgbouncer.component(
            postgres.cluster, port, ignored="options,extra_float_digits", name="ignoring"
        )
    )
    program.start()
    url = postgres.cluster.url(database.name, port=port)
    try:
        with pytest.raises(Transient, match="set ORDERS_DATABASE_SESSION_URL"):
            used(DatabaseSettings(url=url, connect_timeout_s=2))
        with pytest.raises(Transient, match="ORDERS_DATABASE_SESSION_URL must lead"):
            Leadership(DatabaseSettings(url=url, session_url=url), HOUSEKEEPING, "test").held()
        with pytest.raises(Transient, match="ORDERS_DATABASE_REPLICA_URL must lead"):
            used(DatabaseSettings(url=url, connect_timeout_s=2), writes=False)
    finally:
        program.stop()


def used(options: DatabaseSettings, *, writes: bool = True) -> None:
    pool = Pool(options.url, options, "test", writes=writes)
    pool.open()
    with closing(pool):
        pool.ping()


def test_migrations_and_lag_work_beside_a_pooler(
    postgres: Postgres, database: Database, pooler: int
) -> None:
    options = msgspec.structs.replace(
        settings(database, postgres, pooler), replica_url=database.replica_url
    )
    assert pending(options) == []
    assert migrate(options) == []
    lag = ReplicaLag(options)
    lag.start()
    try:
        eventually(lambda: lag.lag_s() < 1)
    finally:
        lag.stop()


def test_an_order_goes_from_post_to_message_through_a_pooler(
    postgres: Postgres, database: Database, pooler: int, vhost: Vhost
) -> None:
    options = settings(database, postgres, pooler)
    prepare(vhost)
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("TRUNCATE public.outbox")
    publisher = Publisher(settings_of(vhost), "test relay")
    relay = Relay(options, publisher, RelaySettings())
    thread = threading.Thread(target=relay.run)
    pool = Pool(options.url, options, "test")
    pool.open()
    publisher.start()
    thread.start()
    try:
        order_id = accept(pool, "through")
        with connected(vhost) as broker:
            broker.wait_for("order-processing", 1)
        order = ledger_of(pool).find(order_id)
        assert order is not None
        assert order.status == Status.PENDING
    finally:
        relay.stop()
        thread.join(15)
        publisher.close()
        pool.close()


def test_the_api_takes_and_shows_orders_through_a_pooler(
    postgres: Postgres, database: Database, pooler: int, odd: None, tmp_path: Path
) -> None:
    pooled = postgres.cluster.url(database.name, port=pooler)
    urls = {"DATABASE_URL": pooled, "DATABASE_SESSION_URL": database.url}
    with api_running(tmp_path, ORDER_STOCK_CHECK="off", **urls) as api:
        user = new_user()
        answer = api.post(user, "once")
        assert answer.status_code == 202
        repetition = api.post(user, "once")
        assert (repetition.status_code, repetition.json()) == (202, answer.json())
        assert api.post(user, "once", quantity=9).status_code == 422
        assert api.get(answer.headers["Location"]).json()["total"] == 19.9
        assert len(api.get(f"/api/orders/user/{user}").json()) == 1
        assert api.admin("/readyz").status_code == 200
