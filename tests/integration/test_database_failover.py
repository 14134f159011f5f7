"""PostgreSQL that freezes, moves, or takes no writes: what the pool makes of it."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import msgspec
import psycopg
import pytest

from failover.proxy import proxies
from integration.handles import Database, Postgres, Server
from integration.pair import Pair, pair
from integration.serving import eventually
from integration.stores import orders_on
from machine_time import machine_time_s
from orders.database.connection import REPLACED, connect, sessions
from orders.database.leadership import HOUSEKEEPING, Leadership
from orders.database.migrate import Watchdog
from orders.database.pool import Pool
from orders.database.statements import OutcomeUnknown, ReadOnly
from orders.domain.order import NewOrder
from orders.errors import Transient
from orders.settings import DatabaseSettings
from orders.telemetry import context

# What a POST may take: statement_timeout and two seconds.
DEADLINE_S = 2.5
ORDER = NewOrder(7, 1, 2, Decimal("19.90"), "card")


def settings_of(url: str) -> DatabaseSettings:
    return DatabaseSettings(url=url, statement_timeout_s=0.5, connect_timeout_s=2)


def accept(pool: Pool) -> int:
    ledger = orders_on(pool)
    return ledger.accept(ORDER, context.accept("test", None)[0], "u:7", None).order_id or 0


def accepts(pool: Pool) -> bool:
    try:
        return accept(pool) > 0
    except Transient:
        return False


@pytest.fixture
def pool(database: Database) -> Iterator[Pool]:
    pool = Pool(database.url, settings_of(database.url), "test")
    pool.open()
    yield pool
    pool.close()


@pytest.fixture
def servers(state: Path) -> Iterator[Pair]:
    with pair(state, "moving") as servers:
        yield servers


def read(pool: Pool) -> object:
    return orders_on(pool).page(7, 1, None, 0, own_writes=True)


@pytest.mark.parametrize("ask", [accept, read])
def test_a_frozen_server_costs_one_deadline_and_the_outcome_is_unknown(
    postgres: Postgres, pool: Pool, ask: Callable[[Pool], object]
) -> None:
    accept(pool)
    postgres.pause()
    try:
        began_s, started_s = time.monotonic(), machine_time_s()
        with pytest.raises(OutcomeUnknown):
            ask(pool)
        assert time.monotonic() - began_s > DEADLINE_S * 0.9
        assert machine_time_s() - started_s < DEADLINE_S + 2
        with pytest.raises(Transient) as error:
            accept(pool)
        assert not isinstance(error.value, OutcomeUnknown), "nothing was sent"
        started_s = machine_time_s()
        for _ in range(20):
            with pytest.raises(Transient):
                accept(pool)
        assert machine_time_s() - started_s < 2, "requests waited for a server known to be down"
    finally:
        postgres.resume()
    eventually(lambda: accepts(pool))


def test_a_pool_that_nobody_asks_notices_a_frozen_server_and_its_return(
    postgres: Postgres, pool: Pool
) -> None:
    accept(pool)
    postgres.pause()
    try:
        eventually(lambda: pool._server.known_down)
        started_s = machine_time_s()
        with pytest.raises(Transient) as error:
            accept(pool)
        assert machine_time_s() - started_s < 1, "the request did not have to find out"
        assert not isinstance(error.value, OutcomeUnknown)
        assert pool.unwell_s > 1
    finally:
        postgres.resume()
    eventually(lambda: pool._server.problem is None)
    eventually(lambda: pool.unwell_s < 1)
    accept(pool)


def test_a_request_waits_for_a_server_that_only_a_heartbeat_found_late(
    postgres: Postgres, database: Database
) -> None:
    """The machine is busy: only the attempt to connect shows whether the server is down."""
    settings = msgspec.structs.replace(settings_of(database.url), connect_timeout_s=60)
    pool = Pool(database.url, settings, "test")
    pool.open()
    accept(pool)
    postgres.pause()
    try:
        eventually(lambda: pool._distrusted_at_s > 0)
        with ThreadPoolExecutor(1) as clients:
            answer = clients.submit(read, pool)
            eventually(lambda: pool._kept._waiting or answer.done())
            postgres.resume()
            assert answer.result()
    finally:
        postgres.resume()
        pool.close()


def test_a_frozen_server_ends_leadership_by_the_deadline(
    postgres: Postgres, database: Database
) -> None:
    leader = Leadership(settings_of(database.url), HOUSEKEEPING, "test")
    eventually(leader.held)
    postgres.pause()
    try:
        started_s = machine_time_s()
        with pytest.raises(Transient):
            leader.held()
        assert machine_time_s() - started_s < DEADLINE_S + 2
    finally:
        postgres.resume()
        leader.close()


def test_a_frozen_server_ends_a_migration_however_long_it_may_take(
    postgres: Postgres, database: Database
) -> None:
    settings = settings_of(database.url)
    server = sessions(settings)
    session = connect(server, settings, "test", {"statement_timeout": "0"})
    session.deadline_s = 3600
    watchdog = Watchdog(session, server, settings, unwell_s=1)
    watchdog.start()
    freeze = threading.Timer(0.5, postgres.pause)
    freeze.start()
    try:
        with pytest.raises(psycopg.OperationalError):
            session.execute(b"SELECT pg_sleep(120)")
    finally:
        freeze.join()
        postgres.resume()
        watchdog.stop()
        session.close()


def test_writes_go_on_where_a_frozen_primarys_standby_was_promoted(servers: Pair) -> None:
    settings = msgspec.structs.replace(settings_of(servers.url), pool_size=4)
    pool = Pool(servers.url, settings, "test")
    pool.open()
    try:
        accept(pool)
        servers.primary.pause()
        servers.promote()
        promoted_s = machine_time_s()
        eventually(lambda: accepts(pool))
        assert machine_time_s() - promoted_s < DEADLINE_S + 2 * 2 + 3
        for _ in range(20):
            accept(pool)
        servers.primary.resume()  # as a second primary, which nobody may write to any more
        for _ in range(5):
            accept(pool)
        with psycopg.connect(servers.standby.url) as promoted:
            [(orders,)] = promoted.execute("SELECT count(*) FROM orders").fetchall()
        assert int(str(orders)) >= 26
    finally:
        pool.close()


def test_a_former_primary_that_comes_back_is_not_written_to(servers: Pair) -> None:
    """Not even while its successor is away: it accepts writes, and they would be lost."""
    pool = Pool(servers.url, settings_of(servers.url), "test")
    pool.open()
    tries = itertools.count(1)
    try:
        accept(pool)
        servers.primary.pause()
        servers.promote()
        eventually(lambda: next(tries) and accepts(pool))
        servers.primary.resume()
        servers.standby.pause()
        eventually(lambda: pool._server.problem == REPLACED)
        orders = count_orders(servers.primary)
        # The one before the promotion, and what it had received when it froze: the try that was
        # accepted went to its successor.
        assert orders <= next(tries) - 1
        for _ in range(5):
            with pytest.raises(Transient):  # of either server
                accept(pool)
        servers.standby.resume()
        eventually(lambda: accepts(pool))
        assert count_orders(servers.primary) == orders
    finally:
        pool.close()


def test_a_server_that_may_not_be_asked_for_its_timeline_is_used(
    postgres: Postgres, database: Database
) -> None:
    function = b"FUNCTION pg_walfile_name(pg_lsn)"
    with psycopg.connect(postgres.admin_url(database.name), autocommit=True) as admin:
        admin.execute(b"REVOKE EXECUTE ON " + function + b" FROM PUBLIC")
        try:
            with connect(sessions(settings_of(database.url)), settings_of(database.url), "test"):
                pass
        finally:
            admin.execute(b"GRANT EXECUTE ON " + function + b" TO PUBLIC")


def count_orders(server: Server) -> int:
    with psycopg.connect(server.url) as session:
        [(orders,)] = session.execute("SELECT count(*) FROM orders").fetchall()
    return int(str(orders))


def test_a_statement_does_not_wait_for_a_server_that_another_has_replaced(servers: Pair) -> None:
    """Its deadline is a minute away; the heartbeat finds the promoted server before."""
    settings = msgspec.structs.replace(settings_of(servers.url), statement_timeout_s=60)
    pool = Pool(servers.url, settings, "test")
    pool.open()
    try:
        accept(pool)
        servers.primary.pause()
        promotion = threading.Timer(1, servers.promote)
        promotion.start()
        began_s = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            accept(pool)
        assert time.monotonic() - began_s < 20
        eventually(lambda: accepts(pool))
        promotion.join()
    finally:
        pool.close()


def test_open_connections_to_a_replaced_server_are_not_used(servers: Pair) -> None:
    """The former primary was not fenced: it still accepts writes on open connections."""
    with proxies() as group:
        proxy = group.to(port_of(servers.primary.url))
        url = servers.primary.url.replace(f":{port_of(servers.primary.url)}/", f":{proxy.port}/")
        pool = Pool(url, settings_of(url), "test")
        pool.open()
        try:
            accept(pool)
            servers.promote()
            proxy.point(port_of(servers.standby.url))
            count_before = count_orders(servers.primary)
            with ExitStack() as stack:  # more than are open: the pool opens new ones
                for _ in range(pool.size):
                    stack.enter_context(pool.connection())
            for _ in range(20):
                accept(pool)
            assert count_orders(servers.primary) == count_before
        finally:
            pool.close()


def test_a_server_that_waits_for_no_standby_any_more_is_left_while_orders_come(
    servers: Pair,
) -> None:
    with psycopg.connect(servers.admin_url(servers.primary), autocommit=True) as admin:
        name_standbys(admin, "*")
        settings = settings_of(servers.primary.url)
        settings = msgspec.structs.replace(settings, durability="synchronous")
        pool = Pool(settings.url, settings, "test")
        pool.open()
        try:
            accept(pool)
            name_standbys(admin, "")
            eventually(lambda: not accepts(pool))
            assert pool.unwell_s == float("inf"), "not as after a promotion"
            name_standbys(admin, "*")
            eventually(lambda: accepts(pool))
        finally:
            pool.close()


def name_standbys(admin: psycopg.Connection[tuple[object, ...]], names: str) -> None:
    """Set the standbys that commits wait for."""
    admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'".encode())
    admin.execute("SELECT pg_reload_conf()")


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


def test_a_short_stall_costs_no_connection(postgres: Postgres, pool: Pool) -> None:
    """All pools of an installation would connect at once to a server that is slow already."""
    accept(pool)
    eventually(lambda: pool.unwell_s < 1)
    with pool.connection() as connection:
        backend = connection.backend_pid
    postgres.pause()
    time.sleep(1)  # a heartbeat waits for three
    postgres.resume()
    eventually(lambda: pool.unwell_s < 1)
    with pool.connection() as connection:
        assert connection.backend_pid == backend


def test_a_server_that_turns_read_only_is_left_and_found_again(
    postgres: Postgres, pool: Pool
) -> None:
    accept(pool)
    fence(postgres, "on")
    try:
        eventually(lambda: not accepts(pool))
        with pytest.raises(Transient, match="accepts no writes"):
            pool.ping()
    finally:
        fence(postgres, "off")
    started_s = machine_time_s()
    eventually(lambda: accepts(pool))
    for _ in range(20):
        accept(pool)
    assert machine_time_s() - started_s < 5


def test_a_pool_that_nobody_asks_notices_a_server_that_turns_read_only(
    postgres: Postgres, pool: Pool
) -> None:
    eventually(lambda: pool.unwell_s < 1)
    fence(postgres, "on")
    try:
        eventually(lambda: pool._server.known_down and pool.unwell_s > 1)
    finally:
        fence(postgres, "off")
    eventually(lambda: pool.unwell_s < 1)


def fence(postgres: Postgres, value: str) -> None:
    """Make new transactions read-only, or not, as before a planned switchover."""
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
        admin.execute("SELECT pg_reload_conf()")


def test_a_connection_that_meets_a_read_only_server_is_thrown_away(pool: Pool) -> None:
    def write() -> None:
        with pool.connection() as connection:
            connection.execute(b"SET default_transaction_read_only = on")
            connection.execute(b"DELETE FROM outbox")

    with pytest.raises(ReadOnly):
        write()
    for _ in range(10):
        accept(pool)


def test_a_name_that_leads_to_a_standby_is_no_primary(database: Database) -> None:
    pool = Pool(database.replica_url, settings_of(database.replica_url), "test")
    pool.open()
    try:
        with pytest.raises(Transient, match="accepts no writes"):
            pool.ping()
    finally:
        pool.close()
    reading = Pool(database.replica_url, settings_of(database.replica_url), "test", writes=False)
    reading.open()
    try:
        reading.ping()
    finally:
        reading.close()
